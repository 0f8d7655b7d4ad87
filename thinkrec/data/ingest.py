"""From raw ratings and metadata to the tables that everything downstream reads (stage `ingest`; METHOD: data).

The rules, in order:
1. Malformed rows are in quarantine; more than `max_bad_share` of all rating rows, and ingestion stops.
2. Rows outside all windows go first, histories included.
3. Exact duplicates go; of several ratings of one item by one user the earliest stays.
4. label = rating > threshold; users and items are numbered from 0 in the order of their raw ids.
5. The table is sorted by (user, timestamp, input order), so that a history is a range of its rows.
6. Items are those that somebody rated. One without metadata is called "Item <id>".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from thinkrec.artifacts import SPLITS
from thinkrec.data import catalogue
from thinkrec.data.catalogue import Dataset
from thinkrec.data.clean import plain_text
from thinkrec.data.histories import history_bounds, warm_rows
from thinkrec.data.raw import Raw, gather
from thinkrec.data.splits import SplitColumn, Windows, split_codes, windows_of
from thinkrec.errors import UserError
from thinkrec.params import DatasetParams


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingested:
    """The tables of stage `ingest`, in the schemas of `artifacts.SCHEMAS`, and what there is to say about them."""

    interactions: pd.DataFrame
    items: pd.DataFrame
    users: pd.DataFrame
    quarantine: pd.DataFrame
    truth: pd.DataFrame
    stats: dict[str, Any]


def ingest(params: DatasetParams) -> Ingested:
    """Read the dataset that `params` names and bring it into the tables of this pipeline.

    Raises:
        UserError: an unknown dataset, no raw file or a broken one, too many malformed rows, an empty split.
    """
    dataset = catalogue.chosen(params)
    return tables(dataset, gather(dataset.source(params.raw)), params.max_bad_share)


def tables(dataset: Dataset, raw: Raw, max_bad_share: float) -> Ingested:
    """Apply the rules of this module to one dataset as read."""
    _check_bad_share(raw, max_bad_share)
    rows = raw.ratings if raw.truth is None else pd.concat([raw.ratings, raw.truth], axis=1)
    assert not isinstance(dataset.windows, SplitColumn), "not yet"
    times = rows["timestamp"].to_numpy()
    windows = windows_of(dataset.windows, *((int(times.min()), int(times.max())) if len(times) else (0, 0)))
    split = split_codes(times, windows)
    inside = rows.assign(split=split)[split >= 0]
    unique = inside.drop_duplicates(["user_id", "item_id", "rating", "timestamp"])
    kept = unique.sort_values("timestamp", kind="stable").drop_duplicates(["user_id", "item_id"]).sort_index()

    user, user_ids = _numbered(kept["user_id"])
    item, item_ids = _numbered(kept["item_id"])
    kept = kept.assign(user=user, item=item).sort_values(["user", "timestamp"], kind="stable", ignore_index=True)
    interactions = pd.DataFrame(
        {
            "user": kept["user"],
            "item": kept["item"],
            "rating": kept["rating"].astype(np.float32),
            "label": (kept["rating"] > dataset.threshold).astype(np.int8),
            "timestamp": kept["timestamp"].astype(np.int64),
            "split": pd.Categorical.from_codes(kept["split"].to_numpy(np.int8), pd.Index(SPLITS)),
        }
    )
    _check_splits(dataset, windows, interactions)
    truth = kept[["probability", "reason"]] if raw.truth is not None else _no_truth()
    items, without_metadata = _item_table(raw.items, item_ids)
    users = pd.DataFrame(
        {"user": np.arange(len(user_ids), dtype=np.int32), "user_id": pd.Series(user_ids, dtype="str")}
    )
    stats = {
        "dataset": dataset.name,
        "rows_read": raw.rows,
        "quarantined": (raw.quarantine["file"] + ": " + raw.quarantine["reason"]).value_counts().sort_index().to_dict(),
        "outside_windows": len(rows) - len(inside),
        "exact_duplicates": len(inside) - len(unique),
        "repeated_ratings": len(unique) - len(kept),
        "interactions": len(interactions),
        "users": len(users),
        "items": len(items),
        "items_without_metadata": without_metadata,
        "splits": _split_stats(interactions, truth),
    }
    return Ingested(
        interactions=interactions, items=items, users=users, quarantine=raw.quarantine, truth=truth, stats=stats
    )


def _numbered(ids: pd.Series) -> tuple[NDArray[np.int32], list[str]]:
    """Contiguous numbers for a column of raw ids (categories), and the raw id of each number, in order."""
    used = ids.cat.remove_unused_categories()
    names: list[str] = sorted(used.cat.categories, key=_natural)
    return np.asarray(used.cat.set_categories(names).cat.codes, dtype=np.int32), names


def _natural(raw_id: str) -> tuple[bool, int, str, str]:
    """A sort key: whole numbers first and by value (however long), then the rest by text."""
    if not (raw_id.isascii() and raw_id.isdigit()):
        return True, 0, raw_id, raw_id
    digits = raw_id.lstrip("0")
    return False, len(digits), digits, raw_id


def _item_table(metadata: pd.DataFrame, item_ids: list[str]) -> tuple[pd.DataFrame, int]:
    """One cleaned row per rated item, and how many of them had no title; the first metadata row of an id counts."""
    found = metadata.drop_duplicates("item_id").set_index("item_id").reindex(item_ids)
    title = found["title"].fillna("").map(plain_text)
    unnamed = title == ""
    table = pd.DataFrame(
        {
            "item": np.arange(len(item_ids), dtype=np.int32),
            "item_id": pd.Series(item_ids, dtype="str"),
            "title": title.where(~unnamed, ("Item " + found.index.to_series()).map(plain_text))
            .astype("str")
            .to_numpy(),
            "year": found["year"].astype("Int16").array,
            "categories": [_plain_list(names) for names in found["categories"]],
            "description": found["description"].fillna("").map(plain_text).astype("str").to_numpy(),
        }
    )
    return table, int(unnamed.sum())


def _plain_list(names: Any) -> list[str]:
    """Cleaned category names; none where the metadata is missing (which pandas writes as NaN)."""
    return [plain for name in names if (plain := plain_text(name))] if isinstance(names, list) else []


def _no_truth() -> pd.DataFrame:
    return pd.DataFrame({"probability": pd.Series([], dtype="float32"), "reason": pd.Series([], dtype="str")})


def _check_bad_share(raw: Raw, limit: float) -> None:
    share = raw.bad_rows / max(raw.rows, 1)
    if share > limit:
        first = raw.quarantine.iloc[0]
        raise UserError(
            f"{first['file']}: {raw.bad_rows} of {raw.rows} rating rows are malformed ({share:.1%}, the limit is "
            f"{limit:.1%}), first line {first['row']}: {first['reason']}; mend the file or raise dataset.max_bad_share"
        )


def _check_splits(dataset: Dataset, windows: Windows, interactions: pd.DataFrame) -> None:
    counts = interactions["split"].value_counts()
    for split in SPLITS:
        if not counts[split]:
            window = windows.of(split)
            days = [pd.Timestamp(edge, unit="s").date().isoformat() for edge in (window.start, window.end)]
            raise UserError(
                f"dataset {dataset.name}: no ratings in the {split} window, [{days[0]}, {days[1]}) UTC; "
                "check that dataset.raw is the published file, its timestamps in seconds"
            )


def _split_stats(interactions: pd.DataFrame, truth: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """What each split is like; `best_auc` is that of scoring by the true probability, where it is known."""
    start, end = history_bounds(interactions["user"], interactions["timestamp"])
    marked = interactions.assign(
        warm=warm_rows(interactions),
        bare=start == end,
        tied=interactions.duplicated(["user", "timestamp"], keep=False),
    )
    stats: dict[str, dict[str, Any]] = {}
    for split in SPLITS:
        part = marked[marked["split"] == split]
        stats[split] = {
            "interactions": len(part),
            "users": part["user"].nunique(),
            "items": part["item"].nunique(),
            "positive_share": float(part["label"].mean()),
            "warm_share": float(part["warm"].mean()),
            "no_history_share": float(part["bare"].mean()),
            "tied_share": float(part["tied"].mean()),
        }
        if len(truth):
            both = part["label"].nunique() == 2
            probability = truth["probability"].to_numpy()[part.index]
            stats[split]["best_auc"] = float(roc_auc_score(part["label"], probability)) if both else float("nan")
    return stats
