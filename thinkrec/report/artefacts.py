"""What the report is made from: a finished project's artefacts.

Shapes: e adapters (the global one, then N experts).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thinkrec import artifacts
from thinkrec.experts.groups import load_groups
from thinkrec.experts.weights import load_weights
from thinkrec.features.artefact import load_features
from thinkrec.params import Params

MEASURED = ("ingest", "sft", "gate", "evaluate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefacts:
    """The artefacts that the report is made from, as their readers return them."""

    interactions: pd.DataFrame
    items: pd.DataFrame
    users: pd.DataFrame
    keywords: pd.DataFrame
    truth: pd.DataFrame
    predictions: pd.DataFrame
    reasons: pd.DataFrame
    weights: NDArray[np.float32]  # (rows of predictions, e)
    table: dict[str, Any]  # artifacts.TABLE
    measured: dict[str, dict[str, Any]]  # stage -> all that it measured, of MEASURED


def read_artefacts(params: Params) -> Artefacts:
    """The artefacts of the finished project in the working directory.

    Raises:
        UserError: one is missing, or does not belong to the others.
    """
    features, groups = load_features(), load_groups(artifacts.EXPERTS)
    weights = load_weights(groups, params.gate, states=len(features.user_vectors))
    predictions = artifacts.read_table(artifacts.PREDICTIONS)
    return Artefacts(
        interactions=artifacts.read_table(artifacts.INTERACTIONS),
        items=artifacts.read_table(artifacts.ITEMS),
        users=artifacts.read_table(artifacts.USERS),
        keywords=artifacts.read_table(artifacts.KEYWORDS),
        truth=artifacts.read_table(artifacts.TRUTH),
        predictions=predictions,
        reasons=artifacts.read_table(artifacts.REASONS),
        weights=weights[features.state[predictions["row"]]],
        table=artifacts.read_json(artifacts.TABLE),
        measured={name: artifacts.read_json(artifacts.ROOT / name / artifacts.MEASURES) for name in MEASURED},
    )
