"""JSON lines: an object a line, UTF-8.

Not by pyarrow's reader: it crashes, the whole process with it, on a line such as `null`, and is silent about objects
that share a line. The standard library's takes 3 microseconds for a review.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import pyarrow as pa

from thinkrec.ingest.raw import Part
from thinkrec.ingest.readers.records import NOT_TEXT, Block, Record, count_lines, filled_lines, line_blocks

LOOKED_AT = 1000  # objects that say which names there are


@dataclass(frozen=True, slots=True)
class JsonLines:
    """One JSON object a line."""


def object_names(part: Part) -> list[str]:
    """The names that a file's first objects hold; none where it begins with no objects."""
    blocks = line_blocks(replace(part, start=0, end=None))
    records = (record for block in blocks for record in _records(block, lenient=True))
    found = [record.values for record in islice(records, LOOKED_AT)]
    return list(dict.fromkeys(name for values in found if not isinstance(values, str) for name in values))


def json_blocks(part: Part, wanted: list[str], *, lenient: bool) -> Iterator[Block]:
    """The blocks of a part; `lenient` replaces bytes that are no text."""
    for block in line_blocks(part):
        yield Block(
            lines=count_lines(block),
            columns=partial(_columns, block, wanted),
            records=partial(_records, block, lenient=lenient),
        )


def _columns(block: bytes, wanted: list[str]) -> Mapping[str, pa.Array] | None:
    try:
        objects = [json.loads(line) for line in block.decode().split("\n") if line.strip()]
        return {name: pa.array([values[name] for values in objects]) for name in wanted}
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError, pa.ArrowException):
        return None


def _records(block: bytes, *, lenient: bool) -> Iterator[Record]:
    for number, text, shown in filled_lines(block, "utf-8", lenient=lenient):
        yield Record(number, NOT_TEXT if text is None else _values(text), shown)


def _values(text: str) -> Mapping[str, Any] | str:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return "not JSON"
    return values if isinstance(values, dict) else "not a JSON object"
