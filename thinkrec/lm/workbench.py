"""Everything that training, gating and evaluation share: the artefacts so far as one model and one layout."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from thinkrec import artifacts
from thinkrec.data.histories import frozen
from thinkrec.features import bank
from thinkrec.lm.backbone import open_backbone
from thinkrec.lm.finetune import encode_reasons
from thinkrec.lm.model import RecommenderLM, SlotProjector, SlotValues, SoftPrompt
from thinkrec.lm.processes import device
from thinkrec.params import PromptParams
from thinkrec.text.items import encode, item_texts
from thinkrec.text.layout import Layout
from thinkrec.text.layouts import make_layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Workbench:
    """A model on its device, the layout of all interactions, and the tables behind them."""

    interactions: pd.DataFrame
    features: bank.Features
    tokenizer: PreTrainedTokenizerBase
    layout: Layout
    model: RecommenderLM

    @property
    def user(self) -> NDArray[np.int32]:
        """User (n,) of every interaction."""
        return self.interactions["user"].to_numpy()

    def rows(self, split: str) -> NDArray[np.int64]:
        """Row numbers of a split."""
        return np.flatnonzero((self.interactions["split"] == split).to_numpy())

    def frozen(self) -> Workbench:
        """The same weights, told what the frozen protocol tells (`data.histories.frozen`)."""
        table = frozen(self.interactions)
        features = bank.load(protocol="frozen")
        values = replace(self.model.slot_values, features=features)
        model = RecommenderLM(
            self.model.backbone, self.model.vocabulary, values, self.model.projector, self.model.soft_prompt
        )
        return replace(self, interactions=table, features=features, layout=self.layout.over(table), model=model.eval())


def open_workbench(
    model_path: Path,
    prompt: PromptParams,
    *,
    traces: pd.DataFrame | None = None,
    projector: Path | None = None,
    slot_dropout: float = 0.0,
) -> Workbench:
    """Load the model directory and the artefacts before it.

    `traces` are those to train on (rows of train; others are left out). `projector` is the folder of a trained slot
    projector and soft prompt; without it fresh ones are made, the projector scaled by train's values. There is no
    projector if nothing is put in slots, and no soft prompt of no tokens.
    """
    interactions = artifacts.read_table(artifacts.INTERACTIONS)
    items = artifacts.read_table(artifacts.ITEMS)
    keywords = artifacts.read_table(artifacts.KEYWORDS)
    features = bank.load()
    model, tokenizer = open_backbone(model_path)
    train = (interactions["split"] == "train").to_numpy()
    reasons = None
    if traces is not None:
        reasons = encode_reasons(tokenizer, traces[train[traces["row"].to_numpy()]])
    layout = make_layout(
        interactions,
        encode(tokenizer, item_texts(items, keywords, prompt.keywords)),
        tokenizer,
        prompt,
        reasons=reasons,
    )
    values = SlotValues(features, prompt.slots)
    embeddings = model.get_input_embeddings()
    hidden = embeddings.embedding_dim
    slot_projector = soft_prompt = None
    if prompt.slots:
        if projector is None:
            slot_projector = SlotProjector(values.widths, hidden, dropout=slot_dropout)
            slot_projector.fit_scale(values(np.flatnonzero(train)))
        else:
            slot_projector = SlotProjector.load(projector, values.widths, hidden)
    if prompt.soft_tokens:
        if projector is None:
            soft_prompt = SoftPrompt.from_tokens(embeddings, prompt.soft_tokens)
        else:
            soft_prompt = SoftPrompt.load(projector, prompt.soft_tokens, hidden)
    recommender = RecommenderLM(model, layout.vocabulary, values, slot_projector, soft_prompt).to(device())
    return Workbench(
        interactions=interactions, features=features, tokenizer=tokenizer, layout=layout, model=recommender
    )
