"""The text that the tiny backbone is pretrained on. Nothing in it comes from valid or test.

Documents are train's items (their line as prompts show it, their description) and its traces, each after the history
and the target that it reasons about, as the layout writes them: a reason to learn to look things up in a history.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from thinkrec.history import history_bounds, shown_history
from thinkrec.params import PromptParams
from thinkrec.text.items import item_texts
from thinkrec.text.question import question_text
from thinkrec.text.vocabulary import VERDICTS


def _stream(history: Sequence[tuple[str, int]], target: str) -> str:
    return " ".join([*(f"{line} {VERDICTS[label]}" for line, label in history), target])


AS_TEXT = {"stream": _stream, "question": question_text}


def training_texts(
    interactions: pd.DataFrame,
    items: pd.DataFrame,
    keywords: pd.DataFrame,
    traces: pd.DataFrame,
    prompt: PromptParams,
) -> list[str]:
    """Item lines and descriptions, and a document per trace about a train row.

    Traces are there even if fine-tuning has no thinking (`sft.think_share=0`): ablations stand on one language model.
    """
    train = (interactions["split"] == "train").to_numpy()
    item, label = interactions["item"].to_numpy(), interactions["label"].to_numpy()
    lines = item_texts(items, keywords, prompt.keywords)
    descriptions = items["description"].tolist()
    texts = [text for number in np.unique(item[train]) for text in (lines[number], descriptions[number]) if text]
    start, end = history_bounds(interactions["user"].to_numpy(), interactions["timestamp"].to_numpy())
    for row, reason in zip(traces["row"].tolist(), traces["text"], strict=True):
        if train[row]:
            past = shown_history(start[row], end[row], prompt.history)
            history = [(lines[item[earlier]], int(label[earlier])) for earlier in past]
            texts.append(f"{AS_TEXT[prompt.layout](history, lines[item[row]])} {reason}")
    return texts
