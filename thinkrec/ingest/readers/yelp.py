"""The Yelp Open Dataset, JSON lines in a tar in a zip as published (or unpacked, in a folder).

yelp_academic_dataset_review.json      user_id, business_id, stars, date: 2015-04-15 05:21:16, taken as UTC
yelp_academic_dataset_business.json    business_id, name, city, state, categories: "Pubs, Food"
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from thinkrec.ingest.raw import Source
from thinkrec.ingest.readers.files import pick_pair, ranges
from thinkrec.ingest.readers.formats import check_columns
from thinkrec.ingest.readers.jsonlines import JsonLines
from thinkrec.ingest.readers.metadata import Item, items_reader, list_of, text_of
from thinkrec.ingest.readers.ratings import RatingFile, read_ratings
from thinkrec.ingest.readers.rows import Scale

REVIEWS, BUSINESSES = "yelp_academic_dataset_review.json", "yelp_academic_dataset_business.json"
COLUMNS = {"user": "user_id", "item": "business_id", "rating": "stars", "timestamp": "date"}


def open_yelp(path: Path) -> Source:
    """Open the reviews and the businesses.

    Raises:
        UserError: the files are missing or broken, or are another release's.
    """
    hint = f"set dataset.raw to Yelp-JSON.zip, or to a folder with {REVIEWS} and {BUSINESSES}"
    reviews, businesses = pick_pair(path, (REVIEWS,), (BUSINESSES,), hint)
    file = RatingFile(format=JsonLines(), columns=COLUMNS, scale=Scale(lowest=1.0, highest=5.0))
    check_columns(JsonLines(), reviews, COLUMNS, "dataset.raw")
    return Source(
        parts=tuple(ranges(reviews)),
        read=partial(read_ratings, file),
        items=items_reader(JsonLines(), [businesses], _business),
    )


def _business(values: Mapping[str, Any]) -> Item | str:
    item_id = text_of(values.get("business_id")).strip()
    if not item_id:
        return "no item id"
    place = ", ".join(filter(None, (text_of(values.get("city")), text_of(values.get("state")))))
    return Item(item_id, text_of(values.get("name")), None, list_of(values.get("categories")), place)
