"""The plain baselines: by hand on a small table, their causality, and METHOD §5's figures on MovieLens 1M."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from thinkrec import metrics
from thinkrec.evaluation.baselines import item_like_rate, running_rates


def table() -> pd.DataFrame:
    """Two users and two items; train likes are 3 of 4, so the prior is (3 + .5) / (4 + 1) = .7."""
    rows = [
        (0, 0, 1, 10, "train"),
        (0, 1, 0, 20, "train"),
        (0, 0, 1, 50, "valid"),
        (0, 1, 1, 70, "test"),
        (1, 0, 1, 10, "train"),
        (1, 0, 1, 30, "train"),
        (1, 1, 0, 60, "test"),
    ]
    frame = pd.DataFrame(rows, columns=["user", "item", "label", "timestamp", "split"])
    return frame.astype({"split": "category"})


def odds(p: float) -> float:
    return float(np.log(p / (1 - p)))


def test_the_item_like_rate_counts_train_only() -> None:
    rate = item_like_rate(table())
    assert rate[2] == pytest.approx((3 + 5 * 0.7) / (3 + 5))
    assert rate[3] == rate[6] == pytest.approx((0 + 5 * 0.7) / (1 + 5))


def test_running_rates_add_the_log_odds_of_user_and_item() -> None:
    user, item = (2 + 3.5) / (3 + 5), (0 + 3.5) / (2 + 5)  # before 70; the item was disliked twice
    expected = odds(user) + odds(item) - odds(0.7)
    assert odds(running_rates(table())[3]) == pytest.approx(expected)
    assert running_rates(table())[0] == pytest.approx(0.7)  # nothing came before it


def test_frozen_rates_stop_where_the_split_starts() -> None:
    user, item = (2 + 3.5) / (3 + 5), (0 + 3.5) / (1 + 5)  # test starts at 60, which the item's second row misses
    assert odds(running_rates(table(), frozen=True)[3]) == pytest.approx(odds(user) + odds(item) - odds(0.7))


def test_a_users_frozen_ranking_is_the_items_alone() -> None:
    # On valid, before which there is only train, every row of a user shares the user's rate.
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({name: rng.integers(0, top, 400) for name, top in (("user", 9), ("item", 30), ("label", 2))})
    frame["timestamp"] = rng.permutation(400)
    frame["split"] = pd.Categorical(np.where(frame["timestamp"] < 250, "train", "valid"))
    valid = (frame["split"] == "valid").to_numpy()
    user, label = frame["user"].to_numpy()[valid], frame["label"].to_numpy()[valid]
    frozen, item = running_rates(frame, frozen=True)[valid], item_like_rate(frame)[valid]
    assert metrics.uauc(user, label, frozen) == pytest.approx(metrics.uauc(user, label, item), abs=0.01)


@pytest.mark.parametrize("frozen", [False, True])
def test_evaluated_rows_never_see_the_present_or_the_future(frozen: bool) -> None:
    frame = table()
    before = running_rates(frame, frozen=frozen)
    frame.loc[frame["timestamp"] >= 60, "label"] = 1 - frame["label"]
    np.testing.assert_array_equal(running_rates(frame, frozen=frozen)[:3], before[:3])
    assert running_rates(frame, frozen=frozen)[6] == before[6]


def test_movielens_1m_gives_the_published_baseline_figures(real_data: Path) -> None:
    from thinkrec.data.ingest import ingest
    from thinkrec.params import DatasetParams

    raw = real_data / "ml-1m-window.zip"
    interactions = ingest(DatasetParams(name="ml-1m", raw=raw, max_bad_share=0.01)).interactions
    test = (interactions["split"] == "test").to_numpy()
    user, label = interactions["user"].to_numpy()[test], interactions["label"].to_numpy()[test]
    figures = {}
    for name, rate in {
        "item": item_like_rate(interactions),
        "running": running_rates(interactions),
        "frozen": running_rates(interactions, frozen=True),
    }.items():
        by_user = metrics.per_user(user, label, rate[test], seed=0)
        means, covered = by_user.means(), by_user.covered()
        figures[name] = [metrics.auc(label, rate[test]), *(means[key] for key in ("uauc", "ndcg@5", "map@5"))]
        assert [covered[key] for key in ("uauc", "ndcg@5", "map@5", "ndcg@5_long")] == [224, 287, 287, 287 - 95]
    assert figures["item"] == pytest.approx([0.7094, 0.6829, 0.7825, 0.4816], abs=0.003)
    assert figures["running"] == pytest.approx([0.7757, 0.6665, 0.7643, 0.4681], abs=0.0005)
    assert figures["frozen"][0] == pytest.approx(0.7403, abs=0.0005)
