"""The ordinary recommenders by name, and how each is fitted with valid as its judge (METHOD §3)."""

from __future__ import annotations

from typing import Any

import numpy as np

from thinkrec.features.lightgcn import LightGCN
from thinkrec.features.mf import MatrixFactorisation
from thinkrec.features.ratings import Ratings
from thinkrec.features.recommender import Recommender, Rows, fit
from thinkrec.features.sasrec import GSASRec, SASRec
from thinkrec.metrics import validation
from thinkrec.params import FeatureModel, RecommenderParams

MODELS: dict[FeatureModel, Any] = {
    "mf": MatrixFactorisation,
    "lightgcn": LightGCN,
    "sasrec": SASRec,
    "gsasrec": GSASRec,
}
PATIENCE = 5  # epochs without a better valid objective


def fit_model(
    kind: FeatureModel, ratings: Ratings, train: Rows, valid: Rows, params: RecommenderParams, *, seed: int
) -> tuple[Recommender, int, dict[str, float]]:
    """A model fitted on the rows `train`, as its best epoch on the rows `valid` left it.

    With it, that epoch, from 1, and what `metrics.validation` measured after it.
    """
    model = MODELS[kind](ratings, train, params, seed=seed)

    def validate() -> dict[str, float]:
        return validation(ratings.user[valid], ratings.label[valid], model.logits(ratings, valid))

    # Where valid has one class only there is nothing to judge by: all epochs are trained.
    judged = len(np.unique(ratings.label[valid])) > 1
    measured = fit(
        model,
        epochs=params.epochs,
        learning_rate=params.learning_rate,
        seed=seed,
        patience=PATIENCE,
        validate=validate if judged else None,
        progress=kind,
    )
    if not measured:
        return model, params.epochs, validate()
    best = max(range(len(measured)), key=lambda epoch: measured[epoch]["objective"])
    return model, best + 1, measured[best]


def refit(
    kind: FeatureModel, ratings: Ratings, rows: Rows, params: RecommenderParams, *, epochs: int, seed: int
) -> Recommender:
    """The same model fitted on other rows for as many epochs, unjudged: a fold of a cross-fit."""
    model = MODELS[kind](ratings, rows, params, seed=seed)
    fit(model, epochs=epochs, learning_rate=params.learning_rate, seed=seed)
    return model
