"""The k-core is the largest set of rows whose users and items all have k of them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from thinkrec.ingest.selection import core_rows

PAIRS = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), unique=True, max_size=50)


def core(pairs: list[tuple[int, int]], k: int) -> list[tuple[int, int]]:
    user, item = np.array(pairs, np.int32).reshape(-1, 2).T
    return [pairs[row] for row in core_rows(user, item, k)]


def one_by_one(pairs: list[tuple[int, int]], k: int) -> list[tuple[int, int]]:
    """The same, the slow way: the first row that may not stay goes, until all may."""
    left = list(pairs)
    while True:
        for user, item in left:
            if min(sum(u == user for u, _ in left), sum(i == item for _, i in left)) < k:
                left.remove((user, item))
                break
        else:
            return left


@given(PAIRS, st.integers(0, 5))
def test_it_is_the_fixed_point_of_taking_rows_away_one_by_one(pairs: list[tuple[int, int]], k: int) -> None:
    assert core(pairs, k) == one_by_one(pairs, k)


@given(PAIRS, st.integers(2, 4))
def test_users_and_items_are_alike(pairs: list[tuple[int, int]], k: int) -> None:
    turned = core([(item, user) for user, item in pairs], k)
    assert [(user, item) for item, user in turned] == core(pairs, k)


def test_one_who_falls_short_takes_others_along() -> None:
    square = [(0, 0), (0, 1), (1, 0), (1, 1)]
    tail = [(1, 2), (2, 2), (2, 3)]  # item 3 falls, so user 2 falls, so item 2 falls
    assert core(square + tail, 2) == square
    assert core(square + tail, 1) == square + tail
    assert core(square + tail, 3) == []
    assert core([], 2) == []
