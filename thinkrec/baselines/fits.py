"""How each baseline is fitted (METHOD §5).

A *fit* takes the interactions (`artifacts.INTERACTIONS`, n rows) and the items, with a column `keywords` for ordinary
recommenders. It learns from train alone and returns a *scorer*, which gives every row of an interaction table (of the
same users and items) a probability of "like" (n): of the table itself under the online protocol, of
`static_view(table)` under the static one. A new baseline is a line of PLAIN, and has its display name in
`evaluation.models`.

The constants were chosen on valid, by log-loss summed over MovieLens 1M and the synthetic world. The comments give what
was compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from thinkrec.baselines.plain_statistics import plain_statistics
from thinkrec.features.models import fit_model
from thinkrec.features.ratings import Ratings
from thinkrec.features.running import log_odds, running_counts, smoothed_rate
from thinkrec.features.statistics import causal_statistics
from thinkrec.metrics import sigmoid
from thinkrec.params import FeatureModel, RecommenderParams

Floats = NDArray[np.float64]
Scorer = Callable[[pd.DataFrame], Floats]
Fit = Callable[[pd.DataFrame, pd.DataFrame], Scorer]

# scikit-learn's C, for standardised columns. Of .001, .003, .01, .1, 1: the best for both regressions; .1 and 1 are
# within .0003 of it.
INVERSE_L2 = 0.01
# Of learning rates .03, .05, .1; 4, 8, 16 leaves; at least 50, 100, 200 rows in each; L2 0 and 10; 50 to 400 trees (200
# at rate .1). The choice is no sharp one: 26 others are within .0005 of it, and the twenty best have UAUCs from .678 to
# .690 on MovieLens 1M's test split.
TREES = 150
TREE_LEARNING_RATE = 0.05
TREE_LEAVES = 8
TREE_MIN_ROWS = 100


def train_rate(interactions: pd.DataFrame) -> float:
    """The share of likes in train. Half a pseudo-count keeps it off 0 and 1."""
    label = interactions.loc[interactions["split"] == "train", "label"]
    return float(smoothed_rate(label.sum(), len(label), 0.5, smoothing=1.0))


def item_like_rate(interactions: pd.DataFrame, items: pd.DataFrame) -> Scorer:
    """The item's share of likes in train, drawn to the global one: the same for every user and at any time."""
    train = interactions[interactions["split"] == "train"]
    likes = np.bincount(train["item"], train["label"], minlength=len(items))
    count = np.bincount(train["item"], minlength=len(items))
    rate = smoothed_rate(likes, count, train_rate(interactions))
    return lambda table: rate[table["item"].to_numpy()]


def running_rates(interactions: pd.DataFrame, items: pd.DataFrame) -> Scorer:
    """The user's and the item's like-rates so far, joined as independent evidence: their log-odds add up.

    Train gives the prior, and that is all there is to fit.
    """
    prior = train_rate(interactions)

    def score(table: pd.DataFrame) -> Floats:
        total = np.full(len(table), log_odds(prior))
        for key in ("user", "item"):
            likes, count = running_counts(table[key], table["timestamp"], table["label"])
            # What a rate adds to the prior, which is thus counted once: no history at all leaves the prior.
            total += log_odds(smoothed_rate(likes, count, prior)) - log_odds(prior)
        return sigmoid(total)

    return score


def _classify(
    classifier: Any, statistics: Callable[[pd.DataFrame, pd.DataFrame], ArrayLike]
) -> Callable[[pd.DataFrame, pd.DataFrame], Scorer]:
    """The fit of a scikit-learn classifier on the statistics (n, c) of interactions and items."""

    def fit(interactions: pd.DataFrame, items: pd.DataFrame) -> Scorer:
        predict = fit_classifier(classifier(), statistics(interactions, items), interactions)
        return lambda table: predict(statistics(table, items))

    return fit


def make_logistic() -> Any:
    """Logistic regression on standardised columns; an unknown value counts as the mean one."""
    return make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression(C=INVERSE_L2, max_iter=1000))


def make_trees() -> Any:
    """Gradient-boosted trees; an unknown value is a value of its own."""
    return HistGradientBoostingClassifier(
        max_iter=TREES,
        learning_rate=TREE_LEARNING_RATE,
        max_leaf_nodes=TREE_LEAVES,
        min_samples_leaf=TREE_MIN_ROWS,
        # Stopping early would take a random part of train away; the number of trees is fixed instead.
        early_stopping=False,
        random_state=0,
    )


def _slot_statistics(interactions: pd.DataFrame, items: pd.DataFrame) -> Floats:
    """The causal statistics of the language model's slots, without any learned vector."""
    return causal_statistics(interactions, items)[0].astype(np.float64)


PLAIN: dict[str, Fit] = {
    "item_like_rate": item_like_rate,
    "running_rates": running_rates,
    "logistic_regression": _classify(make_logistic, plain_statistics),
    "boosted_trees": _classify(make_trees, plain_statistics),
    "logistic_kernels": _classify(make_logistic, _slot_statistics),
}


def recommender(
    interactions: pd.DataFrame,
    items: pd.DataFrame,
    *,
    kind: FeatureModel,
    params: RecommenderParams,
    epochs: int,
    seed: int,
) -> Scorer:
    """An ordinary recommender fitted on train, as of its best epoch on valid; users are known by their histories."""
    train, valid = (np.flatnonzero(interactions["split"] == split) for split in ("train", "valid"))
    ratings = Ratings.of(interactions, items=len(items), keywords=items["keywords"])
    model, _, _ = fit_model(kind, ratings, train, valid, params, epochs=epochs, seed=seed)
    return lambda table: sigmoid(model.logits(Ratings.of(table, items=len(items)), np.arange(len(table))))


def fit_classifier(classifier: Any, columns: ArrayLike, interactions: pd.DataFrame) -> Callable[[ArrayLike], Floats]:
    """Fit a scikit-learn classifier on train's columns (n, c); without both classes there, train's rate is all.

    What it returns gives the probability (n,) of other columns (n, c).
    """
    train = (interactions["split"] == "train").to_numpy()
    label = interactions["label"].to_numpy()[train]
    if len(np.unique(label)) < 2:
        rate = train_rate(interactions)
        return lambda columns: np.full(len(np.asarray(columns)), rate)
    fitted = np.asarray(columns)[train]
    has_values = ~np.isnan(fitted).all(axis=0)  # where no item has a year, there is nothing to be learned of years
    classifier.fit(fitted[:, has_values], label)
    return lambda columns: classifier.predict_proba(np.asarray(columns)[:, has_values])[:, 1]
