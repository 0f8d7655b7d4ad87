"""Ratings of a file in any format, as chunks of good rows and of faults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa

from thinkrec.ingest.raw import QUARANTINE_TEXT, Chunk, Fault, Part
from thinkrec.ingest.readers import rows
from thinkrec.ingest.readers.formats import Format, read_blocks
from thinkrec.ingest.readers.records import Block
from thinkrec.ingest.readers.rows import Row, Scale


@dataclass(frozen=True, slots=True, kw_only=True)
class RatingFile:
    """How to read ratings from a file.

    Attributes:
        format: of the file.
        columns: the file's name of each role: user, item, rating, timestamp, and split where there is one.
        scale: what a rating may be.
    """

    format: Format
    columns: Mapping[str, str]
    scale: Scale


def read_ratings(file: RatingFile, part: Part) -> Iterator[Chunk]:
    """The ratings of a part, in chunks of bounded size.

    Raises:
        UserError: the file is broken.
    """
    before = 0
    for block in read_blocks(file.format, part, list(file.columns.values()), lenient=False):
        yield _chunk(file, part, block, before)
        before += block.lines


def _chunk(file: RatingFile, part: Part, block: Block, before: int) -> Chunk:
    """The rows of a block, whole where they are plainly good; else in pieces, so that a fault costs less."""
    columns = block.columns()
    table = columns and rows.table({role: columns[name] for role, name in file.columns.items()}, file.scale)
    if table is not None:
        return Chunk(table=table, rows=len(table), lines=block.lines)
    pieces = list(block.pieces()) if block.pieces else []
    if len(pieces) < 2:
        return _row_by_row(file, part, block, before)
    found: list[Chunk] = []
    for piece in pieces:
        found.append(_chunk(file, part, piece, before))
        before += piece.lines
    return Chunk(
        table=pa.concat_tables([chunk.table for chunk in found]).unify_dictionaries().combine_chunks(),
        faults=[fault for chunk in found for fault in chunk.faults],
        rows=sum(chunk.rows for chunk in found),
        lines=block.lines,
    )


def _row_by_row(file: RatingFile, part: Part, block: Block, before: int) -> Chunk:
    good: list[Row] = []
    faults: list[Fault] = []
    for record in block.records():
        values = record.values
        if not isinstance(values, str):
            found = rows.row({role: values.get(name) for role, name in file.columns.items()}, file.scale)
            if isinstance(found, Row):
                good.append(found)
                continue
            values = found
        faults.append(Fault(part.name, before + record.row, values, record.text[:QUARANTINE_TEXT]))
    return Chunk(
        table=rows.as_table(good, split="split" in file.columns),
        faults=faults,
        rows=len(good) + len(faults),
        lines=block.lines,
    )
