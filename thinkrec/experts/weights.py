"""The routing weights on disk, and what they belong to: all of a routing that the report reads, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thinkrec.artifacts import EXPERTS, GATE, faulty_artifact, read_tensors
from thinkrec.experts.groups import UserGroups
from thinkrec.params import GateParams
from thinkrec.provenance import check_provenance, hash_of, parameters

ROUTING_FILE = "routing.safetensors"


def load_weights(groups: UserGroups, params: GateParams, root: Path = Path(), *, states: int) -> NDArray[np.float32]:
    """The routing weights (states, N + 1) to the experts of these groups; a UserError if they are of others."""
    folder = root / GATE
    weights = read_tensors(folder / ROUTING_FILE, ["weights"])["weights"]
    check_provenance(folder, routing_provenance(params, root))
    shape = (states, len(groups.centroids) + 1)
    if weights.shape != shape:
        raise faulty_artifact(
            folder / ROUTING_FILE, f"not the weights of {states} user states and {shape[1] - 1} experts"
        )
    return weights


def routing_provenance(params: GateParams, root: Path) -> dict[str, Any]:
    """What a routing belongs to: the experts, the kind of gate, the temperature that new users are routed with."""
    return {"experts": hash_of(root / EXPERTS), **parameters("gate", params, "kind", "temperature")}
