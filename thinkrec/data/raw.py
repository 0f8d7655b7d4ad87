"""What every reader and every world hands to `ingest`: ratings and metadata as they came, before any rule."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

QUARANTINE_TEXT = 200  # characters kept of a malformed row


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """One dataset as read, in input order.

    Attributes:
        ratings: `user_id`, `item_id` (categories of strings: some 20 bytes a row in all), `rating` (stars, float32),
            `timestamp` (seconds since 1970 UTC, int64).
        items: `item_id`, `title`, `year` (Int16, null where unknown), `categories` (lists of strings), `description`.
        quarantine: `file`, `row` (1-based line number), `reason`, `text` of each malformed row.
        rows: rating rows met, the malformed ones included.
        bad_rows: how many of those are in quarantine.
        truth: `probability` and `reason` of each rating where the dataset knows them (a world), else None.
    """

    ratings: pd.DataFrame
    items: pd.DataFrame
    quarantine: pd.DataFrame
    rows: int
    bad_rows: int
    truth: pd.DataFrame | None = None


def quarantine_table(rows: Iterable[tuple[str, int, str, str]] = ()) -> pd.DataFrame:
    """A quarantine table of (file, row, reason, text), the text cut to what a person needs to find the fault."""
    table = pd.DataFrame(list(rows), columns=["file", "row", "reason", "text"])
    table = table.astype({"file": "str", "row": "int64", "reason": "str", "text": "str"})
    return table.assign(text=table["text"].str.slice(stop=QUARANTINE_TEXT))
