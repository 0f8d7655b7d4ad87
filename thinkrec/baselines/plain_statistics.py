"""Columns of the learned baselines: running like-rates and categories, without a learned vector (METHOD §5).

Only strictly earlier interactions count, for the prior too, and rows of the same second do not see each other.

Shapes: n interactions, m pairs of an interaction and one of its item's categories.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.sparse import csr_array
from sklearn.preprocessing import MultiLabelBinarizer

from thinkrec.features.running import Floats, Ints, log_odds, running_counts, smoothed_rate
from thinkrec.features.statistics import counts_before

SHOWN_CATEGORIES = 100  # with a column of their own: all of a movie dataset's, the commonest of a shop's thousands


def plain_statistics(interactions: pd.DataFrame, items: pd.DataFrame) -> pd.DataFrame:
    """Seven columns (n) and one for each of the commonest categories.

    The log-odds of three running like-rates: the user's, the item's, and the user's in the item's categories. For each
    of them log1p of the number of interactions it rests on. The item's release year, NaN where unknown. Its
    categories, multi-hot.
    """
    user, item, time, label = (interactions[name].to_numpy() for name in ("user", "item", "timestamp", "label"))
    by_item = csr_array(MultiLabelBinarizer(sparse_output=True).fit_transform(items["categories"]))
    by_item.sort_indices()
    category_nc = by_item[item]
    counts = counts_before(interactions)
    prior = smoothed_rate(*counts["all"], 0.5)
    user_rate, item_rate = (smoothed_rate(*counts[key], prior) for key in ("user", "item"))
    affinity, affinity_count = _category_affinity(category_nc, user, time, label, user_rate)
    columns = {
        "user_log_odds": log_odds(user_rate),
        "user_log_count": np.log1p(counts["user"][1]),
        "item_log_odds": log_odds(item_rate),
        "item_log_count": np.log1p(counts["item"][1]),
        "affinity_log_odds": affinity,
        "affinity_log_count": np.log1p(affinity_count),
        "year": items["year"].to_numpy(np.float64, na_value=np.nan)[item],
    }
    most_common = np.argsort(-by_item.sum(axis=0), kind="stable")[:SHOWN_CATEGORIES]
    shown_nc = category_nc[:, np.sort(most_common)].toarray().astype(np.float32)
    return pd.DataFrame(columns | {f"category_{number}": column for number, column in enumerate(shown_nc.T)})


def _category_affinity(
    category_nc: csr_array, user: Ints, time: Ints, label: Ints, user_rate: Floats
) -> tuple[Floats, Floats]:
    """The log-odds of the user's running like-rate in the item's categories, and its interactions (n, n).

    Both are means over the categories; each category's rate is drawn to the user's own. An item without categories has
    the user's own rate and 0 interactions.
    """
    # Of five forms compared for logistic regression on MovieLens 1M's valid split, this has the best AUC (.7702); with
    # pooled counts, with any shared category or with everybody's rate as the prior, it was .0002 to .0007 lower.
    rows = len(user_rate)
    row_m, category_m = np.repeat(np.arange(rows), np.diff(category_nc.indptr)), category_nc.indices
    key_m = user[row_m].astype(np.int64) * category_nc.shape[1] + category_m
    likes_m, count_m = running_counts(key_m, time[row_m], label[row_m])
    # What the category adds to the user's rate: nothing where there is no category.
    gain_m = log_odds(smoothed_rate(likes_m, count_m, user_rate[row_m])) - log_odds(user_rate[row_m])
    gain, count = (np.bincount(row_m, value_m, minlength=rows) for value_m in (gain_m, count_m))
    several = np.maximum(np.bincount(row_m, minlength=rows), 1)
    return log_odds(user_rate) + gain / several, count / several
