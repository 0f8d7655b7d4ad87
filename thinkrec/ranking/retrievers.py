"""Models that score the whole catalogue for a user at a moment: popularity, neighbours, EASE, ordinary recommenders.

All are fitted on the rows that a protocol allows; a user is known by what happened before the moment.

Shapes: n interactions, q questions, I items, d dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_array

from thinkrec.features.models import MODELS, fit_model, refit_model
from thinkrec.features.ratings import Ratings
from thinkrec.features.recommender import Recommender
from thinkrec.params import FeatureModel, Params
from thinkrec.ranking.expected import Ints
from thinkrec.ranking.gsasrec import fit_gsasrec
from thinkrec.ranking.protocols import Questions

Scores = NDArray[np.floating]
Retriever = Callable[[Questions], Scores]  # what it makes of every item for every question (q, I)

MONTH = 30 * 86_400  # seconds
MOST_ITEMS = 20_000  # of a model that holds a square matrix of them
# Chosen on the synthetic world's valid split by NDCG@10, temporal protocol: of 5 to all 648 neighbours (.144 to
# .174) and of ridges of 1 to 3000 (.101 to .177; 300: .176).
NEIGHBOURS = 500
RIDGE = 1000.0
POPULAR, UNION, ON_LIKES = "popular", "union", "gsasrec_likes"
WEIGHTED = "thinkrec_popular"  # ThinkRec's probability times the likes before the moment: rated, and then liked
NAMES = {
    "ease": "EASE",
    "item_knn": "item kNN",
    POPULAR: "popularity",
    WEIGHTED: "ThinkRec × popularity",
    "popular_month": "popularity, last 30 days",
    ON_LIKES: "gSASRec on likes",
    UNION: "the recommenders, ranks fused",
    "chance": "chance",
}


def fit_retrievers(interactions: pd.DataFrame, items: pd.DataFrame, rows: Ints, params: Params) -> dict[str, Retriever]:
    """Every model by name, fitted on `rows`; `items` has a column `keywords`.

    An ordinary recommender takes the number of epochs that is best on valid, fitted on train.
    """
    ratings = Ratings.of(interactions, items=len(items), keywords=items["keywords"])
    train, valid = (np.flatnonzero(interactions["split"] == split) for split in ("train", "valid"))
    retrievers: dict[str, Retriever] = {
        "chance": lambda questions: np.zeros((len(questions.row), len(items)), np.float32),
        POPULAR: popularity(interactions, len(items), np.inf),
        "popular_month": popularity(interactions, len(items), MONTH),
    }
    if len(items) <= MOST_ITEMS:
        together = count_together(interactions.iloc[rows], len(items))
        for name, weights in (("item_knn", item_knn(together, NEIGHBOURS)), ("ease", ease(together, RIDGE))):
            retrievers[name] = partial(_neighbours, interactions, weights)
    for kind in MODELS:
        recommender = _fit_recommender(kind, ratings, train, valid, rows, params)
        retrievers[kind] = affinities(recommender, ratings)
    retrievers[ON_LIKES] = fit_gsasrec(interactions, len(items), rows, params.seed)
    return retrievers


def _neighbours(interactions: pd.DataFrame, weights: Scores, questions: Questions) -> Scores:
    return likes_before(interactions, questions, len(weights)) @ weights


def _fit_recommender(
    kind: FeatureModel, ratings: Ratings, train: Ints, valid: Ints, rows: Ints, params: Params
) -> Recommender:
    of_kind, seed = params.recommender(kind), params.seed
    model, epochs, _ = fit_model(kind, ratings, train, valid, of_kind, epochs=params.features.epochs, seed=seed)
    if np.array_equal(rows, train):
        return model
    return refit_model(kind, ratings, rows, of_kind, epochs=epochs, seed=seed)


def affinities(model: Recommender, ratings: Ratings) -> Retriever:
    """An ordinary recommender's logits, without the user's bias, which changes no order."""
    side = model.items()
    return lambda asked: model.states(ratings, asked.start, asked.end)[0] @ side.vectors.T + side.biases


def popularity(interactions: pd.DataFrame, items: int, seconds: float) -> Retriever:
    """Everybody's likes of an item in the last `seconds` before the moment."""
    moment = interactions["timestamp"].to_numpy(np.int64)
    liked = interactions[interactions["label"] == 1].sort_values("timestamp", kind="stable")
    time, item = liked["timestamp"].to_numpy(np.int64), liked["item"].to_numpy()

    def count(questions: Questions) -> Scores:
        ends = moment[questions.row]
        edges = zip(np.searchsorted(time, ends - seconds), np.searchsorted(time, ends), strict=True)
        return np.stack([np.bincount(item[low:high], minlength=items) for low, high in edges]).astype(np.float32)

    return count


def likes_before(interactions: pd.DataFrame, questions: Questions, items: int) -> Scores:
    """What each question's user liked before the moment, as ones (q, I)."""
    item, label = (interactions[name].to_numpy() for name in ("item", "label"))
    liked = np.zeros((len(questions.row), items), np.float32)
    for number, (start, end) in enumerate(zip(questions.start, questions.end, strict=True)):
        liked[number, item[start:end]] = label[start:end]
    return liked


def count_together(interactions: pd.DataFrame, items: int) -> NDArray[np.float64]:
    """How many users liked both of two items (I, I)."""
    user, item, label = (interactions[name].to_numpy() for name in ("user", "item", "label"))
    likes = csr_array((label.astype(np.float64), (user, item)), shape=(int(user.max()) + 1, items))
    return np.asarray((likes.T @ likes).toarray())


def item_knn(together: NDArray[np.float64], neighbours: int) -> Scores:
    """Item-based neighbours (Deshpande and Karypis, TOIS 2004): weights (I, I), the cosines of who liked two items.

    Of every scored item its `neighbours` largest are kept (there, of every liked one); none is its own neighbour.
    """
    norm = np.sqrt(np.maximum(together.diagonal(), 1))
    cosine = together / norm / norm[:, None]
    np.fill_diagonal(cosine, 0)
    kept = np.argsort(-cosine, axis=1, kind="stable")[:, :neighbours]
    weights = np.zeros_like(cosine)
    np.put_along_axis(weights, kept, np.take_along_axis(cosine, kept, axis=1), axis=1)
    return np.asarray(weights.T, np.float32)


def ease(together: NDArray[np.float64], ridge: float) -> Scores:
    """EASE (Steck, WWW 2019): weights (I, I) with a zero diagonal, B = I - P diag(1 / P), P = (X'X + ridge I)^-1."""
    inverse = np.linalg.inv(together + ridge * np.eye(len(together)))
    weights = -inverse / inverse.diagonal()
    np.fill_diagonal(weights, 0)
    return np.asarray(weights, np.float32)
