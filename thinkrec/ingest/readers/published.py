"""A published dataset: a file of ratings and a file of items, in a folder, an archive, or side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from thinkrec.ingest.raw import Part, Source
from thinkrec.ingest.readers.files import pick, places
from thinkrec.ingest.readers.metadata import ItemColumns, MetadataFile, Tidy, leave_as_is
from thinkrec.ingest.readers.ratings import RatingFile
from thinkrec.ingest.readers.records import Format, check_columns
from thinkrec.ingest.readers.rows import Scale


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """The names, formats and columns of a published dataset's two files.

    Attributes:
        ratings: names of the rating file, the first that is there counts.
        columns: the rating file's name of each role.
        items: name of the item file.
        required: columns that the item file must have, by role.
        tidy: what is peculiar to this publisher's items.
        hint: what to set dataset.raw to.
    """

    ratings: tuple[str, ...]
    rating_format: Format
    columns: Mapping[str, str]
    scale: Scale
    items: str
    item_format: Format
    item_columns: ItemColumns
    required: Mapping[str, str]
    tidy: Tidy = leave_as_is
    hint: str


def open_release(release: Release, path: Path) -> Source:
    """Open a published dataset: its folder, its archive, or the ratings' own file with the items beside it.

    Raises:
        UserError: the files are missing or broken, or are another release's.
    """
    parts = places(path, (release.ratings[0], release.items))
    if parts == [Part(path=path)]:
        ratings, items = parts[0], pick(path.parent, places(path.parent), (release.items,), release.hint)
    else:
        ratings, items = (pick(path, parts, names, release.hint) for names in (release.ratings, (release.items,)))
    check_columns(release.rating_format, ratings, release.columns, "dataset.raw")
    check_columns(release.item_format, items, release.required, "dataset.raw")
    file = RatingFile(format=release.rating_format, columns=release.columns, scale=release.scale)
    metadata = MetadataFile(format=release.item_format, parts=(items,), columns=release.item_columns, tidy=release.tidy)
    return Source(parts=tuple(release.rating_format.split_file(ratings)), read=file.read, items=metadata.read)
