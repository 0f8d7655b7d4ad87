"""Cleaning of metadata and keywords: what is no description and no keyword goes, whoever wrote or proposed it.

Metadata comes from strangers. Markup, addresses, sentences that sell the item and sentences that give the reader orders
describe nothing. `clean_keywords` is the gate that every keyword passes, extracted or written by a teacher.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from functools import cache
from typing import Any

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
MOST_KEYWORDS = 10  # of an item (METHOD section 2)
BOILERPLATE = frozenset(_SALES_WORDS.split())

_MARKUP = re.compile(r"<[^<>]{0,200}>|&#?\w{1,10};")
_ADDRESS = re.compile(
    r"(?:https?:/|www\.)\S+|[^\s@]{1,64}@\S+\.\S+|\b[\w-]+\.(?:com|net|org|info|biz)\b\S*", re.IGNORECASE
)
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
WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_WITHIN_SENTENCE = re.compile(rf"(?<=[\w,] ){WORD.pattern}")
_NUMBER_LIKE = re.compile(r"[\W\d_]*\d[\W\d_]*(?:st|nd|rd|th|s)?\W*")
_DECADE = re.compile(r"[12]\d{2}0s")
EDGES = " \t\n\r.,:;!?*#\"'`“”\u2018\u2019()[]{}<>-\u2013—•/\\|_"
SHORTEST = 3  # letters


@cache
def stop_words() -> frozenset[str]:
    """Words that are no keywords: scikit-learn's list, which takes a second to import, mended."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS.union(_FUNCTION_WORDS.split()).difference(_CONTENT_WORDS.split()))


def clean_keywords(words: Iterable[str], limit: int) -> list[str]:
    """The first `limit` of `words` that are keywords: lower-cased, without repeats, in the order given.

    Dropped are stop words, boilerplate, addresses, instructions, bare numbers (a decade such as "1990s" may stay),
    words of fewer than three letters, and what differs from an earlier keyword in case or by a plural only.
    """
    keywords: dict[str, str] = {}
    for word in words:
        tidy = _tidy(word)
        if tidy and _is_keyword(tidy):
            keywords.setdefault(singular(tidy), tidy)
    return list(keywords.values())[: max(limit, 0)]


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
    words = (match[0].lower().replace("\u2019", "'").removesuffix("'s") for match in WORD.finditer(text))
    return [word for word in words if word not in stop_words() and _is_keyword(word)]


def proper_names(descriptions: Iterable[Any], categories: Iterable[Iterable[str]]) -> frozenset[str]:
    """Words, in lower case, that descriptions write within sentences and never in lower case, and no category holds.

    They name places, people and makers.
    """
    texts = [text_of(description) for description in descriptions]
    within = {match for text in texts for match in _WITHIN_SENTENCE.findall(text) if match[0].isupper()}
    ordinary = {word for text in texts for word in WORD.findall(text) if word.islower()}
    ordinary.update(word.lower() for names in categories for name in names for word in WORD.findall(name))
    return frozenset(word.lower().replace("\u2019", "'").removesuffix("'s") for word in within) - ordinary


def _tidy(word: str) -> str:
    """A proposed keyword in lower case on one line, without markup or punctuation around it."""
    text = re.sub("[<>]", " ", html.unescape(_MARKUP.sub(" ", html.unescape(word))))
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
        and not all(part in stop_words() or len(part) < SHORTEST for part in parts)
    )


def singular(word: str) -> str:
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
