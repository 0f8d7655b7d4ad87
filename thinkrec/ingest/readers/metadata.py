"""Item metadata from records of any format: cleaned as it streams by, and kept only where the item is wanted.

Metadata never stops anything: a record that cannot be read is a fault in quarantine, text is repaired and the repairs
are counted, an item without metadata goes without.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import pandas as pd

from thinkrec.ingest.clean import plain_text, repairs
from thinkrec.ingest.raw import QUARANTINE_TEXT, Fault, Items, Part
from thinkrec.ingest.readers.records import Format, read_records

_YEAR = re.compile(r"\s*\((\d{4})(?:-\d{0,4})?\)\s*$")
_ARTICLE = re.compile(r"^(.+), (The|A|An)((?: \(.*\))?)$")
_SEPARATORS = ("|", ";", ",")


class Item(NamedTuple):
    """Metadata of one item as it came."""

    item_id: str
    title: str
    year: int | None
    categories: list[str]
    description: str


ItemOf = Callable[[Mapping[str, Any]], Item | str]  # the item of a record, or what is wrong with it


def items_reader(format: Format, parts: Iterable[Part], item_of: ItemOf) -> Callable[[Collection[str]], Items]:
    """`Source.items` for metadata in some files."""
    return partial(_read_items, format, tuple(parts), item_of)


def no_items(wanted: Collection[str]) -> Items:
    """`Source.items` of a dataset without metadata."""
    return _items([], [], 0, Counter())


def _read_items(format: Format, parts: tuple[Part, ...], item_of: ItemOf, wanted: Collection[str]) -> Items:
    faults: list[Fault] = []
    items: list[Item] = []
    seen: set[str] = set()
    duplicated = 0
    repaired: Counter[str] = Counter()
    for part in parts:
        for record in read_records(format, part):
            item = record.values if isinstance(record.values, str) else item_of(record.values)
            if isinstance(item, str):
                faults.append(Fault(part.name, record.row, item, record.text[:QUARANTINE_TEXT]))
            elif item.item_id in seen:
                duplicated += 1
            elif item.item_id in wanted:
                seen.add(item.item_id)
                texts = [item.title, *item.categories, item.description]
                repaired.update({repair for text in texts for repair in repairs(text)})
                items.append(_plain(item))
    return _items(items, faults, duplicated, repaired)


def _plain(item: Item) -> Item:
    categories = dict.fromkeys(filter(None, map(plain_text, item.categories)))
    return item._replace(
        title=plain_text(item.title), categories=list(categories), description=plain_text(item.description)
    )


def _items(items: list[Item], faults: list[Fault], duplicated: int, repaired: Counter[str]) -> Items:
    frame = pd.DataFrame(
        {name: [getattr(item, name) for item in items] for name in Item._fields}, columns=list(Item._fields)
    )
    return Items(
        table=frame.astype({"item_id": "str", "title": "str", "year": "Int16", "description": "str"}),
        faults=faults,
        duplicated=duplicated,
        repaired=dict(sorted(repaired.items())),
    )


def text_of(value: Any) -> str:
    """Text of a metadata value: lists joined, numbers as written, nothing for what is missing or has parts."""
    match value:
        case str():
            return value
        case list() | tuple():
            return " ".join(filter(None, map(text_of, value)))
        case int() | float() if not isinstance(value, bool) and value == value:
            return str(value)
        case _:
            return ""


def list_of(value: Any) -> list[str]:
    """The parts of a list, or of a text at the first of `|`, `;` and `,` that it holds."""
    if isinstance(value, (list, tuple)):
        return [text for inner in value if (text := text_of(inner))]
    text = text_of(value)
    separator = next((mark for mark in _SEPARATORS if mark in text), _SEPARATORS[0])
    return [part.strip() for part in text.split(separator) if part.strip()]


def split_title(text: str) -> tuple[str, int | None]:
    """`Matrix, The (1999)` as ("The Matrix", 1999): the year apart, a trailing article back in front."""
    year = _YEAR.search(text)
    title = text[: year.start()] if year else text
    return _ARTICLE.sub(r"\2 \1\3", title.strip()), int(year[1]) if year else None
