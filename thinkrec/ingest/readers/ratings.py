"""Ratings of a file in any format, as chunks of good rows and of faults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from thinkrec.ingest.raw import QUARANTINE_TEXT, Chunk, Fault, Part
from thinkrec.ingest.readers import rows
from thinkrec.ingest.readers.records import Block, Format
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

    def read(self, part: Part) -> Iterator[Chunk]:
        """The ratings of a part, in chunks of bounded size.

        Raises:
            UserError: the file is broken.
        """
        before = 0
        for block in self.format.blocks(part, list(self.columns.values())):
            yield self._read_columns(block) or self._read_records(block, part, before)
            before += block.lines

    def _read_columns(self, block: Block) -> Chunk | None:
        """A block as whole columns; None unless all its rows are plainly good."""
        columns = block.columns()
        table = columns and rows.table({role: columns[name] for role, name in self.columns.items()}, self.scale)
        return None if table is None else Chunk(table=table, rows=len(table), lines=block.lines)

    def _read_records(self, block: Block, part: Part, before: int) -> Chunk:
        """A block row by row, after `before` lines of its part."""
        good: list[Row] = []
        faults: list[Fault] = []
        for record in block.records():
            row: Row | str = record.values if isinstance(record.values, str) else self._row(record.values)
            if isinstance(row, Row):
                good.append(row)
            else:
                faults.append(Fault(part.name, before + record.row, row, record.text[:QUARANTINE_TEXT]))
        return Chunk(
            table=rows.as_table(good, split="split" in self.columns),
            faults=faults,
            rows=len(good) + len(faults),
            lines=block.lines,
        )

    def _row(self, values: Mapping[str, object]) -> Row | str:
        return rows.row({role: values.get(name) for role, name in self.columns.items()}, self.scale)
