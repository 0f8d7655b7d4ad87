"""What a user costs as the catalogue grows, over the finished project in the working directory.

Its items are repeated until there are enough: the models, the texts and the histories are the project's own.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import Goal, Line, faster, in_turn, peak_resident, peaks
from thinkrec.recommender import SHORTLIST, Recommender, read_parts
from thinkrec.text.items import encode, item_texts

SMALL, MIDDLE, LARGE = 1_000, 10_000, 100_000  # items
USERS, MINUTES = 10_000, 20  # of `recommend --all`, and how long it may take
PART, PARTS = 20, 5  # users that are recommended to at once, and how often: the slice that is measured


def catalogue() -> Iterator[Line]:
    """A user of a hundred times the items, and `recommend --all` of ten thousand users; in a finished project."""
    small, middle, large = map(grow, (SMALL, MIDDLE, LARGE))
    some = small.names.user_ids.to_list()
    part = some[:PART]

    def rank(recommender: Recommender) -> Callable[[], object]:
        """Only the language model's part: items that nobody has to find."""
        asked = [recommender.names.user(user) for user in part]
        return lambda: recommender.viewer.probabilities(
            [recommender.viewer.question_of(user, np.arange(SHORTLIST)) for user in asked]
        )

    def find(recommender: Recommender) -> Callable[[], object]:
        return partial(recommender.recommend_many, part, 1, shortlist=1)

    for items, larger in ((MIDDLE, middle), (LARGE, large)):
        timing = in_turn(rank(larger), rank(small), rounds=3)
        yield faster(
            f"the language model's part, {PART} users, {SHORTLIST} candidates, {items:,} items",
            f"{SMALL:,} items", timing, Goal("at most", 1.1),
        )  # fmt: skip
        timing = in_turn(find(larger), find(small), rounds=3)
        yield faster(
            f"finding the best for {PART} users, {items:,} items", f"{SMALL:,} items", timing,
            Goal("at most", items / SMALL),
        )  # fmt: skip
    took, held = [], []
    for number in range(PARTS + 1):  # the first warms up
        of_part = [some[place % len(some)] for place in range(number * PART, (number + 1) * PART)]
        began = time.perf_counter()
        held.append(peak_resident(partial(middle.recommend_many, of_part)))
        took.append(time.perf_counter() - began)
    each = statistics.median(took[1:]) / PART
    yield Line(
        what=f"recommend --all, {USERS:,} users, {MIDDLE:,} items: {1 / each:.1f} users/s, by {PARTS * PART} of them",
        against=f"{MINUTES} minutes, {torch.get_num_threads()} threads",
        measured=f"{each * USERS / 60:.1f} min",
        other=f"{MINUTES} min",
        ratio=each * USERS / 60 / MINUTES,
        goal=Goal("at most", 1),
    )
    yield peaks(
        f"its peak memory in the last of {PARTS} parts", "in the first", (held[-1], held[1]), Goal("at most", 1.05)
    )


def grow(count: int) -> Recommender:
    """The project over so many items, which are its own again and again; it has no more than that."""
    params, loaded, routing, feature_model, items, keywords, users = read_parts(Path())
    size = len(items)
    source = np.arange(count) % size
    items, keywords = (table.iloc[source].reset_index(drop=True) for table in (items, keywords))
    items["item_id"] = items["item_id"] + [f"-{number}" for number in range(count)]
    features = loaded.features
    later = features.item_row >= size  # vectors by other fits than the one on all of train
    features = replace(
        features,
        item_vectors=np.concatenate([features.item_vectors[source], features.item_vectors[size:]]),
        item_row=np.where(later, features.item_row + (count - size), features.item_row),
    )
    tokens = encode(loaded.tokenizer, item_texts(items, keywords, params.prompt.keywords))
    loaded = loaded.over(loaded.interactions, features, item_tokens=tokens)
    side = feature_model.items()
    repeated = replace(side, vectors=side.vectors[source], biases=side.biases[source])
    feature_model.items = lambda: repeated  # type: ignore[method-assign]
    return Recommender(params, loaded, routing, feature_model, items, keywords, users)
