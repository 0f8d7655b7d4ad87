"""The baselines: what is achieved without a language model (METHOD §5).

The plain ones, which the paper leaves out, count; the ordinary recommenders are those that also make features.

Each is a *fit*: it takes the interaction table (`artifacts.INTERACTIONS`, n rows, of which it learns from train alone)
and the item table, and returns a *scorer*. A scorer gives every row of an interaction table (n rows, of the same users
and items) a probability of "like" (n). On the table itself that is the online protocol: every strictly earlier
interaction is known, of any split. On `static_view(table)` it is the static one. Scores are meant for valid and test
rows: all fits have seen the labels of train.

The constants were chosen on valid, by log loss summed over MovieLens 1M and the synthetic world; the comments give what
was compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from thinkrec.features.bank import Features
from thinkrec.features.models import MODELS, fit_model
from thinkrec.features.ratings import Ratings
from thinkrec.features.running import global_rate, log_odds, running_counts, smoothed_rate
from thinkrec.features.statistics import causal_statistics
from thinkrec.history import PROTOCOLS, Protocol, ScoredModel
from thinkrec.metrics import auc, uauc
from thinkrec.params import FeatureModel, Params, RecommenderParams

Floats = NDArray[np.float64]
Scorer = Callable[[pd.DataFrame], Floats]
Fit = Callable[..., Scorer]

SMOOTHING = 5.0  # METHOD §5: pseudo-interactions of every rate
SHOWN_CATEGORIES = 100  # with a column of their own: all of a movie dataset's, the commonest of a shop's thousands

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
    rate = smoothed_rate(likes, count, train_rate(interactions), smoothing=SMOOTHING)
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
            total += log_odds(smoothed_rate(likes, count, prior, smoothing=SMOOTHING)) - log_odds(prior)
        probability: Floats = 1 / (1 + np.exp(-total))
        return probability

    return score


@dataclass(frozen=True, slots=True, kw_only=True)
class _Categories:
    """The categories of interactions, as pairs: an item has few of what may be thousands.

    Shapes: n interactions, m pairs.
    """

    row: NDArray[np.int64]  # (m,) rising
    category: NDArray[np.int64]  # (m,) by name; rising within a row
    often: NDArray[np.int64]  # numbers of the SHOWN_CATEGORIES that most items have, rising

    @classmethod
    def of(cls, items: pd.DataFrame, item: NDArray[np.integer]) -> _Categories:
        """The categories of the `items` that interactions are about, `item` (n)."""
        names, number = np.unique([name for row in items["categories"] for name in set(row)], return_inverse=True)
        holder = np.repeat(np.arange(len(items)), [len(set(row)) for row in items["categories"]])
        order = np.lexsort((number, holder))
        number, size = number[order], np.bincount(holder, minlength=len(items))
        start, length = np.cumsum(size) - size, size[item]
        first = np.repeat(start[item] - (np.cumsum(length) - length), length)
        most = np.argsort(-np.bincount(number, minlength=len(names)), kind="stable")
        return cls(
            row=np.repeat(np.arange(len(item)), length),
            category=number[first + np.arange(len(first))],
            often=np.sort(most[:SHOWN_CATEGORIES]),
        )

    def columns(self, rows: int) -> NDArray[np.float32]:
        """Multi-hot columns of the categories shown (n, at most SHOWN_CATEGORIES)."""
        shown = np.isin(self.category, self.often)
        column_nc = np.zeros((rows, max(len(self.often), 1)), np.float32)
        column_nc[self.row[shown], np.searchsorted(self.often, self.category[shown])] = 1
        return column_nc


def plain_statistics(interactions: pd.DataFrame, items: pd.DataFrame) -> pd.DataFrame:
    """The columns of METHOD §5's learned baselines (n rows, 7 columns and one for each of the commonest categories).

    Log-odds of the running like-rates of the user, of the item, and of the user in the item's categories; log1p of the
    interactions that each rests on; the item's release year, NaN where unknown; its categories, multi-hot. Only
    strictly earlier interactions count, for the prior too, and rows of the same second are blind to each other.
    """
    user, item, time, label = (interactions[name].to_numpy() for name in ("user", "item", "timestamp", "label"))
    categories = _Categories.of(items, item)
    prior = global_rate(time, label, smoothing=SMOOTHING)
    user_likes, user_count = running_counts(user, time, label)
    item_likes, item_count = running_counts(item, time, label)
    user_rate = smoothed_rate(user_likes, user_count, prior, smoothing=SMOOTHING)
    item_rate = smoothed_rate(item_likes, item_count, prior, smoothing=SMOOTHING)
    affinity, affinity_count = _category_affinity(categories, user, time, label, user_rate)
    columns = {
        "user_log_odds": log_odds(user_rate),
        "user_log_count": np.log1p(user_count),
        "item_log_odds": log_odds(item_rate),
        "item_log_count": np.log1p(item_count),
        "affinity_log_odds": affinity,
        "affinity_log_count": np.log1p(affinity_count),
        "year": items["year"].to_numpy(np.float64, na_value=np.nan)[item],
    }
    columns |= {f"category_{number}": column for number, column in enumerate(categories.columns(len(item)).T)}
    return pd.DataFrame(columns)


def _category_affinity(
    categories: _Categories, user: ArrayLike, time: ArrayLike, label: ArrayLike, user_rate: Floats
) -> tuple[Floats, Floats]:
    """The log-odds of the user's running like-rate in a category, and its interactions (n, n): means over categories.

    A row without categories has the log-odds of its user's rate, resting on nothing.
    """
    # Other forms were tried for logistic regression on MovieLens 1M, where an item has up to six categories (AUC / UAUC
    # / log loss on valid). Drawn to the user's own rate, as here: mean of log-odds .7702 / .6728 / .5713, rate of mean
    # counts .7701 / .6691 / .5716, of pooled counts .7699 / .6651 / .5719, of interactions that share any category
    # .7695 / .6652 / .5723. Mean of log-odds drawn to everybody's rate so far: .7700 / .6754 / .5713. The form kept has
    # the best AUC, no log loss is better, and it gives METHOD §5's figures on test.

    # m: one event for every category of every row.
    row_m, category_m, rows = categories.row, categories.category, len(user_rate)
    key_m = np.asarray(user, dtype=np.int64)[row_m] * (category_m.max(initial=0) + 1) + category_m
    likes_m, count_m = running_counts(key_m, np.asarray(time)[row_m], np.asarray(label)[row_m])
    # What the category adds to the user's rate: nothing where there is no category.
    gain_m = log_odds(smoothed_rate(likes_m, count_m, user_rate[row_m], smoothing=SMOOTHING))
    gain_m -= log_odds(user_rate[row_m])
    gain, count = (np.bincount(row_m, value_m, minlength=rows) for value_m in (gain_m, count_m))
    several = np.maximum(np.bincount(row_m, minlength=rows), 1)
    return log_odds(user_rate) + gain / several, count / several


def logistic_regression(interactions: pd.DataFrame, items: pd.DataFrame) -> Scorer:
    """Logistic regression on the plain statistics, standardised; an unknown year counts as the mean one."""
    return _classify(_logistic(), partial(plain_statistics, items=items), interactions)


def boosted_trees(interactions: pd.DataFrame, items: pd.DataFrame) -> Scorer:
    """Gradient-boosted trees on the plain statistics; an unknown year is a value of its own."""
    trees = HistGradientBoostingClassifier(
        max_iter=TREES,
        learning_rate=TREE_LEARNING_RATE,
        max_leaf_nodes=TREE_LEAVES,
        min_samples_leaf=TREE_MIN_ROWS,
        # Stopping early would take a random part of train away; the number of trees is fixed instead.
        early_stopping=False,
        random_state=0,
    )
    return _classify(trees, partial(plain_statistics, items=items), interactions)


def logistic_kernels(
    interactions: pd.DataFrame, items: pd.DataFrame, *, smoothing: float, kernel_history: int
) -> Scorer:
    """Logistic regression on the causal statistics of the language model's slots, without any learned vector.

    `smoothing` and `kernel_history` are those of `params.features`.
    """

    def statistics(table: pd.DataFrame) -> Floats:
        columns, _ = causal_statistics(table, items, smoothing=smoothing, kernel_history=kernel_history)
        return columns.astype(np.float64)

    return _classify(_logistic(), statistics, interactions)


PLAIN: dict[str, Fit] = {
    "item_like_rate": item_like_rate,
    "running_rates": running_rates,
    "logistic_regression": logistic_regression,
    "boosted_trees": boosted_trees,
}


def recommender(
    interactions: pd.DataFrame, items: pd.DataFrame, *, kind: FeatureModel, params: RecommenderParams, seed: int
) -> Scorer:
    """An ordinary recommender, fitted on train as its best epoch on valid; a user is what the user's history says."""
    split = interactions["split"].to_numpy()
    train, valid = np.flatnonzero(split == "train"), np.flatnonzero(split == "valid")
    model, _, _ = fit_model(kind, Ratings.of(interactions, items=len(items)), train, valid, params, seed=seed)

    def score(table: pd.DataFrame) -> Floats:
        logits = model.logits(Ratings.of(table, items=len(items)), np.arange(len(table)))
        return 1 / (1 + np.exp(-logits.astype(np.float64)))

    return score


def baseline_fits(params: Params) -> dict[str, Fit]:
    """Every baseline by name, its parameters filled in: the plain ones, then the ordinary recommenders."""
    kernels = partial(
        logistic_kernels, smoothing=params.features.smoothing, kernel_history=params.features.kernel_history
    )
    ordinary = {
        kind: partial(recommender, kind=kind, params=getattr(params, kind), seed=params.seed) for kind in MODELS
    }
    return PLAIN | {"logistic_kernels": kernels} | ordinary


def logistic_slots(interactions: pd.DataFrame, features: Mapping[Protocol, Features]) -> dict[Protocol, Floats]:
    """Logistic regression on all statistics of the slots, the feature model's affinity too: scores (n) by protocol.

    What the language model has to be better than to have added anything to what it is told.
    """
    predict = _fitted(_logistic(), features["online"].statistics.astype(np.float64), interactions)
    return {protocol: predict(one.statistics.astype(np.float64)) for protocol, one in features.items()}


def protocol_scores(
    interactions: pd.DataFrame, items: pd.DataFrame, fits: Mapping[str, Fit]
) -> dict[ScoredModel, Floats]:
    """The scores (n) of every baseline under both protocols, each fitted once.

    Raises:
        ValueError: the splits overlap in time.
    """
    views = {protocol: view(interactions) for protocol, view in PROTOCOLS.items()}
    scores: dict[ScoredModel, Floats] = {}
    for name, fit in fits.items():
        score = fit(interactions, items)
        scores |= {ScoredModel(name, protocol): score(table) for protocol, table in views.items()}
    return scores


def baseline_scores(
    interactions: pd.DataFrame,
    items: pd.DataFrame,
    fits: Mapping[str, Fit],
    features: Mapping[Protocol, Features],
) -> tuple[pd.DataFrame, dict[str, dict[str, float]]]:
    """Every baseline's probabilities of valid and test rows (schema BASELINES), and what each measures on valid.

    The measures are of the online protocol: by name, `valid_auc` and `valid_uauc`.
    """
    rows = np.flatnonzero((interactions["split"] != "train").to_numpy())
    scores = protocol_scores(interactions, items, fits)
    slots = logistic_slots(interactions, features)
    scores |= {ScoredModel("logistic_slots", protocol): score for protocol, score in slots.items()}
    valid = (interactions["split"] == "valid").to_numpy()
    user, label = interactions["user"].to_numpy()[valid], interactions["label"].to_numpy()[valid]
    metrics = {
        model.name: {"valid_auc": auc(label, score[valid]), "valid_uauc": uauc(user, label, score[valid])[0]}
        for model, score in scores.items()
        if model.protocol == "online"
    }
    columns = {model.column: score[rows].astype(np.float32) for model, score in scores.items()}
    return pd.DataFrame({"row": rows} | columns), metrics


def _logistic() -> Any:
    return make_pipeline(
        SimpleImputer(),
        StandardScaler(),
        LogisticRegression(C=INVERSE_L2, max_iter=1000),
    )


def _classify(classifier: Any, statistics: Callable[[pd.DataFrame], ArrayLike], interactions: pd.DataFrame) -> Scorer:
    predict = _fitted(classifier, statistics(interactions), interactions)
    return lambda table: predict(statistics(table))


def _fitted(classifier: Any, columns: ArrayLike, interactions: pd.DataFrame) -> Callable[[ArrayLike], Floats]:
    """Fit a scikit-learn classifier on train's columns (n, c); without both classes there, train's rate is all.

    What it returns gives the probability (n,) of other columns (n, c).
    """
    train = (interactions["split"] == "train").to_numpy()
    label = interactions["label"].to_numpy()[train]
    if len(np.unique(label)) < 2:
        rate = train_rate(interactions)
        return lambda columns: np.full(len(np.asarray(columns)), rate)
    fitted = np.asarray(columns)[train]
    known = ~np.isnan(fitted).all(axis=0)  # where no item has a year, there is nothing to be learned of years
    classifier.fit(fitted[:, known], label)
    return lambda columns: classifier.predict_proba(np.asarray(columns)[:, known])[:, 1]
