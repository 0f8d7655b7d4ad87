"""The ordinary recommenders by name, and how each is fitted with valid as its judge (METHOD §3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from thinkrec.artifacts import atomic, missing_artifact
from thinkrec.errors import UserError
from thinkrec.features.hybrid import HybridMF, HybridSASRec
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
    "hybrid_mf": HybridMF,
    "hybrid_sasrec": HybridSASRec,
}
PATIENCE = 5  # epochs without a better valid objective


def fit_model(
    kind: FeatureModel, ratings: Ratings, train: Rows, valid: Rows, params: RecommenderParams, *, epochs: int, seed: int
) -> tuple[Recommender, int, dict[str, float]]:
    """A model fitted on the rows `train`, as its best epoch of at most `epochs` on the rows `valid` left it.

    Returns the model, that epoch (from 1), and what `metrics.validation` measured after it. With one class only in
    valid no epoch is better than another: then all of them are trained.
    """
    model = MODELS[kind](ratings, train, params, seed=seed)

    def validate() -> dict[str, float]:
        return validation(ratings.user[valid], ratings.label[valid], model.logits(ratings, valid))

    judge = validate if len(np.unique(ratings.label[valid])) > 1 else None
    rate = params.learning_rate
    measured = fit(
        model, epochs=epochs, learning_rate=rate, seed=seed, patience=PATIENCE, validate=judge, progress=kind
    )
    if not measured:
        return model, epochs, validate()
    best = max(range(len(measured)), key=lambda epoch: measured[epoch]["objective"])
    return model, best + 1, measured[best]


def refit_model(
    kind: FeatureModel, ratings: Ratings, rows: Rows, params: RecommenderParams, *, epochs: int, seed: int
) -> Recommender:
    """The same model fitted on other rows for exactly so many epochs."""
    model = MODELS[kind](ratings, rows, params, seed=seed)
    name = f"{kind} on {len(rows):,} rows"
    fit(model, epochs=epochs, learning_rate=params.learning_rate, seed=seed, progress=name)
    return model


def save_model(model: Recommender, path: Path) -> None:
    """Write a fitted model's weights, and which users, items and keywords its fit knew, as safetensors."""
    with atomic(path) as partial:
        save_file({name: value.contiguous() for name, value in model.state_dict().items()}, partial)


def load_model(kind: FeatureModel, ratings: Ratings, rows: Rows, params: RecommenderParams, path: Path) -> Recommender:
    """Read a model that was fitted on these `rows` of `ratings`.

    Raises:
        UserError: the file is absent, or holds a model of another kind, of other parameters or of other rows.
    """
    model = MODELS[kind](ratings, rows, params, seed=0)
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    try:
        model.load_state_dict(load_file(path))
    except FileNotFoundError:
        raise missing_artifact(path) from None
    except (RuntimeError, SafetensorError):
        raise UserError(
            f"{path}: not a model as params.yaml describes it ({kind}); rerun: dvc repro features"
        ) from None
    if not all(torch.equal(value, buffers[name]) for name, value in model.named_buffers()):
        raise UserError(f"{path}: fitted on other interactions or keywords than these; rerun: dvc repro features")
    return model.eval()
