"""The features stage: one recommender fitted several times, so that no row's features know its own label.

A slot shows features of a row or of a row of its history. Both must rest on strictly earlier interactions.

- A user's vector is the user's state after the strictly earlier interactions: one vector per length of history.
- Valid and test rows get their vectors from a fit on all of train.
- Train's time is cut into folds. A train row gets its vectors from a fit on what was earlier than its fold, so they
  mean the same in train as later. Folds of users alone would not do: the fit would know the future of the row's item.
- Nothing precedes the first fold. It is cross-fitted: its rows are served by fits that left out all rows of their user.

Shapes: n interactions, U users, I items, d dimensions, F statistics.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import joblib
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thinkrec.errors import UserError
from thinkrec.features.artefact import AFFINITY, Features, Floats
from thinkrec.features.models import fit_model, refit_model
from thinkrec.features.ratings import Ratings
from thinkrec.features.recommender import ItemSide, Recommender, align_vectors
from thinkrec.features.statistics import causal_statistics
from thinkrec.history import PROTOCOLS, Protocol
from thinkrec.metrics import auc, validation
from thinkrec.params import FeatureParams, RecommenderParams

Rows = NDArray[np.int64]
FOLDS = 5  # of train's time: 3, 5, 8 and 10 were alike


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fit:
    """A fitted recommender, the rows it serves, and the rotation that aligns its vectors with the full fit's."""

    model: Recommender
    rows: Rows
    rotation: Floats  # (d, d)
    items: ItemSide  # rotated


def fit_features(
    interactions: pd.DataFrame,
    items: pd.DataFrame,
    params: FeatureParams,
    recommender: RecommenderParams,
    *,
    seed: int,
) -> tuple[dict[Protocol, Features], dict[str, Any], Recommender]:
    """The features by protocol, the stage's metrics, and the recommender fitted on all of train.

    `items` has its `keywords` as a further column.

    The number of epochs is the best on valid. Fits on fewer rows take proportionally more epochs, which keeps the
    number of steps about the same where a batch is a number of rows; for SASRec, whose batches are sequences, it may
    be a few times higher. They run in parallel as joblib is configured.

    Raises:
        UserError: the first fold of train has only one user.
    """
    ratings = Ratings.of(interactions, items=len(items), keywords=items["keywords"])
    split = interactions["split"].to_numpy()
    train, valid, later = (np.flatnonzero(rows) for rows in (split == "train", split == "valid", split != "train"))
    full, epochs, measured = fit_model(
        params.model, ratings, train, valid, recommender, epochs=params.epochs, seed=seed
    )
    full_users, full_items = full.fitted_users(), full.items()
    fits = [_Fit(model=full, rows=later, rotation=np.eye(full_users.shape[1], dtype=np.float32), items=full_items)]

    def fit_part(fitted: Rows, served: Rows) -> _Fit:
        scaled = max(1, round(epochs * len(train) / len(fitted)))
        model = refit_model(params.model, ratings, fitted, recommender, epochs=scaled, seed=seed)
        side = model.items()
        rotation = align_vectors((model.fitted_users(), side.vectors), (full_users, full_items.vectors))
        rotated = replace(side, vectors=side.vectors @ rotation)
        return _Fit(model=model, rows=served, rotation=rotation, items=rotated)

    parts = fits_of_train(ratings.user, interactions["timestamp"].to_numpy(), train, FOLDS, seed)
    fits += joblib.Parallel()(joblib.delayed(fit_part)(fitted, served) for fitted, served in parts)
    item_row = ratings.item.astype(np.int32)
    for number, fit in enumerate(fits):
        item_row[fit.rows] += number * ratings.items

    tables = {protocol: view(interactions) for protocol, view in PROTOCOLS.items()}
    rows_of = {protocol: Ratings.of(table, items=len(items)) for protocol, table in tables.items()}
    states = {protocol: _states(rows, fits) for protocol, rows in rows_of.items()}
    # Rows of one user with the same history and the same kind of fit have the same vector, under either protocol.
    keys = np.concatenate([[rows.user, rows.end, split == "train"] for rows in rows_of.values()], axis=1)
    _, first, group = np.unique(keys, axis=1, return_index=True, return_inverse=True)
    vectors = np.concatenate([vectors for vectors, _ in states.values()])[first]
    as_fitted = (split != "train") & np.isin(ratings.user, ratings.user[train])
    features: dict[Protocol, Features] = {}
    for protocol, user_row in zip(PROTOCOLS, np.split(ratings.users + group, len(PROTOCOLS)), strict=True):
        statistics, names = causal_statistics(tables[protocol], items)
        features[protocol] = Features(
            user_vectors=np.concatenate([full_users, vectors]),
            item_vectors=np.concatenate([fit.items.vectors for fit in fits]),
            item_row=item_row,
            user_row=user_row.astype(np.int32),
            state=np.where(as_fitted, ratings.user, user_row).astype(np.int32),
            statistics=np.column_stack([statistics, states[protocol][1]]),
            statistic_names=[*names, AFFINITY],
        )
    affinity = states["online"][1]
    of_affinity = validation(ratings.user[valid], ratings.label[valid], affinity[valid])
    metrics = {
        "model": params.model,
        "epoch": epochs,
        **{f"valid_{name}": value for name, value in measured.items()},
        **{f"valid_{name}_of_affinity": value for name, value in of_affinity.items()},
        "train_auc_of_affinity": auc(ratings.label[train], affinity[train]),
        "statistics": len(features["online"].statistic_names),
    }
    return features, metrics, full


def fits_of_train(
    user: NDArray[Any], time: NDArray[Any], train: Rows, folds: int, seed: int
) -> Iterator[tuple[Rows, Rows]]:
    """Pairs of rows: what to fit on, and what this fit serves. Together they serve all of `train` (sorted), each once.

    Train's time is cut into `folds` of about equal size. A fold after the first is served by a fit on all strictly
    earlier rows. The users of the first are dealt out at random; each hand is served by a fit on the other hands.

    Raises:
        UserError: the first fold has only one user.
    """
    moment = time[train]
    edges = np.sort(moment)[np.arange(1, folds) * len(train) // folds]
    fold = np.searchsorted(edges, moment, side="right")
    first = train[fold == fold.min()]
    users, of_user = np.unique(user[first], return_inverse=True)
    if len(users) == 1:
        raise UserError(
            f"the first of {folds} folds of train's time holds one user alone, and nothing is left to fit on; bring "
            "more users, or widen dataset.windows"
        )
    hand = np.random.default_rng(seed).permutation(len(users))[of_user] % folds
    for number in np.unique(hand).tolist():
        yield first[hand != number], first[hand == number]
    for number in np.unique(fold)[1:].tolist():
        yield train[fold < number], train[fold == number]


def _states(ratings: Ratings, fits: list[_Fit]) -> tuple[Floats, Floats]:
    """Every row's user vector (n, d) by the fit that serves it, and its logit (n,) without the user's bias."""
    vectors = np.zeros((len(ratings.user), len(fits[0].rotation)), np.float32)
    affinity = np.zeros(len(ratings.user), np.float32)
    for fit in fits:
        states, biases = fit.model.states(ratings, ratings.start[fit.rows], ratings.end[fit.rows])
        vectors[fit.rows] = states @ fit.rotation
        # The running rates know the user's bias already.
        affinity[fit.rows] = fit.items.logits(vectors[fit.rows], biases, ratings.item[fit.rows]) - biases
    return vectors, affinity
