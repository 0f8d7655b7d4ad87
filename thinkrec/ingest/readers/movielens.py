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
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from thinkrec.ingest.raw import Source
from thinkrec.ingest.readers.delimited import Delimited
from thinkrec.ingest.readers.files import pick_pair, ranges
from thinkrec.ingest.readers.formats import check_columns
from thinkrec.ingest.readers.metadata import Item, items_reader, split_title
from thinkrec.ingest.readers.ratings import RatingFile, read_ratings
from thinkrec.ingest.readers.rows import Scale

# fmt: off
GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)
# fmt: on
NO_GENRE = {"(no genres listed)", "unknown"}
_ABOUT_100K = ("item", "title", "released", "video", "address")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The names, formats and columns of a MovieLens release's two files."""

    ratings: str
    movies: str
    rating_format: Delimited
    movie_format: Delimited
    columns: Mapping[str, str]
    movie_columns: Mapping[str, str]
    scale: Scale


_PLAIN = {"user": "user", "item": "item", "rating": "rating", "timestamp": "timestamp"}
_MOVIE = {"item": "item", "title": "title", "genres": "genres"}
_WHOLE_STARS, _HALF_STARS = Scale(lowest=1.0, highest=5.0), Scale(lowest=0.5, highest=5.0)

ML_100K = Layout(
    ratings="u.data",
    movies="u.item",
    rating_format=Delimited(delimiter="\t", header=tuple(_PLAIN), quotes=False, encoding="latin-1"),
    movie_format=Delimited(delimiter="|", header=(*_ABOUT_100K, *GENRES_100K), quotes=False, encoding="latin-1"),
    columns=_PLAIN,
    movie_columns={"item": "item", "title": "title"},
    scale=_WHOLE_STARS,
)
ML_1M = Layout(
    ratings="ratings.dat",
    movies="movies.dat",
    rating_format=Delimited(delimiter="::", header=tuple(_PLAIN), quotes=False, encoding="latin-1"),
    movie_format=Delimited(delimiter="::", header=tuple(_MOVIE), quotes=False, encoding="latin-1"),
    columns=_PLAIN,
    movie_columns=_MOVIE,
    scale=_HALF_STARS,
)
ML_CSV = Layout(
    ratings="ratings.csv",
    movies="movies.csv",
    rating_format=Delimited(delimiter=","),
    movie_format=Delimited(delimiter=","),
    columns={"user": "userId", "item": "movieId", "rating": "rating", "timestamp": "timestamp"},
    movie_columns={"item": "movieId", "title": "title", "genres": "genres"},
    scale=_HALF_STARS,
)


def open_movielens(layout: Layout, path: Path) -> Source:
    """Open a MovieLens release.

    Raises:
        UserError: the files are missing or broken, or are not laid out so.
    """
    hint = f"set dataset.raw to the published zip, its folder, or its {layout.ratings} with {layout.movies} beside it"
    ratings, movies = pick_pair(path, (layout.ratings,), (layout.movies,), hint)
    file = RatingFile(format=layout.rating_format, columns=layout.columns, scale=layout.scale)
    check_columns(layout.rating_format, ratings, layout.columns, "dataset.raw")
    check_columns(layout.movie_format, movies, layout.movie_columns, "dataset.raw")
    return Source(
        parts=tuple(ranges(ratings)),
        read=partial(read_ratings, file),
        items=items_reader(layout.movie_format, [movies], partial(_movie, layout.movie_columns)),
    )


def _movie(columns: Mapping[str, str], values: Mapping[str, Any]) -> Item | str:
    item_id, full = (values[columns[role]].strip() for role in ("item", "title"))
    if not item_id or not full:
        return "no title" if item_id else "no item id"
    title, year = split_title(full)
    if "genres" in columns:
        genres = values[columns["genres"]].strip().split("|")
    else:
        genres = [genre for genre in GENRES_100K if values[genre].strip() == "1"]
    return Item(item_id, title, year, [genre for genre in genres if genre and genre not in NO_GENRE], "")
