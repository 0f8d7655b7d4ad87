"""Refusals that a server does not call refusals: the answer itself says so."""

from __future__ import annotations

import re

_REFUSAL = re.compile(
    r"\W*(?:I(?:['\u2019]m| am) (?:very )?sorry\b|(?:very )?sorry\b(?=\s*[,.:;!\u2013\u2014-]|\s+(?:but|I)\b)"
    r"|I (?:can(?:not|['\u2019]t)|am unable|am not able|won['\u2019]t|will not)\b"
    r"|I['\u2019]m (?:unable|not able)\b|As an AI\b)",
    re.IGNORECASE,
)


def is_refusal(text: str) -> bool:
    """Whether an answer begins by refusing."""
    return _REFUSAL.match(text) is not None
