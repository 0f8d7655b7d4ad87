"""The features artefact: user and item vectors, and which of them each interaction uses.

    user vectors   [every user as fitted on train (U) | one per user, length of history and fit]
    item vectors   [by the fit on all of train (I) | by another fit (I) | ...]

Both protocols share the vectors. Row numbers of user vectors and the statistics are a protocol's own.

Shapes: n interactions, U users, I items, d dimensions, F statistics, S rows of user vectors, V rows of item vectors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thinkrec.artifacts import FEATURES, read_tensor_metadata, read_tensors, write_tensors
from thinkrec.history import Protocol

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

AFFINITY = "affinity"  # the last statistic: the feature model's logit without the user's bias
SHARED = ("user_vectors", "item_vectors", "item_row")
PER_PROTOCOL = ("user_row", "state", "statistics")


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """Features of every interaction under one protocol."""

    user_vectors: Floats  # (S, d); of the first U, those of users unknown to the fit are zeros
    item_vectors: Floats  # (V, d)
    item_row: Ints  # (n,) the item's row of item_vectors
    user_row: Ints  # (n,) row of user_vectors: the user after the history of the interaction
    state: Ints  # (n,) row of user_vectors that decides the routing: on valid and test, known users as fitted on train
    statistics: Floats  # (n, F)
    statistic_names: list[str]

    def user_vectors_of(self, rows: NDArray[Any]) -> Floats:
        """User vectors (len(rows), d) of these interactions."""
        return self.user_vectors[self.user_row[rows]]

    def item_vectors_of(self, rows: NDArray[Any]) -> Floats:
        """Item vectors (len(rows), d) of these interactions."""
        return self.item_vectors[self.item_row[rows]]


def save_features(features: Mapping[Protocol, Features], path: Path = FEATURES) -> None:
    """Write the features of all protocols; what they share is written once."""
    online = features["online"]
    tensors = {name: getattr(online, name) for name in SHARED}
    for protocol, of_protocol in features.items():
        tensors |= {f"{protocol}.{name}": getattr(of_protocol, name) for name in PER_PROTOCOL}
    write_tensors(path, tensors, metadata={"statistic_names": json.dumps(online.statistic_names)})


def load_features(path: Path = FEATURES, *, protocol: Protocol = "online") -> Features:
    """Read the features of one protocol.

    Raises:
        UserError: the file is absent or is not a features artefact.
    """
    key_of = {name: name for name in SHARED} | {name: f"{protocol}.{name}" for name in PER_PROTOCOL}
    tensors = read_tensors(path, key_of.values())
    return Features(
        **{name: tensors[key] for name, key in key_of.items()},
        statistic_names=json.loads(read_tensor_metadata(path)["statistic_names"]),
    )
