"""The bootstrap over users: cases whose answer is known, and what must not depend on what."""

import numpy as np
import pytest
from scipy.stats import bootstrap as scipy_bootstrap

from thinkrec.evaluation import intervals
from thinkrec.metrics import per_user


def world(users=300, rows=8, *, seed=0):
    """Users with equally many rows, whose score knows a little about the label."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), rows)
    label = rng.integers(0, 2, len(user))
    return user, label, label + 2 * rng.normal(size=len(user))


def test_the_interval_of_a_per_user_mean_is_scipys():
    user, label, score = world()
    drawn = intervals.bootstrap(user, label, {"m": score}, metrics=["ndcg@5"], draws=4000, seed=0)["m"]
    values = per_user(user, label, score, seed=0).values["ndcg@5"]
    theirs = scipy_bootstrap((values,), np.mean, method="percentile", n_resamples=4000, rng=1).confidence_interval
    ours = intervals.interval(drawn.draws["ndcg@5"])
    assert ours == pytest.approx({"low": theirs.low, "high": theirs.high}, abs=0.004)
    assert intervals.interval(
        intervals.mean_draws(np.arange(len(values)), values, draws=4000, seed=0)
    ) == pytest.approx(ours)
    assert drawn.draws["ndcg@5"].std() == pytest.approx(values.std() / np.sqrt(len(values)), rel=0.05)


def test_the_auc_interval_covers_the_truth_and_has_the_width_of_theory():
    # One row a user: rows are independent, and DeLong's variance holds.
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 2000)
    score = label + rng.normal(size=2000)  # the true AUC is Phi(1 / sqrt 2)
    drawn = intervals.bootstrap(np.arange(2000), label, {"m": score}, metrics=["auc"], draws=2000, seed=0)["m"]
    low, high = intervals.interval(drawn.draws["auc"]).values()
    assert low < 0.7602 < high
    positive, negative = score[label == 1], score[label == 0]
    wins = positive[:, None] > negative
    error = np.sqrt(wins.mean(1).var() / len(positive) + wins.mean(0).var() / len(negative))
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.08)


def test_a_model_never_differs_from_its_own_monotone_transform():
    user, label, score = world()
    drawn = intervals.bootstrap(user, label, {"a": score, "b": np.exp(score)}, draws=200, seed=0)
    for name in intervals.HEADLINE:
        np.testing.assert_array_equal(drawn["a"].draws[name], drawn["b"].draws[name])


def test_chunks_change_nothing(monkeypatch):
    user, label, score = world(users=40)
    whole = intervals.bootstrap(user, label, {"m": score}, draws=100, seed=5)["m"]
    monkeypatch.setattr(intervals, "CHUNK_CELLS", 1)
    cut = intervals.bootstrap(user, label, {"m": score}, draws=100, seed=5)["m"]
    for name in intervals.HEADLINE:
        np.testing.assert_allclose(cut.draws[name], whole.draws[name], rtol=1e-12)
    assert cut.value == whole.value


def test_each_draw_holds_as_many_users_as_there_are():
    for start, weight_du in intervals.resampled(17, draws=50, seed=0):
        assert start == 0 and (weight_du.sum(axis=1) == 17).all()


def test_draws_with_one_class_only_are_left_out():
    drawn = intervals.bootstrap([0, 1], [0, 1], {"m": [0.1, 0.9]}, metrics=["auc"], draws=200, seed=0)["m"]
    assert np.isnan(drawn.draws["auc"]).any()
    assert intervals.interval(drawn.draws["auc"]) == {"low": 1, "high": 1}
    for none in ([np.nan], intervals.mean_draws([], [], draws=3, seed=0)):
        assert np.isnan([*intervals.interval(none).values()]).all()


def test_p_is_1_at_no_difference_and_small_but_not_0_far_from_it():
    assert intervals.p_value(np.zeros(99)) == 1
    assert intervals.p_value(np.ones(99)) == pytest.approx(0.02)
    assert intervals.p_value(np.r_[np.ones(95), -np.ones(4)]) == pytest.approx(0.1)


def test_holm_worked_out_by_hand():
    assert intervals.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert intervals.holm([0.6, 0.9]) == [1, 1]
    assert intervals.holm([]) == []
