"""MovieLens, as published (a zip, its folder, or the ratings' own file with the movies beside it).

ml-100k, latin-1:
    u.data         user, item, stars, seconds since 1970 UTC; tabs between them
    u.item         item|Title, The (year)|released|video|address|19 genre flags of 0 or 1
ml-1m, latin-1:
    ratings.dat    user::item::stars::seconds
    movies.dat     item::Title, The (year)::Genre|Genre
ml-20m, ml-25m, ml-32m, UTF-8, with headers and quotes:
    ratings.csv    userId,movieId,rating,timestamp
    movies.csv     movieId,title,genres
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from thinkrec.ingest.readers.delimited import Delimited
from thinkrec.ingest.readers.metadata import Item, split_title
from thinkrec.ingest.readers.published import Release
from thinkrec.ingest.readers.rows import Scale

# fmt: off
GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)
# fmt: on
NO_GENRE = {"(no genres listed)", "unknown"}
_ABOUT_100K = ("item", "title", "released", "video", "address")


def _movie(columns: Mapping[str, str], values: Mapping[str, Any]) -> Item | str:
    item_id, full_title = (values[columns[role]].strip() for role in ("item", "title"))
    if not item_id or not full_title:
        return "no title" if item_id else "no item id"
    title, year = split_title(full_title)
    if "genres" in columns:
        genres = values[columns["genres"]].strip().split("|")
    else:
        genres = [genre for genre in GENRES_100K if values[genre].strip() == "1"]
    return Item(item_id, title, year, [genre for genre in genres if genre and genre not in NO_GENRE], "")


def _release(
    ratings: str, movies: str, formats: tuple[Delimited, Delimited], movie_columns: dict[str, str], lowest: float
) -> Release:
    rating_format, item_format = formats
    ids = ("user", "item") if rating_format.header else ("userId", "movieId")
    return Release(
        ratings=(ratings,),
        items=movies,
        rating_format=rating_format,
        item_format=item_format,
        columns=dict(zip(_ROLES, (*ids, "rating", "timestamp"), strict=True)),
        item_columns=movie_columns,
        scale=Scale(lowest=lowest, highest=5.0),
        item_of=partial(_movie, movie_columns),
        hint=f"set dataset.raw to the published zip, its folder, or its {ratings} with {movies} beside it",
    )


def _latin(delimiter: str, *header: str) -> Delimited:
    return Delimited(delimiter=delimiter, header=header, quotes=False, one_line=True, encoding="latin-1")


_ROLES = ("user", "item", "rating", "timestamp")
_MOVIE = {"item": "item", "title": "title", "genres": "genres"}
_CSV = Delimited(delimiter=",", one_line=True)

ML_100K = _release(
    "u.data",
    "u.item",
    (_latin("\t", *_ROLES), _latin("|", *_ABOUT_100K, *GENRES_100K)),
    {"item": "item", "title": "title"},
    1.0,
)
ML_1M = _release("ratings.dat", "movies.dat", (_latin("::", *_ROLES), _latin("::", *_MOVIE)), _MOVIE, 0.5)
ML_CSV = _release("ratings.csv", "movies.csv", (_CSV, _CSV), {**_MOVIE, "item": "movieId"}, 0.5)
