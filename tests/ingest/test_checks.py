"""No table leaves ingestion that breaks a rule which later stages rely on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from thinkrec.artifacts import SPLITS
from thinkrec.ingest.checks import check_tables

Tables = dict[str, pd.DataFrame]


def good() -> Tables:
    return {
        "interactions": pd.DataFrame(
            {
                "user": np.array([0, 0, 0, 1, 1], np.int32),
                "item": np.array([1, 0, 2, 0, 2], np.int32),
                "rating": np.array([4, 2, 5, 1, 3], np.float32),
                "label": np.array([1, 0, 1, 0, 0], np.int8),
                "timestamp": [1, 5, 9, 1, 5],
                "split": pd.Categorical.from_codes([0, 1, 2, 0, 1], pd.Index(SPLITS)),
            }
        ),
        "items": pd.DataFrame({"item": [0, 1, 2], "item_id": ["a", "b", "c"], "title": list("ABC"), "description": ""}),
        "users": pd.DataFrame({"user": [0, 1], "user_id": ["x", "y"]}),
        "truth": pd.DataFrame({"probability": [0.5] * 5, "reason": ["quality"] * 5}),
    }


def put(table: str, column: str, value: Any, row: int) -> Callable[[Tables], None]:
    def change(tables: Tables) -> None:
        tables[table].loc[row, column] = value

    return change


def swap(first: int, second: int) -> Callable[[Tables], None]:
    def change(tables: Tables) -> None:
        rows = list(range(5))
        rows[first], rows[second] = second, first
        tables["interactions"] = tables["interactions"].iloc[rows].reset_index(drop=True)

    return change


def drop(table: str, row: int) -> Callable[[Tables], None]:
    def change(tables: Tables) -> None:
        tables[table] = tables[table].drop(index=row).reset_index(drop=True)

    return change


def test_tables_that_keep_the_rules_pass_with_and_without_truth() -> None:
    check_tables(**good())
    check_tables(**{**good(), "truth": pd.DataFrame({"probability": []})})


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (put("interactions", "rating", np.nan, 1), "interactions: no value is missing"),
        (put("interactions", "rating", np.inf, 1), "interactions: a rating is a finite number"),
        (put("interactions", "label", 2, 1), "interactions: a label is 0 or 1"),
        (drop("interactions", 0), "items: every one has an interaction"),
        (put("interactions", "item", 7, 1), "interactions: item is one of the items"),
        (put("interactions", "user", -1, 0), "interactions: user is one of the users"),
        (put("interactions", "split", "test", 0), "interactions: splits follow each other in time"),
        (put("interactions", "split", "valid", 2), "interactions: no split is empty"),
        (put("interactions", "item", 1, 2), "interactions: no user rates an item twice"),
        (swap(0, 1), "interactions: sorted by user and timestamp"),
        (swap(2, 3), "users: in the order of the interactions"),
        (put("items", "title", None, 0), "items: title is never missing"),
        (put("items", "title", "", 0), "items: every one has a title"),
        (put("items", "item", 5, 0), "items: numbered from 0 without gaps"),
        (put("items", "item_id", "b", 0), "items: no id twice"),
        (put("users", "user_id", None, 0), "users: no value is missing"),
        (drop("users", 1), "interactions: user is one of the users"),
        (drop("truth", 1), "truth: empty, or a row for each interaction"),
    ],
)
def test_a_broken_rule_is_named(change: Callable[[Tables], None], rule: str) -> None:
    tables = good()
    change(tables)
    with pytest.raises(ValueError, match=f"^ingest: ({rule})"):
        check_tables(**tables)
