"""Readers of published rating files; each gives a `Raw`, with what it could not read in quarantine.

MovieLens 1M (a zip, its extracted folder, or the ratings.dat in it), all latin-1, fields separated by `::`:
    ratings.dat    user::item::stars::seconds since 1970 UTC
    movies.dat     item::Title, The (year)::Genre|Genre

Ratings stream through in chunks of bounded size, straight from the archive: nothing is extracted, so no member's
path is ever used, and what is kept of a row is two codes and two numbers.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from thinkrec.data.raw import Raw, quarantine_table
from thinkrec.errors import UserError

RATINGS, MOVIES = "ratings.dat", "movies.dat"
CHUNK = 1 << 22  # bytes read at a time
MAX_LINE = 1 << 20  # bytes: a longer line is not a line of these files
STARS = (0.5, 5.0)

Faults = list[tuple[int, str, str]]  # (1-based line number, reason, text)

_YEAR = re.compile(r"\s*\((\d{4})(?:-\d{0,4})?\)\s*$")
_ARTICLE = re.compile(r"^(.+), (The|A|An)((?: \(.*\))?)$")


def read_movielens(path: Path) -> Raw:
    """Read MovieLens 1M from a zip, a folder, or the ratings.dat of a folder.

    Raises:
        UserError: the file is missing or broken, or is not laid out as MovieLens 1M.
    """
    parts: list[pa.Table] = []
    rating_faults: Faults = []
    rows = 0
    with _opened(path, RATINGS) as stream:
        for first, lines in _line_chunks(stream, f"{path}: {RATINGS}"):
            table, faults, met = _parse_ratings(first, lines)
            parts.append(table)
            rating_faults += faults
            rows += met
    with _opened(path, MOVIES) as stream:
        items, movie_faults = _parse_movies(_line_chunks(stream, f"{path}: {MOVIES}"))
    if not rows:
        raise UserError(f"{path}: {RATINGS} holds no ratings; download the archive again")
    faulty = [(RATINGS, *fault) for fault in rating_faults] + [(MOVIES, *fault) for fault in movie_faults]
    return Raw(
        ratings=pa.concat_tables(parts).unify_dictionaries().to_pandas(),
        items=items,
        quarantine=quarantine_table(faulty),
        rows=rows,
        bad_rows=len(rating_faults),
    )


@contextmanager
def _opened(path: Path, name: str) -> Iterator[BinaryIO]:
    """The file `name` of the dataset at `path`, as a stream of bytes."""
    again = "download the archive again"
    if not path.exists():
        raise UserError(
            f"{path}: no such file or folder; set dataset.raw to the MovieLens zip, its folder or {RATINGS}"
        )
    try:
        if path.is_dir() or path.name == RATINGS:
            with _in_folder(path if path.is_dir() else path.parent, name).open("rb") as file:
                yield file
        else:
            with zipfile.ZipFile(path) as archive, archive.open(_member(archive, path, name)) as member:
                yield cast(BinaryIO, member)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise UserError(f"{path}: not a whole zip archive ({error}); {again}") from None
    except (NotImplementedError, RuntimeError) as error:  # what zipfile raises for exotic compression and passwords
        raise UserError(f"{path}: cannot read {name} in this archive ({error}); {again}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot read {name} ({error.strerror or error}); check the file") from None


def _in_folder(folder: Path, name: str) -> Path:
    for candidate in (folder / name, folder / "ml-1m" / name):
        if candidate.is_file():
            return candidate
    raise UserError(f"{folder}: no {name} in this folder; set dataset.raw to the folder that ml-1m.zip extracts to")


def _member(archive: zipfile.ZipFile, path: Path, name: str) -> str:
    found = [member for member in archive.namelist() if PurePosixPath(member).name == name]
    if not found:
        raise UserError(f"{path}: no {name} in this archive; set dataset.raw to MovieLens' ml-1m.zip")
    return min(found, key=lambda member: (member.count("/"), member))


def _line_chunks(stream: BinaryIO, where: str) -> Iterator[tuple[int, list[str]]]:
    """Chunks of whole lines, each with the 1-based number of its first line."""
    first, carry = 1, ""
    while block := stream.read(CHUNK):
        lines = (carry + block.decode("latin-1")).split("\n")  # one byte, one character: any cut is a clean one
        carry = lines.pop()
        if len(carry) > MAX_LINE:
            raise UserError(f"{where}: line {first + len(lines)} is over {MAX_LINE} bytes long; is this a text file?")
        yield first, lines
        first += len(lines)
    if carry:
        yield first, [carry]


def _parse_ratings(first: int, lines: list[str]) -> tuple[pa.Table, Faults, int]:
    """Rating rows of one chunk, its faults, and how many rows it has (blank lines are no rows)."""
    text = pc.utf8_trim_whitespace(pa.array(lines, pa.string()))
    number = np.arange(first, first + len(lines))
    filled = pc.not_equal(text, "")
    text, number = text.filter(filled), number[_numpy(filled)]

    fields = pc.split_pattern(text, "::")
    whole = _numpy(pc.list_value_length(fields)) == 4
    flat = pc.utf8_trim_whitespace(pc.list_flatten(fields.filter(pa.array(whole))))
    user, item, stars, time = (flat.take(pa.array(np.arange(part, len(flat), 4))) for part in range(4))

    is_stars = _numpy(pc.match_substring_regex(stars, r"^\d{1,6}(\.\d{0,6})?$"))
    rating = pc.cast(pc.if_else(pa.array(is_stars), stars, "0"), pa.float64())
    is_time = _numpy(pc.match_substring_regex(time, r"^\d{1,15}$"))
    timestamp = pc.cast(pc.if_else(pa.array(is_time), time, "0"), pa.int64())
    reasons = np.full(len(text), "", dtype=object)
    reasons[~whole] = "not four fields separated by ::"
    # The first that holds is the reason given.
    checks = {
        "no user id": _numpy(pc.equal(user, "")),
        "no item id": _numpy(pc.equal(item, "")),
        "rating is not a number": ~is_stars & ~_numpy(pc.match_substring_regex(stars, r"^-\d+(\.\d*)?$")),
        f"rating is not within {STARS[0]} and {STARS[1]}": (_numpy(rating) < STARS[0]) | (_numpy(rating) > STARS[1]),
        "time is negative": _numpy(pc.match_substring_regex(time, r"^-\d+$")),
        "time is not whole seconds": ~is_time,
    }
    reasons[whole] = np.select(list(checks.values()), list(checks), default="")

    good = pa.array(reasons[whole] == "")
    columns = {
        "user_id": user.filter(good).dictionary_encode(),
        "item_id": item.filter(good).dictionary_encode(),
        "rating": pc.cast(rating.filter(good), pa.float32()),
        "timestamp": timestamp.filter(good),
    }
    bad = np.flatnonzero(reasons != "")
    faults = [(int(number[row]), str(reasons[row]), lines[number[row] - first].strip()) for row in bad]
    return pa.table(columns), faults, len(text)


def _numpy(array: pa.Array) -> NDArray[Any]:
    return cast("NDArray[Any]", array.to_numpy(zero_copy_only=False))


def _parse_movies(chunks: Iterator[tuple[int, list[str]]]) -> tuple[pd.DataFrame, Faults]:
    """Metadata rows, one a movie (a few thousand: read one by one), and the faults among them."""
    rows: list[tuple[str, str, int | None, list[str]]] = []
    faults: Faults = []
    for first, lines in chunks:
        for number, line in enumerate(map(str.strip, lines), start=first):
            if not line:
                continue
            fields = [field.strip() for field in line.split("::")]
            if len(fields) != 3:
                faults.append((number, "not three fields separated by ::", line))
            elif not fields[0] or not fields[1]:
                faults.append((number, "no item id" if not fields[0] else "no title", line))
            else:
                title, year = split_title(fields[1])
                rows.append((fields[0], title, year, [genre for genre in fields[2].split("|") if genre]))
    names = ("item_id", "title", "year", "categories")
    columns = dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else {name: () for name in names}
    frame = pd.DataFrame({name: list(values) for name, values in columns.items()})
    return frame.astype({"item_id": "str", "title": "str", "year": "Int16"}).assign(description=""), faults


def split_title(text: str) -> tuple[str, int | None]:
    """`Matrix, The (1999)` as ("The Matrix", 1999): the year apart, a trailing article back in front."""
    found = _YEAR.search(text)
    title = text[: found.start()] if found else text
    return _ARTICLE.sub(r"\2 \1\3", title.strip()), int(found[1]) if found else None
