"""What the tables of stage `ingest` must be like, beyond their columns' types: checked before they leave this room.

Every later stage relies on these rules. A breach is a fault of this program, not of anybody's data.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pandas as pd

from thinkrec.artifacts import SPLITS


def check_tables(interactions: pd.DataFrame, items: pd.DataFrame, users: pd.DataFrame, truth: pd.DataFrame) -> None:
    """Check the four tables against each other; a ValueError names the table and the rule that it breaks."""
    for rule, holds in _rules(interactions, items, users, truth):
        if not holds:
            raise ValueError(f"ingest: {rule}")


def _rules(
    interactions: pd.DataFrame, items: pd.DataFrame, users: pd.DataFrame, truth: pd.DataFrame
) -> Iterator[tuple[str, bool]]:
    """Each rule, and whether it holds."""
    for name, table in (("interactions", interactions), ("users", users)):
        yield f"{name}: no value is missing", not any(table[column].hasnans for column in table)
    for name, table in (("user", users), ("item", items)):
        number = interactions[name].to_numpy()
        every = np.arange(len(table))
        yield f"{name}s: numbered from 0 without gaps, in order", np.array_equal(table[name].to_numpy(), every)
        yield f"{name}s: no id twice", bool(table[f"{name}_id"].is_unique)
        inside = len(number) > 0 and number.min() >= 0 and number.max() < len(table)
        yield f"interactions: {name} is one of the {name}s", bool(inside)
        yield f"{name}s: every one has an interaction", bool(np.bincount(number, minlength=len(table)).all())
    user, item, time = (interactions[name].to_numpy() for name in ("user", "item", "timestamp"))
    yield "users: in the order of the interactions", bool((user[1:] >= user[:-1]).all())
    in_order = (user[1:] > user[:-1]) | (time[1:] >= time[:-1])
    yield "interactions: sorted by user and timestamp", bool(in_order.all())
    pair = pd.Series(user.astype(np.int64) * len(items) + item)
    yield "interactions: no user rates an item twice", bool(pair.is_unique)
    yield "interactions: a label is 0 or 1", bool(np.isin(interactions["label"].to_numpy(), (0, 1)).all())
    yield "interactions: a rating is a finite number", bool(np.isfinite(interactions["rating"].to_numpy()).all())
    split = interactions["split"]
    yield "interactions: splits are named in order", split.cat.categories.tolist() == list(SPLITS)
    times = [time[split == name] for name in SPLITS]
    yield "interactions: no split is empty", all(map(len, times))
    follow = all(earlier.max() < later.min() for earlier, later in pairwise(times))
    yield "interactions: splits follow each other in time", follow
    for column in ("title", "description"):
        yield f"items: {column} is never missing", not items[column].hasnans
    yield "items: every one has a title", bool((items["title"] != "").all())
    yield "truth: empty, or a row for each interaction", len(truth) in (0, len(interactions))
