"""Ids, titles and words as people write them -> users, items and likes. Ids are text, also such as 007."""

from __future__ import annotations

import difflib
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thinkrec.artifacts import ITEMS, USERS
from thinkrec.errors import UserError
from thinkrec.ingest.clean import plain_id
from thinkrec.shown import one_line, shown_title

Rows = NDArray[np.int64]
LONGEST = 1000  # characters of a title that are compared


LIKED_WORDS = {"1": True, "yes": True, "true": True, "0": False, "no": False, "false": False}


def read_liked(value: Any, where: str) -> bool:
    """Whether `value`, a truth value or a word, says liked; any other is a UserError that says `where` it stands."""
    word = plain_id(str(value)).lower()
    if word not in LIKED_WORDS:
        raise UserError(f"{where}: liked should be yes or no (it is {value!r})")
    return LIKED_WORDS[word]


def find_users(text: str, users: pd.DataFrame, interactions: pd.DataFrame) -> pd.DataFrame:
    """The users whose id has `text` in it: `user_id`, `interactions`."""
    matching = users[users["user_id"].str.contains(text, case=False, regex=False)]
    counts = np.bincount(interactions["user"], minlength=len(users))
    return matching[["user_id"]].assign(interactions=counts[matching["user"]])


def find_items(text: str, items: pd.DataFrame, interactions: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The items with `text` in their title, or as their id, and where there are none the titles that are most like it.

    Columns: `item_id`, `title`, `year` (None where unknown), `categories`, `interactions`.
    """
    counts = np.bincount(interactions["item"], minlength=len(items))
    keys = items["title"].map(title_key)
    matching = items[keys.str.contains(title_key(text), regex=False) | (items["item_id"] == plain_id(text))]
    listed = pd.DataFrame(
        {
            "item_id": matching["item_id"],
            "title": matching["title"],
            "year": [None if pd.isna(year) else int(year) for year in matching["year"]],
            "categories": [list(names) for names in matching["categories"]],
            "interactions": counts[matching["item"]],
        },
        dtype=object,
    )
    return listed, [] if len(listed) else similar_titles(items, text)


def title_key(title: str) -> str:
    """What two ways to write one title share: its letters in NFC, whatever their case."""
    return one_line(title, LONGEST).casefold()


def similar_titles(items: pd.DataFrame, title: str) -> list[str]:
    """At most three titles that were perhaps meant, each with its id."""
    of_key = {title_key(other): number for number, other in enumerate(items["title"])}
    near = difflib.get_close_matches(title_key(title), list(of_key), n=3)
    numbers = [of_key[key] for key in near]
    return [f"{items['title'].iloc[number]!r} ({items['item_id'].iloc[number]})" for number in numbers]


class Names:
    """The users and items of a project by what people call them."""

    def __init__(self, users: pd.DataFrame, items: pd.DataFrame) -> None:
        self.user_ids, self.item_ids = pd.Index(users["user_id"]), pd.Index(items["item_id"])
        self._items = items

    def find(self, pairs: pd.DataFrame) -> tuple[Rows, Rows]:
        """Numbers of the users and the items of some pairs (columns `user_id`, `item_id`); -1 where an id is unknown.

        Raises:
            UserError: a column is missing.
        """
        missing = [name for name in ("user_id", "item_id") if name not in pairs]
        if missing:
            raise UserError(f"pairs: no column {missing[0]}; the columns user_id and item_id are needed")
        return _numbers(self.user_ids, pairs["user_id"]), _numbers(self.item_ids, pairs["item_id"])

    def user(self, name: object) -> int:
        """The number of a user; a UserError if the id is unknown."""
        named = pd.Series([name])
        number = _numbers(self.user_ids, named)
        self.require("user", named, number)
        return int(number[0])

    def items(self, named: pd.Series) -> Rows:
        """The numbers of items by id or, where no id is so, by title (`Heat`, or `Heat (1995)` where several are so).

        Raises:
            UserError: one is neither an id nor a title, or is the title of several items.
        """
        numbers = _numbers(self.item_ids, named)
        for place in np.flatnonzero(numbers < 0):
            same = self._by_title.get(title_key(str(named.iloc[place])), [])
            if len(same) > 1:
                which = ", ".join(f"{self.item_ids[number]} ({self._year(number)})" for number in same[:5])
                raise UserError(f"item {named.iloc[place]!r}: the title of {len(same)} items; name an id: {which}")
            numbers[place] = same[0] if same else -1
        self.require("item", named, numbers)
        return numbers

    def require(self, kind: str, named: pd.Series, numbers: Rows) -> None:
        """Raise the one line that says which of these ids of users or items (`kind`) have no number, if there are."""
        unknown = named[numbers < 0].astype(str).unique()
        if not len(unknown):
            return
        more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
        way_out = "; or give a history in the user's place"
        if kind == "item":
            near = similar_titles(self._items, unknown[0])
            way_out = f", or titles; did you mean {' or '.join(near)}?" if near else ", or titles"
        raise UserError(
            f"{kind} {unknown[0]!r}{more}: unknown; ids are those in column {kind}_id of "
            f"{USERS if kind == 'user' else ITEMS} (thinkrec {kind}s finds them){way_out}"
        )

    def _year(self, number: int) -> str:
        year = self._items["year"].iloc[number]
        return "year unknown" if pd.isna(year) else str(int(year))

    @cached_property
    def _by_title(self) -> dict[str, list[int]]:
        """Numbers of the items of each title, in the ways in which it is shown; none of items without one."""
        numbers: dict[str, list[int]] = {}
        for number, title in enumerate(self._items["title"]):
            ways = {title_key(way) for way in (title, shown_title(title), f"{title} ({self._year(number)})")}
            for way in ways if title_key(title) else ():
                numbers.setdefault(way, []).append(number)
        return numbers


def _numbers(ids: pd.Index, named: pd.Series) -> Rows:
    """The numbers of some ids, -1 where unknown; read as `ingest` reads them."""
    text = named.astype(str)
    numbers = ids.get_indexer(pd.Index(text)).astype(np.int64)
    if (numbers < 0).any():
        numbers = np.where(numbers < 0, ids.get_indexer(pd.Index(text.map(plain_id))), numbers)
    return numbers
