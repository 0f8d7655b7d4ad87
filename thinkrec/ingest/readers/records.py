"""What all formats have in common: a file is read in blocks, a block as whole columns or as records.

A record is a mapping from the file's own column names to values, or the reason why it is none. A block is read as
whole columns first; where anything in it is not plainly good, it is read again, record by record, so that each
malformed row is told apart with its line and the rest of the block is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa

from thinkrec.ingest.raw import Part
from thinkrec.ingest.readers.files import blocks, opened, within

NOT_TEXT = "not UTF-8"
_BOM = b"\xef\xbb\xbf"


class Record(NamedTuple):
    """One record: its 1-based line (row of a parquet file), its values or the reason why there are none, its text."""

    row: int
    values: Mapping[str, Any] | str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Some consecutive lines (rows of a parquet file).

    Attributes:
        lines: how many, headers and blank ones included.
        columns: those that the block was made for, by name; None where it cannot be read as whole columns.
        records: one by one, numbered from the block's first line.
        pieces: the same lines in smaller blocks; None where they are few already.
    """

    lines: int
    columns: Callable[[], Mapping[str, pa.Array] | None]
    records: Callable[[], Iterator[Record]]
    pieces: Callable[[], Iterator[Block]] | None = None


def line_blocks(part: Part, *, quotes: bool = False) -> Iterator[bytes]:
    """The lines of a part in blocks, without the byte order mark that some editors put before the first."""
    if part.start or part.end is not None:
        for number, block in enumerate(within(part)):
            yield block if part.start or number else block.removeprefix(_BOM)
        return
    with opened(part) as stream:
        if stream.head(len(_BOM)) == _BOM:
            stream.read(len(_BOM))
        yield from blocks(stream, part.where, quotes=quotes)


def count_lines(block: bytes) -> int:
    """Lines of a block, the last one without an end perhaps."""
    return block.count(b"\n") + (not block.endswith(b"\n"))


def filled_lines(block: bytes, encoding: str, *, lenient: bool) -> Iterator[tuple[int, str | None, str]]:
    """The lines of a block that are not blank: number, text (None where it is not of its encoding), text to show.

    `lenient` takes the text to show for the text.
    """
    for number, line in enumerate(block.split(b"\n"), start=1):
        if line.strip():
            try:
                text = line.decode(encoding).strip("\r\n")
            except UnicodeDecodeError:
                shown = line.decode(encoding, "replace").strip("\r\n")
                yield number, shown if lenient else None, shown
            else:
                yield number, text, text
