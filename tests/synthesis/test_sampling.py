"""Which instances are asked about: sizes, balance, and the same rows for the same seed."""

import numpy as np
import pandas as pd
import pytest

from tests.project import ROOT
from thinkrec.params import load
from thinkrec.synthesis.sampling import sample_rows

TRACES = load(ROOT / "params.yaml").traces
ROWS = 20  # of each user, the last five of them in test


def world(likes=0.5, users=6):
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "user": np.repeat(np.arange(users, dtype=np.int32), ROWS),
            "label": (random.random(users * ROWS) < likes).astype(np.int8),
            "timestamp": np.tile(np.arange(ROWS, dtype=np.int64), users),
            "split": (["train"] * (ROWS - 5) + ["test"] * 5) * users,
        }
    ).astype({"split": "category"})


WORLD = world()


def sample(table=WORLD, train=12, held_out=6, seed=1):
    """The rows of train and of test that are asked about."""
    rows = sample_rows(table, TRACES.model_copy(update={"train": train, "held_out": held_out}), seed)
    return rows.row[~rows.held_out], rows.row[rows.held_out]


def test_rows_are_as_many_as_asked_for_sorted_distinct_and_of_their_splits():
    for rows, split, count in zip(sample(), ("train", "test"), (12, 6), strict=True):
        assert rows.dtype == np.int64
        assert len(rows) == count and (np.diff(rows) > 0).all()
        assert set(WORLD["split"][rows]) == {split}


def test_a_seed_samples_its_own_rows_and_short_splits_give_what_they_have():
    assert np.array_equal(np.concatenate(sample()), np.concatenate(sample()))
    assert sample()[0].tolist() != sample(seed=2)[0].tolist()
    train, held_out = sample(train=1000, held_out=0)
    assert train.tolist() == np.flatnonzero(WORLD["split"] == "train").tolist()
    assert held_out.tolist() == []
    assert [rows.tolist() for rows in sample(WORLD.iloc[:0])] == [[], []]


@pytest.mark.parametrize(("likes", "train"), [(0.5, 13), (0.1, 13), (0.02, 40)])
def test_labels_are_balanced_and_one_that_runs_short_is_made_up_for(likes, train):
    table = world(likes)
    rows, held_out = sample(table, train)
    liked_in_all = int(table["label"][table["split"] == "train"].sum())
    assert liked_in_all > 0
    assert len(rows) == train
    assert table["label"][rows].sum() == min((train + 1) // 2, liked_in_all)
    assert likes < 0.5 or table["label"][held_out].sum() == 3


@pytest.mark.parametrize("train", [12, 40])
def test_rows_that_a_history_explains_come_first(train):
    assert not (sample(train=train)[0] % ROWS < 3).any()  # no rows with fewer than three before them
