"""Groups of users named in files (`experts.added`), beside those that the clustering finds.

A file's group has the mean of its users' vectors, in the space of the groups, as its centroid. The other centroids, and
the mean and spread of that space, do not move.

Shapes: U users, N groups, d dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thinkrec.artifacts import USERS
from thinkrec.errors import UserError
from thinkrec.experts.groups import Floats, UserGroups

Rows = NDArray[np.int64]


def read_members(
    paths: Sequence[Path], users: pd.DataFrame, groups: UserGroups
) -> tuple[list[Rows], list[dict[str, int]]]:
    """The user numbers that each file names, one id a line, and how many of its ids were of use.

    Ids that `users` (schema USERS) lacks and users that train never saw are counted as `unknown` and `not_in_train`.

    A UserError says that there are fewer than two groups to add to, or that a file is not text, names nobody who is in
    train, or names a user that another file names.
    """
    if len(groups.centroids) < 2:
        raise UserError(
            f"experts.added: the users form {len(groups.centroids)} groups, and adding takes two for routing to tell "
            "apart; set experts.n to 2 or more"
        )
    ids = pd.Index(users["user_id"])
    file_of: dict[int, Path] = {}
    members, counts = [], []
    for path in paths:
        named = list(dict.fromkeys(_ids(path)))
        numbers = ids.get_indexer(pd.Index(named, dtype="str")).astype(np.int64)
        numbers = np.sort(numbers[numbers >= 0])
        in_train = numbers[groups.group[numbers] >= 0]
        if not len(in_train):
            raise UserError(f"{path}: names nobody whom train knows; one id a line, as in column user_id of {USERS}")
        for user in in_train.tolist():
            if user in file_of:
                raise UserError(f"{path}: user {ids[user]!r} is in {file_of[user]}, too; keep each user in one file")
            file_of[user] = path
        members.append(in_train)
        unknown = len(named) - len(numbers)
        counts.append({"users": len(in_train), "unknown": unknown, "not_in_train": len(numbers) - len(in_train)})
    return members, counts


def add_group(groups: UserGroups, members: Rows, vectors: Floats) -> UserGroups:
    """The groups and one more, of the users `members`, who leave theirs; `vectors` (U or more, d) are the users'."""
    group = groups.group.copy()
    group[members] = len(groups.centroids)
    centroid = groups.project(vectors[members]).mean(0, keepdims=True)
    return replace(groups, group=group, centroids=np.concatenate([groups.centroids, centroid]))


def _ids(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; experts.added should name files of user ids") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); check the file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; save it as UTF-8, one user id a line") from None
    return [line.strip() for line in lines if line.strip()]
