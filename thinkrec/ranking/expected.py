"""Metrics of a full ranking, equal scores in random order: their exact expectation, not one draw of it.

All that is needed of a ranking is where its positives stand: how many candidates score higher, how many the same. With
s candidates above a group of n equal ones, p of them positive, the first k places hold m = clip(k - s, 0, n) of the
group. Then k p m / n are the expected hits of it, and C(n - p, m) / C(n, m) is the chance of none.

Shapes: q users (questions), p positives, I items, g groups of equal scores with a positive in them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

KS = (1, 5, 10, 20, 50)
METRICS = [f"{name}@{k}" for name in ("hr", "recall", "ndcg", "mrr") for k in KS]


def find_places(score: NDArray[np.floating], candidate: Bools, user: Ints, item: Ints) -> tuple[Ints, Ints]:
    """How many candidates score higher than each (p,) of some items, and as much (itself among them).

    Args:
        score: (q, I); not NaN.
        candidate: (q, I) what is ranked.
        user: (p,) the rows of `score`, rising.
        item: (p,) candidates of these users.
    """
    above, tied = np.zeros(len(user), np.int64), np.zeros(len(user), np.int64)
    for number in np.unique(user):
        here = slice(*np.searchsorted(user, [number, number + 1]))
        ranked = np.sort(score[number, candidate[number]])
        of_items = score[number, item[here]]
        low, high = (np.searchsorted(ranked, of_items, side=side) for side in ("left", "right"))
        above[here], tied[here] = len(ranked) - high, high - low
    return above, tied


def ranking_metrics(user: Ints, above: Ints, tied: Ints, users: int) -> dict[str, Floats]:
    """METRICS of users 0..q-1 (q each), from the places of their positives (p each); every user has one at least.

    HR@k is the chance of a positive among the first k, Recall@k their share of all positives, NDCG@k with a gain of 1 a
    positive and the best order of all positives as its ideal, MRR@k the mean of 1 / the first positive's rank, 0 beyond
    k.
    """
    rank = np.arange(1, max(KS) + 1)
    groups, positives_g = np.unique(np.stack([user, above, tied]), axis=1, return_counts=True)
    user_g, above_g, tied_g = (column[:, None] for column in groups)
    places_gr = np.clip(rank - above_g, 0, tied_g)
    others_g = tied_g - positives_g[:, None]
    left_gr = np.maximum(others_g - places_gr, 0)
    log_miss_gr = gammaln(others_g + 1) - gammaln(left_gr + 1) - gammaln(tied_g + 1) + gammaln(tied_g - places_gr + 1)
    miss_gr = np.where(places_gr > others_g, 0.0, np.exp(log_miss_gr))
    hits_qr, miss_qr = np.zeros((users, len(rank))), np.ones((users, len(rank)))
    np.add.at(hits_qr, user_g[:, 0], positives_g[:, None] * places_gr / tied_g)
    np.multiply.at(miss_qr, user_g[:, 0], miss_gr)
    positives_q = np.bincount(user, minlength=users)
    discount = 1 / np.log2(rank + 1)
    ideal = np.cumsum(discount)
    gained_qr, first_qr = np.diff(hits_qr, prepend=0), np.diff(1 - miss_qr, prepend=0)
    values = {
        "hr": 1 - miss_qr,
        "recall": hits_qr / positives_q[:, None],
        "ndcg": np.cumsum(gained_qr * discount, axis=1) / ideal[np.minimum(positives_q[:, None], rank) - 1],
        "mrr": np.cumsum(first_qr / rank, axis=1),
    }
    return {f"{name}@{k}": value_qr[:, k - 1] for name, value_qr in values.items() for k in KS}


def first_items(score: NDArray[np.floating], candidate: Bools, count: int, noise: Floats) -> Ints:
    """The first `count` candidates of each user (q, count), best first; `noise` (q, I) decides between equal ones.

    -1 stands where a user has fewer candidates.
    """
    first = np.lexsort((noise, -np.where(candidate, score, -np.inf)), axis=1)[:, :count]
    return np.where(np.take_along_axis(candidate, first, axis=1), first, -1)


def rank_fusion(*rankings: NDArray[np.floating], constant: int = 60) -> Floats:
    """Reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009) of scores (q, I); ties share a rank."""
    total = np.zeros(rankings[0].shape)
    for score in rankings:
        for number, of_user in enumerate(score):
            values, place = np.unique(-of_user, return_inverse=True)
            higher = np.cumsum(np.bincount(place, minlength=len(values))) - np.bincount(place, minlength=len(values))
            total[number] += 1 / (constant + 1 + higher[place])
    return total
