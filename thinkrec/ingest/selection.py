"""Which rating rows stay, and which number each user and item gets: rules on whole columns (METHOD: data).

Shapes: n rows, numbered in input order; users and items are codes from 0.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Codes = NDArray[np.integer]
Rows = NDArray[np.int64]


def first_ratings(user: Codes, item: Codes, rating: NDArray[np.float32], timestamp: Rows) -> tuple[Rows, int]:
    """The row of each user's earliest rating of each item, in input order, and how many rows repeat an earlier one.

    A row repeats another in user, item, rating and timestamp. Of several equally early ratings the first row counts.
    """
    pair = user.astype(np.int64) * (int(item.max(initial=0)) + 1) + item
    # Few rows share their user and item with another; only those are put in order.
    shared = np.flatnonzero(pd.Series(pair).duplicated(keep=False))
    rows = pd.DataFrame({"pair": pair[shared], "timestamp": timestamp[shared], "rating": rating[shared]}, index=shared)
    later = rows.sort_values("timestamp", kind="stable").duplicated("pair")
    return np.delete(np.arange(len(pair)), later.index[later]), int(rows.duplicated().sum())


def core_rows(user: Codes, item: Codes, k: int) -> Rows:
    """The rows of the k-core: the largest set of rows whose users and items all have k of them.

    An item that goes takes ratings from users who had just enough, so rows go until none is left to go. The result
    does not depend on the order in which they go.
    """
    rows = np.arange(len(user))
    while True:
        enough = [np.bincount(code[rows])[code[rows]] >= k for code in (user, item)]
        stays = enough[0] & enough[1]
        if stays.all():
            return rows
        rows = rows[stays]


def number_ids(column: pd.Series) -> tuple[NDArray[np.int32], pd.Series]:
    """Contiguous numbers for a categorical column of raw ids, and the id of each number, in natural order."""
    code = column.cat.codes.to_numpy()
    used = np.flatnonzero(np.bincount(code, minlength=len(column.cat.categories)))
    ids = pa.array(column.cat.categories[used], pa.string())
    order = natural_order(ids)
    number = np.empty(len(column.cat.categories), np.int32)
    number[used[order.to_numpy()]] = np.arange(len(used), dtype=np.int32)
    return number[code], ids.take(order).to_pandas()


def natural_order(ids: pa.StringArray) -> pa.Array:
    """The order that puts whole numbers first and by value (however long), then the rest by text."""
    other = pc.invert(pc.match_substring_regex(ids, r"^[0-9]+$"))
    digits = pc.if_else(other, ids, pc.utf8_ltrim(ids, "0"))
    length = pc.if_else(other, 0, pc.binary_length(digits))
    keys = {"other": other, "length": length, "digits": digits, "id": ids}
    return pc.sort_indices(pa.table(keys), sort_keys=[(name, "ascending") for name in keys])
