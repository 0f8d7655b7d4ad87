"""Causal statistics of an interaction, from the strictly earlier interactions of its user and its item.

Two families (METHOD §3: ours):

- running rates: smoothed log-odds and counts of the user's and the item's interactions;
- kernel features: the shrunken mean of the user's past *residuals* (label minus the probability expected then from the
  rates of user and item), weighted by how alike the past item and this one are. This is content-based collaborative
  filtering in one pass over a bounded history.

Shapes: n interactions, I items, F statistics, B rows of a chunk, K past rows looked at.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thinkrec.features.running import Ints, log_odds, running_counts, smoothed_rate
from thinkrec.history import history_bounds
from thinkrec.metrics import sigmoid

Floats = NDArray[np.float32]
Weights = NDArray[np.floating]  # (B, K)
# Likes, and interactions, strictly before each of n rows: of everybody, of its user, of its item.
Counts = dict[Literal["all", "user", "item"], tuple[Ints, Ints]]
KERNEL_HISTORY = 100  # past interactions that kernels look at
CHUNK_PAIRS = 100_000  # pairs of a row and a past one held at once: some 10 MB
TITLE_WORDS = 6
YEAR_SCALE = 6.0
POPULARITY_SCALE = 0.75
KERNEL_SHRINKAGE = 2.0
BITS = 64  # of a number that stands for a set of names


@dataclass(frozen=True, slots=True, kw_only=True)
class NameSets:
    """A set of names per item, in a form that makes comparing two items' sets fast.

    A name's bit is its number modulo 64: sets without a common bit have no common name.
    """

    bits: NDArray[np.uint64]  # (I,)
    members: NDArray[np.int32]  # (largest set, I) numbers of names, -1 where there are fewer
    sizes: NDArray[np.int32]  # (I,)
    names: int  # up to 64 the bits are the sets themselves

    @classmethod
    def from_sets(cls, sets: Iterable[Sequence[str]]) -> NameSets:
        """The sets of items 0, 1, ...; no name may stand twice in one."""
        numbers: dict[str, int] = {}
        lists = [[numbers.setdefault(name, len(numbers)) for name in names] for names in sets]
        sizes = np.asarray([len(members) for members in lists], np.int32)
        members = np.full((sizes.max(initial=0), len(lists)), -1, np.int32)
        bits = np.zeros(len(lists), np.uint64)
        for item, of_item in enumerate(lists):
            members[: len(of_item), item] = of_item
            bits[item] = sum({1 << number % BITS for number in of_item})
        return cls(bits=bits, members=members, sizes=sizes, names=len(numbers))


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemContent:
    """What the kernels compare of items."""

    categories: NameSets
    year: Floats  # (I,) NaN where unknown
    title_words: NameSets  # of at most TITLE_WORDS


def item_content(items: pd.DataFrame) -> ItemContent:
    """The compared columns of the `items` artefact."""
    words = []
    for title in items["title"]:
        long = dict.fromkeys(word for word in re.findall(r"[^\W\d_]{3,}", title.lower()) if word != "the")
        words.append(list(long)[:TITLE_WORDS])
    return ItemContent(
        categories=NameSets.from_sets(list(dict.fromkeys(row)) for row in items["categories"]),
        year=items["year"].to_numpy(np.float32, na_value=np.nan),
        title_words=NameSets.from_sets(words),
    )


def causal_statistics(interactions: pd.DataFrame, items: pd.DataFrame) -> tuple[Floats, list[str]]:
    """Statistics (n, F) of every interaction and their names; only strictly earlier interactions count."""
    return statistics_of(counts_before(interactions), interactions, item_content(items))


def counts_before(interactions: pd.DataFrame) -> Counts:
    """The counts before every row of a table (n)."""
    user, item, time, label = (interactions[name].to_numpy() for name in ("user", "item", "timestamp", "label"))
    return {
        "all": running_counts(np.zeros(len(time), np.int64), time, label),
        "user": running_counts(user, time, label),
        "item": running_counts(item, time, label),
    }


def statistics_of(counts: Counts, interactions: pd.DataFrame, content: ItemContent) -> tuple[Floats, list[str]]:
    """Statistics (n, F) of the rows of `interactions`, and their names; `counts` is what there was before each row.

    `interactions` holds all rows of some users up to a moment. Other users are needed only for `counts`. Rates are
    smoothed towards the like-rate of everything earlier, and that rate towards one half.
    """
    label = interactions["label"].to_numpy(np.float32)
    prior = smoothed_rate(*counts["all"], 0.5)
    user_odds, item_odds = (log_odds(smoothed_rate(*counts[key], prior)) for key in ("user", "item"))
    expected = sigmoid(user_odds + item_odds - log_odds(prior))
    popularity = np.log1p(counts["item"][1])
    rates = {
        "user_log_odds": user_odds,
        "user_log_count": np.log1p(counts["user"][1]),
        "item_log_odds": item_odds,
        "item_log_count": popularity,
    }
    names = [*rates, *(f"{kind}_{name}" for name in KERNELS for kind in ("residual", "log_weight"))]
    out = np.empty((len(label), len(names)), np.float32)
    for column, values in enumerate(rates.values()):
        out[:, column] = values
    kernels, residual = out[:, len(rates) :], label - expected
    del rates, user_odds, item_odds, prior, expected  # a long table's columns are large
    _kernel_features(content, interactions, residual, popularity, kernels)
    return out, names


def _kernel_features(
    content: ItemContent,
    interactions: pd.DataFrame,
    residual: NDArray[np.float64],
    popularity: NDArray[np.float64],
    out: Floats,
) -> None:
    """Fill `out` (n, 2 per kernel): the shrunken weighted mean of past residuals, and the weight that it rests on."""
    user, item, time = (interactions[name].to_numpy() for name in ("user", "item", "timestamp"))
    start, end = history_bounds(user, time)
    step = max(1, CHUNK_PAIRS // KERNEL_HISTORY)
    for first in range(0, len(item), step):
        rows = slice(first, first + step)
        past = end[rows, None] - 1 - np.arange(KERNEL_HISTORY)
        exists = past >= start[rows, None]
        past = np.where(exists, past, 0)
        pairs = _Pairs(
            content=content,
            target=item[rows],
            past=item[past],
            exists=exists,
            target_popularity=popularity[rows],
            past_popularity=popularity[past],
        )
        past_residual = np.where(exists, residual[past], 0)
        computed: dict[str, Weights] = {}
        for number, (name, kernel) in enumerate(KERNELS.items()):
            weight = computed[name] = kernel(pairs, computed) * exists
            total = weight.sum(1)
            out[rows, 2 * number] = (weight * past_residual).sum(1) / (total + KERNEL_SHRINKAGE)
            out[rows, 2 * number + 1] = np.log1p(total)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pairs:
    """Target items (B,) against past ones (B, K). What kernels say of past ones that do not exist is not used."""

    content: ItemContent
    target: NDArray[np.int32]
    past: NDArray[np.int32]
    exists: NDArray[np.bool_]  # (B, K)
    target_popularity: NDArray[np.float64]
    past_popularity: NDArray[np.float64]


def _everything(pairs: _Pairs, _: dict[str, Weights]) -> Weights:
    return np.ones(pairs.past.shape, np.float32)


def _categories(pairs: _Pairs, _: dict[str, Weights]) -> Weights:
    """Jaccard similarity of the category sets, squared."""
    sets = pairs.content.categories
    both = _count_common(sets, pairs).astype(np.float32)
    # An empty set has nothing in common with any, so its size does not matter; it only may not divide by zero.
    past, target = (np.maximum(sets.sizes[items], 1).astype(np.float32) for items in (pairs.past, pairs.target))
    return np.square(both / (past + target[:, None] - both))


def _count_common(sets: NameSets, pairs: _Pairs) -> NDArray[np.unsignedinteger]:
    """Number of names that target and past items have in common (B, K)."""
    bits = np.where(pairs.exists, sets.bits[pairs.past] & sets.bits[pairs.target][:, None], np.uint64(0))
    if sets.names <= BITS:
        return np.bitwise_count(bits)
    at = np.flatnonzero(bits)  # few; the rest have nothing in common
    past = sets.members[:, pairs.past.ravel()[at]]
    target = sets.members[:, pairs.target[at // bits.shape[1]]]
    common = np.zeros(bits.shape, np.uint16)
    common.ravel()[at] = sum(((past == name) & (name >= 0)).sum(0, dtype=np.uint16) for name in target)
    return common


def _years(pairs: _Pairs, _: dict[str, Weights]) -> Weights:
    # An unknown year is infinitely far from any, another unknown one included.
    past = np.nan_to_num(pairs.content.year[pairs.past], nan=np.inf)
    target = np.nan_to_num(pairs.content.year[pairs.target], nan=-np.inf)
    return np.exp(-np.abs(past - target[:, None]) / YEAR_SCALE)


def _categories_and_years(_: _Pairs, computed: dict[str, Weights]) -> Weights:
    return computed["categories"] * computed["years"]


def _titles(pairs: _Pairs, _: dict[str, Weights]) -> Weights:
    """Number of title words in common, over the larger title."""
    sets = pairs.content.title_words
    common = _count_common(sets, pairs)
    weight = np.zeros(common.shape, np.float32)
    at = np.nonzero(common)
    larger = np.maximum(sets.sizes[pairs.past[at]], sets.sizes[pairs.target[at[0]]])
    weight[at] = common[at] / larger
    return weight


def _popularity(pairs: _Pairs, _: dict[str, Weights]) -> Weights:
    return np.exp(-np.abs(pairs.past_popularity - pairs.target_popularity[:, None]) / POPULARITY_SCALE)


KERNELS: dict[str, Callable[[_Pairs, dict[str, Weights]], Weights]] = {
    "everything": _everything,
    "categories": _categories,
    "years": _years,
    "categories_and_years": _categories_and_years,
    "titles": _titles,
    "popularity": _popularity,
}
