"""What a teacher is shown of an interaction, and what it may know besides: the tables as instances and a catalogue."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from thinkrec.artifacts import keyword_lists
from thinkrec.claims.prompts import Instance, Shown, plain
from thinkrec.claims.verifier import Catalogue
from thinkrec.history import history_bounds
from thinkrec.params import PromptParams


def instance_reader(
    interactions: pd.DataFrame, items: pd.DataFrame, keywords: pd.DataFrame, prompt: PromptParams
) -> Callable[[int], Instance]:
    """A function from a row number to what the teacher sees of it: titles and keywords as its prompt shows them."""
    start, end = history_bounds(interactions["user"].to_numpy(), interactions["timestamp"].to_numpy())
    item, label = interactions["item"].to_numpy(), interactions["label"].to_numpy().astype(bool)
    titles = [plain(title) for title in items["title"]]
    words = [[plain(word) for word in named] for named in keyword_lists(keywords, prompt.keywords)]

    def read(row: int) -> Instance:
        earlier = range(max(start[row], end[row] - prompt.history), end[row])
        history = [
            Shown(title=titles[item[past]], keywords=words[item[past]], liked=bool(label[past]))
            for past in earlier
            if label[past] or prompt.history_labels == "both"
        ]
        return Instance(history=history, target=Shown(title=titles[item[row]], keywords=words[item[row]]))

    return read


def catalogue_of(items: pd.DataFrame, keywords: pd.DataFrame) -> Catalogue:
    """All titles and keywords: what a text may name without having been shown it."""
    words = dict.fromkeys(word for named in keywords["keywords"] for word in named)  # in order: the first of two wins
    return Catalogue(map(plain, items["title"]), words)
