"""Metadata text is untrusted: what is left of it here is one line of plain characters.

Out go HTML tags and entities, control characters, invisible and direction-changing ones, halves of surrogate pairs
(which no parquet file can hold) and runs of white space. Words stay as they are: choosing among them is the keyword
stage's work.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator

WHOLE = r"^(-?\d+)\.0+$"  # a whole number as pandas and databases write one that they hold as a fraction
MISSING = ("nan", "NaN", "NULL", "null", "None", "<NA>", "NA", "N/A", "#N/A", "\\N")  # what programs write for no value
MAX_TEXT = 20_000  # characters read of one description: room for any honest one

_TAG = re.compile(r"<!--.*?-->|</?[A-Za-z!][^<>]*>", re.DOTALL)
_INVISIBLE = re.compile(
    r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\uffff\ud800-\udfff]"
)


def plain_id(text: str) -> str:
    """An id as every file and question is read: `123.0` is 123, composed and decomposed letters (NFC) are the same."""
    return re.sub(WHOLE, r"\1", unicodedata.normalize("NFC", text.strip()), flags=re.ASCII)


def plain_text(text: str) -> str:
    """`text` without markup, entities or characters nobody can see, its white space collapsed, its letters in NFC."""
    text = unicodedata.normalize("NFC", " ".join(text[:MAX_TEXT].split()))
    if _is_plain(text):
        return text
    for _ in range(2):  # some shops escape twice, and an unescaped entity may turn out to be a tag
        text = html.unescape(_TAG.sub(" ", text))
    return unicodedata.normalize("NFC", " ".join(_INVISIBLE.sub(" ", _TAG.sub(" ", text)).split()))


def _is_plain(text: str) -> bool:
    """Whether there is surely nothing to take out: most texts, and ten times faster to see than by looking for it."""
    return text.isprintable() and not any(mark in text for mark in "<&\ufffc\ufffd")


def repairs(text: str) -> Iterator[str]:
    """What `plain_text` does to `text` that a person would call a repair: none, or some of these."""
    if len(text) > MAX_TEXT:
        yield f"cut to {MAX_TEXT:,} characters"
        text = text[:MAX_TEXT]
    text = " ".join(text.split())
    if _is_plain(text) or plain_text(text) == text:
        return
    if _TAG.search(text) or html.unescape(text) != text:
        yield "markup"
    if _INVISIBLE.search(text):
        yield "unreadable characters"
