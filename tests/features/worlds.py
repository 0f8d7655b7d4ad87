"""What tests of the recommenders share: small parameters of each, ratings from lists, and a structure to find."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thinkrec.features.models import MODELS, refit_model
from thinkrec.features.ratings import Ratings
from thinkrec.features.recommender import Recommender
from thinkrec.params import (
    FeatureModel,
    GsasRecParams,
    LightGcnParams,
    MfParams,
    RecommenderParams,
    SasRecParams,
)

KINDS: list[FeatureModel] = list(MODELS)
USERS, KNOWN_USERS, ITEMS, KNOWN_ITEMS, ROWS = 40, 30, 14, 12, 24  # of `planted`

_TRANSFORMER = {"dim": 8, "learning_rate": 0.01, "history": 4}
_PARAMS: dict[FeatureModel, RecommenderParams] = {
    "mf": MfParams(dim=2, learning_rate=0.05, weight_decay=0.001),
    "lightgcn": LightGcnParams(dim=4, learning_rate=0.05, weight_decay=0.001),
    "sasrec": SasRecParams(**_TRANSFORMER),
    "gsasrec": GsasRecParams(**_TRANSFORMER),
    "hybrid_mf": MfParams(dim=2, learning_rate=0.05, weight_decay=0.001),
    "hybrid_sasrec": SasRecParams(**_TRANSFORMER),
}


def params_of(kind: FeatureModel, **changes: Any) -> Any:
    """Small parameters of a model, with these changes."""
    return type(_PARAMS[kind])(**(_PARAMS[kind].model_dump() | changes))


def ratings_of(
    user: Sequence[int], item: Sequence[int], label: Sequence[int], *, items: int, time: Sequence[int] | None = None
) -> Ratings:
    """Ratings of these rows, each at a moment of its own unless `time` says otherwise."""
    timestamp = range(len(user)) if time is None else time
    table = pd.DataFrame({"user": user, "item": item, "label": label, "timestamp": timestamp}, dtype=np.int64)
    return Ratings.of(table, items=items)


def planted() -> tuple[Ratings, NDArray[np.int64], NDArray[np.int64]]:
    """Even users like even items, odd users odd ones: no bias tells it, one dimension does.

    Returns the ratings, the rows to fit, and the later rows of the users beyond KNOWN_USERS, none of whose rows are
    among those to fit. Items beyond KNOWN_ITEMS were never rated.
    """
    user = np.repeat(np.arange(USERS), ROWS)
    item = np.random.default_rng(0).integers(0, KNOWN_ITEMS, len(user))
    time = np.tile(np.arange(ROWS) // 2, USERS)  # two rows to a moment
    label = (user % 2 == item % 2).astype(np.int64)
    ratings = ratings_of(user.tolist(), item.tolist(), label.tolist(), items=ITEMS, time=time.tolist())
    new = user >= KNOWN_USERS
    return ratings, np.flatnonzero(~new), np.flatnonzero(new & (time >= 4))


def fitted(kind: FeatureModel, *, epochs: int = 1, seed: int = 1, **changes: Any) -> Recommender:
    """A model fitted on the rows of `planted` that are there to fit."""
    ratings, rows, _ = planted()
    return refit_model(kind, ratings, rows, params_of(kind, **changes), epochs=epochs, seed=seed)
