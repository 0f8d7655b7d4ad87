"""Causal statistics of an interaction: what its user's and its item's strictly earlier interactions say about it.

Two families (METHOD §3: ours):

- running rates: smoothed log-odds and counts of the user's, the item's and the user's in the item's categories;
- kernel features: the shrunken mean of the user's past *residuals* (label minus what the rates of user and item
  made likely then), weighted by how alike the past item and this one are. This is content-based collaborative
  filtering in one pass over a bounded history.

Shapes: n interactions, I items, F statistics, B rows of a chunk, K past rows looked at.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thinkrec.data.histories import history_bounds
from thinkrec.features.running import log_odds, running_counts, smoothed_rate

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
CHUNK_PAIRS = 400_000  # past-row gathers held at once: some 60 MB
TITLE_WORDS = 6
YEAR_SCALE = 6.0
POPULARITY_SCALE = 0.75
KERNEL_SHRINKAGE = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemContent:
    """What the kernels compare of items."""

    categories: Floats  # (I, C) multi-hot
    year: Floats  # (I,) NaN where unknown
    words: NDArray[np.int32]  # (I, TITLE_WORDS) ids of title words, -1 where there are fewer


def item_content(items: pd.DataFrame) -> ItemContent:
    """The compared columns of the `items` artefact."""
    names = sorted({name for row in items["categories"] for name in row})
    index = {name: column for column, name in enumerate(names)}
    categories = np.zeros((len(items), max(len(names), 1)), np.float32)
    for row, values in enumerate(items["categories"]):
        for name in values:
            categories[row, index[name]] = 1
    words = np.full((len(items), TITLE_WORDS), -1, np.int32)
    vocabulary: dict[str, int] = {}
    for row, title in enumerate(items["title"]):
        long = dict.fromkeys(word for word in re.findall(r"[^\W\d_]{3,}", title.lower()) if word != "the")
        for column, word in enumerate(list(long)[:TITLE_WORDS]):
            words[row, column] = vocabulary.setdefault(word, len(vocabulary))
    year = items["year"].to_numpy(np.float32, na_value=np.nan)
    return ItemContent(categories=categories, year=year, words=words)


def causal_statistics(
    interactions: pd.DataFrame, items: pd.DataFrame, *, smoothing: float, kernel_history: int
) -> tuple[Floats, list[str]]:
    """Statistics (n, F) of every interaction and their names; only strictly earlier interactions count.

    Rates are smoothed by `smoothing` pseudo-interactions at the like-rate of everything earlier; kernels look at the
    user's last `kernel_history` interactions.
    """
    counts, content = counts_before(interactions), item_content(items)
    return statistics_of(counts, interactions, content, smoothing=smoothing, kernel_history=kernel_history)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Likes, and interactions, strictly before each of n rows: all there were, its user's, its item's."""

    likes: Ints
    count: Ints
    user_likes: Ints
    user_count: Ints
    item_likes: Ints
    item_count: Ints


def counts_before(interactions: pd.DataFrame) -> Counts:
    """The counts before every row of a table (n)."""
    user, item, time, label = (interactions[name].to_numpy() for name in ("user", "item", "timestamp", "label"))
    likes, count = running_counts(np.zeros(len(time), np.int64), time, label)
    user_likes, user_count = running_counts(user, time, label)
    item_likes, item_count = running_counts(item, time, label)
    return Counts(
        likes=likes,
        count=count,
        user_likes=user_likes,
        user_count=user_count,
        item_likes=item_likes,
        item_count=item_count,
    )


def statistics_of(
    counts: Counts, interactions: pd.DataFrame, content: ItemContent, *, smoothing: float, kernel_history: int
) -> tuple[Floats, list[str]]:
    """Statistics (n, F) and their names of rows before which there was what `counts` says.

    `interactions` holds whole users up to some moment; of other users it needs nothing, since `counts` tells of them.
    """
    label = interactions["label"].to_numpy(np.float32)
    prior = smoothed_rate(counts.likes, counts.count, 0.5)
    user_odds = log_odds(smoothed_rate(counts.user_likes, counts.user_count, prior, smoothing=smoothing))
    item_odds = log_odds(smoothed_rate(counts.item_likes, counts.item_count, prior, smoothing=smoothing))
    expected = 1 / (1 + np.exp(-(user_odds + item_odds - log_odds(prior))))
    columns = {
        "user_log_odds": user_odds,
        "user_log_count": np.log1p(counts.user_count),
        "item_log_odds": item_odds,
        "item_log_count": np.log1p(counts.item_count),
    }
    columns |= _kernel_features(
        content, interactions, label - expected, np.log1p(counts.item_count), kernel_history=kernel_history
    )
    return np.stack([np.asarray(column, np.float32) for column in columns.values()], axis=1), list(columns)


def _kernel_features(
    content: ItemContent,
    interactions: pd.DataFrame,
    residual: NDArray[np.float64],
    popularity: NDArray[np.float64],
    *,
    kernel_history: int,
) -> dict[str, Floats]:
    """The shrunken weighted mean of past residuals under every kernel, and the weight that it rests on."""
    user, item, time = (interactions[name].to_numpy() for name in ("user", "item", "timestamp"))
    start, end = history_bounds(user, time)
    out = {f"{kind}_{name}": np.zeros(len(item), np.float32) for name in KERNELS for kind in ("residual", "log_weight")}
    step = max(1, CHUNK_PAIRS // kernel_history)
    for first in range(0, len(item), step):
        rows = np.arange(first, min(first + step, len(item)))
        past = end[rows, None] - 1 - np.arange(kernel_history)[None, :]
        exists = past >= start[rows, None]
        past = np.where(exists, past, 0)
        pair = _Pairs(
            content=content,
            target=item[rows],
            past=item[past],
            target_popularity=popularity[rows],
            past_popularity=popularity[past],
        )
        computed: dict[str, Floats] = {}
        for name, kernel in KERNELS.items():
            computed[name] = kernel(pair, computed)
            weight = np.where(exists, computed[name], 0)
            total = weight.sum(1)
            out[f"residual_{name}"][rows] = (weight * residual[past]).sum(1) / (total + KERNEL_SHRINKAGE)
            out[f"log_weight_{name}"][rows] = np.log1p(total)
    return out


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pairs:
    """Target items (B,) against past items (B, K)."""

    content: ItemContent
    target: NDArray[np.int32]
    past: NDArray[np.int32]
    target_popularity: NDArray[np.float64]
    past_popularity: NDArray[np.float64]


def _everything(pair: _Pairs, _: dict[str, Floats]) -> Floats:
    return np.ones(pair.past.shape, np.float32)


def _categories(pair: _Pairs, _: dict[str, Floats]) -> Floats:
    """Jaccard similarity of the category sets, squared."""
    table = pair.content.categories
    both = np.einsum("bkc,bc->bk", table[pair.past], table[pair.target])
    size = table.sum(1)
    either = size[pair.past] + size[pair.target][:, None] - both
    return np.square(both / np.maximum(either, 1))


def _years(pair: _Pairs, _: dict[str, Floats]) -> Floats:
    gap = np.abs(pair.content.year[pair.past] - pair.content.year[pair.target][:, None])
    return np.nan_to_num(np.exp(-gap / YEAR_SCALE), nan=0.0)


def _categories_and_years(_: _Pairs, computed: dict[str, Floats]) -> Floats:
    return computed["categories"] * computed["years"]


def _titles(pair: _Pairs, _: dict[str, Floats]) -> Floats:
    """Number of title words in common, over the larger title."""
    past, target = pair.content.words[pair.past], pair.content.words[pair.target]
    same = (past[:, :, :, None] == target[:, None, None, :]) & (past >= 0)[:, :, :, None]
    size = np.maximum((past >= 0).sum(2), (target >= 0).sum(1)[:, None])
    return (same.sum((2, 3)) / np.maximum(size, 1)).astype(np.float32)


def _popularity(pair: _Pairs, _: dict[str, Floats]) -> Floats:
    return np.exp(-np.abs(pair.past_popularity - pair.target_popularity[:, None]) / POPULARITY_SCALE)


KERNELS: dict[str, Callable[[_Pairs, dict[str, Floats]], Floats]] = {
    "everything": _everything,
    "categories": _categories,
    "years": _years,
    "categories_and_years": _categories_and_years,
    "titles": _titles,
    "popularity": _popularity,
}
