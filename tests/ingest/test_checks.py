"""No table leaves ingestion that breaks a rule which later stages rely on."""

import numpy as np
import pandas as pd
import pytest

from thinkrec.artifacts import SPLITS
from thinkrec.ingest.checks import check_tables


def splits(codes):
    return pd.Categorical.from_codes(codes, pd.Index(SPLITS))


def good_tables():
    return {
        "interactions": pd.DataFrame(
            {
                "user": np.array([0, 0, 0, 1, 1], np.int32),
                "item": np.array([1, 0, 2, 0, 2], np.int32),
                "rating": np.array([4, 2, 5, 1, 3], np.float32),
                "label": np.array([1, 0, 1, 0, 0], np.int8),
                "timestamp": [1, 5, 9, 1, 5],
                "split": splits([0, 1, 2, 0, 1]),
            }
        ),
        "items": pd.DataFrame({"item": [0, 1, 2], "item_id": ["a", "b", "c"], "title": list("ABC"), "description": ""}),
        "users": pd.DataFrame({"user": [0, 1], "user_id": ["x", "y"]}),
        "truth": pd.DataFrame({"probability": [0.5] * 5, "reason": ["quality"] * 5}),
    }


def test_tables_that_keep_the_rules_pass_with_and_without_truth():
    check_tables(**good_tables())
    check_tables(**{**good_tables(), "truth": pd.DataFrame({"probability": []})})


@pytest.mark.parametrize(
    ("table", "change", "rule"),
    [
        ("interactions", lambda t: t.assign(rating=[4, np.nan, 5, 1, 3]), "interactions: no value is missing"),
        ("interactions", lambda t: t.assign(rating=[4, np.inf, 5, 1, 3]), "interactions: a rating is a finite number"),
        ("interactions", lambda t: t.assign(label=[1, 2, 1, 0, 0]), "interactions: a label is 0 or 1"),
        ("interactions", lambda t: t[1:], "items: every one has an interaction"),
        ("interactions", lambda t: t.assign(item=[1, 7, 2, 0, 2]), "interactions: item is one of the items"),
        ("interactions", lambda t: t.assign(user=[-1, 0, 0, 1, 1]), "interactions: user is one of the users"),
        ("interactions", lambda t: t.assign(split=splits([2, 1, 2, 0, 1])), "interactions: splits follow each other"),
        ("interactions", lambda t: t.assign(split=splits([0, 1, 1, 0, 1])), "interactions: no split is empty"),
        ("interactions", lambda t: t.assign(item=[1, 0, 1, 0, 2]), "interactions: no user rates an item twice"),
        ("interactions", lambda t: t.iloc[[1, 0, 2, 3, 4]], "interactions: sorted by user and timestamp"),
        ("interactions", lambda t: t.iloc[[0, 1, 3, 2, 4]], "users: in the order of the interactions"),
        ("items", lambda t: t.assign(title=["A", None, "C"]), "items: title is never missing"),
        ("items", lambda t: t.assign(title=["A", "", "C"]), "items: every one has a title"),
        ("items", lambda t: t.assign(item=[5, 1, 2]), "items: numbered from 0 without gaps"),
        ("items", lambda t: t.assign(item_id=["b", "b", "c"]), "items: no id twice"),
        ("users", lambda t: t.assign(user_id=["x", None]), "users: no value is missing"),
        ("users", lambda t: t[:1], "interactions: user is one of the users"),
        ("truth", lambda t: t[1:], "truth: empty, or a row for each interaction"),
    ],
)
def test_a_broken_rule_is_named(table, change, rule):
    tables = good_tables()
    tables[table] = change(tables[table])
    with pytest.raises(ValueError, match=f"^ingest: ({rule})"):
        check_tables(**tables)
