"""A published dataset: a file of ratings and a file of items, in a folder, an archive, or side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from thinkrec.ingest.raw import Source
from thinkrec.ingest.readers.files import pick_pair
from thinkrec.ingest.readers.metadata import ItemOf, items_reader
from thinkrec.ingest.readers.ratings import RatingFile
from thinkrec.ingest.readers.records import Format, check_columns
from thinkrec.ingest.readers.rows import Scale


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """The names, formats and columns of a published dataset's two files.

    Attributes:
        ratings: names of the rating file, the first that is there counts.
        items: name of the item file.
        columns: the rating file's name of each role.
        item_columns: columns that the item file must have, by role.
        item_of: the item of a record.
        hint: what to set dataset.raw to.
    """

    ratings: tuple[str, ...]
    items: str
    rating_format: Format
    item_format: Format
    columns: Mapping[str, str]
    item_columns: Mapping[str, str] = field(default_factory=dict)
    scale: Scale
    item_of: ItemOf
    hint: str


def open_release(release: Release, path: Path) -> Source:
    """Open a published dataset.

    Raises:
        UserError: the files are missing or broken, or are another release's.
    """
    ratings, items = pick_pair(path, release.ratings, (release.items,), release.hint)
    check_columns(release.rating_format, ratings, release.columns, "dataset.raw")
    check_columns(release.item_format, items, release.item_columns, "dataset.raw")
    file = RatingFile(format=release.rating_format, columns=release.columns, scale=release.scale)
    return Source(
        parts=tuple(release.rating_format.split_file(ratings)),
        read=file.read,
        items=items_reader(release.item_format, [items], release.item_of),
    )
