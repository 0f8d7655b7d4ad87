"""The layouts by name (`prompt.layout`), made for a tokenizer and a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from thinkrec.params import PromptParams
from thinkrec.text.chat import frame_of
from thinkrec.text.items import Ragged
from thinkrec.text.layout import Layout, columns
from thinkrec.text.question import QuestionLayout, phrase_tokens
from thinkrec.text.stream import StreamLayout
from thinkrec.text.vocabulary import find_vocabulary


def make_layout(
    interactions: pd.DataFrame,
    items: Ragged,
    tokenizer: PreTrainedTokenizerBase,
    prompt: PromptParams,
    *,
    reasons: Mapping[int, NDArray[np.int32]] | None = None,
) -> Layout:
    """The layout `prompt.layout` of the interactions artefact, items as tokens of `tokenizer`."""
    common: dict[str, Any] = {
        **columns(interactions),
        "items": items,
        "reasons": reasons or {},
        "history": prompt.history,
        "soft_tokens": prompt.soft_tokens,
        "max_tokens": prompt.max_tokens,
    }
    words = find_vocabulary(tokenizer)
    if prompt.layout == "stream":
        return StreamLayout(**common, vocabulary=words)
    head, tail = frame_of(tokenizer, words.begin)
    return QuestionLayout(
        **common,
        vocabulary=find_vocabulary(tokenizer, after=tail),
        head=head,
        words=phrase_tokens(tokenizer),
        user_slot="user" in prompt.slots,
        item_slots=any(part != "user" for part in prompt.slots),
    )
