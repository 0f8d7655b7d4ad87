"""From raw ratings and metadata to the tables that everything downstream reads (stage `ingest`; METHOD: data).

The rules, in order:
1. Malformed rows are in quarantine; more than `max_bad_share` of all rating rows, and ingestion stops.
2. Rows outside all windows go first, histories included (`ingest.splits`).
3. Exact duplicates go; of several ratings of one item by one user the earliest stays, of equally early ones the first.
4. Users and items with fewer than k ratings go, until all have k (`ingest.cores`); a k of 0 keeps everybody.
5. label = rating > threshold; users and items are numbered from 0 in the order of their raw ids.
6. The table is sorted by (user, timestamp, input order), so that a history is a range of its rows.
7. Items are those that somebody rated. One without metadata is called "Item <id>".

Parts of the raw data are read one by one, or on a cluster (`ingest.cluster`). Held whole are a row's codes of user and
item, its rating, timestamp and split, some 20 bytes, and what is done to them is done to whole columns.

Shapes: n rows within the windows, k of them kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from thinkrec import artifacts
from thinkrec.artifacts import SPLITS
from thinkrec.errors import UserError
from thinkrec.ingest import catalogue
from thinkrec.ingest import overview as report
from thinkrec.ingest.catalogue import Dataset
from thinkrec.ingest.checks import check_tables
from thinkrec.ingest.clean import plain_text
from thinkrec.ingest.cluster import workers
from thinkrec.ingest.cores import in_core
from thinkrec.ingest.partitions import SPLIT_CODE, Summary, check_ratings, in_files, inside, read_part, summary
from thinkrec.ingest.raw import TRUTH, Source, quarantine_table
from thinkrec.ingest.splits import SplitColumn, Window, Windows, windows_of
from thinkrec.params import DatasetParams

Rows = NDArray[np.int64]
Codes = NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingested:
    """The tables of stage `ingest`, in the schemas of `artifacts.SCHEMAS`, and what there is to say about them.

    Attributes:
        days: how many good rows were read of each day (its number since 1970), those outside the windows included.
        windows: the time of each split; where a split column decides, from the split's first row to its last.
    """

    interactions: pd.DataFrame
    items: pd.DataFrame
    users: pd.DataFrame
    quarantine: pd.DataFrame
    truth: pd.DataFrame
    stats: dict[str, Any]
    days: Counter[int]
    windows: Windows

    def tables(self) -> dict[Path, pd.DataFrame]:
        """Each table by the artefact that it becomes."""
        return {
            artifacts.INTERACTIONS: self.interactions,
            artifacts.ITEMS: self.items,
            artifacts.USERS: self.users,
            artifacts.QUARANTINE: self.quarantine,
            artifacts.TRUTH: self.truth,
        }


def ingest(params: DatasetParams) -> Ingested:
    """Read the dataset that `params` names and bring it into the tables of this pipeline.

    Raises:
        UserError: an unknown dataset, no raw file or a broken one, too many malformed rows, an empty split, one label.
    """
    dataset = catalogue.chosen(params)
    ingested = tables(dataset, dataset.source(params.raw), params.max_bad_share)
    _check_labels(dataset, ingested.interactions)
    return ingested


def tables(dataset: Dataset, source: Source, max_bad_share: float) -> Ingested:
    """Apply the rules of this module to one dataset.

    Raises:
        UserError: too many malformed rows, an empty split, splits that overlap in time, or nobody in the core.
    """
    parts, summaries, windows = _read(dataset, source, max_bad_share)
    within = _Columns.of(parts)
    del parts
    n = len(within.timestamp)
    rows, dropped = _kept(within, dataset.core)
    user, user_ids = _numbered(within.user[rows], within.user_ids)
    item, item_ids = _numbered(within.item[rows], within.item_ids)
    order = np.lexsort((within.timestamp[rows], user))
    rows, user, item = rows[order], user[order], item[order]
    rating = within.rating[rows]
    interactions = pd.DataFrame(
        {
            "user": user,
            "item": item,
            "rating": rating,
            "label": (rating > dataset.threshold).astype(np.int8),
            "timestamp": within.timestamp[rows],
            "split": pd.Categorical.from_codes(within.split[rows], pd.Index(SPLITS)),
        },
        copy=False,
    )
    truth = _truth(within.truth, rows)
    del within, order, rows, user, item, rating  # a long table's columns are large
    if windows is None:
        windows = _spans(dataset, interactions, summaries)
    days = sum((part.days for part in summaries), Counter[int]())
    _check_splits(dataset, windows, interactions, dropped["below_core"], days)

    metadata = source.items(frozenset(item_ids))
    items, without_metadata = _item_table(metadata.table, item_ids)
    users = pd.DataFrame({"user": np.arange(len(user_ids), dtype=np.int32), "user_id": user_ids})
    quarantine = quarantine_table([*in_files(source.parts, summaries), *metadata.faults])
    stats = {
        "dataset": dataset.name,
        "rows_read": sum(part.rows for part in summaries),
        "quarantined": (quarantine["file"] + ": " + quarantine["reason"]).value_counts().sort_index().to_dict(),
        "outside_windows": days.total() - n,
        "core": dataset.core,
        **dropped,
        "interactions": len(interactions),
        "users": len(users),
        "items": len(items),
        "items_without_metadata": without_metadata,
        "metadata_duplicated": metadata.duplicated,
        "metadata_repaired": dict(sorted(metadata.repaired.items())),
        "windows": {split: str(windows.of(split)) for split in SPLITS},
        **report.stats(interactions, truth),
    }
    check_tables(interactions, items, users, truth)
    return Ingested(
        interactions=interactions,
        items=items,
        users=users,
        quarantine=quarantine,
        truth=truth,
        stats=stats,
        days=days,
        windows=windows,
    )


def _read(
    dataset: Dataset, source: Source, max_bad_share: float
) -> tuple[list[pa.Table], list[Summary], Windows | None]:
    """The rows of each part within the windows, what each part was like, and the windows, where those decide."""
    with workers(len(source.parts)) as somewhere:
        reads = somewhere.map(
            partial(read_part, read=source.read, max_bad_share=max_bad_share), source.parts, pure=False
        )
        summaries: list[Summary] = somewhere.gather(somewhere.map(summary, reads, pure=False))
        faults, rows = in_files(source.parts, summaries), sum(part.rows for part in summaries)
        check_ratings(source.parts, faults, rows, max_bad_share=max_bad_share)
        windows = _windows(dataset, summaries)
        parts: list[pa.Table] = somewhere.gather(somewhere.map(partial(inside, windows=windows), reads, pure=False))
    return parts, summaries, windows


def _windows(dataset: Dataset, summaries: Sequence[Summary]) -> Windows | None:
    """The dataset's rule as windows, given what was read; None where a split column decides."""
    oldest = [part.oldest for part in summaries if part.oldest is not None]
    newest = [part.newest for part in summaries if part.newest is not None]
    if not oldest:
        raise UserError(f"dataset {dataset.name}: every rating is malformed; lower dataset.max_bad_share to see how")
    if not isinstance(dataset.windows, SplitColumn):
        return windows_of(dataset.windows, min(oldest), max(newest))
    if any(part.names is None for part in summaries):
        raise UserError(
            "dataset.windows: column, but the ratings have no split column; name it (dataset.columns.split) "
            "or split by time"
        )
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    """The rows within the windows in input order, as whole arrays (n)."""

    user: Codes
    user_ids: pa.StringArray  # of each code; of rows outside the windows, too
    item: Codes
    item_ids: pa.StringArray
    rating: NDArray[np.float32]
    timestamp: Rows
    split: NDArray[np.int8]
    truth: pd.DataFrame | None

    @classmethod
    def of(cls, parts: list[pa.Table]) -> _Columns:
        table = pa.concat_tables(parts)
        user, item = (table[name].unify_dictionaries().combine_chunks() for name in ("user_id", "item_id"))
        truth = [field.name for field in TRUTH if field.name in table.column_names]
        return cls(
            user=user.indices.to_numpy(),
            user_ids=user.dictionary,
            item=item.indices.to_numpy(),
            item_ids=item.dictionary,
            rating=table["rating"].to_numpy(),
            timestamp=table["timestamp"].to_numpy(),
            split=table[SPLIT_CODE.name].to_numpy(),
            truth=table.select(truth).to_pandas() if truth else None,
        )


def _kept(within: _Columns, core: int) -> tuple[Rows, dict[str, int]]:
    """The rows that stay, in input order, and how many go for which reason."""
    rows, exact = first_ratings(within.user, within.item, within.rating, within.timestamp)
    in_the_core = in_core(within.user[rows], within.item[rows], core)
    return rows[in_the_core], {
        "exact_duplicates": exact,
        "repeated_ratings": len(within.timestamp) - exact - len(rows),
        "below_core": int((~in_the_core).sum()),
    }


def first_ratings(user: Codes, item: Codes, rating: NDArray[np.float32], timestamp: Rows) -> tuple[Rows, int]:
    """The row of each user's earliest rating of each item, in input order, and how many rows repeat an earlier one.

    A row repeats another in user, item, rating and timestamp; that one stands before it. Where one user rated one item
    several times at the same earliest second, the first in input order counts.
    """
    pair = user.astype(np.int64) * (int(item.max(initial=0)) + 1) + item
    # Few rows share their user and item with another; only those are put in order.
    shared = np.flatnonzero(pd.Series(pair).duplicated(keep=False))
    rows = pd.DataFrame({"pair": pair[shared], "timestamp": timestamp[shared], "rating": rating[shared]}, index=shared)
    later = rows.sort_values("timestamp", kind="stable").duplicated("pair")
    return np.delete(np.arange(len(pair)), later.index[later]), int(rows.duplicated().sum())


def _numbered(code: Codes, ids: pa.StringArray) -> tuple[Codes, pd.Series]:
    """Contiguous numbers for a column of codes, and the raw id of each number, in order; ids without rows have none."""
    used = np.flatnonzero(np.bincount(code, minlength=len(ids)))
    names = ids.take(pa.array(used))
    order = natural_order(names)
    number = np.empty(len(ids), np.int32)
    number[used[order.to_numpy()]] = np.arange(len(used), dtype=np.int32)
    return number[code], names.take(order).to_pandas()


def natural_order(ids: pa.StringArray) -> pa.Array:
    """The order that puts whole numbers first and by value (however long), then the rest by text."""
    other = pc.invert(pc.match_substring_regex(ids, r"^[0-9]+$"))
    digits = pc.if_else(other, ids, pc.utf8_ltrim(ids, "0"))
    length = pc.if_else(other, 0, pc.binary_length(digits))
    keys = {"other": other, "length": length, "digits": digits, "id": ids}
    return pc.sort_indices(pa.table(keys), sort_keys=[(name, "ascending") for name in keys])


def _item_table(metadata: pd.DataFrame, item_ids: pd.Series) -> tuple[pd.DataFrame, int]:
    """One row per rated item, and how many of them had no title; the first metadata row of an id counts."""
    described = metadata.drop_duplicates("item_id").set_index("item_id").reindex(item_ids)
    title = described["title"].fillna("")
    unnamed = title == ""
    table = pd.DataFrame(
        {
            "item": np.arange(len(item_ids), dtype=np.int32),
            "item_id": item_ids,
            "title": title.where(~unnamed, ("Item " + item_ids).map(plain_text).array).array,
            "year": described["year"].astype("Int16").array,
            # pandas writes a missing list as NaN.
            "categories": [names if isinstance(names, list) else [] for names in described["categories"]],
            "description": described["description"].fillna("").array,
        }
    )
    return table, int(unnamed.sum())


def _truth(truth: pd.DataFrame | None, rows: Rows) -> pd.DataFrame:
    """What a world knows of these rows; no rows of anything else."""
    if truth is None:
        return pd.DataFrame({"probability": pd.Series([], dtype="float32"), "reason": pd.Series([], dtype="str")})
    return truth.iloc[rows].reset_index(drop=True)


def _spans(dataset: Dataset, interactions: pd.DataFrame, summaries: Sequence[Summary]) -> Windows:
    """From the first to the last row of each split that a split column makes.

    Raises:
        UserError: one has no rows, or begins before the one before it ends.
    """
    spans: dict[str, Window] = {}
    for number, split in enumerate(SPLITS):
        times = interactions["timestamp"].to_numpy()[interactions["split"].cat.codes.to_numpy() == number]
        if not len(times):
            names = sorted(sum((part.names or Counter() for part in summaries), Counter[str]()))
            raise UserError(
                f"dataset {dataset.name}: no ratings of split {split}; the split column should say "
                f"{', '.join(SPLITS)} (it says {', '.join(map(repr, names[:5]))})"
            )
        spans[split] = Window(start=int(times.min()), end=int(times.max()) + 1)
    try:
        return Windows(**spans)
    except ValueError:
        texts = "; ".join(f"{split} {spans[split]}" for split in SPLITS)
        raise UserError(
            f"dataset {dataset.name}: the splits of its split column overlap in time ({texts}); each should follow the "
            "one before it, or what happens later would be known earlier"
        ) from None


def _check_splits(
    dataset: Dataset, windows: Windows, interactions: pd.DataFrame, below_core: int, days: Counter[int]
) -> None:
    """Stop where a split has no rows.

    Raises:
        UserError: which one, and why that may be.
    """
    counts = interactions["split"].value_counts()
    for split in SPLITS:
        if not counts[split]:
            why = (
                f"only users and items with {dataset.core} ratings stay (dataset.core), which took {below_core} rows "
                "away; lower it, or widen dataset.windows"
                if below_core
                else f"the ratings are of {_day(min(days))} to {_day(max(days))}; check that dataset.raw is the file "
                "that is meant, or set dataset.windows"
            )
            raise UserError(f"dataset {dataset.name}: no ratings in the {split} window, {windows.of(split)}; {why}")


def _check_labels(dataset: Dataset, interactions: pd.DataFrame) -> None:
    """Stop where train holds one label only: there would be nothing to learn.

    Raises:
        UserError: which one.
    """
    label = interactions["label"].to_numpy()[interactions["split"].to_numpy() == "train"]
    if label.min() == label.max():
        raise UserError(
            f"dataset {dataset.name}: all {len(label)} ratings of train are {('disliked', 'liked')[label[0]]} (liked: "
            f"over {dataset.threshold}), which leaves nothing to learn; set dataset.threshold, or add others"
        )


def _day(number: int) -> date:
    """The day of that number since 1970."""
    return date(1970, 1, 1) + timedelta(days=number)
