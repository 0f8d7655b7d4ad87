"""Histories are the strictly earlier rows of the same user, and nothing else."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkrec.history import PROTOCOLS, ScoredModel, history_bounds, late_train_rows, static_view, warm_rows

TABLES = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), max_size=40).map(sorted)


@given(TABLES)
def test_bounds_hold_exactly_the_strictly_earlier_rows_of_the_user(rows):
    user, time = [u for u, _ in rows], [t for _, t in rows]
    start, end = history_bounds(user, time)
    assert start.dtype == end.dtype == np.int64
    for row, (u, t) in enumerate(rows):
        naive = [other for other, (v, s) in enumerate(rows) if v == u and s < t]
        assert list(range(start[row], end[row])) == naive


@pytest.mark.parametrize(("user", "time"), [([0, 1, 0], [1, 1, 2]), ([0, 0], [2, 1])])
def test_an_unsorted_table_is_refused(user, time):
    with pytest.raises(ValueError, match="not sorted"):
        history_bounds(user, time)


@st.composite
def split_tables(draw):
    """Sorted rows of which [.., 4) are train, [4, 7) valid and [7, ..) test; some splits may lack rows."""
    rows = sorted(draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 10)), max_size=40)))
    table = pd.DataFrame(np.array(rows, np.int64).reshape(-1, 2), columns=["user", "timestamp"])
    code = np.searchsorted([4, 7], table["timestamp"], side="right")
    return table.assign(split=pd.Categorical.from_codes(code, ["train", "valid", "test"]), row=np.arange(len(rows)))


@given(split_tables())
def test_a_static_row_sees_what_its_user_did_before_the_split_started_and_a_train_row_what_it_always_saw(
    table,
):
    copy = static_view(table)
    start, end = history_bounds(copy["user"], copy["timestamp"])  # which refuses a table that is not sorted
    for row in table.itertuples():
        first = table.loc[table["split"] == row.split, "timestamp"].min()
        until = row.timestamp if row.split == "train" else first
        seen = (table["user"] == row.user) & (table["timestamp"] < until)
        assert list(range(start[row.Index], end[row.Index])) == np.flatnonzero(seen).tolist()


@given(split_tables())
def test_the_static_view_moves_the_timestamps_of_valid_and_test_and_nothing_else(table):
    before = table.copy()
    copy = static_view(table)
    pd.testing.assert_frame_equal(table, before)
    pd.testing.assert_frame_equal(copy.drop(columns="timestamp"), table.drop(columns="timestamp"))
    pd.testing.assert_frame_equal(copy[copy["split"] == "train"], table[table["split"] == "train"])
    assert copy["timestamp"].dtype == np.int64
    assert (copy.groupby("split", observed=True)["timestamp"].nunique().drop("train", errors="ignore") == 1).all()


@pytest.mark.parametrize("valid", [[3, 9], [3, 8], [1, 5]])
def test_splits_that_overlap_in_time_have_no_static_view(valid):
    table = pd.DataFrame(
        {"user": range(5), "timestamp": [0, 2, *valid, 8], "split": ["train", "train", "valid", "valid", "test"]}
    )
    with pytest.raises(ValueError, match="overlap in time; in order of their starts: train, valid, test"):
        static_view(table)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_models_column_says_its_name_and_its_protocol(protocol):
    model = ScoredModel("item_like_rate", protocol)
    assert ScoredModel.from_column(model.column) == model


def test_a_row_is_warm_when_its_user_and_its_item_are_both_in_train():
    rows = pd.DataFrame(
        {"user": [0, 0, 0, 1, 1], "item": [7, 7, 8, 7, 9], "split": ["train", "test", "test", "valid", "train"]}
    )
    assert warm_rows(rows).tolist() == [True, True, False, True, True]


def test_late_rows_are_of_train_alone_and_keep_a_second_together():
    table = pd.DataFrame({"timestamp": [1, 2, 3, 3, 3, 9], "split": ["train"] * 5 + ["test"]})
    assert late_train_rows(table, 0.2).tolist() == [False, False, True, True, True, False]
    assert late_train_rows(table, 0.75).tolist() == [False, True, True, True, True, False]
