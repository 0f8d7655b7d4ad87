"""The text that the tiny language model's tokenizer is learned from. Nothing in it comes from valid or test."""

from __future__ import annotations

import numpy as np
import pandas as pd

from thinkrec.params import PromptParams
from thinkrec.text.items import item_texts
from thinkrec.text.question import question_text


def training_texts(
    interactions: pd.DataFrame,
    items: pd.DataFrame,
    keywords: pd.DataFrame,
    traces: pd.DataFrame,
    prompt: PromptParams,
) -> list[str]:
    """Train's items (their line as prompts show it, their description) and its traces, each after its prompt's words.

    Traces are there even if fine-tuning has no thinking (`sft.think_share=0`): ablations stand on one tokenizer.
    """
    train = (interactions["split"] == "train").to_numpy()
    lines, descriptions = item_texts(items, keywords, prompt.keywords), items["description"].tolist()
    items_of_train = np.unique(interactions["item"].to_numpy()[train])
    around = f"{question_text([('', 0), ('', 1)], '')} " if prompt.layout == "question" else ""
    reasons = [around + text for row, text in zip(traces["row"], traces["text"], strict=True) if train[row]]
    return [text for number in items_of_train for text in (lines[number], descriptions[number]) if text] + reasons
