"""The offline teacher's other half: keywords of an item, from the text of the question alone.

Categories come first, then the words of the description whose meanings it knows (those of the synthetic world's
vocabulary) or, where it knows none, all of them, the oftener used first; without either, the title's. Like any teacher
it does not always keep to the form: answers come as a list of commas, of numbers or of JSON, and some as a sentence,
which cannot be used. Which is drawn from a hash of the request.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from thinkrec.synthesis.keywords import clean_keywords, content_words
from thinkrec.synthetic.synonyms import MEANINGS
from thinkrec.teacher.item_prompts import MOST_KEYWORDS

PROSE = 0.03  # share of answers that are a sentence


_FORMS = (
    ", ".join,
    lambda found: f"Keywords: {', '.join(found)}",
    lambda found: "\n".join(f"{number}. {word}" for number, word in enumerate(found, 1)),
    lambda found: json.dumps(found),
)


def keywords_answer(item: Mapping[str, Any], style: bytes) -> str:
    """The answer to the question about `item`; the 32 bytes of `style` draw its form."""
    described = content_words(item.get("description", ""))
    known = [word for word in described if word in MEANINGS]
    proposed = [*item.get("categories", []), *(known or (word for word, _ in Counter(described).most_common()))]
    found = clean_keywords(proposed or content_words(item.get("title", "")), MOST_KEYWORDS)
    if int.from_bytes(style[16:24], "big") / 2**64 < PROSE:
        return f"This is an item that people know for its {' and '.join(found) or 'title'}."
    return _FORMS[style[0] % len(_FORMS)](found)
