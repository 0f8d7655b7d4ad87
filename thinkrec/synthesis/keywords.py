"""Keywords: noisy item metadata reduced to a few words per item (METHOD section 2).

The TF-IDF extractor needs no language model. An item's keywords are its categories, then the words of its
description by TF-IDF (names last: they are trivia oftener than not). Prompts show the title anyway, so its words serve
only where there is nothing else; an item without a description also gets its decade, such as "1990s". What is no
keyword goes first: markup, addresses, sentences that sell the item or give orders, stop words and words that a large
share of all items use.

`clean_keywords` is the gate that every keyword passes, whoever proposes it; `summaries.py` has a teacher propose them.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, TfidfVectorizer

LARGE = 100  # items from which document frequencies mean something
RAREST = 2  # in a large corpus, a word of one item alone is noise
COMMONEST = 0.1  # in a large corpus, a word of more items than this share tells none of them apart
COMMONEST_CATEGORY = 0.9

# Function words that scikit-learn's list leaves out.
_FUNCTION_WORDS = (
    "also although among amongst another anyone anything aren can't couldn didn does doesn doing don don't etc "
    "hadn hasn haven he'll i'd i'll i'm i've isn it's just let let's like likely lot lots made make makes making "
    "many mightn much mustn needn new nor not often one ones other others really shan she'll shouldn some such "
    "than that's theirs thing things too truly upon use used uses using various very wasn way ways weren what's "
    "won wouldn yes you'll you're you've"
)
_CONTENT_WORDS = "cry fire interest mill serious sincere system"  # which that list holds all the same
_SALES_WORDS = (
    "asin brand brands click copyright edition editions isbn listed n/a none null price prices pricing region "
    "runtime shipping sku subtitles unknown untitled various visit warranty www"
)
STOP_WORDS = ENGLISH_STOP_WORDS.union(_FUNCTION_WORDS.split()).difference(_CONTENT_WORDS.split())
BOILERPLATE = frozenset(_SALES_WORDS.split())

_MARKUP = re.compile(r"<[^<>]{0,200}>|&#?\w{1,10};")
_ADDRESS = re.compile(r"(?:https?:/|www\.)\S+|\S+@\S+\.\S+|\b[\w-]+\.(?:com|net|org|info|biz)\b\S*", re.IGNORECASE)
_SENTENCE = re.compile(r"(?<=[.!?;])\s+|[\n\r|•]+")
# A sentence that matches sells the item; none of its words describe it.
_ADVERTISING = re.compile(
    r"""\b(?:brand|list\s+price|price|publisher|manufacturer|isbn|asin|sku|runtime|region\s+\d)\b\s*[:\d$#]
      | [$€£]\s*\d | \b\d+\s*(?:usd|eur|gbp)\b
      | \b(?:click|visit)\s+(?:here|our|us|www|http|the\s+(?:web)?site)\b | \bvisit\s*$
      | \b(?:free\s+shipping|all\s+rights\s+reserved|add\s+to\s+cart|money[\s-]back|on\s+sale|buy\s+now|order\s+now
        |sold\s+(?:together|separately))\b
      | \bregion\s+\d+\s+edition\b | ©|\(c\)\s*\d
    """,
    re.IGNORECASE | re.VERBOSE,
)
# A sentence that matches tells whoever reads the metadata what to do, and describes nothing either.
_INSTRUCTION = re.compile(
    r"""\b(?:ignore|disregard|forget|override)\b[^.!?\n]{0,60}?
        \b(?:instructions?|prompts?|(?:the|all|everything|text|lines?)\s+above
        |(?:previous|prior|earlier)\s+(?:text|lines?|messages?|rules?))\b
      | \b(?:answer|reply|respond|output|print)\s+(?:(?:only|always|just|with|the|word)\s+)*\W?(?:yes|no)\b
      | \byou\s+(?:must|should|will|shall)\s+(?:now\s+|always\s+|only\s+)*(?:answer|reply|respond|output|print)\b
      | \b(?:system|developer)\s+(?:message|prompt)\b
    """,
    re.IGNORECASE | re.VERBOSE,
)
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_NUMBER_LIKE = re.compile(r"[\W\d_]*\d[\W\d_]*(?:st|nd|rd|th|s)?\W*")
_DECADE = re.compile(r"[12]\d{2}0s")
EDGES = " \t\n\r.,:;!?*#\"'`“”\u2018\u2019()[]{}<>-\u2013—•/\\|_"
SHORTEST = 3  # letters


def extract_keywords(items: pd.DataFrame, *, max_per_item: int) -> tuple[pd.DataFrame, dict[str, Any]]:
    """At most `max_per_item` keywords per item, best first: (item, keywords) in the order of `items`, and statistics.

    Args:
        items: columns `item`, `title`, `year` (null where unknown), `categories` (lists), `description`.
        max_per_item: the longest list.
    """
    categories = _telling_categories([[str(name) for name in names] for names in items["categories"]])
    titles = [content_words(text_of(title)) for title in items["title"]]
    plain = [plain_description(text_of(description)) for description in items["description"]]
    descriptions = [content_words(text) for text in plain]
    ordinary = {word for text in plain for word in _WORD.findall(text) if word.islower()}
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
        lists.append(clean_keywords(proposed, max_per_item - len(decade)) + decade)
    return pd.DataFrame({"item": items["item"].to_numpy(), "keywords": lists}), keyword_stats(lists)


def keyword_stats(lists: Sequence[Sequence[str]]) -> dict[str, Any]:
    """What there is to say about the keywords of all items."""
    return {
        "items": len(lists),
        "items_without_keywords": sum(not words for words in lists),
        "mean_keywords": float(np.mean([len(words) for words in lists])) if lists else 0.0,
        "vocabulary": len({word for words in lists for word in words}),
    }


def clean_keywords(words: Iterable[str], limit: int) -> list[str]:
    """The first `limit` of `words` that are keywords: lower-cased, without repeats, in the order given.

    Dropped are stop words, boilerplate, addresses, instructions, bare numbers (a decade such as "1990s" may stay),
    words of fewer than three letters, and what differs from an earlier keyword in case or by a plural only.
    """
    kept: dict[str, str] = {}
    for word in words:
        tidy = _tidy(word)
        if tidy and _is_keyword(tidy):
            kept.setdefault(_singular(tidy), tidy)
    return list(kept.values())[: max(limit, 0)]


def instructs(text: str) -> bool:
    """Whether a text tells its reader what to answer, or to leave what was asked undone."""
    return _INSTRUCTION.search(text) is not None


def plain_description(description: str) -> str:
    """A description without markup and without the sentences that sell the item or instruct the reader."""
    text = html.unescape(_MARKUP.sub(" ", html.unescape(description)))
    # Addresses last: "Visit www…" is advertising because of what follows the word.
    sentences = (part for part in _SENTENCE.split(text) if not (_ADVERTISING.search(part) or instructs(part)))
    return _ADDRESS.sub(" ", " ".join(sentences))


def content_words(text: str) -> list[str]:
    """The words of a text that could be keywords, each as often as it occurs."""
    words = (found[0].lower().replace("\u2019", "'").removesuffix("'s") for found in _WORD.finditer(text))
    return [word for word in words if word not in STOP_WORDS and _is_keyword(word)]


def _tidy(word: str) -> str:
    """A proposed keyword in lower case on one line, without markup or punctuation around it."""
    text = html.unescape(_MARKUP.sub(" ", html.unescape(word)))
    return " ".join(text.replace("\u2019", "'").lower().split()).strip(EDGES)


def _is_keyword(tidy: str) -> bool:
    if _DECADE.fullmatch(tidy):
        return True
    if _ADDRESS.search(tidy) or _NUMBER_LIKE.fullmatch(tidy) or instructs(tidy):
        return False
    parts = re.split(r"[\s,:]+", tidy)
    letters = sum(char.isalpha() for char in tidy)
    return (
        letters >= SHORTEST
        and not BOILERPLATE.intersection(parts)
        and not all(part in STOP_WORDS or len(part) < SHORTEST for part in parts)
    )


def _singular(word: str) -> str:
    """A key that a word and its simple plural share (not always a word): "stories" and "story", "box" and "boxes"."""
    if len(word) > SHORTEST and word.endswith("s") and not word.endswith(("ss", "us", "is", "'s")):
        word = word[:-1]
    if len(word) > SHORTEST and word.endswith("ie"):
        return f"{word[:-2]}y"
    if word.endswith(("xe", "she", "che", "sse", "ze")):
        return word[:-1]
    return word


def text_of(value: Any) -> str:
    """A text of a table; "" for what is none."""
    return value if isinstance(value, str) else ""


def _tf_idf(documents: Sequence[Sequence[str]]) -> list[dict[str, float]]:
    """Each document's words with their TF-IDF weights; plurals count as their singular where both occur."""
    forms: dict[str, str] = {}
    for word in sorted({word for document in documents for word in document}, key=lambda word: (len(word), word)):
        forms.setdefault(_singular(word), word)
    large = len(documents) >= LARGE
    vectoriser = TfidfVectorizer(
        analyzer=lambda document: [forms[_singular(word)] for word in document],
        min_df=RAREST if large else 1,
        max_df=COMMONEST if large else 1.0,
    )
    try:
        matrix = vectoriser.fit_transform(documents).tocsr()
    except ValueError:  # no document has a word, or every word is too rare or too common
        return [{} for _ in documents]
    names = vectoriser.get_feature_names_out()
    weights = []
    for start, end in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True):
        known = {names[column]: float(matrix.data[place]) for place, column in _entries(matrix.indices, start, end)}
        weights.append(known)
    return [
        {word: known[forms[_singular(word)]] for word in document if forms[_singular(word)] in known}
        for document, known in zip(documents, weights, strict=True)
    ]


def _entries(columns: Any, start: int, end: int) -> Iterable[tuple[int, int]]:
    return ((place, int(columns[place])) for place in range(start, end))


def _best_first(words: Iterable[str], weight: dict[str, float]) -> list[str]:
    """The weighed ones of `words`, heaviest first; equal weights go by the alphabet."""
    known = {word for word in words if word in weight}
    return sorted(known, key=lambda word: (-round(weight[word], 9), word))


def _telling_categories(categories: list[list[str]]) -> list[list[str]]:
    """Categories without those that (in a large corpus) nearly every item has, such as a shop's department."""
    if len(categories) < LARGE:
        return categories
    count = pd.Series([name for names in categories for name in set(names)], dtype=object).value_counts()
    too_common = set(count.index[count > COMMONEST_CATEGORY * len(categories)])
    return [[name for name in names if name not in too_common] for names in categories]
