"""Ratings of one's own: csv, tsv, JSON lines or parquet (all but the last gzipped or not), with a mapping of columns.

`dataset.raw` is a file, a folder of files of one format (taken in the order of their names), or an archive with one.
The format follows from the file's ending. What separates the fields of a csv or tsv file is whichever of comma, tab,
semicolon and bar sets the mapped columns apart in its first line.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from thinkrec.errors import UserError
from thinkrec.ingest.raw import Items, Part, Source
from thinkrec.ingest.readers.delimited import Delimited
from thinkrec.ingest.readers.files import places, plain_name
from thinkrec.ingest.readers.jsonlines import JsonLines
from thinkrec.ingest.readers.metadata import MetadataFile, no_items
from thinkrec.ingest.readers.parquet import Parquet
from thinkrec.ingest.readers.ratings import LABEL, RatingFile, Scale
from thinkrec.ingest.readers.records import Format, check_columns
from thinkrec.params import ItemFile, RatingColumns

FORMATS: dict[str, Format] = {
    ".csv": Delimited(delimiter=","),
    ".tsv": Delimited(delimiter="\t"),
    ".jsonl": JsonLines(),
    ".json": JsonLines(),
    ".parquet": Parquet(),
}
DELIMITERS = ",\t;|"


def open_own(columns: RatingColumns, items: ItemFile | None, path: Path) -> Source:
    """Open rating files, and the items' metadata where there is any."""
    mapping = {
        "user": columns.user,
        "item": columns.item,
        "label" if columns.label else "rating": columns.label or columns.rating,
        "timestamp": columns.timestamp,
        "split": columns.split,
    }
    names = {role: name for role, name in mapping.items() if name is not None}
    metadata_file = items and items.file.resolve()
    files = places(path)
    if metadata_file != path.resolve():  # else titles stand beside the ratings
        files = [part for part in files if part.path.resolve() != metadata_file]
    files = [replace(part, encoding=columns.encoding) for part in files]
    format, parts = _choose_format(path, files, "dataset.raw", names, "dataset.columns.{}")
    roles = {"rating" if role == "label" else role: name for role, name in names.items()}
    file = RatingFile(format=format, columns=roles, scale=LABEL if columns.label else Scale())
    pieces = [piece for part in parts for piece in format.split_file(part)]
    return Source(parts=tuple(pieces), read=file.read, items=_open_items(items) if items else no_items)


def _open_items(items: ItemFile) -> Callable[[Collection[str]], Items]:
    single = {"item": items.item, "title": items.title, "year": items.year, "categories": items.categories}
    named = {role: name for role, name in single.items() if name is not None}
    described = {f"description.{number}": name for number, name in enumerate(items.description)}
    files = [replace(part, encoding=items.encoding) for part in places(items.file, parameter="dataset.items.file")]
    columns = {**named, **described}
    format, parts = _choose_format(items.file, files, "dataset.items.file", columns, "dataset.items.{}")
    return MetadataFile(format=format, parts=tuple(parts), columns=columns).read


def _choose_format(
    path: Path, files: Sequence[Part], parameter: str, columns: Mapping[str, str], column_parameter: str
) -> tuple[Format, list[Part]]:
    """The one format of the files that can be read, which have these columns (name by role)."""
    readable = [part for part in files if _ending(part) in FORMATS]
    if not readable:
        endings = ", ".join(FORMATS)
        raise UserError(
            f"{parameter}: no {endings} file (or .gz of one) at {path}; name a file of one of these formats"
        )
    if len(set(map(_ending, readable))) > 1 or (readable[0].inside and len(readable) > 1):
        names = ", ".join(sorted(part.name for part in readable)[:5])
        raise UserError(f"{parameter}: {path} holds {len(readable)} files ({names}); name the one that is meant")
    format = _with_delimiter(FORMATS[_ending(readable[0])], readable[0], columns.values())
    for part in readable:
        check_columns(format, part, columns, column_parameter)
    return format, readable


def _ending(part: Part) -> str:
    return Path(plain_name(part)).suffix.lower()


def _with_delimiter(format: Format, part: Part, columns: Collection[str]) -> Format:
    """The format with the delimiter that sets all these columns apart in a file's first line, its own if none does."""
    if isinstance(format, Delimited):
        for delimiter in (format.delimiter, *DELIMITERS):
            other = replace(format, delimiter=delimiter)
            if set(columns) <= set(other.column_names(part)):
                return other
    return format
