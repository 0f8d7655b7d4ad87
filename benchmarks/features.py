"""Causal statistics of long tables: seconds and peak memory at one and at ten million rows, each in its own process."""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks.measure import Goal, Line, duration, in_child, peak_growth, peaks
from benchmarks.worlds import item_table, rated, ratings
from thinkrec.features.statistics import causal_statistics

MILLION = 1_000_000
SMALL, LARGE = MILLION, 10 * MILLION
USERS = 6000  # to a million rows, as in MovieLens 1M
ROUNDS = 2
LINEAR = 1.2  # what sorting, and tables that outgrow the caches, may add


def statistics() -> Iterator[Line]:
    """Causal statistics of ten million rows against one million: linear time is a ratio of 10."""
    # In turn, and the best of each: the machine may be busy with something else for a while.
    runs = [(in_child(one_run, SMALL), in_child(one_run, LARGE)) for _ in range(ROUNDS)]
    small, large = (min(seconds for seconds, _ in side) for side in zip(*runs, strict=True))
    what, against = f"causal statistics, {LARGE:,} rows", f"{SMALL:,} rows"
    times = LARGE / SMALL
    yield Line(
        what=what,
        against=against,
        measured=duration(large),
        other=duration(small),
        ratio=large / small,
        goal=Goal("at most", LINEAR * times),
    )
    (_, small_peak), (_, large_peak) = runs[0]
    yield peaks(f"{what}: peak memory", against, (large_peak, small_peak), Goal("at most", LINEAR * times))


def one_run(rows: int) -> tuple[float, int | None]:
    """Seconds, and bytes above those of the table, that the statistics of so many rows take."""
    table, items = ratings(rated(rows, rows * USERS // MILLION, least=20)), item_table()
    began = time.perf_counter()
    peak = peak_growth(lambda: causal_statistics(table, items))
    return time.perf_counter() - began, peak
