"""The one thesaurus: which words of the synthetic world mean about the same."""

from __future__ import annotations

from thinkrec.synthetic.vocabulary import TRAITS

# Words that mean about the same share a meaning; any other word means itself.
MEANINGS = {word: value for trait in TRAITS.values() for value, synonyms in trait.items() for word in synonyms}


def meaning(keyword: str) -> str:
    """What synonyms share: the name of their meaning, or the keyword itself."""
    return MEANINGS.get(keyword, keyword)
