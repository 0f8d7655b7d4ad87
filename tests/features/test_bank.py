"""The features artefact: train rows get vectors fitted without their user, every row those of its past alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.builders import ITEMS, features_of, interactions, item_table
from thinkrec.errors import UserError
from thinkrec.features import bank, mf
from thinkrec.features.bank import Features, fit_features, load, save
from thinkrec.metrics import auc
from thinkrec.params import FeatureParams

USERS, ROWS, FOLDS = 6, 15, 3


def table() -> pd.DataFrame:
    """Six users, the last two of whom train never saw."""
    frame = interactions(4, users=USERS, rows=ROWS)
    late = (frame["user"] >= 4) & (frame["split"] == "train")
    return frame.assign(split=np.where(late, "valid", frame["split"]))


def params(**changes: Any) -> FeatureParams:
    values = {
        "dim": 3, "epochs": 3, "learning_rate": 0.05, "weight_decay": 0.01, "folds": FOLDS, "smoothing": 5.0,
        "kernel_history": 5, "fold_in_widening": 4.0,
    }  # fmt: skip
    return FeatureParams(**(values | changes))


def fitted(frame: pd.DataFrame, **changes: Any) -> tuple[Features, dict[str, Any]]:
    return fit_features(frame, item_table(), params(**changes), seed=2)


def folds_of(features: Features) -> np.ndarray:
    """The fold (-1: the full fit) that each row's item vector comes from."""
    return features.item_row // ITEMS - 1


def flipped(frame: pd.DataFrame, rows: np.ndarray) -> pd.DataFrame:
    label = frame["label"].to_numpy().copy()
    label[rows] = 1 - label[rows]
    return frame.assign(label=label)


def test_no_vector_of_a_train_row_or_of_its_history_knows_a_label_at_or_after_it() -> None:
    frame = table()
    train = np.flatnonzero(frame["split"] == "train")
    user, time = frame["user"].to_numpy(), frame["timestamp"].to_numpy()
    before, metrics = fitted(frame, epochs=1)  # one epoch: which is best cannot change
    assert metrics["epoch"] == 1
    for row in train[::4].tolist():
        window = train[(user[train] == user[row]) & (time[train] <= time[row])]  # what the row's stream shows in slots
        after, _ = fitted(flipped(frame, train[(user[train] == user[row]) & (time[train] >= time[row])]), epochs=1)
        # Folds are turned onto the full fit, which does see the labels: lengths and inner products are what counts.
        for name in ("user_vectors", "item_vectors"):
            one, two = (getattr(features, name)(window) for features in (before, after))
            np.testing.assert_allclose(one @ one.T, two @ two.T, atol=1e-5)
        np.testing.assert_allclose(after.score[window], before.score[window], atol=1e-5)
        np.testing.assert_allclose(after.statistics[window], before.statistics[window], atol=1e-5)
        others = train[folds_of(before)[train] != folds_of(before)[row]]
        assert (np.abs(after.score[others] - before.score[others]) > 1e-6).any()  # the other folds do see them


def test_all_train_rows_of_a_user_come_from_one_fold_that_left_the_user_out() -> None:
    frame = table()
    features, _ = fitted(frame)
    train = np.flatnonzero(frame["split"] == "train")
    by_user = pd.Series(folds_of(features)[train]).groupby(frame["user"].to_numpy()[train])
    assert (by_user.nunique() == 1).all()
    assert (by_user.first() >= 0).all()


def test_valid_and_test_rows_use_the_full_fit() -> None:
    frame = table()
    features, metrics = fitted(frame)
    user, item = frame["user"].to_numpy(), frame["item"].to_numpy()
    train = (frame["split"] == "train").to_numpy()
    rest = ~train & (user < 4)
    assert (features.route[rest] == user[rest]).all()
    assert (features.route[~rest] == features.user_row[~rest]).all()
    assert (features.item_row[~train] == item[~train]).all()
    rows = np.flatnonzero(train)
    full = mf.fit(
        user[rows], item[rows], frame["label"].to_numpy()[rows], users=USERS, items=ITEMS, dim=3, epochs=3,
        learning_rate=0.05, weight_decay=0.01, seed=2,
    )[metrics["epoch"] - 1]  # fmt: skip
    np.testing.assert_array_equal(features.user_bank[:USERS], full.user)
    np.testing.assert_array_equal(features.score[rest], full.logits(user[rest], item[rest]))
    assert (features.user_bank[4:USERS] == 0).all()


def test_the_epoch_is_the_best_on_valid() -> None:
    frame = table()
    features, metrics = fitted(frame, epochs=6)
    valid = (frame["split"] == "valid").to_numpy()
    seen = valid & (frame["user"] < 4).to_numpy()
    assert 1 <= metrics["epoch"] <= 6
    assert metrics["valid_auc"] == pytest.approx(auc(frame["label"][valid], features.score[valid]))
    assert seen.any()


def test_users_are_folded_in_from_strictly_earlier_rows() -> None:
    frame = table()
    before, _ = fitted(frame, epochs=1)
    user, time = frame["user"].to_numpy(), frame["timestamp"].to_numpy()
    rest = np.flatnonzero(frame["split"] != "train")
    first = rest[time[rest] == frame.groupby("user")["timestamp"].transform("min").to_numpy()[rest]]
    assert len(first)
    assert (before.user_vectors(first) == 0).all()
    for row in rest.tolist():
        later = rest[(user[rest] == user[row]) & (time[rest] >= time[row])]
        after, _ = fitted(flipped(frame, later), epochs=1)
        np.testing.assert_array_equal(after.user_vectors(np.asarray([row])), before.user_vectors(np.asarray([row])))
        assert after.score[row] == before.score[row]
    last = np.flatnonzero(user == 5)[-1:]
    after, _ = fitted(flipped(frame, np.flatnonzero((user == 5) & (time < time[last]))), epochs=1)
    assert (after.user_vectors(last) != before.user_vectors(last)).any()


def test_rows_that_tie_in_time_share_a_vector() -> None:
    frame = table()
    features, _ = fitted(frame)
    tied = frame.groupby(["user", "timestamp", "split"], observed=True).ngroup().to_numpy()
    assert len(np.unique(tied)) < len(frame)
    assert (pd.Series(features.user_row).groupby(tied).nunique() == 1).all()


def test_the_last_statistic_is_the_affinity_of_the_vectors() -> None:
    frame = table()
    features, metrics = fitted(frame)
    assert features.statistic_names[-1] == "affinity"
    assert len(features.statistic_names) == features.statistics.shape[1] == metrics["statistics"]
    rows = np.flatnonzero(frame["split"] != "train")
    base = features.statistics[rows, -1] - (features.user_vectors(rows) * features.item_vectors(rows)).sum(1)
    for number in np.unique(frame["item"].to_numpy()[rows]):  # b + b_i: a function of the item alone
        assert np.ptp(base[frame["item"].to_numpy()[rows] == number]) < 1e-5


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save(fitted(table())[0], tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_features_round_trip_through_disk(tmp_path: Path) -> None:
    features = features_of(table())
    save(features, tmp_path / "features.safetensors")
    again = load(tmp_path / "features.safetensors")
    for name in Features.__slots__:
        np.testing.assert_array_equal(getattr(again, name), getattr(features, name))
    rows = np.asarray([5, 1])
    np.testing.assert_array_equal(again.user_vectors(rows), features.user_bank[features.user_row[rows]])


def test_a_missing_or_foreign_file_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="dvc repro features"):
        load(tmp_path / "nowhere.safetensors")
    (tmp_path / "foreign").write_bytes(b"something else")
    with pytest.raises(UserError, match="not a features artefact"):
        load(tmp_path / "foreign")
    assert bank.FEATURES.name == "features.safetensors"
