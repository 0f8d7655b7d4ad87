"""User groups that tests of this room share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from thinkrec.experts.groups import UserGroups


def groups_at(
    *centroids: Sequence[float],
    width: int = 2,
    group: Sequence[int] = (),
    mean: Sequence[float] | None = None,
    spread: Sequence[float] | None = None,
) -> UserGroups:
    """Groups with these centroids, in the raw space unless its mean and spread are given."""
    width = len(centroids[0]) if centroids else width
    return UserGroups(
        group=np.asarray(group, np.int32),
        centroids=np.asarray(centroids, np.float32).reshape(-1, width),
        mean=np.asarray(mean or [0] * width, np.float32),
        spread=np.asarray(spread or [1] * width, np.float32),
    )
