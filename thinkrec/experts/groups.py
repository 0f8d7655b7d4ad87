"""User groups: clusters of the feature model's user vectors (METHOD: experts and fusion).

`experts.space` is that of the clustering and of the routing's cosines: `standardised` by the train users' mean and
spread, or `raw`. `experts.grouping` is k-means, or agglomerative by Ward's criterion. What is quadratic in users looks
at a sample: Ward clusters it and gives the others their nearest centroid, and the silhouette is that of a sample.

Shapes: U users, k of them with a vector, N groups, d dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from thinkrec.artifacts import faulty_artifact, read_tensors, write_tensors
from thinkrec.errors import UserError
from thinkrec.params import ExpertParams

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Grouping = Literal["kmeans", "agglomerative"]
GROUPS_FILE = "groups.safetensors"
MOST_GROUPS = 6  # that `auto` tries: the paper is best with 2 or 3, and each group's expert sees less of train
WARD_USERS = 5_000  # at most this many are clustered by Ward: its distances then take 100 MB
SILHOUETTE_USERS = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class UserGroups:
    """Groups of the train users, N of them."""

    group: Ints  # (U,) 0..N-1, -1 for users that train never saw
    centroids: Floats  # (N, d) in the space of the cosines
    mean: Floats  # (d,)
    spread: Floats  # (d,)

    def project(self, vectors: Floats) -> Floats:
        """User vectors (k, d) in the space of the centroids; zero vectors (nothing known) stay zero."""
        has_vector = np.any(vectors != 0, axis=1, keepdims=True)
        return np.where(has_vector, (vectors - self.mean) / self.spread, 0).astype(np.float32)


def group_users(vectors: Floats, params: ExpertParams, *, seed: int) -> tuple[UserGroups, dict[str, Any]]:
    """Cluster the users with a vector (rows of `vectors` (U, d) that are not zero) into `params.n` groups.

    A group of fewer than `min_users` users joins the group whose centroid is nearest, so there may be fewer than `n`.
    `auto` is the n of 2..MOST_GROUPS whose groups, small ones joined, have the greatest mean silhouette (Rousseeuw
    1987); the smallest such n. The metrics hold the silhouettes of every n that was tried, and the `separation`.

    Raises:
        UserError: there are fewer users than groups, or too few to choose a number of groups by.
    """
    n = params.n
    has_vector = np.flatnonzero(np.any(vectors != 0, axis=1))
    if len(has_vector) < (n if isinstance(n, int) else 3):
        way_out = "ask for fewer experts" if isinstance(n, int) else "give a number"
        raise UserError(f"experts.n={n}: there are only {len(has_vector)} users to group; {way_out}")
    mean, spread = np.zeros(vectors.shape[1], np.float32), np.ones(vectors.shape[1], np.float32)
    if params.space == "standardised":
        mean, spread = vectors[has_vector].mean(0), np.maximum(vectors[has_vector].std(0), 1e-6)
    points = (vectors[has_vector] - mean) / spread
    tried = [n] if isinstance(n, int) else list(range(2, min(MOST_GROUPS, len(has_vector) - 1) + 1))
    clusterings = {count: _groups(points, count, params.grouping, params.min_users, seed) for count in tried}
    silhouettes = {count: silhouette(points, clustering, seed) for count, clustering in clusterings.items()}
    best = max(tried, key=lambda count: np.nan_to_num(silhouettes[count], nan=-np.inf))
    group = np.full(len(vectors), -1, np.int32)
    group[has_vector] = clusterings[best]
    count = int(group.max(initial=-1)) + 1
    centroids = _centroids(points, clusterings[best]) if count else points[:0]
    groups = UserGroups(group=group, centroids=centroids, mean=mean, spread=spread)
    metrics = {
        "groups": count,
        "joined": best - count,
        "users": np.bincount(clusterings[best] + 1, minlength=count + 1)[1:].tolist(),
        "silhouette": {number: value for number, value in silhouettes.items() if number > 1},
        **separation(groups, vectors),
    }
    return groups, metrics


def silhouette(points: Floats, group: Ints, seed: int) -> float:
    """Mean silhouette of the groups (k,) of users (k, d), over at most SILHOUETTE_USERS of them; NaN for one group."""
    from sklearn.metrics import silhouette_score

    sample = _sample(len(points), SILHOUETTE_USERS, seed)
    defined = 1 < len(np.unique(group[sample])) < len(sample)
    return float(silhouette_score(points[sample], group[sample])) if defined else np.nan


def separation(groups: UserGroups, vectors: Floats) -> dict[str, Any]:
    """Cohen's d of every pair of groups of the users `vectors` (U or more, d), and the smallest.

    Pairs are named after their experts, `1-2`; the space is that of the groups.
    """
    points = [groups.project(vectors[np.flatnonzero(groups.group == k)]) for k in range(len(groups.centroids))]
    numbered = combinations(enumerate(points, 1), 2)
    pairs = {f"{a}-{b}": cohens_d(first, second) for (a, first), (b, second) in numbered}
    return {"cohens_d": pairs, "smallest_cohens_d": min(pairs.values(), default=np.nan)}


def cohens_d(first: Floats, second: Floats) -> float:
    """Cohen's d of two groups of users (k, d), projected onto the line that joins their centroids.

    The distance of the two means over the pooled standard deviation, s^2 = ((k_1 - 1) s_1^2 + (k_2 - 1) s_2^2) /
    (k_1 + k_2 - 2); NaN where that is 0 or undefined.
    """
    line = second.mean(0, dtype=np.float64) - first.mean(0, dtype=np.float64)
    distance = float(np.linalg.norm(line))
    along = [users @ line / max(distance, 1e-12) for users in (first, second)]
    squares = sum(float(np.square(place - place.mean()).sum()) for place in along)
    freedom = len(first) + len(second) - 2
    return distance / (squares / freedom) ** 0.5 if freedom and squares else np.nan


def _groups(points: Floats, n: int, grouping: Grouping, min_users: int, seed: int) -> Ints:
    """Groups (k,) of users (k, d): `n`, less those that were too small; the largest is 0. Of no groups all are -1."""
    from sklearn.cluster import AgglomerativeClustering, KMeans  # a second to import, and only fitting needs it

    if n < 2:
        return np.full(len(points), n - 1, np.int32)
    if grouping == "kmeans":
        group = KMeans(n, n_init=10, random_state=seed).fit_predict(points)
    else:
        sample = _sample(len(points), WARD_USERS, seed)
        of_sample = AgglomerativeClustering(n, linkage="ward").fit_predict(points[sample])
        group = _nearest(points, _centroids(points[sample], of_sample))
        group[sample] = of_sample
    group = np.unique(group, return_inverse=True)[1]  # vectors that are all alike fill fewer clusters than asked for
    while (sizes := np.bincount(group)).min() < min_users and len(sizes) > 1:
        smallest = int(sizes.argmin())
        centroids = _centroids(points, group)
        distance = np.square(centroids - centroids[smallest]).sum(1)
        distance[smallest] = np.inf
        group[group == smallest] = int(distance.argmin())
        group = np.unique(group, return_inverse=True)[1]
    # Largest group first: numbers that do not depend on where the clustering began.
    return np.argsort(np.argsort(-sizes, kind="stable"))[group].astype(np.int32)


def _centroids(points: Floats, group: NDArray[Any]) -> Floats:
    return np.stack([points[group == number].mean(0) for number in range(int(group.max()) + 1)])


def _nearest(points: Floats, centroids: Floats) -> NDArray[np.int64]:
    """Which centroid (N, d) is nearest to each point (k, d), without a k x N x d array."""
    return (np.square(centroids).sum(1) - 2 * points @ centroids.T).argmin(1)


def _sample(count: int, most: int, seed: int) -> NDArray[np.int64]:
    """At most `most` of the numbers below `count`, in order."""
    return np.sort(np.random.default_rng(seed).choice(count, min(count, most), replace=False))


def save_groups(groups: UserGroups, folder: Path) -> None:
    """Write the groups into `folder`."""
    write_tensors(folder / GROUPS_FILE, {name: getattr(groups, name) for name in UserGroups.__slots__})


def load_groups(folder: Path) -> UserGroups:
    """Read the groups; a UserError if there are none, or the file is not one of groups."""
    path = folder / GROUPS_FILE
    groups = UserGroups(**read_tensors(path, UserGroups.__slots__))
    n, width = groups.centroids.shape if groups.centroids.ndim == 2 else (-1, -1)
    if (
        groups.group.ndim != 1
        or groups.group.dtype != np.int32
        or groups.group.max(initial=-1) >= n
        or {groups.mean.shape, groups.spread.shape} != {(width,)}
    ):
        raise faulty_artifact(path, "its parts do not fit each other")
    return groups
