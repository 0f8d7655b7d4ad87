"""Reviews as JSON lines, as published (packed or not): Amazon's, of a category, and Yelp's, with their metadata.

Amazon 2018 (Ni et al.)    C_5.json.gz, or C.json.gz for all reviews; meta_C.json.gz
                           reviewerID, asin, overall, unixReviewTime in seconds
                           asin, title, category (a list), feature and description (lists), with markup in them
Amazon 2023 (Hou et al.)   C.jsonl.gz; meta_C.jsonl.gz
                           user_id, parent_asin (what joins to the metadata), rating, timestamp in milliseconds
                           parent_asin, title, main_category, categories, features, description
Yelp Open Dataset          a tar in a zip: yelp_academic_dataset_review.json, yelp_academic_dataset_business.json
                           user_id, business_id, stars, date: 2015-04-15 05:21:16, taken as UTC
                           business_id, name, city, state, categories: "Pubs, Food"
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from thinkrec.ingest.readers.jsonlines import JsonLines
from thinkrec.ingest.readers.metadata import Item, ItemOf, list_of, text_of
from thinkrec.ingest.readers.published import Release
from thinkrec.ingest.readers.rows import Scale

# A few thousand items of 2018 have a web page's script for a title.
SCRIPT = "getTime()"
YELP_REVIEWS, YELP_BUSINESSES = "yelp_academic_dataset_review.json", "yelp_academic_dataset_business.json"


def amazon_2018(category: str) -> Release:
    """The reviews and metadata of a category, of 2018."""
    return _amazon(
        (f"{category}_5.json", f"{category}.json"),
        f"meta_{category}.json",
        {"user": "reviewerID", "item": "asin", "rating": "overall", "timestamp": "unixReviewTime"},
        {"categories": ("category", "main_cat"), "description": ("description", "feature")},
    )


def amazon_2023(category: str) -> Release:
    """The reviews and metadata of a category, of 2023."""
    return _amazon(
        (f"{category}.jsonl",),
        f"meta_{category}.jsonl",
        {"user": "user_id", "item": "parent_asin", "rating": "rating", "timestamp": "timestamp"},
        {"categories": ("categories", "main_category"), "description": ("description", "features")},
    )


def _amazon(
    reviews: tuple[str, ...], metadata: str, columns: dict[str, str], product: dict[str, tuple[str, str]]
) -> Release:
    hint = f"set dataset.raw to a folder with {reviews[0]}.gz and {metadata}.gz, or to the reviews beside the metadata"
    return _reviews(reviews, metadata, columns, partial(_product, columns["item"], product), hint)


def _reviews(
    ratings: tuple[str, ...],
    items: str,
    columns: dict[str, str],
    item_of: ItemOf,
    hint: str,
) -> Release:
    return Release(
        ratings=ratings,
        items=items,
        rating_format=JsonLines(),
        item_format=JsonLines(),
        columns=columns,
        scale=Scale(lowest=1.0, highest=5.0),
        item_of=item_of,
        hint=hint,
    )


def _product(id_name: str, names: Mapping[str, tuple[str, str]], values: Mapping[str, Any]) -> Item | str:
    item_id = text_of(values.get(id_name)).strip()
    if not item_id:
        return "no item id"
    title = text_of(values.get("title"))
    categories = (list_of(values.get(name)) for name in names["categories"])
    return Item(
        item_id,
        "" if SCRIPT in title else title,
        None,
        next(filter(None, categories), []),  # of the first column that holds any
        text_of([values.get(name) for name in names["description"]]),
    )


def _business(values: Mapping[str, Any]) -> Item | str:
    item_id = text_of(values.get("business_id")).strip()
    if not item_id:
        return "no item id"
    place = ", ".join(filter(None, (text_of(values.get("city")), text_of(values.get("state")))))
    return Item(item_id, text_of(values.get("name")), None, list_of(values.get("categories")), place)


YELP = _reviews(
    (YELP_REVIEWS,),
    YELP_BUSINESSES,
    {"user": "user_id", "item": "business_id", "rating": "stars", "timestamp": "date"},
    _business,
    f"set dataset.raw to Yelp-JSON.zip, or to a folder with {YELP_REVIEWS} and {YELP_BUSINESSES}",
)
