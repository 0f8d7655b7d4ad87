"""Which instances are asked about: sizes, balance, hardness, and the same rows for the same seed."""

import numpy as np
import pandas as pd
import pytest

from tests.project import ROOT
from thinkrec.params import load
from thinkrec.synthesis.sampling import sample_rows

TRACES = load(ROOT / "params.yaml").traces
SAMPLINGS = ("balanced", "random", "hard")
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
LOGIT = np.random.default_rng(0).normal(size=len(WORLD)).astype(np.float32)


def sample(table=WORLD, sampling="balanced", train=12, held_out=6, seed=1, logit=LOGIT):
    """The rows of train and of test that are asked about."""
    params = TRACES.model_copy(update={"sampling": sampling, "train": train, "held_out": held_out})
    rows = sample_rows(table, params, seed, score=lambda: logit[: len(table)])
    return rows.row[~rows.held_out], rows.row[rows.held_out]


def is_early(rows):
    """Whether fewer than three rows come before these."""
    return rows % ROWS < 3


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_rows_are_as_many_as_asked_for_sorted_distinct_and_of_their_splits(sampling):
    for rows, split, count in zip(sample(sampling=sampling), ("train", "test"), (12, 6), strict=True):
        assert rows.dtype == np.int64
        assert len(rows) == count and (np.diff(rows) > 0).all()
        assert set(WORLD["split"][rows]) == {split}


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_the_same_seed_samples_the_same_rows_and_short_splits_give_what_they_have(sampling):
    assert np.array_equal(np.concatenate(sample(sampling=sampling)), np.concatenate(sample(sampling=sampling)))
    train, held_out = sample(sampling=sampling, train=1000, held_out=0)
    assert train.tolist() == np.flatnonzero(WORLD["split"] == "train").tolist()
    assert held_out.tolist() == []
    assert [rows.tolist() for rows in sample(WORLD.iloc[:0], sampling)] == [[], []]


@pytest.mark.parametrize("sampling", ["balanced", "random"])
def test_another_seed_draws_other_rows(sampling):
    assert sample(sampling=sampling)[0].tolist() != sample(sampling=sampling, seed=2)[0].tolist()


@pytest.mark.parametrize("sampling", ["balanced", "hard"])
@pytest.mark.parametrize(("likes", "train"), [(0.5, 13), (0.1, 13), (0.02, 40)])
def test_labels_are_balanced_and_one_that_runs_short_is_made_up_for(sampling, likes, train):
    table = world(likes)
    rows, _ = sample(table, sampling, train)
    liked_in_all = int(table["label"][table["split"] == "train"].sum())
    assert liked_in_all > 0
    assert len(rows) == train
    assert table["label"][rows].sum() == min((train + 1) // 2, liked_in_all)


@pytest.mark.parametrize("sampling", ["balanced", "hard"])
@pytest.mark.parametrize("train", [12, 40])
def test_rows_that_a_history_explains_come_first(sampling, train):
    assert not is_early(sample(sampling=sampling, train=train)[0]).any()


def test_random_is_uniform_over_the_split_early_rows_too():
    every = np.concatenate([sample(sampling="random", train=30, seed=seed)[0] for seed in range(200)])
    # 90 train rows, 18 of them early: each is drawn in a third of the 200 draws, give or take 4 deviations of 6.7.
    assert abs(np.bincount(every, minlength=len(WORLD))[WORLD["split"] == "train"] - 200 / 3).max() < 27
    assert is_early(every).mean() == pytest.approx(0.2, abs=0.02)


def test_hard_rows_are_those_whose_loss_is_largest_and_unknown_ones_come_last():
    label = WORLD["label"].to_numpy()
    logit = np.where(WORLD["user"] == 3, np.nan, LOGIT)
    loss = np.log1p(np.exp(np.where(label == 1, -logit, logit)))
    pool = np.flatnonzero((WORLD["split"] == "train") & ~is_early(np.arange(len(WORLD))))
    for count in (20, 66, 72):
        train, _ = sample(sampling="hard", train=count, logit=logit)
        for value in (0, 1):
            hardest = pool[label[pool] == value][np.argsort(-loss[pool[label[pool] == value]])]  # NaN sorts last
            sampled = set(train[label[train] == value])
            sure = [row for row in hardest[: len(sampled)] if not np.isnan(loss[row])]
            assert set(sure) <= sampled


def test_where_nothing_is_known_hard_rows_are_drawn_as_balanced_ones():
    nothing = np.full(len(WORLD), np.nan, np.float32)
    for seed in (1, 2):
        hard = sample(sampling="hard", seed=seed, logit=nothing)[0]
        assert hard.tolist() == sample(seed=seed)[0].tolist()


def test_held_out_rows_are_balanced_and_the_same_whatever_the_sampling():
    held_out = [sample(sampling=sampling)[1].tolist() for sampling in SAMPLINGS]
    assert held_out[0] == held_out[1] == held_out[2]
    assert WORLD["label"][held_out[0]].sum() == 3


@pytest.mark.parametrize("sampling", ["balanced", "random"])
def test_scores_that_a_sampling_does_not_need_are_not_computed(sampling):
    sample_rows(WORLD, TRACES.model_copy(update={"sampling": sampling}), 0, score=lambda: pytest.fail("not needed"))
