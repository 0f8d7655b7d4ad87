"""Which interactions a teacher is asked about (METHOD section 2: sampled training instances)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from thinkrec.history import history_bounds
from thinkrec.params import TraceParams

Rows = npt.NDArray[np.int64]

ENOUGH_HISTORY = 3  # rows below which a history explains little


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Interactions to ask about, an entry each: row number, label, and whether the row is out of train."""

    row: Rows
    label: npt.NDArray[np.bool_]
    held_out: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, interactions: pd.DataFrame, rows: npt.ArrayLike) -> Self:
        """These rows of the table, in this order."""
        row = np.asarray(rows, np.int64)
        label, split = interactions["label"].to_numpy(), interactions["split"].astype(str).to_numpy()
        return cls(row=row, label=label[row].astype(bool), held_out=split[row] != "train")

    def spread(self, count: int) -> Self:
        """At most `count` of the entries, from all over the sample."""
        some = np.unique(np.linspace(0, len(self.row) - 1, count).astype(np.int64)) if len(self.row) else self.row
        return replace(self, row=self.row[some], label=self.label[some], held_out=self.held_out[some])


def sample_rows(
    interactions: pd.DataFrame,
    params: TraceParams,
    seed: int,
    *,
    score: Callable[[], npt.NDArray[np.float32]],
) -> Sample:
    """The interactions to ask about: those of train, then those of test, each in the table's order.

    `params.sampling` says which rows of train:

    - balanced: as many of each label as the split allows, drawn at random.
    - random: drawn from all of train alike.
    - hard: as many of each label; those first that the feature model is most wrong about (the largest log loss).

    Except for `random`, a label's rows with at least `ENOUGH_HISTORY` earlier interactions come first, its others only
    where those run out. Where a label runs short altogether, the other makes up for it.

    Test rows are always balanced: the references for the evaluation of reasons should stand for the split, not for what
    one feature model finds hard, and be the same rows when samplings are compared.

    Args:
        interactions: the table, of n rows.
        params: how many rows, sampled how.
        seed: of the draws.
        score: gives the feature model's logits (n,), of fits forward in time for train rows, NaN where it knows
            nothing; called for `hard` alone.
    """
    start, end = history_bounds(interactions["user"].to_numpy(), interactions["timestamp"].to_numpy())
    short = end - start < ENOUGH_HISTORY
    label, split = interactions["label"].to_numpy(), interactions["split"].astype(str).to_numpy()
    train, test = (
        np.random.default_rng([seed, number]).permutation(np.flatnonzero(split == name))
        for number, name in enumerate(("train", "test"))
    )
    held_out = _balanced(_first(test, short), label, params.held_out)
    match params.sampling:
        case "balanced":
            sampled = _balanced(_first(train, short), label, params.train)
        case "random":
            sampled = train[: params.train]
        case "hard":
            # The log loss falls with the logit of the right verdict, so the smallest of those are the most wrong.
            right = np.where(label > 0, 1, -1) * score()
            sampled = _balanced(_first(train, short, np.nan_to_num(right, nan=np.inf)), label, params.train)
    return Sample.of(interactions, np.concatenate([np.sort(sampled), np.sort(held_out)]))


def _first(rows: Rows, *keys: npt.NDArray[Any]) -> Rows:
    """`rows` by the first of `keys` (n,), small ones first, ties by the next, then as they stood."""
    return rows[np.lexsort([key[rows] for key in reversed(keys)])]


def _balanced(rows: Rows, label: npt.NDArray[np.int8], count: int) -> Rows:
    """`count` of `rows`, the foremost of each label (n,): half each, the odd one liked; one makes up for the other."""
    liked, disliked = rows[label[rows] > 0], rows[label[rows] == 0]
    wanted = min(len(liked), max((count + 1) // 2, count - len(disliked)))
    return np.concatenate([liked[:wanted], disliked[: count - wanted]])
