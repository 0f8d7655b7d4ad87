"""The features artefact: vector banks with a pointer per interaction, causal statistics.

What a slot shows of a row must not know the row's label, nor may the slots of its history, which the stream shows too.
So a user's vector is the user's state after strictly earlier interactions, one per length of history, and a train
row's vectors come from a fit on what was *earlier* than its fold of train's time, as those of valid and test rows come
from a fit on all of train. What comes out of a fit means the same in train and later only if the row stands to the fit
in the same way: folds of users alone tell a train row of its item's future. The first fold, which nothing precedes,
is cross-fitted: from fits on the fold that left out *all rows of the row's user*.

    user bank   [the users as fitted on train (U) | states, one per user, length of history and fit]
    item bank   [full fit (I) | another fit (I) | ...]

Two protocols share the banks: `online`, where every strictly earlier interaction counts, and `static`, where valid and
test rows know nothing from the start of their split on (`history.static_view`).

Shapes: n interactions, U users, I items, d dimensions, F statistics, S rows of the user bank.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thinkrec.artifacts import FEATURES, read_tensor_metadata, read_tensors, write_tensors
from thinkrec.errors import UserError
from thinkrec.features.models import fit_model, refit
from thinkrec.features.ratings import Ratings
from thinkrec.features.recommender import ItemSide, Recommender, turn
from thinkrec.features.statistics import causal_statistics
from thinkrec.history import PROTOCOLS, Protocol
from thinkrec.metrics import auc, validation
from thinkrec.params import FeatureParams, RecommenderParams

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Rows = NDArray[np.int64]

AFFINITY = "affinity"  # the last of the statistics, which is the feature model's
SHARED = ("user_bank", "item_bank", "item_row")  # by all protocols


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """Features of every interaction under one protocol, compactly."""

    user_bank: Floats  # (S, d); rows 0..U-1 are the users as fitted on train, zeros for unseen ones
    item_bank: Floats  # (V, d)
    item_row: Ints  # (n,) row of item_bank
    user_row: Ints  # (n,) row of user_bank: the user as of the interaction
    route: Ints  # (n,) row of user_bank that routing goes by: as fitted where valid or test rows have that
    statistics: Floats  # (n, F)
    statistic_names: list[str]

    def user_vectors(self, rows: NDArray[Any]) -> Floats:
        """User vectors (len(rows), d) of these interactions."""
        return self.user_bank[self.user_row[rows]]

    def item_vectors(self, rows: NDArray[Any]) -> Floats:
        """Item vectors (len(rows), d) of these interactions."""
        return self.item_bank[self.item_row[rows]]

    def scores(self) -> Floats:
        """The feature model's logit (n,) of every interaction, without the user's bias; NaN where it knows nothing.

        It knows nothing of users and items whose vector is zero: nothing earlier, or not seen by the row's fit.
        """
        known = np.any(self.user_bank, 1)[self.user_row] & np.any(self.item_bank, 1)[self.item_row]
        return np.where(known, self.statistics[:, self.statistic_names.index(AFFINITY)], np.float32(np.nan))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fit:
    """A fitted recommender, the rows it serves, and its vectors turned onto the full fit's."""

    model: Recommender
    rows: Rows
    turn: Floats  # (d, d)
    items: ItemSide


def fit_features(
    interactions: pd.DataFrame,
    items: pd.DataFrame,
    params: FeatureParams,
    recommender: RecommenderParams,
    *,
    seed: int,
) -> tuple[dict[Protocol, Features], dict[str, Any], Recommender]:
    """Fit the feature model on train, forward in time for train rows, take states, add causal statistics.

    The epoch is the best one on valid; the fits for train rows take the more epochs the fewer rows they have. That is
    about as many steps where a batch is so many rows; where it is so many sequences (SASRec), up to a few times more.
    Returns the features by protocol, metrics, and the full fit.

    Raises:
        UserError: the first fold of train has one user alone.
    """
    ratings = Ratings.of(interactions, items=len(items))
    split = interactions["split"].to_numpy()
    train, valid, later = (np.flatnonzero(rows) for rows in (split == "train", split == "valid", split != "train"))
    full, epochs, measured = fit_model(params.model, ratings, train, valid, recommender, seed=seed)
    fitted = full.fitted_users()
    identity = np.eye(fitted.shape[1], dtype=np.float32)
    fits = [_Fit(model=full, rows=later, turn=identity, items=full.items())]
    for known, served in fits_of_train(ratings.user, interactions["timestamp"].to_numpy(), train, params.folds, seed):
        model = refit(
            params.model,
            ratings,
            known,
            recommender,
            epochs=max(1, round(epochs * len(train) / len(known))),
            seed=seed,
        )
        side = model.items()
        turned = turn((model.fitted_users(), side.vectors), (fitted, fits[0].items.vectors))
        fits.append(_Fit(model=model, rows=served, turn=turned, items=replace(side, vectors=side.vectors @ turned)))
    item_row = ratings.item.astype(np.int32)
    for number, one in enumerate(fits):
        item_row[one.rows] += number * ratings.items

    told = {protocol: _tell(protocol, interactions, items, fits, params) for protocol in PROTOCOLS}
    # One bank row per user, length of history and fit, whatever the protocol: rows that tie in time share it.
    keys = np.concatenate([one.key for one in told.values()], axis=1)
    _, first, state = np.unique(keys, axis=1, return_index=True, return_inverse=True)
    vectors = np.concatenate([one.vectors for one in told.values()])[first]
    as_fitted = (split != "train") & np.isin(ratings.user, ratings.user[train])
    features: dict[Protocol, Features] = {}
    for protocol, user_row in zip(PROTOCOLS, np.split(ratings.users + state, len(PROTOCOLS)), strict=True):
        features[protocol] = Features(
            user_bank=np.concatenate([fitted, vectors]),
            item_bank=np.concatenate([one.items.vectors for one in fits]),
            item_row=item_row,
            user_row=user_row.astype(np.int32),
            route=np.where(as_fitted, ratings.user, user_row).astype(np.int32),
            statistics=told[protocol].statistics,
            statistic_names=told[protocol].names,
        )
    affinity = features["online"].statistics[:, -1]
    metrics = {
        "model": params.model,
        "epoch": epochs,
        **{f"valid_{name}": value for name, value in measured.items()},
        **{
            f"valid_{name}_of_affinity": value
            for name, value in validation(ratings.user[valid], ratings.label[valid], affinity[valid]).items()
        },
        "train_auc_of_affinity": auc(ratings.label[train], affinity[train]),
        "statistics": len(features["online"].statistic_names),
    }
    return features, metrics, full


def fits_of_train(
    user: NDArray[Any], time: NDArray[Any], train: Rows, folds: int, seed: int
) -> Iterator[tuple[Rows, Rows]]:
    """What to fit on, and the rows that this fit serves: together all of `train` (sorted rows), each once.

    Train's time is cut into `folds` of about as many rows. Every one but the first is served by a fit on all that is
    strictly earlier than it; the first one's users are dealt out among as many fits on the rows of its other users.

    Raises:
        UserError: the first fold has one user alone.
    """
    moment = time[train]
    edges = np.sort(moment)[np.arange(1, folds) * len(train) // folds]
    fold = np.searchsorted(edges, moment, side="right")
    first = train[fold == fold.min()]
    users, of_user = np.unique(user[first], return_inverse=True)
    if len(users) == 1:
        raise UserError(
            f"features.folds={folds}: the first of them holds one user of train alone, and nothing is left to fit on; "
            "bring more users or ask for fewer folds"
        )
    dealt = np.random.default_rng(seed).permutation(len(users))[of_user] % folds
    for number in np.unique(dealt).tolist():
        yield first[dealt != number], first[dealt == number]
    for number in np.unique(fold)[1:].tolist():
        yield train[fold < number], train[fold == number]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """What a protocol tells of every interaction."""

    key: NDArray[np.int64]  # (3, n): user, end of the history, whether of train
    vectors: Floats  # (n, d)
    statistics: Floats  # (n, F)
    names: list[str]


def _tell(
    protocol: Protocol, interactions: pd.DataFrame, items: pd.DataFrame, fits: list[_Fit], params: FeatureParams
) -> _Told:
    table = PROTOCOLS[protocol](interactions)
    ratings = Ratings.of(table, items=len(items))
    vectors = np.zeros((len(table), fits[0].turn.shape[1]), np.float32)
    affinity = np.zeros(len(table), np.float32)
    for one in fits:
        states, biases = one.model.states(ratings, ratings.start[one.rows], ratings.end[one.rows])
        vectors[one.rows] = states @ one.turn
        # Without the user's bias, which the running rates know already.
        affinity[one.rows] = one.items.logits(vectors[one.rows], biases, ratings.item[one.rows]) - biases
    statistics, names = causal_statistics(
        table, items, smoothing=params.smoothing, kernel_history=params.kernel_history
    )
    return _Told(
        key=np.stack([ratings.user, ratings.end, (table["split"] == "train").to_numpy(np.int64)]),
        vectors=vectors,
        statistics=np.concatenate([statistics, affinity[:, None]], axis=1).astype(np.float32),
        names=[*names, AFFINITY],
    )


def save(features: dict[Protocol, Features], path: Path = FEATURES) -> None:
    """Write the features of all protocols as safetensors, what they share once."""
    online = features["online"]
    tensors = {name: getattr(online, name) for name in SHARED}
    for protocol, one in features.items():
        own = [name for name in Features.__slots__ if name not in (*SHARED, "statistic_names")]
        tensors |= {f"{protocol}.{name}": getattr(one, name) for name in own}
    write_tensors(path, tensors, metadata={"statistic_names": json.dumps(online.statistic_names)})


def load(path: Path = FEATURES, *, protocol: Protocol = "online") -> Features:
    """Read the features of one protocol.

    Raises:
        UserError: the file is absent or is not a features artefact.
    """
    names = [name for name in Features.__slots__ if name != "statistic_names"]
    paths = {name: name if name in SHARED else f"{protocol}.{name}" for name in names}
    tensors = read_tensors(path, paths.values())
    statistic_names = json.loads(read_tensor_metadata(path)["statistic_names"])
    return Features(**{name: tensors[key] for name, key in paths.items()}, statistic_names=statistic_names)
