"""From raw ratings and metadata to the tables that everything downstream reads (stage `ingest`; METHOD: data).

The rules, in order:
1. Malformed rows are in quarantine; more than `max_bad_share` of all rating rows, or of all rows of metadata, and
   ingestion stops.
2. Rows outside all windows go first, histories included (`ingest.splits`).
3. Exact duplicates go; of several ratings of one item by one user the earliest stays, of equally early ones the first.
4. Users and items with fewer than k ratings go, until all have k; a k of 0 keeps everybody.
5. label = rating > threshold; users and items are numbered from 0 in the order of their raw ids.
6. The table is sorted by (user, timestamp, input order), so that a history is a range of its rows.
7. Items are those that somebody rated. One without metadata is called "Item <id>".

Parts of the raw data are read one by one, or on a cluster (`ingest.cluster`). Held whole are a row's codes of user and
item, its rating, timestamp and split, some 20 bytes, and what is done to them is done to whole columns.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from thinkrec import artifacts
from thinkrec.artifacts import SPLITS
from thinkrec.errors import UserError
from thinkrec.ingest import catalogue
from thinkrec.ingest.catalogue import Dataset
from thinkrec.ingest.clean import plain_text
from thinkrec.ingest.cluster import workers
from thinkrec.ingest.overview import describe
from thinkrec.ingest.partitions import DAY, Summary, check_rows, faults_by_file, read_part, rows_within, summarise
from thinkrec.ingest.raw import TRUTH, Fault, Items, Source
from thinkrec.ingest.selection import Rows, core_rows, first_ratings, number_ids
from thinkrec.ingest.splits import COLUMN, Window, Windows, in_order, windows_of
from thinkrec.params import DatasetParams
from thinkrec.shown import LONGEST_TITLE, shown_title

FEW_USERS = 30  # of a test split: fewer make a mean over users a matter of chance
ROUNDED = r"\d([.,]\d+)?[eE]\+\d+"  # how spreadsheets and pandas show a long number
FIRST_RATINGS = 315_532_800  # 1980-01-01: nobody collected any before, so earlier times are something else


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingested:
    """The tables of stage `ingest`, in the schemas of `artifacts.SCHEMAS`, and what there is to say about them."""

    interactions: pd.DataFrame
    items: pd.DataFrame
    users: pd.DataFrame
    quarantine: pd.DataFrame
    truth: pd.DataFrame
    stats: dict[str, Any]
    days: Counter[int]  # good rows read by day since 1970, those outside the windows included
    windows: Windows  # the time of each split; where a split column decides, from its first row to its last

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

    A UserError says what the data lacks: a file, good rows, ratings in each split, both labels in train.
    """
    dataset = catalogue.choose_dataset(params)
    ingested = make_tables(dataset, dataset.source(params.raw), params.max_bad_share)
    _check_labels(dataset, ingested.interactions)
    test_users = ingested.stats["splits"]["test"]["users"]
    if test_users < FEW_USERS:
        print(
            f"ingest: the test split has only {test_users} users, so measures on it will be uncertain; a longer test "
            "window (dataset.windows) has more",
            file=sys.stderr,
        )
    return ingested


def make_tables(dataset: Dataset, source: Source, max_bad_share: float) -> Ingested:
    """Apply the rules of this module to one dataset."""
    within, summaries, windows = _read(dataset, source, max_bad_share)
    days = sum((part.days for part in summaries), Counter[int]())
    outside = days.total() - len(within)
    rows, dropped = _select_rows(within, dataset.core)
    within = within.iloc[rows]
    user, user_ids = number_ids(within["user_id"])
    item, item_ids = number_ids(within["item_id"])
    _warn_of_rounded_ids(user_ids, item_ids)
    order = np.lexsort((within["timestamp"], user))
    rating = within["rating"].to_numpy()[order]
    interactions = pd.DataFrame(
        {
            "user": user[order],
            "item": item[order],
            "rating": rating,
            "label": (rating > dataset.threshold).astype(np.int8),
            "timestamp": within["timestamp"].to_numpy()[order],
            "split": pd.Categorical.from_codes(within["split"].to_numpy()[order], pd.Index(SPLITS)),
        },
        copy=False,
    )
    truth = pd.DataFrame({field.name: [] for field in TRUTH}).astype({"probability": "float32", "reason": "str"})
    if "probability" in within:
        truth = within[list(truth)].iloc[order].reset_index(drop=True)
    del within, order, user, item, rating  # a long table's columns are large
    if windows is None:
        windows = _measure_splits(dataset, interactions, summaries)
    _check_splits(dataset, windows, interactions, dropped, days)

    metadata = source.items(frozenset(item_ids))
    _check_metadata(metadata, item_ids, max_bad_share)
    items, without_metadata = _item_table(metadata.table, item_ids)
    users = pd.DataFrame({"user": np.arange(len(user_ids), dtype=np.int32), "user_id": user_ids})
    faults = [*faults_by_file(source.parts, summaries), *metadata.faults]
    quarantine = pd.DataFrame(faults, columns=Fault._fields)
    quarantine = quarantine.astype({"file": "str", "row": "int64", "reason": "str", "text": "str"})
    stats = {
        "dataset": dataset.name,
        "rows_read": sum(part.rows for part in summaries),
        "quarantined": (quarantine["file"] + ": " + quarantine["reason"]).value_counts().sort_index().to_dict(),
        "outside_windows": outside,
        "core": dataset.core,
        **dropped,
        **{name: len(table) for name, table in (("interactions", interactions), ("users", users), ("items", items))},
        "items_without_metadata": without_metadata,
        "metadata_duplicated": metadata.duplicated,
        "metadata_repaired": dict(sorted(metadata.repaired.items())),
        "windows": {split: str(windows[split]) for split in SPLITS},
        **describe(interactions, truth),
    }
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


def _read(dataset: Dataset, source: Source, max_bad_share: float) -> tuple[pd.DataFrame, list[Summary], Windows | None]:
    """The rows within the windows in input order, what each part was like, and the windows, where those decide."""
    with workers(len(source.parts)) as somewhere:
        read = partial(read_part, read=source.read, max_bad_share=max_bad_share)
        reads = somewhere.map(read, source.parts, pure=False)
        summaries: list[Summary] = somewhere.gather(somewhere.map(summarise, reads, pure=False))
        rows = sum(part.rows for part in summaries)
        faults = faults_by_file(source.parts, summaries)
        check_rows(source.parts[0].where, faults, rows, max_bad_share=max_bad_share)
        windows = _choose_windows(dataset, summaries)
        parts = somewhere.gather(somewhere.map(partial(rows_within, windows=windows), reads, pure=False))
    return pa.concat_tables(parts).unify_dictionaries().to_pandas(), summaries, windows


def _choose_windows(dataset: Dataset, summaries: Sequence[Summary]) -> Windows | None:
    """The dataset's rule as windows, given what was read; None where a split column decides."""
    spans = [part.span for part in summaries if part.span is not None]
    if not spans:
        raise UserError(f"dataset {dataset.name}: every rating is malformed; lower dataset.max_bad_share to see how")
    oldest, newest = min(first for first, _ in spans), max(last for _, last in spans)
    if newest < FIRST_RATINGS:
        days = f"{_day(oldest // DAY)} to {_day(newest // DAY)}"
        print(f"ingest: the ratings are of {days}; is that so? Times are seconds since 1970, or ISO", file=sys.stderr)
    if dataset.windows != COLUMN:
        return windows_of(dataset.windows, oldest, newest)
    if any(part.splits is None for part in summaries):
        raise UserError(
            "dataset.windows: column, but the ratings have no split column; name it (dataset.columns.split) "
            "or split by time"
        )
    return None


def _select_rows(within: pd.DataFrame, core: int) -> tuple[Rows, dict[str, int]]:
    """The rows that stay, in input order, and how many go for which reason."""
    user, item = (within[name].cat.codes.to_numpy() for name in ("user_id", "item_id"))
    rows, exact = first_ratings(user, item, within["rating"].to_numpy(), within["timestamp"].to_numpy())
    in_core = core_rows(user[rows], item[rows], core)
    return rows[in_core], {
        "exact_duplicates": exact,
        "repeated_ratings": len(within) - exact - len(rows),
        "below_core": len(rows) - len(in_core),
    }


def _warn_of_rounded_ids(*ids: pd.Series) -> None:
    """Say of ids that are written as rounded numbers that several may have become one."""
    rounded = pd.concat([some[some.str.fullmatch(ROUNDED)] for some in ids])
    if len(rounded):
        print(
            f"ingest: {len(rounded):,} ids, such as {rounded.iloc[0]!r}, are numbers that a program has rounded: "
            "different ones may have become one; write ids as text",
            file=sys.stderr,
        )


def _item_table(metadata: pd.DataFrame, item_ids: pd.Series) -> tuple[pd.DataFrame, int]:
    """One row per rated item, and how many of them had no title."""
    described = metadata.set_index("item_id").reindex(item_ids)
    title = described["title"].fillna("")
    unnamed = title == ""
    year = described["year"].astype("Int16")
    table = pd.DataFrame(
        {
            "item": np.arange(len(item_ids), dtype=np.int32),
            "item_id": item_ids,
            "title": tell_apart(title.where(~unnamed, ("Item " + item_ids).map(plain_text).array), year),
            "year": year.array,
            # pandas writes a missing list as NaN.
            "categories": [names if isinstance(names, list) else [] for names in described["categories"]],
            "description": described["description"].fillna("").array,
        }
    )
    return table, int(unnamed.sum())


def tell_apart(title: pd.Series, year: pd.Series) -> list[str]:
    """Titles, none of which readers see of two items: those that share one have their year behind it, or a number."""
    titles = title.tolist()
    shown = Counter(map(shown_title, titles))
    if len(shown) == len(titles):
        return titles
    taken: set[str] = set()
    for at, (when, name) in enumerate(zip(year, map(shown_title, titles), strict=True)):
        if shown[name] > 1:
            first = "" if pd.isna(when) else f" ({when})"
            marks = chain([first], (f"{first} ({number})" for number in count(2)))
            names = (name[: LONGEST_TITLE - len(mark)] + mark for mark in marks)
            titles[at] = next(new for new in names if new not in taken and (new == name or new not in shown))
            taken.add(titles[at])
    return titles


def _check_metadata(metadata: Items, item_ids: pd.Series, max_bad_share: float) -> None:
    """Stop where metadata cannot be read, or are of other items; say so where most items have none."""
    if metadata.rows is None:
        return
    check_rows("the metadata", metadata.faults, metadata.rows, max_bad_share=max_bad_share, kind="item")
    without = len(item_ids) - len(metadata.table)
    if 2 * without > len(item_ids):
        missing = item_ids[~item_ids.isin(metadata.table["item_id"])].iloc[0]
        text = (
            f"{without:,} of {len(item_ids):,} rated items, such as {missing!r}, are in none of the {metadata.rows:,} "
            f"rows of metadata, whose ids are such as {metadata.example!r}; see that both files name items alike"
        )
        if metadata.table.empty:
            raise UserError(f"dataset: {text}")
        print(f"ingest: {text}", file=sys.stderr)
    untitled = int((metadata.table["title"] == "").sum())
    if 2 * untitled > len(metadata.table):
        print(
            f"ingest: {untitled:,} of {len(metadata.table):,} items in the metadata have no title there; see that "
            "dataset.items.title names the column of titles, as text",
            file=sys.stderr,
        )


def _measure_splits(dataset: Dataset, interactions: pd.DataFrame, summaries: Sequence[Summary]) -> Windows:
    """From the first to the last row of each split that a split column makes, which must follow each other."""
    times = interactions.groupby("split", observed=True)["timestamp"].agg(["min", "max"])
    missing = [split for split in SPLITS if split not in times.index]
    if missing:
        names = sorted(sum((part.splits or Counter() for part in summaries), Counter[str]()))
        raise UserError(
            f"dataset {dataset.name}: no ratings of split {missing[0]}; the split column should say "
            f"{', '.join(SPLITS)} (it says {', '.join(map(repr, names[:5]))})"
        )
    spans = {split: Window(start=int(first), end=int(last) + 1) for split, first, last in times.itertuples()}
    try:
        return in_order(spans)
    except ValueError:
        texts = "; ".join(f"{split} {span}" for split, span in spans.items())
        raise UserError(
            f"dataset {dataset.name}: the splits of its split column overlap in time ({texts}); each should follow the "
            "one before it, or what happens later would be known earlier"
        ) from None


def _check_splits(
    dataset: Dataset, windows: Windows, interactions: pd.DataFrame, dropped: dict[str, int], days: Counter[int]
) -> None:
    """Stop where a split is empty, and say what emptied it: the core, repeats, or there was nothing in its time."""
    counts = interactions["split"].value_counts()
    empty = [split for split in SPLITS if not counts[split]]
    if empty:
        window = windows[empty[0]]
        repeats = dropped["exact_duplicates"] + dropped["repeated_ratings"]
        why = (
            f"only users and items with {dataset.core} ratings stay (dataset.core), which took {dropped['below_core']} "
            "rows away; lower it, or widen dataset.windows"
            if dropped["below_core"]
            else f"of what a user rated several times only the earliest rating counts, which took {repeats} rows away; "
            "set dataset.windows by what is left"
            if any(window.start <= day * DAY < window.end for day in days)
            else f"the ratings are of {_day(min(days))} to {_day(max(days))}; check that dataset.raw is the file "
            "that is meant, or set dataset.windows"
        )
        raise UserError(f"dataset {dataset.name}: no ratings in the {empty[0]} window, {window}; {why}")


def _check_labels(dataset: Dataset, interactions: pd.DataFrame) -> None:
    """Stop where train holds one label only: there would be nothing to learn. Say it of the other splits."""
    for split in SPLITS:
        label = interactions["label"].to_numpy()[interactions["split"].to_numpy() == split]
        if label.min() < label.max():
            continue
        which = f"{('disliked', 'liked')[label[0]]} (liked: over {dataset.threshold})"
        fault = f"dataset {dataset.name}: all {len(label)} ratings of {split} are {which}, which leaves"
        if split == "train":
            raise UserError(f"{fault} nothing to learn; set dataset.threshold, or add others")
        instead = "; epochs are chosen by log-loss" if split == "valid" else ""
        print(f"{fault} no AUC nor UAUC to measure{instead}", file=sys.stderr)


def _day(number: int) -> date:
    """The day of that number since 1970."""
    return datetime.fromtimestamp(number * DAY, UTC).date()
