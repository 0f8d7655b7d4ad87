"""gSASRec as its authors fit it (Petrov and Macdonald, RecSys 2023): what is liked next, against many drawn items.

The project's own gSASRec (`features.sasrec`) is fitted to tell likes from dislikes among what was rated, and chosen by
AUC. This one reads likes alone: each is a positive, with many drawn items as its negatives. Its epoch is the best on
valid by NDCG@10 of a full ranking.

Shapes: n interactions, q questions, I items.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd

from thinkrec.features.ratings import Ratings
from thinkrec.features.recommender import Rows, fit, running_sums
from thinkrec.features.sasrec import GSASRec
from thinkrec.params import SasRecParams
from thinkrec.ranking.expected import Floats, Ints, find_places, ranking_metrics
from thinkrec.ranking.protocols import Questions, make_questions, sample_users

# Chosen on the synthetic world's valid split by NDCG@10, temporal protocol; the loss is the authors' own.
SETTINGS = SasRecParams(dim=32, learning_rate=0.005, history=50)
EPOCHS, PATIENCE = 60, 5
VALID_USERS = 1000  # asked about after each epoch, at most: bounds memory
LAST = float(np.finfo(np.float32).min)  # the score of items that the fit never saw


class LikesGSASRec(GSASRec):
    """gSASRec over likes alone."""

    negatives = 256
    calibration = 0.75

    def __init__(self, ratings: Ratings, rows: Rows, params: SasRecParams, *, seed: int) -> None:
        super().__init__(ratings, rows, params, seed=seed)
        self.bias = 0.0  # the log-odds of labels of one class


def fit_gsasrec(interactions: pd.DataFrame, items: int, rows: Ints, seed: int) -> Callable[[Questions], Floats]:
    """What a model fitted on the likes among `rows` makes of every item for each question (q, I).

    Its number of epochs is the best on valid, fitted on train.

    Raises:
        UserError: nobody likes anything of valid.
    """
    liked = (interactions["label"] == 1).to_numpy()
    place = running_sums(liked.astype(np.int64))  # (n + 1,) a row's number among the likes
    likes = Ratings.of(interactions[liked], items=items)
    train = np.flatnonzero((interactions["split"] == "train").to_numpy())
    asked = sample_users(make_questions(interactions, "temporal", "valid")[0], VALID_USERS, seed)
    candidate = asked.candidates(interactions, items)
    user, item = asked.user[asked.liked], asked.item[asked.liked]

    def make(fitted: Ints) -> LikesGSASRec:
        return LikesGSASRec(likes, place[fitted[liked[fitted]]], SETTINGS, seed=seed)

    def score(model: LikesGSASRec, questions: Questions) -> Floats:
        side = model.items()
        states, _ = model.states(likes, place[questions.start], place[questions.end])
        return np.where(model.known_item.numpy() > 0, states @ side.vectors.T + side.biases, LAST)

    def validate() -> dict[str, float]:
        places = find_places(score(model, asked), candidate, user, item)
        return {"objective": float(ranking_metrics(user, *places, len(candidate))["ndcg@10"].mean())}

    train_on = partial(fit, learning_rate=SETTINGS.learning_rate, seed=seed, progress="gsasrec on likes")
    model = make(train)
    measured = [each["objective"] for each in train_on(model, epochs=EPOCHS, patience=PATIENCE, validate=validate)]
    if not np.array_equal(rows, train):
        model = make(rows)
        train_on(model, epochs=int(np.argmax(measured)) + 1)
    return partial(score, model)
