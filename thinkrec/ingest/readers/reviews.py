"""Reviews as JSON lines, as published (packed or not): Amazon's, of a category, and Yelp's, with their metadata.

Amazon 2018 (Ni et al.)    C_5.json.gz, or C.json.gz for all reviews; meta_C.json.gz; times in seconds
Amazon 2023 (Hou et al.)   C.jsonl.gz; meta_C.jsonl.gz; times in milliseconds, parent_asin joins to the metadata
Yelp Open Dataset          a tar in a zip, with the two files below; date: 2015-04-15 05:21:16, taken as UTC
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thinkrec.ingest.readers.jsonlines import JsonLines
from thinkrec.ingest.readers.metadata import Item, ItemColumns, Tidy, text_of
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
        ItemColumns(
            item="asin", title="title", categories=("category", "main_cat"), description=("description", "feature")
        ),
    )


def amazon_2023(category: str) -> Release:
    """The reviews and metadata of a category, of 2023."""
    return _amazon(
        (f"{category}.jsonl",),
        f"meta_{category}.jsonl",
        {"user": "user_id", "item": "parent_asin", "rating": "rating", "timestamp": "timestamp"},
        ItemColumns(
            item="parent_asin",
            title="title",
            categories=("categories", "main_category"),
            description=("description", "features"),
        ),
    )


def _amazon(reviews: tuple[str, ...], metadata: str, columns: Mapping[str, str], product: ItemColumns) -> Release:
    hint = f"set dataset.raw to a folder with {reviews[0]}.gz and {metadata}.gz, or to the reviews beside the metadata"
    return _reviews(reviews, metadata, columns, product, _without_script, hint)


def _reviews(
    ratings: tuple[str, ...],
    items: str,
    columns: Mapping[str, str],
    item_columns: ItemColumns,
    tidy: Tidy,
    hint: str,
) -> Release:
    return Release(
        ratings=ratings,
        rating_format=JsonLines(),
        columns=columns,
        scale=Scale(lowest=1.0, highest=5.0),
        items=items,
        item_format=JsonLines(),
        item_columns=item_columns,
        required={},  # an object may lack any
        tidy=tidy,
        hint=hint,
    )


def _without_script(item: Item, values: Mapping[str, Any]) -> Item:
    return item._replace(title="" if SCRIPT in item.title else item.title)


def _with_place(item: Item, values: Mapping[str, Any]) -> Item:
    return item._replace(description=", ".join(filter(None, (text_of(values.get(name)) for name in ("city", "state")))))


YELP = _reviews(
    (YELP_REVIEWS,),
    YELP_BUSINESSES,
    {"user": "user_id", "item": "business_id", "rating": "stars", "timestamp": "date"},
    ItemColumns(item="business_id", title="name", categories=("categories",)),
    _with_place,
    f"set dataset.raw to Yelp-JSON.zip, or to a folder with {YELP_REVIEWS} and {YELP_BUSINESSES}",
)
