"""Lines of separated fields: csv, tsv, and what MovieLens makes of them."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.csv

from thinkrec.errors import UserError
from thinkrec.ingest.raw import Part
from thinkrec.ingest.readers.files import pieces
from thinkrec.ingest.readers.records import NOT_TEXT, Block, Record, count_lines, filled_lines, line_blocks

PIECE = 1 << 15  # bytes of a block that are looked at row by row, where there is a fault among them
QUOTE = "a quote that is not closed, not doubled, or not at a field's ends"
_INNER = "\x1f"  # takes the place of a delimiter of two characters: pyarrow knows those of one
_NAMES = {"\t": "tabs", ",": "commas", ";": "semicolons"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Delimited:
    """Lines of separated fields.

    Attributes:
        delimiter: of one character, or of two.
        header: the columns' names; None: the first line says them.
        quotes: whether fields may stand in double quotes (RFC 4180).
        encoding: of the text.
    """

    delimiter: str
    header: tuple[str, ...] | None = None
    quotes: bool = True
    encoding: str = "utf-8"


def header_names(format: Delimited, part: Part) -> list[str]:
    """The names of the columns in a file's first line.

    Raises:
        UserError: there are none to be read.
    """
    first = next(line_blocks(replace(part, start=0, end=None)), b"").partition(b"\n")[0].rstrip()
    if not first:
        raise UserError(f"{part.where}: its first line is empty; it should name the columns")
    if b"\0" in first or b"\r" in first:
        raise UserError(f"{part.where}: no lines of text; save it as UTF-8, with LF or CRLF at the ends of lines")
    try:
        names = next(csv.reader([first.decode(format.encoding, "replace")], delimiter=format.delimiter), [])
    except csv.Error as error:
        raise UserError(f"{part.where}: no names of columns in its first line ({error}); mend that line") from None
    return [name.strip() for name in names]


def delimited_blocks(format: Delimited, part: Part, wanted: list[str], *, lenient: bool) -> Iterator[Block]:
    """The blocks of a part; `lenient` replaces bytes that are no text."""
    header = tuple(header_names(format, part)) if format.header is None else format.header
    skip = part.start == 0 and format.header is None
    for block in line_blocks(part, quotes=format.quotes):
        yield _Lines(block, format, header, wanted, skip, lenient).block()
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

    def block(self) -> Block:
        small = len(self.data) <= 2 * PIECE
        return Block(
            lines=count_lines(self.data),
            columns=self.columns,
            records=self.quoted if self.format.quotes and b'"' in self.data else self.plain,
            pieces=None if small else self.pieces,
        )

    def columns(self) -> Mapping[str, pa.Array] | None:
        data = self.data.partition(b"\n")[2] if self.skip else self.data
        quotes = data.count(b'"') if self.format.quotes else 0
        if not data.strip() or quotes % 2 or data.count(b"\r") != data.count(b"\r\n"):
            return None
        if self.format.encoding != "utf-8" and not data.isascii():
            data = data.decode(self.format.encoding).encode()
        delimiter = self.format.delimiter
        if len(delimiter) > 1:
            data, delimiter = data.replace(delimiter.encode(), _INNER.encode()), _INNER
        # By number: names may occur twice among columns that nobody wants.
        numbers = {name: str(self.header.index(name)) for name in self.wanted}
        try:
            read = pyarrow.csv.read_csv(
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
        if quotes and len(read) != count_lines(data):  # a row of several lines, or a quote that should not be there
            return None
        return {name: read[number].combine_chunks() for name, number in numbers.items()}

    def pieces(self) -> Iterator[Block]:
        skip = self.skip
        for piece in pieces(self.data, PIECE, quotes=self.format.quotes):
            yield replace(self, data=piece, skip=skip).block()
            skip = False

    def plain(self) -> Iterator[Record]:
        for number, text, shown in filled_lines(self.data, self.format.encoding, lenient=self.lenient):
            if text is None:
                yield Record(number, NOT_TEXT, shown)
            elif number > 1 or not self.skip:
                yield Record(number, self.named(text.strip(" ").split(self.format.delimiter)), shown)

    def quoted(self) -> Iterator[Record]:
        """Records that may go over several lines. After one that cannot be read, the next begins on the next line."""
        lines = self.data.split(b"\n")
        at = 0

        def feed() -> Iterator[str]:
            nonlocal at
            while at < len(lines):
                at += 1
                yield lines[at - 1].decode(self.format.encoding, "replace" if self.lenient else "strict") + "\n"

        while at < len(lines):
            first = at
            shown = lines[first].decode(self.format.encoding, "replace").strip("\r\n")
            found: Mapping[str, str] | str
            try:
                fields = next(csv.reader(feed(), delimiter=self.format.delimiter, strict=True), [])
            except UnicodeDecodeError:
                at, found = first + 1, NOT_TEXT
            except csv.Error:
                at, found = first + 1, QUOTE
            else:
                if not any(map(str.strip, fields)) or (self.skip and first == 0):
                    continue
                found = self.named(fields)
            yield Record(first + 1, found, shown)

    def named(self, fields: list[str]) -> Mapping[str, str] | str:
        if len(fields) != len(self.header):
            separator = _NAMES.get(self.format.delimiter, self.format.delimiter)
            return f"not {len(self.header)} fields separated by {separator}"
        return dict(zip(self.header, fields, strict=True))
