"""The plain baselines that the paper leaves out (METHOD §5): what counting alone achieves, without any model.

Each takes the interaction table (`artifacts.INTERACTIONS`, n rows) and returns a probability of "like" for every row
(n). They are meant for valid and test rows; the item's like-rate of a train row includes that row's own label.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thinkrec.artifacts import SPLITS
from thinkrec.features.running import log_odds, running_counts, smoothed_rate

Floats = NDArray[np.float64]

SMOOTHING = 5.0


def train_rate(interactions: pd.DataFrame) -> float:
    """The share of likes in train: the prior of every rate here. Half a pseudo-count keeps it off 0 and 1."""
    label = interactions.loc[interactions["split"] == "train", "label"]
    return float(smoothed_rate(label.sum(), len(label), 0.5, smoothing=1.0))


def item_like_rate(interactions: pd.DataFrame, *, smoothing: float = SMOOTHING) -> Floats:
    """The item's share of likes in train, drawn to the global one: the same for every user."""
    item = interactions["item"].to_numpy()
    train = (interactions["split"] == "train").to_numpy()
    label = interactions["label"].to_numpy()
    items = int(item.max()) + 1 if len(item) else 0
    likes = np.bincount(item[train], label[train], minlength=items)
    count = np.bincount(item[train], minlength=items)
    rate: Floats = smoothed_rate(likes, count, train_rate(interactions), smoothing=smoothing)[item]
    return rate


def running_rates(interactions: pd.DataFrame, *, frozen: bool = False, smoothing: float = SMOOTHING) -> Floats:
    """The user's and the item's like-rates so far, joined as independent evidence: their log-odds add up.

    "So far" is the online protocol: every strictly earlier interaction counts, of any split. With `frozen` the
    clock stops where the row's split starts, as for a model that is not updated while it serves.
    """
    timestamp, label = interactions["timestamp"].to_numpy(), interactions["label"].to_numpy()
    until = _split_start(interactions) if frozen else timestamp
    prior = train_rate(interactions)
    total = np.full(len(label), log_odds(prior))
    for key in ("user", "item"):
        likes, count = running_counts(interactions[key].to_numpy(), timestamp, label, until=until)
        # What a rate adds to the prior, which is thus counted once: no history at all leaves the prior.
        total += log_odds(smoothed_rate(likes, count, prior, smoothing=smoothing)) - log_odds(prior)
    probability: Floats = 1 / (1 + np.exp(-total))
    return probability


def _split_start(interactions: pd.DataFrame) -> NDArray[np.int64]:
    """The earliest timestamp of each row's split (n)."""
    split, timestamp = interactions["split"], interactions["timestamp"]
    starts = {name: timestamp[split == name].min() for name in SPLITS if (split == name).any()}
    return split.astype(object).map(starts).to_numpy(dtype=np.int64)
