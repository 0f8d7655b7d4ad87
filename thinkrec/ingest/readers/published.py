"""A published dataset: a file of ratings and a file of items, in a folder, an archive, or side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from thinkrec.ingest.raw import Part, Source
from thinkrec.ingest.readers.delimited import Delimited
from thinkrec.ingest.readers.files import pick, places, plain_name
from thinkrec.ingest.readers.jsonlines import JsonLines
from thinkrec.ingest.readers.metadata import MetadataFile, Tidy, leave_as_is
from thinkrec.ingest.readers.ratings import RatingFile, Scale
from thinkrec.ingest.readers.records import Format, check_columns

JSON_LINES, CSV, STARS = JsonLines(), Delimited(delimiter=","), Scale(lowest=1.0, highest=5.0)
FOLDERS = 4  # as deep as the files of a release lie where people keep several: data/raw/review_categories/C.jsonl


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """The names, formats and columns of a published dataset's two files."""

    ratings: Mapping[str, Format]  # names of the rating file, the first that is there counts; and their formats
    columns: Mapping[str, str]  # the rating file's name of each role
    scale: Scale = STARS
    unrated: str | None = None  # the rating of rows that have none, which are passed over
    items: str  # name of the item file
    item_format: Format = JSON_LINES
    item_columns: Mapping[str, str]  # the item file's (`MetadataFile`)
    must_have_columns: bool = False  # the item file has all of these in its header
    tidy: Tidy = leave_as_is  # what is peculiar to this publisher's items
    encoding: str = "utf-8"  # of both files
    hint: str  # what to set dataset.raw to


def open_release(release: Release, path: Path) -> Source:
    """Open a published dataset: its folder, its archive, or the ratings' own file with the items beside it."""
    names = tuple(release.ratings)
    parts = places(path, (names[0], release.items), depth=FOLDERS)
    if parts == [Part(path=path)]:
        ratings, items = parts[0], pick(path.parent, places(path.parent), (release.items,), release.hint)
    else:
        ratings, items = (pick(path, parts, wanted, release.hint) for wanted in (names, (release.items,)))
    ratings, items = (replace(part, encoding=release.encoding) for part in (ratings, items))
    format = release.ratings.get(plain_name(ratings), next(iter(release.ratings.values())))
    check_columns(format, ratings, release.columns, "dataset.raw")
    if release.must_have_columns:
        check_columns(release.item_format, items, release.item_columns, "dataset.raw")
    file = RatingFile(format=format, columns=release.columns, scale=release.scale, unrated=release.unrated)
    metadata = MetadataFile(format=release.item_format, parts=(items,), columns=release.item_columns, tidy=release.tidy)
    return Source(parts=tuple(format.split_file(ratings)), read=file.read, items=metadata.read)
