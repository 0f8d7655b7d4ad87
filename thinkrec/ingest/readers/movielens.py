"""MovieLens, as published (a zip, its folder, or the ratings' own file with the movies beside it).

ml-100k, latin-1:
    u.data         user, item, stars, seconds since 1970 UTC; tabs between them
    u.item         item|Title, The (year)|released|video|address|19 genre flags of 0 or 1
ml-1m, latin-1:
    ratings.dat    user::item::stars::seconds
    movies.dat     item::Title, The (year)::Genre|Genre
ml-10m: the same with half stars, UTF-8
ml-20m, ml-25m, ml-32m, UTF-8, with headers and quotes:
    ratings.csv    userId,movieId,rating,timestamp
    movies.csv     movieId,title,genres
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from thinkrec.ingest.readers.delimited import Delimited
from thinkrec.ingest.readers.metadata import Item
from thinkrec.ingest.readers.published import Release
from thinkrec.ingest.readers.ratings import Scale

# fmt: off
GENRES_100K = (
    "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)
# fmt: on
NO_GENRE = "(no genres listed)"
_YEAR = re.compile(r"\s*\((\d{4})(?:-\d{0,4})?\)\s*$")
_ARTICLE = re.compile(r"^(.+), (The|A|An)((?: \(.*\))?)$")


def split_title(text: str) -> tuple[str, int | None]:
    """`Matrix, The (1999)` as ("The Matrix", 1999): the year apart, a trailing article back in front."""
    year = _YEAR.search(text)
    title = text[: year.start()] if year else text
    return _ARTICLE.sub(r"\2 \1\3", title.strip()), int(year[1]) if year else None


def _movie(item: Item, values: Mapping[str, Any]) -> Item | str:
    if not item.title.strip():
        return "no title"
    title, year = split_title(item.title)
    genres = item.categories or [genre for genre in GENRES_100K if values.get(genre, "").strip() == "1"]
    return item._replace(title=title, year=year, categories=[genre for genre in genres if genre != NO_GENRE])


def _plain(delimiter: str, *header: str) -> Delimited:
    return Delimited(delimiter=delimiter, header=header, quotes=False, one_line=True)


def _release(
    ratings: str, rating_format: Delimited, movies: str, movie_format: Delimited, lowest: float, encoding: str
) -> Release:
    return Release(
        ratings={ratings: rating_format},
        columns=dict(zip(("user", "item", "rating", "timestamp"), RATINGS, strict=True)),
        scale=Scale(lowest=lowest, highest=5.0),
        items=movies,
        item_format=movie_format,
        item_columns=dict(zip(("item", "title", "categories"), MOVIES, strict=True)),
        must_have_columns=movie_format.header is None,
        encoding=encoding,
        tidy=_movie,
        hint=f"set dataset.raw to the published zip, its folder, or its {ratings} with {movies} beside it",
    )


# The oldest two have no header; they get the names of the later ones.
RATINGS, MOVIES = ("userId", "movieId", "rating", "timestamp"), ("movieId", "title", "genres")
MOVIES_100K = ("movieId", "title", "released", "video", "address", "unknown", *GENRES_100K)
_CSV = Delimited(delimiter=",", one_line=True)

ML_100K = _release("u.data", _plain("\t", *RATINGS), "u.item", _plain("|", *MOVIES_100K), 1.0, "latin-1")
ML_1M = _release("ratings.dat", _plain("::", *RATINGS), "movies.dat", _plain("::", *MOVIES), 0.5, "latin-1")
ML_10M = replace(ML_1M, encoding="utf-8")
ML_CSV = _release("ratings.csv", _CSV, "movies.csv", _CSV, 0.5, "utf-8")
