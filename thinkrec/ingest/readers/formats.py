"""Files of records in any of the formats: which columns they have, their blocks, their records."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping

from thinkrec.errors import UserError
from thinkrec.ingest.raw import QUARANTINE_TEXT, Part
from thinkrec.ingest.readers.delimited import Delimited, delimited_blocks, header_names
from thinkrec.ingest.readers.jsonlines import JsonLines, json_blocks, object_names
from thinkrec.ingest.readers.parquet import Parquet, parquet_blocks, schema_names
from thinkrec.ingest.readers.records import Block, Record

Format = Delimited | JsonLines | Parquet


def read_blocks(format: Format, part: Part, wanted: list[str], *, lenient: bool) -> Iterator[Block]:
    """The blocks of a part, made for the columns `wanted`; `lenient` replaces bytes that are no text.

    Raises:
        UserError: the file is broken.
    """
    match format:
        case Delimited():
            return delimited_blocks(format, part, wanted, lenient=lenient)
        case JsonLines():
            return json_blocks(part, wanted, lenient=lenient)
        case Parquet():
            return parquet_blocks(part, wanted)


def read_records(format: Format, part: Part) -> Iterator[Record]:
    """The records of a part one by one, bytes that are no text replaced.

    Raises:
        UserError: the file is broken.
    """
    before = 0
    for block in read_blocks(format, part, [], lenient=True):
        for record in block.records():
            yield record._replace(row=record.row + before)
        before += block.lines


def column_names(format: Format, part: Part) -> list[str]:
    """The columns that a file of this format has.

    Raises:
        UserError: the file is broken.
    """
    match format:
        case Delimited():
            return header_names(format, part) if format.header is None else list(format.header)
        case JsonLines():
            return object_names(part)
        case Parquet():
            return schema_names(part)


def check_columns(format: Format, part: Part, columns: Mapping[str, str], parameter: str) -> None:
    """Stop where a file lacks one of `columns` (name by role), or has it twice.

    `parameter` says what to mend, `{}` in it standing for the role.

    Raises:
        UserError: the first that is missing, the one most like it, and those that are there.
    """
    found = column_names(format, part)
    if isinstance(format, JsonLines) and not found:
        return  # no objects to say so: each line that is none will be told
    for role, name in columns.items():
        where = f"{parameter.format(role)}: "
        if found.count(name) > 1:
            raise UserError(f"{where}{part.path} has two columns {name!r}; rename one of them")
        if name not in found:
            near = difflib.get_close_matches(name, found, 1)
            meant = f"did you mean {near[0]!r}? " if near else ""
            there = ", ".join(found)[:QUARANTINE_TEXT] or "none"
            raise UserError(f"{where}no column {name!r} in {part.path}; {meant}Found: {there}")
