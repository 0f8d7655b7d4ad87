"""Keywords without a teacher: noisy item metadata reduced to a few words by TF-IDF (METHOD section 2).

An item's keywords are its categories, then the words of its description by TF-IDF, names last (they are trivia oftener
than not). Prompts show the title anyway, so its words serve only where there is nothing else. An item without a
description also gets its decade, such as "1990s". In a large corpus, words of very few or very many items are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer

from thinkrec.claims.cleaning import (
    MOST_KEYWORDS,
    WORD,
    clean_keywords,
    content_words,
    plain_description,
    singular,
    text_of,
)

LARGE = 100  # items from which document frequencies mean something
RAREST = 2  # in a large corpus, a word of one item alone is noise
COMMONEST = 0.1  # in a large corpus, a word of more items than this share tells none of them apart
COMMONEST_CATEGORY = 0.9


def extract_keywords(items: pd.DataFrame) -> pd.DataFrame:
    """At most MOST_KEYWORDS per item, best first: (item, keywords) in the order of `items`.

    `items` have `item`, `title`, `year` (null where unknown), `categories` (lists) and `description`.
    """
    categories = _telling_categories([[str(name) for name in names] for names in items["categories"]])
    titles = [content_words(text_of(title)) for title in items["title"]]
    plain = [plain_description(text_of(description)) for description in items["description"]]
    descriptions = [content_words(text) for text in plain]
    ordinary = {word for text in plain for word in WORD.findall(text) if word.islower()}
    # One weighing for both, so that a word of a title counts as seen when other items' descriptions use it.
    weights = _tf_idf([[*title, *description] for title, description in zip(titles, descriptions, strict=True)])
    lists = []
    for names, title, description, weight, year in zip(
        categories, titles, descriptions, weights, items["year"], strict=True
    ):
        ranked = _best_first(description, weight)
        ranked.sort(key=lambda word: word not in ordinary)  # a word that is never in lower case is a name
        proposed = [*names, *ranked] or _best_first(title, weight)
        # The decade comes last, but nothing may push it out: it is much of what is known.
        decade = [f"{int(year) // 10 * 10}s"] if not description and not pd.isna(year) else []
        lists.append(clean_keywords(proposed, MOST_KEYWORDS - len(decade)) + decade)
    return pd.DataFrame({"item": items["item"].to_numpy(), "keywords": lists})


def keyword_stats(lists: Sequence[Sequence[str]]) -> dict[str, Any]:
    """What there is to say about the keywords of all items."""
    return {
        "items": len(lists),
        "items_without_keywords": sum(not words for words in lists),
        "mean_keywords": float(np.mean([len(words) for words in lists])) if lists else 0.0,
        "vocabulary": len({word for words in lists for word in words}),
    }


def _tf_idf(documents: Sequence[Sequence[str]]) -> list[dict[str, float]]:
    """Each document's words with their TF-IDF weights; plurals count as their singular where both occur."""
    forms: dict[str, str] = {}
    for word in sorted({word for document in documents for word in document}, key=lambda word: (len(word), word)):
        forms.setdefault(singular(word), word)
    large = len(documents) >= LARGE
    vectoriser = TfidfVectorizer(
        analyzer=lambda document: [forms[singular(word)] for word in document],
        min_df=RAREST if large else 1,
        max_df=COMMONEST if large else 1.0,
    )
    try:
        matrix = vectoriser.fit_transform(documents).tocsr()
    except ValueError:  # no document has a word, or every word is too rare or too common
        return [{} for _ in documents]
    names = vectoriser.get_feature_names_out()
    weights = []
    for document, (start, end) in zip(documents, pairwise(matrix.indptr), strict=True):
        by_form = dict(zip(names[matrix.indices[start:end]], matrix.data[start:end].tolist(), strict=True))
        weights.append({word: by_form[forms[singular(word)]] for word in document if forms[singular(word)] in by_form})
    return weights


def _best_first(words: Iterable[str], weight: dict[str, float]) -> list[str]:
    """The weighed ones of `words`, heaviest first; equal weights go by the alphabet."""
    return sorted({word for word in words if word in weight}, key=lambda word: (-round(weight[word], 9), word))


def _telling_categories(categories: list[list[str]]) -> list[list[str]]:
    """Categories without those that (in a large corpus) nearly every item has, such as a shop's department."""
    if len(categories) < LARGE:
        return categories
    count = pd.Series([name for names in categories for name in set(names)], dtype=object).value_counts()
    too_common = set(count.index[count > COMMONEST_CATEGORY * len(categories)])
    return [[name for name in names if name not in too_common] for names in categories]
