"""The baselines stage: every baseline fitted once and scored under both protocols.

Shapes: n interactions.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import joblib
import numpy as np
import pandas as pd

from thinkrec.baselines.fits import PLAIN, Fit, Floats, fit_classifier, make_logistic, recommender
from thinkrec.features.artefact import Features
from thinkrec.features.models import MODELS
from thinkrec.history import PROTOCOLS, Protocol, ScoredModel
from thinkrec.metrics import auc, uauc
from thinkrec.params import Params

Scores = dict[ScoredModel, Floats]


def score_baselines(
    interactions: pd.DataFrame, items: pd.DataFrame, features: Mapping[Protocol, Features], params: Params
) -> tuple[pd.DataFrame, dict[str, dict[str, float]]]:
    """Every baseline's probabilities of valid and test rows (schema BASELINES), and what each measures on valid.

    The measures are of the online protocol: by name, `valid_auc` and `valid_uauc`.
    """
    rows = np.flatnonzero(interactions["split"] != "train")
    scores = score_fits(interactions, items, choose_fits(params)) | score_slot_statistics(interactions, features)
    valid = (interactions["split"] == "valid").to_numpy()
    of_valid = interactions[valid]
    metrics = {
        model.name: {
            "valid_auc": auc(of_valid["label"], score[valid]),
            "valid_uauc": uauc(of_valid["user"], of_valid["label"], score[valid])[0],
        }
        for model, score in scores.items()
        if model.protocol == "online"
    }
    columns = {model.column: score[rows].astype(np.float32) for model, score in scores.items()}
    return pd.DataFrame({"row": rows} | columns), metrics


def choose_fits(params: Params) -> dict[str, Fit]:
    """Every baseline by name, with its parameters: the plain ones, then the ordinary recommenders."""
    epochs, seed = params.features.epochs, params.seed
    return PLAIN | {
        kind: partial(recommender, kind=kind, params=params.recommender(kind), epochs=epochs, seed=seed)
        for kind in MODELS
    }


def score_fits(interactions: pd.DataFrame, items: pd.DataFrame, fits: dict[str, Fit]) -> Scores:
    """The scores (n) of every baseline under both protocols, each fitted once; in parallel as joblib is configured.

    Raises:
        ValueError: the splits overlap in time.
    """
    views = {protocol: view(interactions) for protocol, view in PROTOCOLS.items()}

    def scored(name: str, fit: Fit) -> Scores:
        score = fit(interactions, items)
        return {ScoredModel(name, protocol): score(table) for protocol, table in views.items()}

    # The later ones take longer. Begun first, they leave no core waiting at the end.
    by_fit = list(joblib.Parallel()(joblib.delayed(scored)(name, fit) for name, fit in reversed(fits.items())))
    return {model: score for scores in reversed(by_fit) for model, score in scores.items()}


def score_slot_statistics(interactions: pd.DataFrame, features: Mapping[Protocol, Features]) -> Scores:
    """Logistic regression on all statistics in the slots, the feature model's affinity too (n each).

    A language model that is no better than this has added nothing to the features in its slots.
    """
    predict = fit_classifier(make_logistic(), features["online"].statistics.astype(np.float64), interactions)
    return {
        ScoredModel("logistic_slots", protocol): predict(part.statistics.astype(np.float64))
        for protocol, part in features.items()
    }
