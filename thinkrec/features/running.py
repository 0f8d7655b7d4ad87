"""Causal running counts: what a key (a user, an item, everything) had received before a moment.

Counts for a row use rows with a *strictly earlier* timestamp only: rows of the same second never see each other, in
whatever order the table holds them. All arrays are flat and as long as the interaction table (n), in its order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def running_counts(
    key: ArrayLike, timestamp: ArrayLike, label: ArrayLike, *, until: ArrayLike | None = None
) -> tuple[Ints, Ints]:
    """Likes, and interactions, of each row's key at a timestamp below `until`: by default the row's own timestamp.

    O(n log n). `until` (n) stops the clock earlier, or later, than the row itself: causal if it is at most the row's.
    """
    key_n = np.unique(np.asarray(key), return_inverse=True)[1]
    time_n, label_n = np.asarray(timestamp, dtype=np.int64), np.asarray(label, dtype=np.int64)
    moments = np.unique(time_n)
    # (key, moment) as one sortable number; below n * (n + 1), so it cannot overflow.
    event_n = key_n * (len(moments) + 1) + np.searchsorted(moments, time_n)
    limit_n = np.searchsorted(moments, time_n if until is None else np.asarray(until, dtype=np.int64))
    order = np.argsort(event_n, kind="stable")
    likes_before = np.concatenate([[0], np.cumsum(label_n[order])])
    first_n = np.searchsorted(event_n[order], key_n * (len(moments) + 1))
    end_n = np.searchsorted(event_n[order], key_n * (len(moments) + 1) + limit_n)
    return likes_before[end_n] - likes_before[first_n], end_n - first_n


def global_rate(timestamp: ArrayLike, label: ArrayLike, *, smoothing: float = 5.0) -> Floats:
    """The share of likes among all strictly earlier rows (n), drawn to one half while there are few of them.

    The prior of every smoothed rate: the rate over the whole train split would tell train rows of labels to come.
    """
    likes, count = running_counts(np.zeros(len(np.asarray(label)), np.int64), timestamp, label)
    return smoothed_rate(likes, count, 0.5, smoothing=smoothing)


def smoothed_rate(likes: ArrayLike, count: ArrayLike, prior: ArrayLike, *, smoothing: float = 5.0) -> Floats:
    """(likes + smoothing * prior) / (count + smoothing): `smoothing` is how many interactions the prior is worth."""
    above = np.asarray(likes, dtype=np.float64) + smoothing * np.asarray(prior, dtype=np.float64)
    rate: Floats = above / (np.asarray(count, dtype=np.float64) + smoothing)
    return rate


def log_odds(rate: ArrayLike) -> Floats:
    """The logit of a rate strictly between 0 and 1."""
    rate_n = np.asarray(rate, dtype=np.float64)
    odds: Floats = np.log(rate_n) - np.log1p(-rate_n)
    return odds
