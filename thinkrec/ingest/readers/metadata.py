"""Item metadata from records of any format: cleaned as it streams by, and kept only where the item is wanted.

A record that cannot be read is a fault in quarantine, and so is one whose text was not UTF-8, though its item keeps
what can be read. Other text is repaired and the repairs are counted, an item without metadata goes without.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

import pandas as pd

from thinkrec.ingest.clean import MISSING, plain_id, plain_text, repairs
from thinkrec.ingest.raw import Fault, Items, Part
from thinkrec.ingest.readers.jsonlines import read_value
from thinkrec.ingest.readers.ratings import cell
from thinkrec.ingest.readers.records import NOT_TEXT, Format, read_records

_YEAR = re.compile(r"(\d{4})(?:\.0|-\d\d.*)?", re.ASCII | re.DOTALL)  # by itself, or an ISO date's
LOST = "\ufffd"  # stands for bytes that are no text
_SEPARATORS = ("|", ";", ",")
_ARRAY = re.compile(r"\[.*\]", re.DOTALL)
_NO_COMMA = re.compile(r"(?<=['\"])\s+(?=['\"])")  # between the texts of an array that numpy wrote
_NO_VALUE = re.compile(r"(?<=[\[,\s])(?:nan|NaN|null)(?=[\s,\]])")  # an entry of a list, as pandas writes it
ROLES = ("item", "title", "year", "categories", "description")


class Item(NamedTuple):
    """Metadata of one item."""

    item_id: str
    title: str
    year: int | None
    categories: list[str]
    description: str

    def clean(self) -> Item:
        """The item with plain text alone."""
        return self._replace(
            title=plain_text(self.title),
            categories=list(dict.fromkeys(filter(None, map(plain_text, self.categories)))),
            description=plain_text(self.description),
        )


# What a publisher's items need beyond their columns: from an item and its record, the item, or what is wrong with it.
Tidy = Callable[[Item, Mapping[str, Any]], Item | str]


def leave_as_is(item: Item, values: Mapping[str, Any]) -> Item:
    """The item itself."""
    return item


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataFile:
    """How to read items from files of one format.

    `columns` are the files' names of what an item has: item, title, year, categories, description. Of several
    categories (`categories.0` and so on) the first column with any counts; several descriptions are joined.
    """

    format: Format
    parts: tuple[Part, ...]
    columns: Mapping[str, str]
    tidy: Tidy = leave_as_is

    def read(self, wanted: Collection[str]) -> Items:
        """The items with these ids (`Source.items`)."""
        faults: list[Fault] = []
        items: dict[str, Item] = {}
        example = ""
        rows = duplicated = 0
        repaired: Counter[str] = Counter()
        names: dict[str, list[str]] = {role: [] for role in ROLES}
        for key, name in self.columns.items():
            names[key.partition(".")[0]].append(name)
        for part in self.parts:
            for record in read_records(self.format, part):
                rows += 1
                item = record.values if isinstance(record.values, str) else self._item_of(record.values, names)
                if isinstance(item, str):
                    faults.append(record.fault(part, item))
                    continue
                example = item.item_id
                if any(LOST in text for text in (item.title, *item.categories, item.description)):
                    faults.append(record.fault(part, NOT_TEXT))
                if item.item_id in items:
                    duplicated += 1
                elif item.item_id in wanted:
                    texts = [item.title, *item.categories, item.description]
                    repaired.update({repair for text in texts for repair in repairs(text)})
                    items[item.item_id] = item.clean()
        table = item_table(items.values())
        return Items(
            table=table, faults=faults, rows=rows, example=example, duplicated=duplicated, repaired=dict(repaired)
        )

    def _item_of(self, values: Mapping[str, Any], names: Mapping[str, list[str]]) -> Item | str:
        by_role = {role: [values.get(name) for name in names[role]] for role in ROLES}
        item_id = plain_id(cell(by_role["item"][0], "item") or "")
        if not item_id or "\0" in item_id:
            return "no item id" if not item_id else "item id is neither plain text nor a whole number"
        year = _YEAR.fullmatch(text_of(by_role["year"]).strip())
        item = Item(
            item_id,
            title=text_of(by_role["title"]),
            year=int(year[1]) if year and 1000 <= int(year[1]) <= 2100 else None,
            categories=next(filter(None, map(list_of, by_role["categories"])), []),
            description=text_of(by_role["description"]),
        )
        return self.tidy(item, values)


def no_items(wanted: Collection[str]) -> Items:
    """`Source.items` of a dataset without metadata."""
    return Items(table=item_table([]))


def item_table(items: Collection[Item]) -> pd.DataFrame:
    """Items as `Items.table`."""
    frame = pd.DataFrame(list(items), columns=list(Item._fields))
    return frame.astype({"item_id": "str", "title": "str", "year": "Int16", "description": "str"})


def text_of(value: Any) -> str:
    """Text of a metadata value: lists joined, numbers as written, nothing for what has parts or stands for no value."""
    match value:
        case str():
            return "" if value in MISSING else value
        case list() | tuple():
            return " ".join(filter(None, map(text_of, value)))
        case int() | float() | Decimal() if not isinstance(value, bool) and value == value:
            return str(value)
        case _:
            return ""


def list_of(value: Any) -> list[str]:
    """The parts of a list (of objects, their names), or of a text at the first of `|`, `;` and `,` that it holds.

    The text may be a list as programs write one: ['Drama', 'Sea tale'], numpy's without commas, [Drama, Sea tale].
    """
    if isinstance(value, (list, tuple)):
        names = (inner.get("name") if isinstance(inner, Mapping) else inner for inner in value)
        return [text for name in names if (text := text_of(name))]
    text = text_of(value).strip()
    if _ARRAY.fullmatch(text):
        with suppress(ValueError):
            return list_of(read_value(_NO_COMMA.sub(", ", _NO_VALUE.sub("None", text))))
        text = text[1:-1]
    separator = next((mark for mark in _SEPARATORS if mark in text), _SEPARATORS[0])
    return [part.strip() for part in text.split(separator) if part.strip()]
