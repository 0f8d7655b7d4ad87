"""Which interactions a teacher is asked about (METHOD section 2: sampled training instances)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from thinkrec.history import history_bounds
from thinkrec.params import TraceParams

Rows = npt.NDArray[np.int64]

ENOUGH_HISTORY = 3  # rows below which a history explains little


def choose_instances(
    interactions: pd.DataFrame,
    params: TraceParams,
    seed: int,
    *,
    score: Callable[[], npt.NDArray[np.float32]],
    group: Callable[[], npt.NDArray[np.int32]],
) -> tuple[Rows, Rows]:
    """Row numbers to ask about: (from train, from test), each sorted.

    `params.choice` says which rows of train:

    - balanced: as many of each label as the split allows, drawn at random.
    - random: drawn from all of train alike.
    - hard: as many of each label; those first that the feature model is most wrong about (the largest log loss).
    - groups: as many of each label, and within a label as many of each user group; drawn at random.

    Except for `random`, a label's or group's rows with at least `ENOUGH_HISTORY` earlier interactions come first, its
    others only where those run out. Where a label or group runs short altogether, the others make up for it.

    Test rows are balanced whatever the choice: the references for the evaluation of reasons should stand for the split,
    not for what one feature model finds hard, and be the same ones when choices are compared.

    Args:
        interactions: the table, of n rows.
        params: how many rows, chosen how.
        seed: of the draws.
        score: gives the feature model's logits (n,), of fits forward in time for train rows, NaN where it knows
            nothing; called where the choice goes by them.
        group: gives the group (n,) of each row's user; called where the choice goes by it.
    """
    start, end = history_bounds(interactions["user"].to_numpy(), interactions["timestamp"].to_numpy())
    short = end - start < ENOUGH_HISTORY
    label, split = interactions["label"].to_numpy(), interactions["split"].astype(str).to_numpy()
    train, test = (
        np.random.default_rng([seed, number]).permutation(np.flatnonzero(split == name))
        for number, name in enumerate(("train", "test"))
    )
    held_out = _spread(_first(test, short), [label], params.held_out)
    match params.choice:
        case "balanced":
            chosen = _spread(_first(train, short), [label], params.train)
        case "random":
            chosen = train[: params.train]
        case "hard":
            # The log loss falls with the logit of the right verdict, so the smallest of those are the most wrong.
            right = np.where(label > 0, 1, -1) * score()
            chosen = _spread(_first(train, short, np.nan_to_num(right, nan=np.inf)), [label], params.train)
        case "groups":
            chosen = _spread(_first(train, short), [label, group()], params.train)
    return np.sort(chosen), np.sort(held_out)


def _first(rows: Rows, *keys: npt.NDArray[Any]) -> Rows:
    """`rows` by the first of `keys` (n,), small ones first, ties by the next, then as they stood."""
    return rows[np.lexsort([key[rows] for key in reversed(keys)])]


def _spread(rows: Rows, strata: Sequence[npt.NDArray[Any]], count: int) -> Rows:
    """`count` of `rows`, the foremost of each stratum: evenly over the first of `strata` (n,), in it over the next."""
    if not strata or not len(rows):
        return rows[:count]
    stratum, *within = strata
    parts = [rows[stratum[rows] == value] for value in np.unique(stratum[rows])[::-1]]
    shares = even_shares([len(part) for part in parts], count)
    return np.concatenate([_spread(part, within, share) for part, share in zip(parts, shares, strict=True)])


def even_shares(sizes: Sequence[int], count: int) -> list[int]:
    """How `count` is shared out to parts of these sizes: evenly, what one lacks to the others, the first rounded up."""
    shares = [0] * len(sizes)
    left = min(count, sum(sizes))
    while left:
        unfilled = [part for part, size in enumerate(sizes) if shares[part] < size]
        each = left // len(unfilled)
        for part in unfilled if each else unfilled[:left]:
            more = min(each or 1, sizes[part] - shares[part])
            shares[part] += more
            left -= more
    return shares
