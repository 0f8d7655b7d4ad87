"""What every dataset hands to `ingest`: ratings in bounded chunks and metadata of chosen items, before any rule.

A `Source` is a dataset opened for reading. Its parts can be read independently and in any order, also by other
processes; put together in their own order, their chunks are the dataset in input order. Nothing but the chunk at hand
is held in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow as pa

QUARANTINE_TEXT = 200  # characters kept of a malformed row

IDS = pa.dictionary(pa.int32(), pa.string())
RATINGS = pa.schema(
    {
        "user_id": IDS,
        "item_id": IDS,
        "rating": pa.float32(),  # a label is a rating of 0 or 1
        "timestamp": pa.int64(),  # seconds since 1970 UTC
    }
)
SPLIT = pa.field("split", IDS)  # only where the dataset names the split of each of its rows
TRUTH = (pa.field("probability", pa.float32()), pa.field("reason", pa.string()))  # only worlds know it


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of a dataset's ratings that can be read by itself. A line belongs to the part in which it begins."""

    path: Path  # a file on disk, an archive perhaps
    inside: tuple[str, ...] = ()  # names that lead to the ratings in an archive, the outermost first
    start: int = 0  # first byte of the piece, of a plain file (first row group of a parquet file)
    end: int | None = None  # the byte (row group) after its last; None: to the end
    encoding: str = "utf-8"  # of its text; UTF-16 is known by its first bytes

    @property
    def where(self) -> str:
        """The path on disk, and within an archive, as messages give it."""
        place = ": ".join(map(str, (self.path, *self.inside)))
        return f"{place} from byte {self.start}" if self.start else place

    @property
    def name(self) -> str:
        """The file's own name, as the quarantine gives it."""
        name = (self.inside[-1] if self.inside else self.path.name).rpartition("/")[2]
        return name.encode("utf-8", "replace").decode()  # a name need not be text; the quarantine's are


class Fault(NamedTuple):
    """A malformed row: the 1-based line (row of a parquet file), counted from the beginning of what was read."""

    file: str
    row: int
    reason: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Consecutive rows of one part."""

    table: pa.Table  # the good ones, in the schema `RATINGS`, with `SPLIT` or `TRUTH` where the dataset knows them
    faults: list[Fault] = field(default_factory=list)  # the others; their rows count from the beginning of the part
    rows: int  # rating rows met, the malformed ones included
    lines: int  # headers and blank ones included: what a later part of the same file adds to its rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """Metadata of the items asked for. The table has plain text, and no row of an item without metadata."""

    table: pd.DataFrame  # item_id, title, year (Int16), categories (lists of strings), description
    faults: list[Fault] = field(default_factory=list)  # malformed records, of other items too
    example: str = ""  # the id of its last record
    rows: int | None = None  # records met, the malformed ones included; None where the dataset has no metadata file
    duplicated: int = 0  # records of an item that had one already; the first counts
    repaired: Mapping[str, int] = field(default_factory=dict)  # how many records needed which repair of their text


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A dataset opened for reading."""

    parts: tuple[Part, ...]  # in input order; parts of one file stand together
    read: Callable[[Part], Iterator[Chunk]]  # in order, each of bounded size; can be pickled unless it is generated
    items: Callable[[Collection[str]], Items]  # metadata of the items with these ids; other records are let go
