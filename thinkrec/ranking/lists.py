"""What lists of recommendations are like, beyond whether they are right: how much of the catalogue they show.

Shapes: q users, k places of a list, I items.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from thinkrec.ranking.expected import Ints
from thinkrec.ranking.protocols import Questions
from thinkrec.report.users import Lists


def describe_lists(lists: Ints, popularity: Ints, raters: int) -> dict[str, float]:
    """Measures of one model's lists (q, k), items by number, -1 where a list is shorter.

    Args:
        popularity: (I,) the interactions of each item in train.
        raters: the users of train.

    Returns:
        `coverage`, the share of the catalogue that some list shows; `gini`, of how often items are shown (0: all as
        often, 1: always the same one); `popularity`, the mean of the shown items'; `novelty`, the mean of
        -log2((popularity + 1) / (raters + 1)) in bits; `new_items`, the share of shown items that train never saw.
    """
    shown = lists[lists >= 0]
    count = np.sort(np.bincount(shown, minlength=len(popularity)))
    rank = np.arange(1, len(count) + 1)
    of_shown = popularity[shown]
    return {
        "coverage": float((count > 0).mean()),
        "gini": float(((2 * rank - len(count) - 1) * count).sum() / (len(count) * count.sum())),
        "popularity": float(of_shown.mean()),
        "novelty": float(-np.log2((of_shown + 1) / (raters + 1)).mean()),
        "new_items": float((of_shown == 0).mean()),
    }


def mark_lists(users: Ints, questions: Questions, lists: Mapping[str, Ints]) -> Lists:
    """The `lists` of every model (q, k) by user (q,), and what each user later said of their items."""
    later: list[dict[int, int]] = [{} for _ in users]
    for number, item, liked in zip(questions.user, questions.item.tolist(), questions.liked.tolist(), strict=True):
        later[number][item] = int(liked)
    return {
        user: {
            name: [(item, verdict.get(item)) for item in of_model[number].tolist() if item >= 0]
            for name, of_model in lists.items()
        }
        for number, (user, verdict) in enumerate(zip(users.tolist(), later, strict=True))
    }
