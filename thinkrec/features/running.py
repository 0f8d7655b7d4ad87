"""Causal running counts: the likes and interactions of a key (a user, an item, everything) before a moment.

Only rows with a *strictly earlier* timestamp count, so rows of the same second do not see each other, whatever their
order in the table. All arrays are flat and as long as the interaction table (n), in its order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thinkrec.history import history_bounds

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SMOOTHING = 5.0  # pseudo-interactions of every running rate (METHOD §5)


def running_counts(key: ArrayLike, timestamp: ArrayLike, label: ArrayLike) -> tuple[Ints, Ints]:
    """Likes, and interactions, of each row's key at strictly earlier timestamps (n, n). O(n log n)."""
    key_n, time_n, label_n = np.asarray(key), np.asarray(timestamp), np.asarray(label)
    order = np.lexsort((time_n, key_n))
    start, end = history_bounds(key_n[order], time_n[order])
    likes_before = np.concatenate([[0], np.cumsum(label_n[order], dtype=np.int64)])
    likes_n, count_n = np.empty(len(order), np.int64), np.empty(len(order), np.int64)
    likes_n[order] = likes_before[end] - likes_before[start]
    count_n[order] = end - start
    return likes_n, count_n


def smoothed_rate(likes: ArrayLike, count: ArrayLike, prior: ArrayLike, *, smoothing: float = SMOOTHING) -> Floats:
    """(likes + smoothing * prior) / (count + smoothing): `smoothing` is how many interactions the prior is worth."""
    above = np.asarray(likes, dtype=np.float64) + smoothing * np.asarray(prior, dtype=np.float64)
    rate: Floats = above / (np.asarray(count, dtype=np.float64) + smoothing)
    return rate


def log_odds(rate: ArrayLike) -> Floats:
    """The logit of a rate strictly between 0 and 1."""
    rate_n = np.asarray(rate, dtype=np.float64)
    odds: Floats = np.log(rate_n) - np.log1p(-rate_n)
    return odds
