"""Ratings of one's own: csv, tsv, JSON lines or parquet (all but the last gzipped or not), with a mapping of columns.

`dataset.raw` is a file, a folder of files of one format (taken in the order of their names), or an archive with one.
The format follows from the file's ending: .csv, .tsv, .jsonl (or .json: an object a line), .parquet. What
separates the fields of a csv or tsv file is whichever of comma, tab, semicolon and bar sets the mapped columns apart in
its first line.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from thinkrec.errors import UserError
from thinkrec.ingest.raw import Part, Source
from thinkrec.ingest.readers.delimited import Delimited
from thinkrec.ingest.readers.files import places, plain_name
from thinkrec.ingest.readers.jsonlines import JsonLines
from thinkrec.ingest.readers.metadata import Item, items_reader, list_of, no_items, text_of
from thinkrec.ingest.readers.parquet import Parquet
from thinkrec.ingest.readers.ratings import RatingFile
from thinkrec.ingest.readers.records import Format, check_columns
from thinkrec.ingest.readers.rows import LABEL, Scale
from thinkrec.params import ItemFile, RatingColumns

FORMATS: dict[str, Format] = {
    ".csv": Delimited(delimiter=","),
    ".tsv": Delimited(delimiter="\t"),
    ".jsonl": JsonLines(),
    ".json": JsonLines(),
    ".parquet": Parquet(),
}
ENDINGS = ", ".join(FORMATS)
_YEAR = re.compile(r"(\d{4})(?:\.0|-\d\d.*)?", re.ASCII | re.DOTALL)  # on its own, or an ISO date's
DELIMITERS = ",\t;|"


def open_own(columns: RatingColumns, items: ItemFile | None, path: Path) -> Source:
    """Open rating files, and the items' metadata where there is any.

    Raises:
        UserError: a file is missing, broken, of no known format, or lacks a column.
    """
    mapping = {
        "user": columns.user,
        "item": columns.item,
        "rating": columns.rating or columns.label,
        "timestamp": columns.timestamp,
        "split": columns.split,
    }
    roles = {role: name for role, name in mapping.items() if name is not None}
    shown = {"label" if role == "rating" and columns.label else role: name for role, name in roles.items()}
    about = items and items.file.resolve()
    files = [part for part in places(path) if part.path.resolve() != about]
    format, parts = _of_one_format(path, files, "dataset.raw", roles.values())
    for part in parts:
        check_columns(format, part, shown, "dataset.columns.{}")
    file = RatingFile(format=format, columns=roles, scale=LABEL if columns.label else Scale())
    pieces = [piece for part in parts for piece in format.split_file(part)]
    return Source(parts=tuple(pieces), read=file.read, items=_items(items) if items else no_items)


def _of_one_format(
    path: Path, files: Sequence[Part], parameter: str, columns: Collection[str]
) -> tuple[Format, list[Part]]:
    readable = [part for part in files if Path(plain_name(part)).suffix.lower() in FORMATS]
    if not readable:
        raise UserError(
            f"{parameter}: no {ENDINGS} file (or .gz of one) at {path}; name a file of one of these formats"
        )
    endings = sorted({Path(plain_name(part)).suffix.lower() for part in readable})
    if len(endings) > 1 or (readable[0].inside and len(readable) > 1):
        names = ", ".join(sorted(part.name for part in readable)[:5])
        raise UserError(f"{parameter}: {path} holds {len(readable)} files ({names}); name the one that is meant")
    return _separated(FORMATS[endings[0]], readable[0], columns), readable


def _separated(format: Format, part: Part, columns: Collection[str]) -> Format:
    """The format with the delimiter that sets all these columns apart in a file's first line, its own if none does."""
    if isinstance(format, Delimited):
        for delimiter in (format.delimiter, *DELIMITERS):
            other = replace(format, delimiter=delimiter)
            if set(columns) <= set(other.column_names(part)):
                return other
    return format


def _items(items: ItemFile) -> Any:
    single = {"item": items.item, "title": items.title, "year": items.year, "categories": items.categories}
    named = {role: name for role, name in single.items() if name is not None}
    described = {f"description.{number}": name for number, name in enumerate(items.description)}
    columns = {**named, **described}
    files = places(items.file, parameter="dataset.items.file")
    format, parts = _of_one_format(items.file, files, "dataset.items.file", columns.values())
    for part in parts:
        check_columns(format, part, columns, "dataset.items.{}")
    return items_reader(format, parts, partial(_item, named, tuple(items.description)))


def _item(named: Mapping[str, str], description: tuple[str, ...], values: Mapping[str, Any]) -> Item | str:
    by_role = {role: values.get(name) for role, name in named.items()}
    raw_id = by_role["item"]
    item_id = str(int(raw_id)) if isinstance(raw_id, float) and raw_id.is_integer() else text_of(raw_id).strip()
    if not item_id:
        return "no item id"
    return Item(
        item_id,
        text_of(by_role.get("title")),
        _year(by_role.get("year")),
        list_of(by_role.get("categories")),
        text_of([values.get(name) for name in description]),
    )


def _year(value: Any) -> int | None:
    match = _YEAR.fullmatch(text_of(value).strip())
    return int(match[1]) if match and 1000 <= int(match[1]) <= 2100 else None
