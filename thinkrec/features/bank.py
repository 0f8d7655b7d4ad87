"""The features artefact: vector banks with a pointer per interaction, causal statistics, the feature model's score.

What a slot shows of a row must not know the row's label, nor may the slots of its history, which the stream shows too.
So a user's vector is folded in from the user's strictly earlier interactions, one vector per length of history, and a
train row's vectors come from a fit that left out *all rows of its user* (folds by user). Valid and test rows use the
fit on all of train.

    user bank   [the users as fitted on train (U) | folded in, one per user and length of history]
    item bank   [full fit (I) | fold 0 (I) | ...]

Shapes: n interactions, U users, I items, d dimensions, F statistics, S rows of the user bank.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from thinkrec.artifacts import FEATURES, atomic
from thinkrec.data.histories import history_bounds
from thinkrec.errors import UserError
from thinkrec.features import mf
from thinkrec.features.statistics import causal_statistics
from thinkrec.metrics import auc, uauc
from thinkrec.params import FeatureParams

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """Features of every interaction, compactly."""

    user_bank: Floats  # (S, d); rows 0..U-1 are the users as fitted on train, zeros for unseen ones
    item_bank: Floats  # (V, d)
    user_row: Ints  # (n,) row of user_bank: the user as of the interaction
    route: Ints  # (n,) row of user_bank that routing goes by: as fitted where valid or test rows have that
    item_row: Ints  # (n,) row of item_bank
    statistics: Floats  # (n, F)
    score: Floats  # (n,) the feature model's own logit: as fitted for known users, folded in for train and others
    statistic_names: list[str]

    def user_vectors(self, rows: NDArray[Any]) -> Floats:
        """User vectors (len(rows), d) of these interactions."""
        return self.user_bank[self.user_row[rows]]

    def item_vectors(self, rows: NDArray[Any]) -> Floats:
        """Item vectors (len(rows), d) of these interactions."""
        return self.item_bank[self.item_row[rows]]


def fit_features(
    interactions: pd.DataFrame, items: pd.DataFrame, params: FeatureParams, *, seed: int
) -> tuple[Features, dict[str, Any]]:
    """Fit the feature model on train, cross-fit it for train rows, fold users in, add causal statistics.

    The epoch is the one with the best valid AUC; folds stop at the same one. Returns the features and metrics.
    """
    user, item, label = (interactions[name].to_numpy() for name in ("user", "item", "label"))
    users, count = int(user.max()) + 1, len(items)
    train = np.flatnonzero((interactions["split"] == "train").to_numpy())
    valid = np.flatnonzero((interactions["split"] == "valid").to_numpy())

    def fit(rows: NDArray[Any], epochs: int) -> list[mf.MatrixFactors]:
        return mf.fit(
            user[rows],
            item[rows],
            label[rows],
            users=users,
            items=count,
            dim=params.dim,
            epochs=epochs,
            learning_rate=params.learning_rate,
            weight_decay=params.weight_decay,
            seed=seed,
        )

    epochs = fit(train, params.epochs)
    by_epoch = [auc(label[valid], factors.logits(user[valid], item[valid])) for factors in epochs]
    best = int(np.argmax(by_epoch))
    full = epochs[best]

    start, end = history_bounds(user, interactions["timestamp"].to_numpy())
    item_bank, item_row = [full.item], item.astype(np.int32)
    folded, affinity, user_bias = (
        np.zeros((len(user), params.dim), np.float32),
        np.zeros(len(user)),
        np.zeros(len(user)),
    )

    def fold_in_rows(factors: mf.MatrixFactors, rows: NDArray[Any]) -> None:
        folded[rows], user_bias[rows] = mf.fold_in(
            factors, item, label, start, start=start[rows], end=end[rows], widening=params.fold_in_widening
        )
        affinity[rows] = factors.bias + factors.item_bias[item[rows]]
        affinity[rows] += np.einsum("nd,nd->n", folded[rows], factors.item[item[rows]])

    fold_in_rows(full, np.setdiff1d(np.arange(len(user)), train))
    fold = np.random.default_rng(seed).permutation(users) % params.folds
    for number in range(params.folds):
        held = train[fold[user[train]] == number]
        factors = mf.align(fit(train[fold[user[train]] != number], best + 1)[-1], full)
        item_row[held] = item[held] + len(item_bank) * count
        item_bank.append(factors.item)
        fold_in_rows(factors, held)

    # One bank row per user, length of history and fit: rows that tie in time share it.
    is_train = np.isin(np.arange(len(user)), train)
    _, first, state = np.unique(np.stack([user, end, is_train]), axis=1, return_index=True, return_inverse=True)
    user_row = (users + state).astype(np.int32)
    as_fitted = ~is_train & np.isin(user, user[train])
    score = np.where(as_fitted, full.logits(user, item), affinity + user_bias).astype(np.float32)
    statistics, names = causal_statistics(
        interactions, items, smoothing=params.smoothing, kernel_history=params.kernel_history
    )
    features = Features(
        user_bank=np.concatenate([full.user, folded[first]]),
        item_bank=np.concatenate(item_bank),
        user_row=user_row,
        route=np.where(as_fitted, user, user_row).astype(np.int32),
        item_row=item_row,
        statistics=np.concatenate([statistics, affinity[:, None]], axis=1).astype(np.float32),
        score=score,
        statistic_names=[*names, "affinity"],  # the folded-in logit without the user's bias, which the rates know,
    )
    metrics = {
        "epoch": best + 1,
        "valid_auc": auc(label[valid], score[valid]),
        "valid_uauc": uauc(user[valid], label[valid], score[valid])[0],
        "valid_auc_folded_in": auc(label[valid], affinity[valid]),
        "valid_uauc_folded_in": uauc(user[valid], label[valid], affinity[valid])[0],
        "train_auc_cross_fitted": auc(label[train], affinity[train]),
        "statistics": len(features.statistic_names),
    }
    return features, metrics


def save(features: Features, path: Path = FEATURES) -> None:
    """Write the features as safetensors."""
    tensors = {
        name: np.ascontiguousarray(getattr(features, name)) for name in Features.__slots__ if name != "statistic_names"
    }
    with atomic(path) as partial:
        save_file(tensors, partial, metadata={"statistic_names": json.dumps(features.statistic_names)})


def load(path: Path = FEATURES) -> Features:
    """Read the features.

    Raises:
        UserError: the file is absent or is not a features artefact.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            names = json.loads(file.metadata()["statistic_names"])
    except FileNotFoundError:
        raise UserError(f"{path}: no such artefact; run its stage first: dvc repro features") from None
    except Exception as error:
        raise UserError(f"{path}: not a features artefact ({error}); rerun its stage") from None
    return Features(**tensors, statistic_names=names)
