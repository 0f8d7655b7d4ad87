"""The earliest rating of an item stays, the core has what it asks for, ids are numbered by value."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from thinkrec.ingest.selection import core_rows, first_ratings, natural_order

PAIRS = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), unique=True, max_size=50)
RATINGS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(1, 2), st.integers(0, 3)), max_size=30)


def core(pairs: list[tuple[int, int]], k: int) -> list[tuple[int, int]]:
    user, item = np.array(pairs, np.int32).reshape(-1, 2).T
    return [pairs[row] for row in core_rows(user, item, k)]


@given(PAIRS, st.integers(0, 5))
def test_the_core_is_the_largest_set_of_rows_that_has_it(pairs: list[tuple[int, int]], k: int) -> None:
    left = list(pairs)
    while short := [
        pair for pair in left if any(sum(other[side] == pair[side] for other in left) < k for side in (0, 1))
    ]:
        left.remove(short[0])  # one by one
    assert core(pairs, k) == left


def test_one_who_falls_short_takes_others_along() -> None:
    square = [(0, 0), (0, 1), (1, 0), (1, 1)]
    tail = [(1, 2), (2, 2), (2, 3)]  # item 3 falls, so user 2 falls, so item 2 falls
    assert [core(square + tail, k) for k in (1, 2, 3)] == [square + tail, square, []]


@given(RATINGS)
def test_of_repeated_ratings_the_earliest_stays_and_exact_duplicates_are_counted(
    rows: list[tuple[int, int, int, int]],
) -> None:
    frame = pd.DataFrame(rows, columns=["user", "item", "rating", "timestamp"]).astype(np.int64)
    user, item = (frame[name].to_numpy(np.int32) for name in ("user", "item"))
    stays, exact = first_ratings(user, item, frame["rating"].to_numpy(np.float32), frame["timestamp"].to_numpy())
    unique = frame.drop_duplicates()
    earliest = unique.sort_values("timestamp", kind="stable").drop_duplicates(["user", "item"])
    assert stays.tolist() == sorted(earliest.index)
    assert exact == len(frame) - len(unique)


@given(st.lists(st.text("01290aZ-é中", max_size=4), unique=True))
def test_raw_ids_are_numbered_by_value_then_by_text(ids: list[str]) -> None:
    def key(raw_id: str) -> tuple[bool, int, str, str]:
        whole = raw_id.isascii() and raw_id.isdigit()
        digits = raw_id.lstrip("0") if whole else raw_id
        return not whole, len(digits) if whole else 0, digits, raw_id

    order = natural_order(pa.array(ids, pa.string())).to_pylist()
    assert [ids[at] for at in order] == sorted(ids, key=key)
