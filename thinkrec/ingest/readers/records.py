"""What all formats have in common: a file is read in blocks, a block as whole columns or as records.

A record is a mapping from the file's own column names to values, or the reason why it cannot be read. A block is read
as whole columns first. Where anything in it is not plainly good, it is read again, record by record, so that each
malformed row gets its line and reason, and the rest of the block stays.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from thinkrec.errors import UserError
from thinkrec.ingest.raw import QUARANTINE_TEXT, Fault, Part
from thinkrec.ingest.readers.files import blocks, opened

NOT_TEXT = "not UTF-8"
BOM = b"\xef\xbb\xbf"


class Record(NamedTuple):
    """One record: its 1-based line (row of a parquet file), its values or the reason why there are none, its text."""

    row: int
    values: Mapping[str, Any] | str
    text: str

    def fault(self, part: Part, reason: str, lines_before: int = 0) -> Fault:
        """The record as a malformed row of a part."""
        return Fault(part.name, lines_before + self.row, reason, self.text[:QUARANTINE_TEXT])


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Some consecutive lines (rows of a parquet file)."""

    lines: int  # how many, headers and blank ones included
    columns: Callable[[], Mapping[str, pa.Array] | None]  # those wanted, by name; None: read the records instead
    records: Callable[[], Iterator[Record]]  # numbered from the block's first line


class Format(Protocol):
    """A format of record files. Every method raises UserError where the file is broken."""

    def column_names(self, part: Part) -> list[str] | None:
        """The columns of a file; None where it does not say."""

    def split_file(self, part: Part) -> list[Part]:
        """The file as parts that can be read on their own."""

    def blocks(self, part: Part, wanted: list[str], *, lenient: bool = False) -> Iterator[Block]:
        """The blocks of a part, for the columns `wanted`; `lenient` replaces bytes that are no text."""


def read_records(format: Format, part: Part) -> Iterator[Record]:
    """The records of a part one by one, bytes that are no text replaced."""
    before = 0
    for block in format.blocks(part, [], lenient=True):
        for record in block.records():
            yield record._replace(row=record.row + before)
        before += block.lines


def check_columns(format: Format, part: Part, columns: Mapping[str, str], parameter: str) -> None:
    """Stop where a file lacks one of `columns` (name by role), or has it twice.

    `parameter` is the parameter to mend; `{}` in it stands for the role.
    """
    names = format.column_names(part)
    if names is None:
        return  # JSON lines that begin with no object: each such line goes to quarantine
    for role, name in columns.items():
        where = f"{parameter.format(role)}: "
        if names.count(name) > 1:
            raise UserError(f"{where}{part.path} has two columns {name!r}; rename one of them")
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            meant = f"did you mean {near[0]!r}? " if near else ""
            listed = ", ".join(names)[:QUARANTINE_TEXT] or "none"
            raise UserError(f"{where}no column {name!r} in {part.path}; {meant}Found: {listed}")


def line_blocks(part: Part, *, quotes: bool = False) -> Iterator[bytes]:
    """The lines of a part in blocks, without the byte order mark that some editors put before the first."""
    with opened(part) as stream:
        if part.start == 0 and stream.head(len(BOM)) == BOM:
            stream.read(len(BOM))
        yield from blocks(stream, part.where, quotes=quotes)


def count_lines(block: bytes) -> int:
    """Lines of a block; the last one may have no end."""
    return block.count(b"\n") + (not block.endswith(b"\n"))
