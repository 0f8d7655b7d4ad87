"""The causal rule: what a row may know of the interactions table, and which rows are warm or late in train.

The history of a row is what its user did at a *strictly* earlier timestamp, in any split. In a table sorted by
(user, timestamp) that is a range of row numbers, `[start, end)`: `start` is the user's first row, `end` the first row
that shares the row's own timestamp. Rows of the same second do not see each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray


def history_bounds(user: ArrayLike, timestamp: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers `[start, end)` of each row's history, two int64 arrays as long as the table.

    Args:
        user: user per row; equal users stand together.
        timestamp: seconds per row, not falling within a user.

    Raises:
        ValueError: the rows are not in that order.
    """
    users, times = np.asarray(user), np.asarray(timestamp)
    if len(users) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    new_user = np.append(True, users[1:] != users[:-1])
    new_moment = new_user | np.append(True, times[1:] != times[:-1])
    first_users = users[new_user]
    if len(np.unique(first_users)) != len(first_users) or np.any((times[1:] < times[:-1]) & ~new_user[1:]):
        raise ValueError("interactions are not sorted by user and timestamp")
    start, end = (_first_rows(new) for new in (new_user, new_moment))
    return start, end


def _first_rows(new: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The row number at which each row's group begins, for groups that begin where `new` says."""
    first = np.flatnonzero(new)
    return np.repeat(first, np.diff(first, append=len(new)))


def shown_history(start: int, end: int, length: int) -> NDArray[np.int64]:
    """The shown history of a row: the last `length` rows of its history `[start, end)`, oldest first."""
    return np.arange(max(start, end - length), end)


def static_view(interactions: pd.DataFrame) -> pd.DataFrame:
    """The table under the static protocol: a copy in which valid and test rows happen when their split begins.

    What looks only at strictly earlier rows of this copy knows nothing of interactions at or after the start of the
    row's split. Test rows see all of train and valid, valid rows all of train, train rows what they always saw. For
    test rows, all of valid happened when valid began. The copy is sorted by (user, timestamp) where the table is.

    Raises:
        ValueError: the splits overlap in time, so that no moment parts them.
    """
    by_split = interactions.groupby("split", observed=True)["timestamp"]
    span = by_split.agg(["min", "max"]).sort_values("min")
    if (span["max"].to_numpy()[:-1] >= span["min"].to_numpy()[1:]).any():
        raise ValueError(f"the splits overlap in time; in order of their starts: {', '.join(map(str, span.index))}")
    train = interactions["split"] == "train"
    return interactions.assign(timestamp=interactions["timestamp"].where(train, by_split.transform("min")))


Protocol = Literal["online", "static"]

# What a row may know, as a view of the interactions. Online: every strictly earlier row. Static: for valid and test
# rows, only what was there when their split began.
PROTOCOLS: dict[Protocol, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "online": lambda interactions: interactions,
    "static": static_view,
}


class ScoredModel(NamedTuple):
    """A model under a protocol. Each has a column of scores, and the same name in every table and JSON file."""

    name: str
    protocol: Protocol = "online"

    @property
    def column(self) -> str:
        return self.name if self.protocol == "online" else f"{self.name}_{self.protocol}"

    @classmethod
    def from_column(cls, column: str) -> ScoredModel:
        name = column.removesuffix("_static")
        return cls(name, "online" if name == column else "static")


def seen_in_train(interactions: pd.DataFrame) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether each row's user has a row in train, and whether its item has (n, n)."""
    train = (interactions["split"] == "train").to_numpy()
    user, item = interactions["user"].to_numpy(), interactions["item"].to_numpy()
    return np.isin(user, user[train]), np.isin(item, item[train])


def warm_rows(interactions: pd.DataFrame) -> NDArray[np.bool_]:
    """Whether each row's user and item both have a row in train (n)."""
    user, item = seen_in_train(interactions)
    return user & item


LATE_SHARE = 0.1  # of train: what experts leave to the gate


def late_train_rows(interactions: pd.DataFrame, share: float) -> NDArray[np.bool_]:
    """Which rows (n) are among the latest `share` of train, whole seconds kept together.

    Experts are not trained on them, so that the gate can be fitted on rows that no expert has seen.
    """
    train = (interactions["split"] == "train").to_numpy()
    time = interactions["timestamp"].to_numpy()
    return train & (time >= np.quantile(time[train], 1 - share, method="higher"))
