"""Histories are the strictly earlier rows of the same user, and nothing else."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkrec.data.histories import history_bounds, warm_rows

TABLES = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), max_size=40).map(sorted)


@given(TABLES)
def test_bounds_hold_exactly_the_strictly_earlier_rows_of_the_user(rows: list[tuple[int, int]]) -> None:
    user, time = [u for u, _ in rows], [t for _, t in rows]
    start, end = history_bounds(user, time)
    for row, (u, t) in enumerate(rows):
        naive = [other for other, (v, s) in enumerate(rows) if v == u and s < t]
        assert list(range(start[row], end[row])) == naive


@given(TABLES, st.integers(0, 6))
def test_what_happens_at_or_after_a_row_changes_nothing_of_its_history(rows: list[tuple[int, int]], cut: int) -> None:
    earlier = [row for row in rows if row[1] < cut]
    replaced = sorted(earlier + [(u, cut + (t * 7) % 5) for u, t in rows if t >= cut])
    before = {(u, t): (e - s) for (u, t), s, e in zip(rows, *history_bounds(*columns(rows)), strict=True) if t < cut}
    after = {
        (u, t): (e - s) for (u, t), s, e in zip(replaced, *history_bounds(*columns(replaced)), strict=True) if t < cut
    }
    assert before == after


def columns(rows: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    return [u for u, _ in rows], [t for _, t in rows]


def test_bounds_are_int64_and_ties_see_nothing_of_each_other() -> None:
    start, end = history_bounds(np.array([0, 0, 0, 1]), np.array([5, 5, 6, 1]))
    assert start.dtype == end.dtype == np.int64
    assert start.tolist() == [0, 0, 0, 3]
    assert end.tolist() == [0, 0, 2, 3]


@pytest.mark.parametrize(("user", "time"), [([0, 1, 0], [1, 1, 2]), ([0, 0], [2, 1])])
def test_an_unsorted_table_is_refused(user: list[int], time: list[int]) -> None:
    with pytest.raises(ValueError, match="not sorted"):
        history_bounds(user, time)


def test_a_row_is_warm_when_its_user_and_its_item_are_both_in_train() -> None:
    rows = pd.DataFrame(
        {"user": [0, 0, 0, 1, 1], "item": [7, 7, 8, 7, 9], "split": ["train", "test", "test", "valid", "train"]}
    )
    assert warm_rows(rows).tolist() == [True, True, False, True, True]
