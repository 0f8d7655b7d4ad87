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
from dataclasses import dataclass
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

STARS = Scale(lowest=1.0, highest=5.0)
YELP_REVIEWS, YELP_BUSINESSES = "yelp_academic_dataset_review.json", "yelp_academic_dataset_business.json"
YELP_COLUMNS = {"user": "user_id", "item": "business_id", "rating": "stars", "timestamp": "date"}
# A web page's script stands in the title's place of a few thousand items of 2018.
SCRIPT = "getTime()"


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """The names and columns of a release; `{}` stands for the category."""

    reviews: tuple[str, ...]
    metadata: str
    columns: Mapping[str, str]
    item: str
    categories: tuple[str, ...]
    description: tuple[str, ...]


AMAZON_2018 = Release(
    reviews=("{}_5.json", "{}.json"),
    metadata="meta_{}.json",
    columns={"user": "reviewerID", "item": "asin", "rating": "overall", "timestamp": "unixReviewTime"},
    item="asin",
    categories=("category", "main_cat"),
    description=("description", "feature"),
)
AMAZON_2023 = Release(
    reviews=("{}.jsonl",),
    metadata="meta_{}.jsonl",
    columns={"user": "user_id", "item": "parent_asin", "rating": "rating", "timestamp": "timestamp"},
    item="parent_asin",
    categories=("categories", "main_category"),
    description=("description", "features"),
)


def open_amazon(release: Release, category: str, path: Path) -> Source:
    """Open a category's reviews and metadata: a folder or archive of both, or the reviews, metadata beside them.

    Raises:
        UserError: the files are missing or broken, or are another release's.
    """
    reviews = [name.format(category) for name in release.reviews]
    metadata = release.metadata.format(category)
    hint = f"set dataset.raw to a folder with {reviews[0]}.gz and {metadata}.gz, or to the reviews beside the metadata"
    ratings, items = pick_pair(path, reviews, (metadata,), hint)
    check_columns(JsonLines(), ratings, release.columns, "dataset.raw")
    return Source(
        parts=tuple(ranges(ratings)),
        read=partial(read_ratings, RatingFile(format=JsonLines(), columns=release.columns, scale=STARS)),
        items=items_reader(JsonLines(), [items], partial(_product, release)),
    )


def _product(release: Release, values: Mapping[str, Any]) -> Item | str:
    item_id = text_of(values.get(release.item)).strip()
    if not item_id:
        return "no item id"
    title = text_of(values.get("title"))
    named = (list_of(values.get(name)) for name in release.categories)
    return Item(
        item_id,
        "" if SCRIPT in title else title,
        None,
        next(filter(None, named), []),  # the first that says any
        text_of([values.get(name) for name in release.description]),
    )


def open_yelp(path: Path) -> Source:
    """Open the reviews and the businesses.

    Raises:
        UserError: the files are missing or broken, or are another release's.
    """
    hint = f"set dataset.raw to Yelp-JSON.zip, or to a folder with {YELP_REVIEWS} and {YELP_BUSINESSES}"
    reviews, businesses = pick_pair(path, (YELP_REVIEWS,), (YELP_BUSINESSES,), hint)
    check_columns(JsonLines(), reviews, YELP_COLUMNS, "dataset.raw")
    return Source(
        parts=tuple(ranges(reviews)),
        read=partial(read_ratings, RatingFile(format=JsonLines(), columns=YELP_COLUMNS, scale=STARS)),
        items=items_reader(JsonLines(), [businesses], _business),
    )


def _business(values: Mapping[str, Any]) -> Item | str:
    item_id = text_of(values.get("business_id")).strip()
    if not item_id:
        return "no item id"
    place = ", ".join(filter(None, (text_of(values.get("city")), text_of(values.get("state")))))
    return Item(item_id, text_of(values.get("name")), None, list_of(values.get("categories")), place)
