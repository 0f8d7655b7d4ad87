"""What readers are shown of an item and of an interaction: the one place where titles and keywords are cut.

Teacher, student, judge, report and the check of a text all read an item through `shown_title` and `shown_keywords`.
So a text can quote whatever its writer was shown, and is held to nothing else.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

# Characters. A history repeats titles for every row, and a student of 2,048 tokens has room for some ten items: what
# would crowd the others out is cut, for everybody alike. MovieLens' longest title has 75 characters, and a shop's
# longer ones go on with sizes and colours.
LONGEST_TITLE = 80
LONGEST_KEYWORD = 40  # as long as a keyword of a teacher may be


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownItem:
    """One item as readers see it; `liked` is None for the target, whose label nobody sees."""

    title: str
    keywords: Sequence[str]
    liked: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownRow:
    """One interaction as readers see it: the shown history, oldest first, and the target."""

    history: Sequence[ShownItem]
    target: ShownItem

    @property
    def items(self) -> list[ShownItem]:
        """The history, then the target."""
        return [*self.history, self.target]


def shown_title(title: str) -> str:
    """A title as every reader sees it."""
    return one_line(title, LONGEST_TITLE)


def shown_keywords(keywords: Iterable[str]) -> list[str]:
    """An item's keywords as every reader sees them."""
    return [one_line(keyword, LONGEST_KEYWORD) for keyword in keywords]


@lru_cache(maxsize=1 << 16)  # the same keywords belong to many items
def one_line(text: str, longest: int) -> str:
    """At most `longest` characters of `text` in NFC, on one line and without control and format characters."""
    text = unicodedata.normalize("NFC", text)
    if not text.isprintable():
        text = "".join(char for char in text if char.isspace() or unicodedata.category(char)[0] != "C")
    return " ".join(text.split())[:longest].rstrip()
