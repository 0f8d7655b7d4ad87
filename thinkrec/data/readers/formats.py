"""Files of records: lines of separated fields, JSON lines, parquet; each read in blocks of columns or of records.

A record is a mapping from the file's own column names to values, or the reason why it is none. A block is read as
whole columns first; where anything in it is not plainly good, it is read again, record by record, so that each
malformed row is told apart with its line and the rest of the block is kept.
"""

from __future__ import annotations

import csv
import difflib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from thinkrec.data.raw import QUARANTINE_TEXT, Chunk, Fault, Part
from thinkrec.data.readers import rows
from thinkrec.data.readers.files import blocks, opened, pieces, within
from thinkrec.data.readers.rows import Scale
from thinkrec.errors import UserError

PIECE = 1 << 15  # bytes of a block that are looked at row by row, where there is a fault among them
BATCH = 1 << 16  # rows of a parquet file held at a time
_INNER = "\x1f"  # takes the place of a separator of two characters: pyarrow and csv know those of one
_NAMES = {"\t": "tabs", ",": "commas"}
_BOM = b"\xef\xbb\xbf"


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


@dataclass(frozen=True, slots=True)
class JsonLines:
    """One JSON object a line, UTF-8."""


@dataclass(frozen=True, slots=True)
class Parquet:
    """A parquet file, not in an archive."""


Format = Delimited | JsonLines | Parquet


class Record(NamedTuple):
    """One record: its 1-based line (row of a parquet file), its values or the reason why there are none, its text."""

    row: int
    values: Mapping[str, Any] | str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """Some consecutive lines.

    Attributes:
        lines: how many, headers and blank ones included.
        columns: those asked for; None where the lines cannot be read as whole columns.
        records: one by one, numbered from the block's first line.
        pieces: the same lines in smaller blocks; None where they are small already.
    """

    lines: int
    columns: Callable[[Iterable[str]], Mapping[str, pa.Array] | None]
    records: Callable[[], Iterator[Record]]
    pieces: Callable[[], Iterator[_Block]] | None


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
    for block in _blocks(file.format, part, list(file.columns.values()), lenient=False):
        yield _chunk(file, part, block, before)
        before += block.lines


def _chunk(file: RatingFile, part: Part, block: _Block, before: int) -> Chunk:
    """The rows of a block, whole where they are plainly good; else in pieces, so that a fault costs less."""
    columns = block.columns(file.columns.values())
    table = columns and rows.table({role: columns[name] for role, name in file.columns.items()}, file.scale)
    if table is not None:
        return Chunk(table=table, rows=len(table), lines=block.lines)
    smaller = None if block.pieces is None else list(block.pieces())
    if not smaller or len(smaller) == 1:
        return _careful(file, part, block, before)
    found: list[Chunk] = []
    for piece in smaller:
        found.append(_chunk(file, part, piece, before))
        before += piece.lines
    return Chunk(
        table=pa.concat_tables([chunk.table for chunk in found]).unify_dictionaries().combine_chunks(),
        faults=[fault for chunk in found for fault in chunk.faults],
        rows=sum(chunk.rows for chunk in found),
        lines=block.lines,
    )


def _careful(file: RatingFile, part: Part, block: _Block, before: int) -> Chunk:
    """The rows of a block, each looked at on its own."""
    good: list[rows.Row] = []
    faults: list[Fault] = []
    for record in block.records():
        found: rows.Row | str
        if isinstance(record.values, str):
            found = record.values
        else:
            values = record.values
            found = rows.row({role: values.get(name) for role, name in file.columns.items()}, file.scale)
        if isinstance(found, str):
            faults.append(Fault(part.name, before + record.row, found, record.text[:QUARANTINE_TEXT]))
        else:
            good.append(found)
    return Chunk(
        table=rows.as_table(good, split="split" in file.columns),
        faults=faults,
        rows=len(good) + len(faults),
        lines=block.lines,
    )


def read_records(format: Format, part: Part) -> Iterator[Record]:
    """The records of a part one by one, bytes that are no text replaced.

    Raises:
        UserError: the file is broken.
    """
    before = 0
    for block in _blocks(format, part, None, lenient=True):
        for record in block.records():
            yield record._replace(row=record.row + before)
        before += block.lines


def check_columns(format: Format, part: Part, columns: Mapping[str, str], parameter: str) -> None:
    """Stop where a file that names its columns lacks one of `columns` (name by role), or has it twice.

    `parameter` says what to mend, `{}` in it standing for the role.

    Raises:
        UserError: the first that is missing, the one most like it, and those that are there.
    """
    found = column_names(format, part)
    if found is None:
        return
    for role, name in columns.items():
        if found.count(name) > 1:
            raise UserError(f"{parameter.format(role)}: {part.path} has two columns {name!r}; rename one of them")
        if name not in found:
            near = "".join(f"; did you mean {name!r}?" for name in difflib.get_close_matches(name, found, 1, 0.0))
            there = ", ".join(found)[:QUARANTINE_TEXT] or "none"
            raise UserError(
                f"{parameter.format(role)}: no column {name!r} in {part.path}{near}{'' if near else ';'} Found: {there}"
            )


def column_names(format: Format, part: Part) -> list[str] | None:
    """The columns that a file says it has; None for files that say nothing of the kind."""
    match format:
        case Delimited(header=None):
            with opened(part) as stream:
                for block in blocks(stream, str(part.path)):
                    line = block.split(b"\n", 1)[0].removeprefix(_BOM).decode(format.encoding, "replace")
                    try:
                        return next(csv.reader([line], delimiter=format.delimiter), [])
                    except csv.Error as error:
                        raise UserError(f"{part.path}: no names of columns in its first line ({error})") from None
            return []
        case Parquet():
            return list(_parquet(part).schema_arrow.names)
        case _:
            return None


def _blocks(format: Format, part: Part, wanted: list[str] | None, *, lenient: bool) -> Iterator[_Block]:
    """The blocks of a part; of a parquet file, with the columns `wanted` alone (None: all of them)."""
    match format:
        case Delimited():
            header = format.header
            if header is None:
                header = tuple(column_names(format, part) or ())
            skip = part.start == 0 and format.header is None
            for block in _line_blocks(part, quotes=format.quotes):
                yield _delimited_block(block, format, header, skip=skip, lenient=lenient)
                skip = False
        case JsonLines():
            for block in _line_blocks(part, quotes=False):
                yield _json_block(block, lenient=lenient)
        case Parquet():
            yield from _parquet_blocks(part, wanted)


def _line_blocks(part: Part, *, quotes: bool) -> Iterator[bytes]:
    """The blocks of a part, without the byte order mark that some editors put before the first."""
    if part.start or part.end is not None:
        found = within(part)
        first = next(found, b"")
        yield first if part.start else first.removeprefix(_BOM)
        yield from found
        return
    with opened(part) as stream:
        if stream.head(len(_BOM)) == _BOM:
            stream.read(len(_BOM))
        yield from blocks(stream, ": ".join(map(str, (part.path, *part.inside))), quotes=quotes)


def _count_lines(block: bytes) -> int:
    return block.count(b"\n") + (not block.endswith(b"\n"))


def _lines(block: bytes, encoding: str, *, lenient: bool) -> Iterator[tuple[int, str | None, str]]:
    """The lines of a block that are not blank: number, text (None where it is not of its encoding), text to show."""
    for number, line in enumerate(block.split(b"\n"), start=1):
        if line.strip():
            try:
                text = line.decode(encoding).strip("\r\n")
            except UnicodeDecodeError:
                shown = line.decode(encoding, "replace").strip("\r\n")
                yield number, shown if lenient else None, shown
            else:
                yield number, text, text


# Delimited


def _delimited_block(block: bytes, format: Delimited, header: tuple[str, ...], *, skip: bool, lenient: bool) -> _Block:
    lines = _count_lines(block)

    def columns(wanted: Iterable[str]) -> Mapping[str, pa.Array] | None:
        data = block.partition(b"\n")[2] if skip else block
        if not data.strip():
            return None
        quoted = format.quotes and b'"' in data
        if (quoted and data.count(b'"') % 2) or data.count(b"\r") != data.count(b"\r\n"):
            return None
        if format.encoding != "utf-8" and not data.isascii():
            data = data.decode(format.encoding).encode()
        delimiter = format.delimiter
        if len(delimiter) > 1:
            data, delimiter = data.replace(delimiter.encode(), _INNER.encode()), _INNER
        names = [f"{number}" for number in range(len(header))]
        numbers = {name: f"{header.index(name)}" for name in wanted}
        try:
            read = pyarrow.csv.read_csv(
                pa.BufferReader(data),
                read_options=pyarrow.csv.ReadOptions(column_names=names, block_size=len(data) + 1, use_threads=False),
                parse_options=pyarrow.csv.ParseOptions(
                    delimiter=delimiter, quote_char='"' if format.quotes else False, double_quote=format.quotes
                ),
                convert_options=pyarrow.csv.ConvertOptions(
                    include_columns=list(numbers.values()),
                    column_types=dict.fromkeys(numbers.values(), pa.string()),
                    null_values=[],
                    strings_can_be_null=False,
                ),
            )
        except pa.ArrowInvalid:
            return None
        if quoted and len(read) != lines - skip:  # a record of several lines, or a quote that should not be there
            return None
        return {name: read[number].combine_chunks() for name, number in numbers.items()}

    def records() -> Iterator[Record]:
        if format.quotes and b'"' in block:
            yield from _quoted_records(block, format, header, skip=skip, lenient=lenient)
            return
        for number, text, shown in _lines(block, format.encoding, lenient=lenient):
            if number == 1 and skip:
                continue
            if text is None:
                yield Record(number, "not UTF-8", shown)
            else:
                yield Record(number, _fields(text.strip(" ").split(format.delimiter), header, format), shown)

    def smaller() -> Iterator[_Block]:
        first = skip
        for piece in pieces(block, PIECE, quotes=format.quotes):
            yield _delimited_block(piece, format, header, skip=first, lenient=lenient)
            first = False

    return _Block(lines=lines, columns=columns, records=records, pieces=smaller if len(block) > 2 * PIECE else None)


def _fields(fields: list[str], header: tuple[str, ...], format: Delimited) -> Mapping[str, str] | str:
    if len(fields) != len(header):
        return f"not {len(header)} fields separated by {_NAMES.get(format.delimiter, format.delimiter)}"
    return dict(zip(header, fields, strict=True))


def _quoted_records(
    block: bytes, format: Delimited, header: tuple[str, ...], *, skip: bool, lenient: bool
) -> Iterator[Record]:
    """Records that may go over several lines. After one that cannot be read, reading goes on with the next line."""
    encoding = format.encoding
    lines = block.split(b"\n")
    at = 0

    def feed() -> Iterator[str]:
        nonlocal at
        while at < len(lines):
            at += 1
            yield lines[at - 1].decode(encoding, "replace" if lenient else "strict") + "\n"

    while at < len(lines):
        start = at
        shown = lines[start].decode(encoding, "replace").strip("\r\n")
        try:
            fields = next(csv.reader(feed(), delimiter=format.delimiter, strict=True), [])
        except UnicodeDecodeError:
            at = start + 1
            yield Record(at, "not UTF-8", shown)
        except csv.Error:
            at = start + 1
            yield Record(at, "a quote that is not closed, not doubled, or not at a field's ends", shown)
        else:
            if any(map(str.strip, fields)) and not (skip and start == 0):
                yield Record(start + 1, _fields(fields, header, format), shown)


# JSON lines


def _json_block(block: bytes, *, lenient: bool) -> _Block:
    # Not pyarrow's own reader: it crashes, the whole process with it, on a line such as `null`, and is silent about
    # objects that share a line. The standard library's takes 3 microseconds for a review.
    def columns(wanted: Iterable[str]) -> Mapping[str, pa.Array] | None:
        try:
            objects = [json.loads(line) for line in block.decode().split("\n") if line.strip()]
            return {name: pa.array([thing[name] for thing in objects]) for name in wanted}
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError, pa.ArrowException):
            return None

    def records() -> Iterator[Record]:
        for number, text, shown in _lines(block, "utf-8", lenient=lenient):
            yield Record(number, "not UTF-8" if text is None else _json_values(text), shown)

    return _Block(lines=_count_lines(block), columns=columns, records=records, pieces=None)


def _json_values(text: str) -> Mapping[str, Any] | str:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return "not JSON"
    return values if isinstance(values, dict) else "not a JSON object"


# Parquet


def _parquet(part: Part) -> pq.ParquetFile:
    if part.inside:
        raise UserError(f"{part.path}: holds parquet in an archive; unpack it and name the folder")
    try:
        return pq.ParquetFile(part.path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{part.path}: not a readable parquet file ({_one_line(error)}); make it again") from None


def row_groups(part: Part) -> list[Part]:
    """A parquet file's row groups, each a part."""
    return [replace(part, start=group, end=group + 1) for group in range(_parquet(part).num_row_groups)]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _parquet_blocks(part: Part, wanted: list[str] | None) -> Iterator[_Block]:
    file = _parquet(part)
    groups = range(part.start, file.num_row_groups if part.end is None else part.end)
    try:
        for batch in file.iter_batches(BATCH, row_groups=groups, columns=wanted):
            batch.validate(full=True)  # text that is none would stop us where nobody looks for it
            yield _parquet_block(batch)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{part.path}: a damaged parquet file ({_one_line(error)}); make it again") from None


def _is_time(kind: pa.DataType) -> bool:
    return pa.types.is_timestamp(kind) or pa.types.is_date(kind)


def _parquet_block(batch: pa.RecordBatch) -> _Block:
    def columns(wanted: Iterable[str]) -> Mapping[str, pa.Array]:
        return {name: batch[name] for name in wanted}

    def records() -> Iterator[Record]:
        # Times as text: Python's own know no year after 9999, and would refuse all rows for the sake of one.
        texts = {field.name: batch[field.name].cast(pa.string()) for field in batch.schema if _is_time(field.type)}
        readable = pa.table({**dict(zip(batch.schema.names, batch.columns, strict=True)), **texts})
        for number, values in enumerate(readable.to_pylist(), start=1):
            yield Record(number, values, json.dumps(values, default=str))

    return _Block(lines=len(batch), columns=columns, records=records, pieces=None)
