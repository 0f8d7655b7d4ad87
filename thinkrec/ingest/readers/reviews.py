"""Reviews as JSON lines, as published (packed or not): Amazon's, of a category, and Yelp's, with their metadata.

Amazon 2018 (Ni et al.)    C_5.json.gz, or C.json.gz for all reviews; meta_C.json.gz; times in seconds
Amazon 2023 (Hou et al.)   C.jsonl.gz; meta_C.jsonl.gz; times in milliseconds, parent_asin joins to the metadata
Yelp Open Dataset          a tar in a zip, with the two files below; date: 2015-04-15 05:21:16, taken as UTC
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thinkrec.ingest.readers.metadata import Item, text_of
from thinkrec.ingest.readers.published import Release

# A few thousand items of 2018 have a web page's script for a title.
SCRIPT = "getTime()"
HINT = "set dataset.raw to a folder with {0} and {1}, or to the reviews beside the metadata"
YELP_REVIEWS, YELP_BUSINESSES = "yelp_academic_dataset_review.json", "yelp_academic_dataset_business.json"


def amazon_2018(category: str) -> Release:
    """The reviews and metadata of a category, of 2018."""
    return Release(
        ratings=(f"{category}_5.json", f"{category}.json"),
        columns={"user": "reviewerID", "item": "asin", "rating": "overall", "timestamp": "unixReviewTime"},
        items=f"meta_{category}.json",
        item_columns=_product("asin", ("category", "main_cat"), ("description", "feature")),
        tidy=_without_script,
        hint=HINT.format(f"{category}_5.json.gz", f"meta_{category}.json.gz"),
    )


def amazon_2023(category: str) -> Release:
    """The reviews and metadata of a category, of 2023."""
    return Release(
        ratings=(f"{category}.jsonl",),
        columns={"user": "user_id", "item": "parent_asin", "rating": "rating", "timestamp": "timestamp"},
        items=f"meta_{category}.jsonl",
        item_columns=_product("parent_asin", ("categories", "main_category"), ("description", "features")),
        tidy=_without_script,
        hint=HINT.format(f"{category}.jsonl.gz", f"meta_{category}.jsonl.gz"),
    )


def _product(item: str, categories: tuple[str, str], description: tuple[str, str]) -> dict[str, str]:
    several = {"categories": categories, "description": description}
    numbered = {f"{role}.{at}": name for role, names in several.items() for at, name in enumerate(names)}
    return {"item": item, "title": "title", **numbered}


def _without_script(item: Item, values: Mapping[str, Any]) -> Item:
    return item._replace(title="" if SCRIPT in item.title else item.title)


def _with_place(item: Item, values: Mapping[str, Any]) -> Item:
    return item._replace(description=", ".join(filter(None, (text_of(values.get(name)) for name in ("city", "state")))))


YELP = Release(
    ratings=(YELP_REVIEWS,),
    columns={"user": "user_id", "item": "business_id", "rating": "stars", "timestamp": "date"},
    items=YELP_BUSINESSES,
    item_columns={"item": "business_id", "title": "name", "categories": "categories"},
    tidy=_with_place,
    hint=f"set dataset.raw to Yelp-JSON.zip, or to a folder with {YELP_REVIEWS} and {YELP_BUSINESSES}",
)
