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


def params(train=12, held_out=6, sampling="balanced"):
    return TRACES.model_copy(update={"sampling": sampling, "train": train, "held_out": held_out})


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


def scores(table, seed=0):
    return np.random.default_rng(seed).normal(size=len(table)).astype(np.float32)


def choose(table, asked, seed=1, score=None):
    logit = scores(table) if score is None else score
    sample = sample_rows(table, asked, seed, score=lambda: logit)
    return sample.row[~sample.held_out], sample.row[sample.held_out]


def nobody():
    raise AssertionError("not needed for this sampling")


def is_early(rows):
    """Whether fewer than three rows come before these."""
    return rows % ROWS < 3


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_rows_are_as_many_as_asked_for_sorted_distinct_and_of_their_splits(sampling):
    table = world()
    train, held_out = choose(table, params(sampling=sampling))
    assert (len(train), len(held_out)) == (12, 6)
    for rows, split in ((train, "train"), (held_out, "test")):
        assert rows.dtype == np.int64
        assert (np.diff(rows) > 0).all()
        assert set(table["split"][rows]) == {split}


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_the_same_seed_chooses_the_same_rows_and_short_splits_give_what_they_have(sampling):
    table = world()
    first, again = choose(table, params(sampling=sampling)), choose(table, params(sampling=sampling))
    assert [rows.tolist() for rows in first] == [rows.tolist() for rows in again]
    train, held_out = choose(table, params(train=1000, held_out=0, sampling=sampling))
    assert train.tolist() == np.flatnonzero(table["split"] == "train").tolist()
    assert held_out.tolist() == []
    empty = choose(table.iloc[:0], params(sampling=sampling))
    assert [rows.tolist() for rows in empty] == [[], []]


@pytest.mark.parametrize("sampling", ["balanced", "random"])
def test_another_seed_draws_other_rows(sampling):
    table = world()
    assert (
        choose(table, params(sampling=sampling))[0].tolist()
        != choose(table, params(sampling=sampling), seed=2)[0].tolist()
    )


@pytest.mark.parametrize("sampling", ["balanced", "hard"])
def test_labels_are_balanced_and_one_that_runs_short_is_made_up_for(sampling):
    for likes, liked in ((0.5, 7), (0.1, None)):
        table = world(likes)
        train, _ = choose(table, params(train=13, sampling=sampling))
        asked = table["label"][train]
        in_all = int(table["label"][table["split"] == "train"].sum())
        assert len(train) == 13
        assert asked.sum() == (liked or min(7, in_all))
    table = world(0.02)  # fewer likes than half
    train, _ = choose(table, params(train=40, sampling=sampling))
    few = int(table["label"][table["split"] == "train"].sum())
    assert 0 < few < 20
    assert (len(train), table["label"][train].sum()) == (40, few)


@pytest.mark.parametrize("sampling", ["balanced", "hard"])
def test_rows_that_a_history_explains_come_first(sampling):
    table = world()
    assert not is_early(choose(table, params(sampling=sampling))[0]).any()
    assert not is_early(choose(table, params(train=40, sampling=sampling))[0]).any()


def test_random_is_uniform_over_the_split_early_rows_too():
    table = world(0.2)
    drawn = [choose(table, params(train=30, sampling="random"), seed)[0] for seed in range(200)]
    every = np.concatenate(drawn)
    # 90 train rows, 18 of them early: each is drawn in a third of the 200 draws, give or take 4 deviations of 6.7.
    assert abs(np.bincount(every, minlength=len(table))[table["split"] == "train"] - 200 / 3).max() < 27
    assert is_early(every).mean() == pytest.approx(0.2, abs=0.02)


def test_hard_rows_are_those_whose_loss_is_largest_and_unknown_ones_come_last():
    table = world()
    logit = scores(table)
    logit[table["user"] == 3] = np.nan
    train, _ = choose(table, params(train=20, sampling="hard"), score=logit)
    loss = -np.log(1 / (1 + np.exp(np.where(table["label"] == 1, -logit, logit))))
    pool = np.flatnonzero((table["split"] == "train") & ~is_early(np.arange(len(table))))
    for label in (0, 1):
        rows = pool[table["label"][pool] == label]
        hardest = rows[np.argsort(-loss[rows])][:10]  # NaN sorts last
        assert set(train[table["label"][train] == label]) == set(hardest)
    for count in (66, 72):
        more, _ = choose(table, params(train=count, sampling="hard"), score=logit)
        unknown = {label: np.isnan(logit[more[table["label"][more] == label]]).any() for label in (0, 1)}
        assert any(unknown.values())
        for label in (label for label in (0, 1) if unknown[label]):  # then nothing known was left
            assert set(pool[(table["label"][pool] == label) & ~np.isnan(logit[pool])]) <= set(more)


def test_where_nothing_is_known_hard_rows_are_drawn():
    table = world()
    nothing = np.full(len(table), np.nan, np.float32)
    hard = [choose(table, params(sampling="hard"), seed, score=nothing)[0].tolist() for seed in (1, 2)]
    assert hard == [choose(table, params(), seed)[0].tolist() for seed in (1, 2)]


def test_held_out_rows_are_the_same_whatever_the_sampling():
    table = world()
    held_out = [choose(table, params(sampling=sampling))[1] for sampling in SAMPLINGS]
    assert all(rows.tolist() == held_out[0].tolist() for rows in held_out)
    assert table["label"][held_out[0]].sum() == 3


@pytest.mark.parametrize("sampling", ["balanced", "random"])
def test_scores_that_a_sampling_does_not_need_are_not_computed(sampling):
    sample_rows(world(), params(sampling=sampling), 0, score=nobody)
