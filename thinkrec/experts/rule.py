"""The paper's routing rule as one dense matrix, states x (N + 1), rows summing to 1 (METHOD: experts and fusion).

Column 0 is the global adapter, columns 1..N the experts. The paper's three cases are special rows: averaged
(global only), single (one expert only), mixed. S states, N experts, d dimensions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from thinkrec.experts.groups import UserGroups

Floats = NDArray[np.float32]
CASES = ("averaged", "single", "mixed")
ENTROPY_SHARE = 0.95  # of ln N: above it the weights say nothing, and the global adapter serves
SINGLE_BASE, SINGLE_SLOPE = 0.5, 0.6  # max(w) > .5 + .6 / N: that one expert serves


def centroid_weights(points: Floats, centroids: Floats, temperature: float) -> Floats:
    """w (S, N): softmax over experts of the cosine to their centroids, divided by the temperature."""
    cosine = centroid_cosines(points, centroids)
    exponent = np.exp((cosine - cosine.max(1, keepdims=True)) / temperature)
    return exponent / exponent.sum(1, keepdims=True)


def centroid_routing(vectors: Floats, groups: UserGroups, temperature: float) -> Floats:
    """The routing weights (S, N + 1) of user vectors (S, d) by the paper's rule.

    Without experts, everybody gets the global adapter. One expert serves everybody: there is nothing to route
    (ln 1 = 0). A user without a vector (no history) gets the global adapter.
    """
    n = len(groups.centroids)
    only = np.eye(n + 1, dtype=np.float32)
    routing_weights = np.repeat(only[:1], len(vectors), axis=0)
    has_vector = np.any(vectors != 0, axis=1)
    if n == 1:
        routing_weights[has_vector] = only[1]
    elif n > 1:
        weights = centroid_weights(groups.project(vectors[has_vector]), groups.centroids, temperature)
        entropy = -(weights * np.log(np.maximum(weights, 1e-12))).sum(1)
        averaged = entropy > ENTROPY_SHARE * np.log(n)
        single = ~averaged & (weights.max(1) > SINGLE_BASE + SINGLE_SLOPE / n)
        rows = np.insert(weights, 0, 0, axis=1)
        rows[averaged] = only[0]
        rows[single] = only[1 + weights[single].argmax(1)]
        routing_weights[has_vector] = rows
    return routing_weights


def routing_cases(routing_weights: Floats) -> NDArray[np.int8]:
    """Which case (index into CASES) every row (S,) of routing weights is."""
    return np.select([routing_weights[:, 0] == 1, routing_weights.max(1) == 1], [0, 1], 2).astype(np.int8)


def centroid_cosines(points: Floats, centroids: Floats) -> Floats:
    """The cosines (S, N) of points (S, d) to the centroids (N, d)."""
    return _unit(points) @ _unit(centroids).T


def _unit(vectors: Floats) -> Floats:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
