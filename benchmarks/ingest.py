"""Ingestion at size, in a process of its own: 25 million MovieLens-shaped ratings, 3 million Amazon-shaped reviews.

What is read is made up first, in the published formats, in a temporary folder (some 2 GB at full size); only reading
is timed: from the raw files to the finished artefacts and their picture. Less: python -m benchmarks.ingest --share .1
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
import time
import zipfile
from bisect import bisect_left
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from benchmarks.measure import Goal, Line, as_text, duration, faster, in_child, in_turn, megabytes, peak_resident
from thinkrec import artifacts
from thinkrec.history import history_bounds
from thinkrec.ingest import overview as report
from thinkrec.ingest.dataset import ingest
from thinkrec.params import DatasetParams

MILLION = 1_000_000
GIB = 2**30
CHUNK = MILLION // 2  # rows made up at a time
YEARS = (800_000_000, 1_570_000_000)  # between which ratings are made
MOVIES, USERS = 59_000, 162_000  # MovieLens 25M
HISTORY = 10
WORDS = ("a", "book", "that", "one", "may", "like", "or", "not", "for", "its", "plot", "in", "the", "rain", "again")
ALL_OF_TIME = {"shares": [0.8, 0.1, 0.1]}  # no row is outside, and no core: the most there is to do
Made = Callable[[Path, int], Path]


def ingestion(share: float = 1.0) -> Iterator[Line]:
    """25 million ratings and 3 million JSON reviews as artefacts; a million histories against a loop of lists."""
    from benchmarks.worlds import rated, ratings  # which brings torch: not into the processes that are measured

    rows, reviews = round(25 * MILLION * share), round(3 * MILLION * share)
    yield from _sized(
        "MovieLens-shaped ratings", movielens, "ml-25m", rows, seconds=180, memory=4 * GIB, full=share == 1
    )
    yield from _sized("Amazon-shaped reviews", amazon, AMAZON, reviews, seconds=None, memory=2 * GIB, full=share == 1)
    table = ratings(rated(round(MILLION * share), max(1, round(6000 * share)), least=20))
    user, moment = table["user"].to_numpy(), table["timestamp"].to_numpy()
    yield faster(
        f"histories of {len(table):,} interactions",
        "a loop that lists them",
        in_turn(lambda: history_bounds(user, moment), lambda: listed(user, moment), rounds=3),
        Goal("at least", 50),
    )


def _sized(
    what: str, make: Made, name: str, rows: int, *, seconds: int | None, memory: int, full: bool
) -> Iterator[Line]:
    """Time and peak memory of one dataset; the goals are for the full size."""
    with tempfile.TemporaryDirectory() as folder:
        raw = in_child(make, Path(folder), rows)
        took, peak, interactions = in_child(one_run, name, raw, Path(folder))
    goal = Goal("at most", 1) if full else None
    yield Line(
        what=f"{rows:,} {what}",
        against="the goal" if seconds else "",
        measured=f"{duration(took)} ({interactions:,} interactions)",
        other=duration(seconds) if seconds else "",
        ratio=took / seconds if seconds and full else None,
        goal=goal if seconds else None,
    )
    yield Line(
        what=f"{rows:,} {what}: peak memory",
        against="the goal",
        measured=megabytes(peak),
        other=megabytes(memory),
        ratio=peak / memory if peak is not None and full else None,
        goal=goal,
    )


def one_run(name: str, raw: Path, folder: Path) -> tuple[float, int | None, int]:
    """Seconds, peak resident bytes of the whole process, and interactions, of the stage on the files at `raw`."""
    params = DatasetParams(
        name=name, raw=raw, max_bad_share=0.01, threshold=None, windows=ALL_OF_TIME, core=0, columns=None, items=None
    )

    def work() -> None:
        ingested = ingest(params)
        for path, frame in ingested.tables().items():
            artifacts.write_table(path, frame, root=folder)
        report.draw(folder / "dataset.png", ingested.interactions, ingested.days, ingested.windows)

    began = time.perf_counter()
    peak = peak_resident(work)
    took = time.perf_counter() - began
    return took, peak, len(artifacts.read_table(artifacts.INTERACTIONS, root=folder))


def movielens(folder: Path, rows: int) -> Path:
    """A zip as MovieLens 25M's: by user and movie, no movie twice, half stars, and the movies' titles and genres."""
    rng = np.random.default_rng(0)
    users = max(2, round(USERS * rows / (25 * MILLION)))
    popularity = 1 / np.arange(1, MOVIES + 1) ** 0.9
    edges = np.cumsum(popularity) / popularity.sum()
    path = folder / "ml-25m.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("ml-25m/ratings.csv", "w", force_zip64=True) as file:
            file.write(b"userId,movieId,rating,timestamp\n")
            for first, pair in _pairs(rng, rows, users, edges):
                began = rng.integers(*YEARS, users)
                table = pa.table(
                    {
                        "userId": pair // MOVIES + 1,
                        "movieId": pair % MOVIES + 1,
                        "rating": rng.integers(1, 11, len(pair)) / 2,
                        "timestamp": began[pair // MOVIES] + rng.integers(0, 10_000, len(pair)) + first % 7,
                    }
                )
                out = pa.BufferOutputStream()
                pyarrow.csv.write_csv(table, out, pyarrow.csv.WriteOptions(include_header=False))
                file.write(out.getvalue())
        lines = [f'{number},"Film, {number} (1999)",Drama|Comedy' for number in range(1, MOVIES + 1)]
        archive.writestr("ml-25m/movies.csv", "\n".join(["movieId,title,genres", *lines]) + "\n")
    return path


def _pairs(
    rng: np.random.Generator, rows: int, users: int, edges: NDArray[np.float64]
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """The first row's number, and user and movie as one number, of so many rows, some at a time, in order."""
    count = np.maximum(20, rng.lognormal(4.2, 1.2, users))
    last_user = np.cumsum(count) / count.sum()  # the share of rows up to each user
    made = 0
    while made < rows:
        size = min(CHUNK, rows - made)
        low, high = made / rows, (made + size) / rows
        pair = np.zeros(0, np.int64)
        while len(pair) < size:
            user = np.searchsorted(last_user, rng.uniform(low, high, 2 * size)).clip(max=users - 1)
            movie = np.searchsorted(edges, rng.random(2 * size)).clip(max=MOVIES - 1)
            pair = np.unique(np.append(pair, user * MOVIES + movie))
        yield made, np.sort(rng.choice(pair, size, replace=False))
        made += size


AMAZON = "amazon-2018:Books"


def amazon(folder: Path, rows: int) -> Path:
    """A folder with gzipped JSON reviews as Amazon 2018's, and a tenth as many metadata records with markup in them."""
    rng = np.random.default_rng(0)
    items, users = max(1, rows // 10), max(1, rows // 4)
    soup = " ".join(rng.choice(WORDS, 20_000))
    with gzip.open(folder / "Books_5.json.gz", "wt", compresslevel=1, encoding="utf-8") as file:
        for first in range(0, rows, CHUNK):
            size = min(CHUNK, rows - first)
            user = np.minimum(rng.pareto(1.2, size) * users / 20, users - 1).astype(np.int64)
            item = np.minimum(rng.pareto(0.9, size) * items / 50, items - 1).astype(np.int64)
            columns = (user, item, rng.integers(1, 6, size), rng.integers(*YEARS, size), rng.integers(0, 80_000, size))
            for one, other, stars, moment, at in zip(*(column.tolist() for column in columns), strict=True):
                review = {
                    "overall": float(stars),
                    "verified": True,
                    "reviewTime": "01 1, 2017",
                    "reviewerID": f"A{one:013d}",
                    "asin": f"B{other:09d}",
                    "style": {"Format:": " Hardcover"},
                    "reviewerName": f"Reader {one}",
                    "reviewText": soup[at : at + 60 + at % 600],
                    "summary": soup[at : at + 30],
                    "unixReviewTime": moment,
                }
                file.write(json.dumps(review) + "\n")
    with gzip.open(folder / "meta_Books.json.gz", "wt", compresslevel=1, encoding="utf-8") as file:
        for number, at in enumerate(rng.integers(0, 80_000, items).tolist()):
            record = {
                "category": ["Books", f"Genre {number % 30}", f"Kind {number % 1000}"],
                "tech1": "",
                "description": [f"<b>About</b> {soup[at : at + 400]} &amp; more<br>", soup[at : at + 300]],
                "title": f"{soup[at : at + 40]} {number}",
                "also_buy": [f"B{(number + step) % items:09d}" for step in range(20)],
                "brand": f"Author {number % 5000}",
                "feature": [],
                "rank": f"{number:,} in Books (",
                "main_cat": "Books",
                "price": "$9.99",
                "asin": f"B{number:09d}",
            }
            file.write(json.dumps(record) + "\n")
    return folder


def listed(user: NDArray[np.int32], moment: NDArray[np.int64]) -> list[list[int]]:
    """The last HISTORY of each row's strictly earlier rows of its user, listed row by row."""
    histories: list[list[int]] = []
    rows: dict[int, list[int]] = {}
    moments: dict[int, list[int]] = {}
    for row, (one, when) in enumerate(zip(user.tolist(), moment.tolist(), strict=True)):
        mine, times = rows.setdefault(one, []), moments.setdefault(one, [])
        end = bisect_left(times, when)
        histories.append(mine[max(0, end - HISTORY) : end])
        mine.append(row)
        times.append(when)
    return histories


def main() -> None:
    """Run these alone, at some share of their size."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingest", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0, help="of the full size (1); goals are for that")
    print(as_text(list(ingestion(parser.parse_args().share))))


if __name__ == "__main__":
    main()
