"""The text that the embedded backbone is pretrained on: metadata of items that occur in train, and train's traces."""

from __future__ import annotations

import numpy as np
import pandas as pd

from thinkrec.text.items import item_texts


def training_texts(
    interactions: pd.DataFrame,
    items: pd.DataFrame,
    keywords: pd.DataFrame,
    traces: pd.DataFrame | None,
    *,
    keywords_shown: int,
) -> list[str]:
    """Item lines as prompts show them, descriptions, and the traces about train rows; no valid or test item or trace.

    Without traces (None) the backbone never meets a reason, as the ablation "no thinking" demands.
    """
    train = (interactions["split"] == "train").to_numpy()
    lines = item_texts(items, keywords, keywords_shown)
    descriptions = items["description"].tolist()
    known = np.unique(interactions["item"].to_numpy()[train])
    texts = [text for item in known for text in (lines[item], descriptions[item]) if text]
    return texts if traces is None else texts + traces.loc[train[traces["row"].to_numpy()], "text"].tolist()
