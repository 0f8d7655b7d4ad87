"""The interaction table as recommenders read it: flat arrays, user by user, each user's rows in time order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thinkrec.history import history_bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratings:
    """n interactions of U users and I items; the history of row r is the rows start[r]:end[r]."""

    user: NDArray[np.int64]  # (n,)
    item: NDArray[np.int64]  # (n,)
    label: NDArray[np.int64]  # (n,)
    start: NDArray[np.int64]  # (n,) first row of the same user
    end: NDArray[np.int64]  # (n,) one past the last strictly earlier row of the same user
    users: int
    items: int
    keywords: Iterable[Iterable[str]]  # of each item, where a fit is to know them

    @classmethod
    def of(cls, interactions: pd.DataFrame, *, items: int, keywords: Iterable[Iterable[str]] = ()) -> Ratings:
        """The arrays of the interactions artefact; `items` counts the catalogue, rated or not."""
        user, item, label = (interactions[name].to_numpy(np.int64) for name in ("user", "item", "label"))
        start, end = history_bounds(user, interactions["timestamp"].to_numpy())
        users = int(user.max()) + 1
        return cls(user=user, item=item, label=label, start=start, end=end, users=users, items=items, keywords=keywords)

    def bounds_by_user(self, rows: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row ranges (U,), (U,) from each user's first row to one past the last of `rows`; empty for users without."""
        start, end = np.zeros(self.users, np.int64), np.zeros(self.users, np.int64)
        start[self.user[rows]] = self.start[rows]
        np.maximum.at(end, self.user[rows], np.asarray(rows) + 1)
        return start, end
