"""Ratings of a file in any format, as chunks of good rows and of faults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa

from thinkrec.ingest.raw import Chunk, Part
from thinkrec.ingest.readers.records import Block, Format
from thinkrec.ingest.readers.rows import Scale, cell, check_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class RatingFile:
    """How to read ratings from a file: its format, its name of each role, and what a rating may be."""

    format: Format
    columns: Mapping[str, str]
    scale: Scale

    def read(self, part: Part) -> Iterator[Chunk]:
        """The ratings of a part, in chunks of bounded size."""
        lines_before = 0
        for block in self.format.blocks(part, list(self.columns.values())):
            yield self._read_columns(block) or self._read_records(block, part, lines_before)
            lines_before += block.lines

    def _read_columns(self, block: Block) -> Chunk | None:
        """A block as whole columns; None unless all its rows are good."""
        columns = block.columns()
        if columns is None:
            return None
        table, reasons = check_rows({role: columns[name] for role, name in self.columns.items()}, self.scale)
        return Chunk(table=table, rows=len(table), lines=block.lines) if len(table) == len(reasons) else None

    def _read_records(self, block: Block, part: Part, lines_before: int) -> Chunk:
        """A block record by record, so that each malformed row gets its line and reason."""
        records = list(block.records())
        reasons: dict[int, str | None] = {r.row: r.values for r in records if isinstance(r.values, str)}
        readable = {r.row: r.values for r in records if not isinstance(r.values, str)}
        columns = {
            role: pa.array([cell(values.get(name), role) for values in readable.values()], pa.string())
            for role, name in self.columns.items()
        }
        table, wrong = check_rows(columns, self.scale)
        reasons.update(zip(readable, wrong.to_pylist(), strict=True))
        faults = [r.fault(part, reason, lines_before) for r in records if (reason := reasons[r.row])]
        return Chunk(table=table, faults=faults, rows=len(records), lines=block.lines)
