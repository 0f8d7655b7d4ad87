"""Lines of separated fields: csv, tsv, and what MovieLens makes of them."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import pyarrow as pa
import pyarrow.csv

from thinkrec.errors import UserError
from thinkrec.ingest.raw import Part
from thinkrec.ingest.readers.files import MAX_LINE, ranges
from thinkrec.ingest.readers.records import NOT_TEXT, Block, Record, count_lines, line_blocks

QUOTE = "a quote that is not closed, not doubled, or not at a field's ends"
csv.field_size_limit(MAX_LINE)  # the standard library's own limit is shorter than some descriptions
_INNER = "\x1f"  # takes the place of a delimiter of two characters: csv readers take only one
_NAMES = {"\t": "tabs", ",": "commas", ";": "semicolons"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Delimited:
    """Lines of separated fields."""

    delimiter: str  # one character, or two
    header: tuple[str, ...] | None = None  # the columns' names; None: they stand in the first line
    quotes: bool = True  # fields may stand in double quotes (RFC 4180)
    one_line: bool = False  # a row is always one line, though quoted text might hold line ends

    def column_names(self, part: Part) -> list[str]:
        """The columns of a file, from its first line where the format does not fix them."""
        if self.header is not None:
            return list(self.header)
        first = next(line_blocks(replace(part, start=0, end=None)), b"").partition(b"\n")[0].rstrip()
        if not first:
            raise UserError(f"{part.where}: its first line is empty; it should name the columns")
        if b"\0" in first or b"\r" in first:
            raise UserError(f"{part.where}: no lines of text; save it as UTF-8, with LF or CRLF at the ends of lines")
        try:
            names = next(csv.reader([first.decode("utf-8", "replace")], delimiter=self.delimiter), [])
        except csv.Error as error:
            raise UserError(f"{part.where}: no names of columns in its first line ({error}); mend that line") from None
        return [name.strip() for name in names]

    def split_file(self, part: Part) -> list[Part]:
        """Ranges of a large file's bytes, where every line begins a row."""
        return ranges(part) if self.one_line else [part]

    def blocks(self, part: Part, wanted: list[str], *, lenient: bool = False) -> Iterator[Block]:
        """The blocks of a part (`Format.blocks`)."""
        header = tuple(self.column_names(part))
        skip = part.start == 0 and self.header is None
        for data in line_blocks(part, quotes=self.quotes):
            lines = _Lines(data, self, header, wanted, skip, lenient)
            yield Block(lines=count_lines(data), columns=lines.read_columns, records=lines.read_records)
            skip = False


@dataclass(frozen=True, slots=True)
class _Lines:
    """A block's bytes and how to read them; `skip`: its first line is the header."""

    data: bytes
    format: Delimited
    header: tuple[str, ...]
    wanted: list[str]
    skip: bool
    lenient: bool

    def read_columns(self) -> Mapping[str, pa.Array] | None:
        """The wanted columns; None where pyarrow cannot be trusted to read the lines as `read_records` would."""
        data = self.data.partition(b"\n")[2] if self.skip else self.data
        quotes = data.count(b'"') if self.format.quotes else 0
        if not data.strip() or quotes % 2 or data.count(b"\r") != data.count(b"\r\n"):
            return None
        delimiter = self.format.delimiter
        if len(delimiter) > 1:
            data, delimiter = data.replace(delimiter.encode(), _INNER.encode()), _INNER
        # By number: unwanted columns may share a name.
        numbers = {name: str(self.header.index(name)) for name in self.wanted}
        try:
            table = pyarrow.csv.read_csv(
                pa.BufferReader(data),
                read_options=pyarrow.csv.ReadOptions(
                    column_names=list(map(str, range(len(self.header)))), block_size=len(data) + 1, use_threads=False
                ),
                parse_options=pyarrow.csv.ParseOptions(
                    delimiter=delimiter, quote_char='"' if self.format.quotes else False
                ),
                convert_options=pyarrow.csv.ConvertOptions(
                    include_columns=list(numbers.values()),
                    column_types=dict.fromkeys(numbers.values(), pa.string()),
                    null_values=[],
                ),
            )
        except pa.ArrowInvalid:
            return None
        if quotes and len(table) != count_lines(data):  # a row of several lines, or a misplaced quote
            return None
        return {name: table[number].combine_chunks() for name, number in numbers.items()}

    def read_records(self) -> Iterator[Record]:
        """Records that may go over several lines. After one that cannot be read, the next begins on the next line."""
        delimiter = self.format.delimiter
        separator = delimiter if len(delimiter) == 1 else _INNER
        read = partial(csv.reader, delimiter=separator, strict=True)
        if not self.format.quotes:
            read = partial(read, quoting=csv.QUOTE_NONE)
        lines = self.data.split(b"\n")
        at = int(self.skip)

        def feed() -> Iterator[str]:
            nonlocal at
            while at < len(lines):
                at += 1
                text = lines[at - 1].decode("utf-8", "replace" if self.lenient else "strict")
                yield text.replace(delimiter, separator) + "\n"

        while at < len(lines):
            first = at
            values: Mapping[str, str] | str
            try:
                fields = next(read(feed()))
            except UnicodeDecodeError:
                at, values = first + 1, NOT_TEXT
            except csv.Error:
                at, values = first + 1, QUOTE
            else:
                values = dict(zip(self.header, fields, strict=False))
                if len(fields) != len(self.header):
                    values = f"not {len(self.header)} fields separated by {_NAMES.get(delimiter, delimiter)}"
            if lines[first].strip():
                yield Record(first + 1, values, lines[first].decode("utf-8", "replace").strip("\r\n"))
