"""Which interactions a teacher is asked about (METHOD section 2: sampled training instances)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from thinkrec.history import history_bounds
from thinkrec.params import TraceParams

Rows = npt.NDArray[np.int64]

ENOUGH_HISTORY = 3  # rows below which a history explains little


def as_sample(interactions: pd.DataFrame, rows: npt.ArrayLike) -> pd.DataFrame:
    """These rows of the table, in this order: `row` number, `label` (bool), `held_out` (bool: it is not of train)."""
    row = np.asarray(rows, np.int64)
    label, split = interactions["label"].to_numpy(), interactions["split"].astype(str).to_numpy()
    return pd.DataFrame({"row": row, "label": label[row].astype(bool), "held_out": split[row] != "train"})


def sample_rows(interactions: pd.DataFrame, params: TraceParams, seed: int) -> pd.DataFrame:
    """`params.train` rows of train, then `params.held_out` of test, each in the table's order, drawn at random.

    As many of each label as the split allows; where one runs short, the other makes up for it. A label's rows with at
    least `ENOUGH_HISTORY` earlier interactions come first, its others only where those run out.
    """
    start, end = history_bounds(interactions["user"].to_numpy(), interactions["timestamp"].to_numpy())
    short = end - start < ENOUGH_HISTORY
    label, split = interactions["label"].to_numpy(), interactions["split"].astype(str).to_numpy()
    sampled = []
    for number, (name, count) in enumerate((("train", params.train), ("test", params.held_out))):
        rows = np.random.default_rng([seed, number]).permutation(np.flatnonzero(split == name))
        rows = rows[np.argsort(short[rows], kind="stable")]
        liked, disliked = rows[label[rows] > 0], rows[label[rows] == 0]
        wanted = min(len(liked), max((count + 1) // 2, count - len(disliked)))  # half, the odd one included
        sampled.append(np.sort(np.concatenate([liked[:wanted], disliked[: count - wanted]])))
    return as_sample(interactions, np.concatenate(sampled))
