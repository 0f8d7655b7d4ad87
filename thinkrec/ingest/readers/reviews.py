"""Reviews as published (packed or not), with their metadata: Amazon's, of a category, Yelp's, and others'.

Amazon 2018 (Ni et al.)    C_5.json.gz, or C.json.gz for all reviews; meta_C.json.gz; times in seconds
Amazon 2023 (Hou et al.)   C.jsonl.gz, or C.csv.gz for the 5-core; meta_C.jsonl.gz; times in milliseconds,
                           parent_asin joins to the metadata
Goodreads (Wan et al.)     of a genre G: goodreads_interactions_G.json.gz, or those with a review, goodreads_reviews_G;
                           goodreads_books_G.json.gz; a rating of 0 is none; date_updated: when it last changed
Steam (Kang et al.)        steam_reviews.json.gz and steam_games.json.gz, as Python wrote them; nobody rates: hours
KuaiRec (Gao et al.)       big_matrix.csv and kuairec_caption_category.csv; nobody rates: watch_ratio, of a video's
                           length (most rows of small_matrix.csv have no time)
Yelp Open Dataset          a tar in a zip, with the two files below; date: 2015-04-15 05:21:16, taken as UTC
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thinkrec.ingest.readers.metadata import Item, text_of
from thinkrec.ingest.readers.published import CSV, JSON_LINES, Release
from thinkrec.ingest.readers.ratings import Scale

# A few thousand items of 2018 have a web page's script for a title.
SCRIPT = "getTime()"
HINT = "set dataset.raw to a folder with {0} and {1}, or to the reviews beside the metadata"
YELP_REVIEWS, YELP_BUSINESSES = "yelp_academic_dataset_review.json", "yelp_academic_dataset_business.json"


def amazon_2018(category: str) -> Release:
    """The reviews and metadata of a category, of 2018."""
    return Release(
        ratings=dict.fromkeys((f"{category}_5.json", f"{category}.json"), JSON_LINES),
        columns={"user": "reviewerID", "item": "asin", "rating": "overall", "timestamp": "unixReviewTime"},
        items=f"meta_{category}.json",
        item_columns=_product("asin", ("category", "main_cat"), ("description", "feature")),
        tidy=_without_script,
        hint=HINT.format(f"{category}_5.json.gz", f"meta_{category}.json.gz"),
    )


def amazon_2023(category: str) -> Release:
    """The reviews and metadata of a category, of 2023."""
    return Release(
        ratings={f"{category}.jsonl": JSON_LINES, f"{category}.csv": CSV},
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
    ratings={YELP_REVIEWS: JSON_LINES},
    columns={"user": "user_id", "item": "business_id", "rating": "stars", "timestamp": "date"},
    items=YELP_BUSINESSES,
    item_columns={"item": "business_id", "title": "name", "categories": "categories"},
    tidy=_with_place,
    hint=f"set dataset.raw to Yelp-JSON.zip, or to a folder with {YELP_REVIEWS} and {YELP_BUSINESSES}",
)


def goodreads(genre: str) -> Release:
    """The ratings of a genre's books."""
    names = [f"goodreads_{kind}_{genre}.json" for kind in ("interactions", "reviews", "books")]
    return Release(
        ratings=dict.fromkeys(names[:2], JSON_LINES),
        columns={"user": "user_id", "item": "book_id", "rating": "rating", "timestamp": "date_updated"},
        unrated="0",
        items=names[2],
        item_columns={
            "item": "book_id",
            "title": "title_without_series",
            "year": "publication_year",
            "description": "description",
        },
        tidy=_with_shelves,
        hint=HINT.format(f"{names[0]}.gz", f"{names[2]}.gz"),
    )


# Shelves that say what people did with a book, not what it is.
NO_GENRES = {"to-read", "currently-reading", "favorites", "favourites", "owned", "books-i-own", "default", "library"}
MOST_SHELVES = 8


def _with_shelves(item: Item, values: Mapping[str, Any]) -> Item:
    shelves = values.get("popular_shelves") or []
    names = [text_of(shelf.get("name")) for shelf in shelves if isinstance(shelf, dict)]
    return item._replace(categories=[name for name in names if name not in NO_GENRES][:MOST_SHELVES])


STEAM = Release(
    ratings={"steam_reviews.json": JSON_LINES, "steam_new.json": JSON_LINES},
    columns={"user": "username", "item": "product_id", "rating": "hours", "timestamp": "date"},
    scale=Scale(lowest=0.0),
    items="steam_games.json",
    item_columns={
        "item": "id",
        "title": "app_name",
        "year": "release_date",
        "categories.0": "genres",
        "categories.1": "tags",
        "description": "specs",
    },
    hint=HINT.format("steam_reviews.json.gz", "steam_games.json.gz"),
)

KUAIREC = Release(
    ratings={"big_matrix.csv": CSV},
    columns={"user": "user_id", "item": "video_id", "rating": "watch_ratio", "timestamp": "timestamp"},
    scale=Scale(lowest=0.0),
    items="kuairec_caption_category.csv",
    item_format=CSV,
    item_columns={
        "item": "video_id",
        "title": "caption",
        "categories": "first_level_category_name",
        "description.0": "second_level_category_name",
        "description.1": "third_level_category_name",
        "description.2": "manual_cover_text",
    },
    hint="set dataset.raw to KuaiRec.zip, or to a folder with big_matrix.csv and kuairec_caption_category.csv",
)
