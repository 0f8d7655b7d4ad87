"""The features artefact: vector banks with a pointer per interaction, causal statistics, the feature model's score.

A vector is stored once and pointed at: train rows point at the fold that was fitted without them, valid and test
rows at the fit on all of train, rows of users that train never saw at a vector folded in from what came before.

    user bank   [full fit (U) | fold 0 (U) | ... | fold-ins (one per unseen user and length of history)]
    item bank   [full fit (I) | fold 0 (I) | ...]

Shapes: n interactions, U users, I items, d dimensions, F statistics.
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
    user_row: Ints  # (n,) row of user_bank
    item_row: Ints  # (n,) row of item_bank
    statistics: Floats  # (n, F)
    score: Floats  # (n,) the feature model's logit, cross-fitted in train
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
    """Fit the feature model on train, cross-fit it for train rows, fold in unseen users, add causal statistics.

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

    user_bank, item_bank = [full.user], [full.item]
    user_row, item_row = user.astype(np.int32), item.astype(np.int32)
    score = full.logits(user, item)
    fold = np.random.default_rng(seed).permutation(len(train)) % params.folds
    for number in range(params.folds):
        factors = mf.align(fit(train[fold != number], best + 1)[-1], full)
        held = train[fold == number]
        user_row[held] = user[held] + len(user_bank) * users
        item_row[held] = item[held] + len(item_bank) * count
        score[held] = factors.logits(user[held], item[held])
        user_bank.append(factors.user)
        item_bank.append(factors.item)

    unseen, pointers = _fold_in_unseen(interactions, full, seen=user[train], offset=len(user_bank) * users)
    user_bank.append(unseen)
    user_row = np.where(pointers >= 0, pointers, user_row).astype(np.int32)
    folded = np.flatnonzero(pointers >= 0)
    vectors = np.concatenate(user_bank)
    score[folded] += np.einsum("nd,nd->n", vectors[user_row[folded]], full.item[item[folded]])

    statistics, names = causal_statistics(
        interactions, items, smoothing=params.smoothing, kernel_history=params.kernel_history
    )
    features = Features(
        user_bank=vectors,
        item_bank=np.concatenate(item_bank),
        user_row=user_row,
        item_row=item_row,
        statistics=np.concatenate([statistics, score[:, None]], axis=1),
        score=score,
        statistic_names=[*names, "feature_model_logit"],
    )
    metrics = {
        "epoch": best + 1,
        "valid_auc": auc(label[valid], score[valid]),
        "valid_uauc": uauc(user[valid], label[valid], score[valid])[0],
        "train_auc_cross_fitted": auc(label[train], score[train]),
        "rows_folded_in": len(folded),
        "statistics": len(features.statistic_names),
    }
    return features, metrics


def _fold_in_unseen(
    interactions: pd.DataFrame, factors: mf.MatrixFactors, *, seen: NDArray[Any], offset: int
) -> tuple[Floats, Ints]:
    """Vectors of unseen users as of each distinct length of history, and every row's pointer (-1: none needed)."""
    user, item, label = (interactions[name].to_numpy() for name in ("user", "item", "label"))
    start, end = history_bounds(user, interactions["timestamp"].to_numpy())
    pointers = np.full(len(user), -1, np.int32)
    vectors = [np.zeros((0, factors.user.shape[1]), np.float32)]
    total = 0
    rows_unseen = np.flatnonzero(~np.isin(user, seen))
    for rows in np.split(rows_unseen, np.flatnonzero(np.diff(user[rows_unseen])) + 1):
        if not len(rows):
            continue
        first = start[rows[0]]
        ends, which = np.unique(end[rows] - first, return_inverse=True)
        vectors.append(mf.fold_in(factors, item[first : rows[-1] + 1], label[first : rows[-1] + 1], ends))
        pointers[rows] = offset + total + which
        total += len(ends)
    return np.concatenate(vectors), pointers


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
