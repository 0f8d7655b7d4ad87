"""A checker of rows given by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from thinkrec.claims.checker import Checker
from thinkrec.claims.claims import ShownNames, Thesaurus
from thinkrec.claims.names import Catalogue
from thinkrec.shown import ShownItem, ShownRow

LITERAL = Thesaurus("none", str)


class RowsByHand(Checker):
    """Rows as `read` gives them. Their histories are rows 0, 1, ..."""

    def __init__(self, read: Callable[[int], ShownRow], catalogue: Catalogue, thesaurus: Thesaurus) -> None:
        self._names = lambda row: ShownNames(read(row), thesaurus)
        self._catalogue = catalogue

    def history_rows(self, row: int) -> NDArray[np.int64]:
        return np.arange(len(self.shown(row).history))


def checker_of(
    row: ShownRow | Callable[[int], ShownRow],
    titles: Iterable[str] = (),
    keywords: Iterable[str] = (),
    thesaurus: Thesaurus = LITERAL,
) -> Checker:
    """A checker of one row under every number, or of a row for each."""
    return RowsByHand((lambda _: row) if isinstance(row, ShownRow) else row, Catalogue(titles, keywords), thesaurus)


def item(title: str, *keywords: str, liked: bool | None = None) -> ShownItem:
    """A shown item."""
    return ShownItem(title=title, keywords=keywords, liked=liked)
