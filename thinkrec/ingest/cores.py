"""The k-core of ratings: what is left when users and items with fewer than k ratings go, until none is
left to go (METHOD: data).

One pass over the rows rarely suffices: an item that goes takes ratings from users who had just enough. The fixed point
does not depend on the order in which they go. Every row is looked at once, when its user or item goes, so that a long
chain of such falls costs no more than a short one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.int32]
Rows = NDArray[np.int64]


def in_core(user: Codes, item: Codes, k: int) -> NDArray[np.bool_]:
    """Whether each row (n) is in the k-core: whether its user and item both have k rows or more among such rows.

    Args:
        user: user per row, numbered from 0.
        item: item per row, numbered from 0.
        k: 0 or 1 keeps every row.
    """
    kept = np.ones(len(user), np.bool_)
    if k < 2 or not len(user):
        return kept
    sides = _Side.of(user), _Side.of(item)
    falling: list[NDArray[np.integer]] = [np.flatnonzero(side.count < k) for side in sides]
    while any(map(len, falling)):
        for (side, other), mine in zip((sides, sides[::-1]), (0, 1), strict=True):
            rows = side.rows(falling[mine])
            rows = rows[kept[rows]]
            kept[rows] = False
            partners, lost = np.unique(other.code[rows], return_counts=True)
            other.count[partners] -= lost
            fell = (other.count[partners] < k) & (other.count[partners] + lost >= k)
            falling[mine] = partners[:0]
            falling[1 - mine] = np.concatenate([falling[1 - mine], partners[fell]])
    return kept


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """Users, or items: the rows of each (c of them), and how many of those are left."""

    code: Codes  # (n,)
    order: Rows  # (n,) rows by code
    start: Rows  # (c + 1,) of each code's rows in `order`
    count: Rows  # (c,) falls as rows go

    @classmethod
    def of(cls, code: Codes) -> _Side:
        count = np.bincount(code)
        start = np.concatenate([[0], np.cumsum(count)])
        return cls(code=code, order=np.argsort(code, kind="stable"), start=start, count=count)

    def rows(self, codes: NDArray[np.integer]) -> Rows:
        """All rows of these codes."""
        length = self.start[codes + 1] - self.start[codes]
        first = np.repeat(self.start[codes] - (np.cumsum(length) - length), length)
        return self.order[first + np.arange(len(first))]
