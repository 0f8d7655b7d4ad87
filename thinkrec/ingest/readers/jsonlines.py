"""JSON lines: an object a line, UTF-8; or one array of objects, as long as memory holds it. Lines that Python wrote,
such as {u'user': u'A'}, are read as what they say, and nothing in them is run.

Not by pyarrow's reader: on a line such as `null` it crashes the whole process, and it does not notice objects that
share a line. The standard library's reader takes 3 microseconds for a review.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import pyarrow as pa

from thinkrec.errors import UserError
from thinkrec.ingest.raw import Part
from thinkrec.ingest.readers.files import PIECE, opened, ranges
from thinkrec.ingest.readers.records import BOM, NOT_TEXT, Block, Record, count_lines, line_blocks, read_records

HEAD = 1 << 10  # bytes in which a file's first mark stands
WHITE = b" \t\r\n"
FIRST_OBJECTS = 1000  # objects that are read for the names in a file


@dataclass(frozen=True, slots=True)
class JsonLines:
    """One JSON object a line."""

    def column_names(self, part: Part) -> list[str] | None:
        """The names in a file's first objects; None where it begins with no objects."""
        records = islice(read_records(self, replace(part, start=0, end=None)), FIRST_OBJECTS)
        objects = [record.values for record in records if not isinstance(record.values, str)]
        return list(dict.fromkeys(name for values in objects for name in values)) or None

    def split_file(self, part: Part) -> list[Part]:
        """Ranges of a large file's bytes."""
        return ranges(part)

    def blocks(self, part: Part, wanted: list[str], *, lenient: bool = False) -> Iterator[Block]:
        """The blocks of a part (`Format.blocks`)."""
        array = _read_array(part)
        for block in line_blocks(part) if array is None else filter(None, [array]):
            yield Block(
                lines=count_lines(block),
                columns=partial(_columns, block, wanted),
                records=partial(_records, block, lenient=lenient),
            )


def _read_array(part: Part) -> bytes | None:
    """The objects of a file that is one JSON array, one a line; None of any other file."""
    if part.start:
        return None
    with opened(part) as stream:
        if not stream.head(HEAD).removeprefix(BOM).lstrip(WHITE).startswith(b"["):
            return None
        data = b""
        while block := stream.read(PIECE + 1 - len(data)):
            data += block
    try:
        values = json.loads(data) if len(data) <= PIECE else None
    except (ValueError, RecursionError):
        return None  # lines, each an array or none: faults one by one
    if values is None:
        raise UserError(f"{part.where}: one JSON array of over {PIECE >> 20} MB; write an object a line: jq -c '.[]'")
    return "\n".join(map(json.dumps, values)).encode()


def _columns(block: bytes, wanted: list[str]) -> Mapping[str, pa.Array] | None:
    try:
        objects = [json.loads(line) for line in block.decode().split("\n") if line.strip()]
        return {name: pa.array([values[name] for values in objects]) for name in wanted}
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError, pa.ArrowException):
        return None


def _records(block: bytes, *, lenient: bool) -> Iterator[Record]:
    for number, line in enumerate(block.split(b"\n"), start=1):
        if line.strip():
            text = line.decode("utf-8", "replace").strip("\r\n")
            yield Record(number, _values(line, "replace" if lenient else "strict"), text)


def _values(line: bytes, errors: str) -> Mapping[str, Any] | str:
    try:
        values = read_value(line.decode("utf-8", errors).strip())
    except UnicodeDecodeError:
        return NOT_TEXT
    except ValueError:
        return "not JSON"
    return values if isinstance(values, dict) else "not a JSON object"


def read_value(text: str) -> Any:
    """What a text says in JSON or as Python writes an object or a list; a ValueError where it is neither."""
    with suppress(ValueError, RecursionError):
        return json.loads(text)
    if text[:1] not in ("{", "["):
        raise ValueError("neither an object nor a list")
    try:
        return ast.literal_eval(text)
    except (SyntaxError, MemoryError, RecursionError, TypeError) as error:
        raise ValueError(str(error)) from None
