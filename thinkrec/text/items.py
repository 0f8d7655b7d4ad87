"""What a prompt says of an item, and its tokens.

Item text is the title and at most `prompt.keywords` keywords (METHOD: thinking activation), cleaned and cut as every
reader sees them (`thinkrec.shown`). It is untrusted: special tokens are never parsed out of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from thinkrec import artifacts
from thinkrec.artifacts import keyword_lists
from thinkrec.shown import shown_keywords, shown_title
from thinkrec.text.vocabulary import pieces, tokenizer_hash

CHUNK = 10_000  # texts whose token lists are held as Python objects at once


def item_texts(items: pd.DataFrame, keywords: pd.DataFrame, limit: int) -> list[str]:
    """One line of text per item, by item number: `"title": keyword, keyword`."""
    return [
        item_text(title, words) for title, words in zip(items["title"], keyword_lists(keywords, limit), strict=True)
    ]


def item_text(title: str, keywords: Sequence[str]) -> str:
    """The text of one item.

    The title stands in quotes, as reasons name it: only then are its tokens the same here and there.
    """
    words, quoted = ", ".join(shown_keywords(keywords)), f'"{shown_title(title)}"'
    return f"{quoted}: {words}" if words else quoted


@dataclass(frozen=True, slots=True)
class Ragged:
    """Token lists of different lengths in one array: list `k` is `tokens[offsets[k]:offsets[k + 1]]`."""

    tokens: NDArray[np.int32]
    offsets: NDArray[np.int64]

    def __getitem__(self, index: int) -> NDArray[np.int32]:
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Length of every list."""
        return np.diff(self.offsets)


def encode(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], *, lead: str = " ") -> Ragged:
    """Tokens of each text as it continues a line: after `lead`, without special tokens."""
    texts = [lead + text for text in texts]
    parts, lengths = [np.zeros(0, np.int32)], [0]
    for first in range(0, len(texts), CHUNK):
        lists = pieces(tokenizer, texts[first : first + CHUNK], split_special_tokens=True)
        parts.append(np.fromiter(chain.from_iterable(lists), np.int32))
        lengths += map(len, lists)
    return Ragged(np.concatenate(parts), np.cumsum(lengths, dtype=np.int64))


def encode_once(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], root: Path = Path()) -> Ragged:
    """`encode`, the tokens kept on disk below the folder `root`, and memory-mapped from there the next time."""
    key = hashlib.sha256(json.dumps([tokenizer_hash(tokenizer), *texts]).encode()).hexdigest()[:32]

    def arrays() -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        ragged = encode(tokenizer, texts)
        return ragged.tokens, ragged.offsets

    return Ragged(*artifacts.cached_tokens(key, arrays, root=root))
