"""What the rows of a table show, and checks of texts about them: made once, asked by all that read or write reasons."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from copy import copy
from functools import cached_property, lru_cache
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thinkrec.artifacts import ITEMS, KEYWORDS, keyword_lists, read_table
from thinkrec.claims.claims import Check, ShownNames, Thesaurus
from thinkrec.claims.cleaning import proper_names
from thinkrec.claims.names import Catalogue
from thinkrec.claims.reading import check_text
from thinkrec.history import history_bounds, shown_history
from thinkrec.params import Params, PromptParams
from thinkrec.shown import ShownItem, ShownRow, shown_keywords, shown_title
from thinkrec.synthetic.synonyms import meaning

ROWS_KEPT = 1024  # whose names are indexed at a time: a judge asks about one row many times


def thesaurus_of(dataset: str) -> Thesaurus:
    """The thesaurus by which claims about this dataset are true by meaning: the synthetic world's own, or none."""
    if dataset.startswith("synthetic"):
        return Thesaurus("the synthetic world's words of one meaning, and forms of a word", meaning)
    return Thesaurus("forms of a word", str)


def open_checker(params: Params, interactions: pd.DataFrame) -> Checker:
    """The checker of the rows of a table, by the project's items and keywords."""
    items, keywords = map(read_table, (ITEMS, KEYWORDS))
    return Checker(interactions, items, keywords, params.prompt, thesaurus_of(params.dataset.name))


class Checker:
    """What rows show, and whether texts about them are true.

    Attributes:
        titles: of all items as shown, by item number.
        keywords: of all items as shown, at most `prompt.keywords` each.
        thesaurus: by which claims are true by meaning.
    """

    def __init__(
        self,
        interactions: pd.DataFrame,
        items: pd.DataFrame,
        keywords: pd.DataFrame,
        prompt: PromptParams,
        thesaurus: Thesaurus,
    ) -> None:
        """Titles and all keywords are names that a text may use without having been shown them.

        `thesaurus` says which keywords mean the same. `items` have the columns `title`, `categories` and `description`.
        """
        self._prompt, self.thesaurus, self._items = prompt, thesaurus, items
        self.titles = [shown_title(title) for title in items["title"]]
        self.keywords = [shown_keywords(words) for words in keyword_lists(keywords, prompt.keywords)]
        every = dict.fromkeys(word for words in keywords["keywords"] for word in shown_keywords(words))
        self._catalogue = Catalogue(self.titles, every)
        self._watch(interactions)

    def over(self, interactions: pd.DataFrame) -> Self:
        """The same items, thesaurus and prompt with another table of interactions, sorted like the first."""
        other = copy(self)
        other._watch(interactions)
        return other

    def _watch(self, interactions: pd.DataFrame) -> None:
        self._start, self._end = history_bounds(interactions["user"].to_numpy(), interactions["timestamp"].to_numpy())
        self._item, self._label = interactions["item"].to_numpy(), interactions["label"].to_numpy()
        self._names: Callable[[int], ShownNames] = lru_cache(ROWS_KEPT)(self._index)

    def history_rows(self, row: int) -> NDArray[np.int64]:
        """Row numbers of the shown history of `row`, oldest first."""
        return shown_history(self._start[row], self._end[row], self._prompt.history)

    def shown(self, row: int) -> ShownRow:
        """What readers are shown of a row."""
        return self._names(row).row

    def check(self, row: int, text: str) -> Check:
        """What a text about a row claims, and what of it is so."""
        return check_text(unicodedata.normalize("NFC", text), self._names(row), self._catalogue)

    def badness(self, row: int, text: str) -> tuple[int, int, int]:
        """How bad a text about a row is, the least being best: unfinished, then untrue, then saying little.

        A conclusion against the text's own verdict is untrue, too.
        """
        checked = self.check(row, text)
        true = sum(claim.true for claim in checked.claims)
        untrue = len(checked.claims) - true + (checked.conclusion not in (None, checked.verdict))
        return int(not text.rstrip().endswith((".", "!", "?"))), untrue, -true

    def _index(self, row: int) -> ShownNames:
        history = [self._shown_item(past, liked=bool(self._label[past])) for past in self.history_rows(row)]
        return ShownNames(ShownRow(history=history, target=self._shown_item(row)), self.thesaurus, self._proper_names)

    @cached_property
    def _proper_names(self) -> frozenset[str]:
        return proper_names(self._items["description"], self._items["categories"])

    def _shown_item(self, row: int, *, liked: bool | None = None) -> ShownItem:
        item = self._item[row]
        return ShownItem(title=self.titles[item], keywords=self.keywords[item], liked=liked)
