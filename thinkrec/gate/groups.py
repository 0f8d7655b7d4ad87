"""User groups: k-means on the feature model's user vectors (METHOD: experts and fusion).

`space` holds for both the clustering and the cosines of routing: `standardised` centres and scales every dimension
by the train users' mean and spread, `raw` leaves the vectors as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from sklearn.cluster import KMeans

from thinkrec.artifacts import atomic
from thinkrec.errors import UserError

Floats = NDArray[np.float32]
GROUPS_FILE = "groups.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class UserGroups:
    """Groups of the train users, N of them."""

    group: NDArray[np.int32]  # (U,) 0..N-1, -1 for users that train never saw
    centroids: Floats  # (N, d) in the space of the cosines
    mean: Floats  # (d,)
    spread: Floats  # (d,)

    def project(self, vectors: Floats) -> Floats:
        """User vectors (k, d) in the space of the centroids; zero vectors (nothing known) stay zero."""
        known = np.any(vectors != 0, axis=1, keepdims=True)
        return np.where(known, (vectors - self.mean) / self.spread, 0).astype(np.float32)


def group_users(
    vectors: Floats, *, n: int, space: Literal["standardised", "raw"], min_users: int, seed: int
) -> tuple[UserGroups, dict[str, Any]]:
    """Cluster the users with a vector (rows of `vectors` (U, d) that are not zero) into `n` groups.

    A group of fewer than `min_users` users joins the group whose centroid is nearest; so there may be fewer than `n`.

    Raises:
        UserError: there are fewer users than groups.
    """
    known = np.flatnonzero(np.any(vectors != 0, axis=1))
    if len(known) < n:
        raise UserError(f"experts.n={n}: there are only {len(known)} users to group; ask for fewer experts")
    standardised = space == "standardised"
    mean = vectors[known].mean(0) if standardised else np.zeros(vectors.shape[1], np.float32)
    spread = np.maximum(vectors[known].std(0), 1e-6) if standardised else np.ones(vectors.shape[1], np.float32)
    points = (vectors[known] - mean) / spread
    group = np.full(len(vectors), -1, np.int32)
    joined = 0
    if n:
        found = KMeans(n, n_init=10, random_state=seed).fit_predict(points)
        while (sizes := np.bincount(found)).min() < min_users and len(sizes) > 1:
            small = int(sizes.argmin())
            centres = np.stack([points[found == number].mean(0) for number in range(len(sizes))])
            distance = np.square(centres - centres[small]).sum(1)
            distance[small] = np.inf
            found[found == small] = int(distance.argmin())
            found = np.unique(found, return_inverse=True)[1]
            joined += 1
        # Largest group first: numbers that do not depend on where k-means began.
        sizes = np.bincount(found)
        group[known] = np.argsort(np.argsort(-sizes, kind="stable"))[found]
    count = int(group.max()) + 1
    centroids = np.stack([points[group[known] == number].mean(0) for number in range(count)]) if count else points[:0]
    groups = UserGroups(
        group=group,
        centroids=centroids.astype(np.float32),
        mean=mean.astype(np.float32),
        spread=spread.astype(np.float32),
    )
    users = [int((group == number).sum()) for number in range(count)]
    return groups, {"groups": count, "joined": joined, "users": users}


def save(groups: UserGroups, folder: Path) -> None:
    """Write the groups into `folder`."""
    tensors = {name: np.ascontiguousarray(getattr(groups, name)) for name in UserGroups.__slots__}
    with atomic(folder / GROUPS_FILE) as partial:
        save_file(tensors, partial)


def load(folder: Path) -> UserGroups:
    """Read the groups.

    Raises:
        UserError: there are none.
    """
    try:
        return UserGroups(**load_file(folder / GROUPS_FILE))
    except FileNotFoundError:
        raise UserError(f"{folder / GROUPS_FILE}: no such artefact; run its stage first: dvc repro experts") from None
