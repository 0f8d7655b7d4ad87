"""Predictions made up for tests of what is measured of them: a world whose true probabilities are known."""

from __future__ import annotations

import numpy as np
import pandas as pd

from thinkrec.metrics import sigmoid


def make_predictions(rows: int, *, users: int, seed: int = 0, **noise: float | None) -> pd.DataFrame:
    """Valid and test rows in turn (`artifacts.PREDICTIONS`), with the true probabilities as `best`.

    A model of each name in `noise` knows them up to that much of it; None is chance.
    """
    rng = np.random.default_rng(seed)
    logit = 1.5 * rng.normal(size=rows)
    frame = pd.DataFrame(
        {
            "row": 10 + np.arange(rows),
            "split": pd.Categorical(np.where(np.arange(rows) % 2, "test", "valid")),
            "user": rng.integers(0, users, rows),
            "item": rng.integers(0, 50, rows),
            "label": (rng.random(rows) < sigmoid(logit)).astype(np.int8),
            "warm": rng.random(rows) < 0.7,
            "history": rng.integers(0, 90, rows),
            "popularity": rng.integers(0, 30, rows),
            "group": rng.integers(-1, 2, rows),
            "case": rng.integers(0, 2, rows),
            "best": sigmoid(logit),
        }
    )
    models = {
        name: rng.random(rows) if spread is None else sigmoid(logit + spread * rng.normal(size=rows))
        for name, spread in noise.items()
    }
    return frame.assign(**models)
