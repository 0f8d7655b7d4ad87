"""Everything that training, gating and evaluation share: the artefacts so far as one model and one layout."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from thinkrec import artifacts
from thinkrec.features.artefact import Features, load_features
from thinkrec.history import static_view
from thinkrec.lm import identity
from thinkrec.lm.backbone import check_positions, open_backbone
from thinkrec.lm.finetune import encode_reasons
from thinkrec.lm.model import RecommenderLM, SlotProjector, SlotValues, SoftPrompt
from thinkrec.lm.processes import device
from thinkrec.lm.recipes import RECIPES, Recipe
from thinkrec.params import PromptParams
from thinkrec.text.items import encode_once, item_texts
from thinkrec.text.layout import Layout
from thinkrec.text.layouts import make_layout
from thinkrec.text.vocabulary import tokenizer_hash

RECIPE, MODEL, ADAPTER = "recipe.json", "model", "adapter"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workbench:
    """A model on its device, the layout of all interactions, and the tables behind them."""

    interactions: pd.DataFrame
    features: Features
    tokenizer: PreTrainedTokenizerBase
    layout: Layout
    model: RecommenderLM
    recipe: Recipe
    base: Path  # the model directory that adapters stand on
    adapter: Path | None  # the global adapter; None is the zero adapter
    made_with: dict[str, Any]  # backbone, tokenizer and prompt: what the global model belongs to

    @property
    def user(self) -> NDArray[np.int32]:
        """User (n,) of every interaction."""
        return self.interactions["user"].to_numpy()

    def rows(self, split: str) -> NDArray[np.int64]:
        """Row numbers of a split."""
        return np.flatnonzero((self.interactions["split"] == split).to_numpy())

    def prompted(self, *, slots: bool) -> tuple[RecommenderLM, Layout]:
        """The model and its prompts, told features or, without `slots`, by text alone."""
        return (self.model, self.layout) if slots else (self.model.without_slots(), self.layout.without_slots())

    def static(self) -> Workbench:
        """The same weights, told what the static protocol tells (`history.static_view`)."""
        table = static_view(self.interactions)
        features = load_features(protocol="static")
        model = self.model.with_slot_values(replace(self.model.slot_values, features=features))
        return replace(self, interactions=table, features=features, layout=self.layout.over(table), model=model.eval())


def open_workbench(
    prompt: PromptParams, *, recipe: str, traces: pd.DataFrame | None = None, slot_dropout: float = 0.0
) -> Workbench:
    """The backbone with a fresh projector, scaled by train's values, and a fresh soft prompt: to be fine-tuned.

    `traces` are those to train on (rows of train; others are left out). There is no projector if nothing is put in
    slots, and no soft prompt of no tokens.
    """
    bench = _open(artifacts.BACKBONE, prompt, RECIPES[recipe], traces=traces, adapter=None)
    model, embeddings = bench.model, bench.model.backbone.get_input_embeddings()
    if prompt.slots:
        values = model.slot_values
        model.projector = SlotProjector(values.widths, embeddings.embedding_dim, dropout=slot_dropout)
        model.projector.fit_scale(values(bench.rows("train")))
    if prompt.soft_tokens:
        model.soft_prompt = SoftPrompt.from_tokens(embeddings, prompt.soft_tokens)
    model.to(model.device)
    return bench


def open_global(prompt: PromptParams, *, traces: pd.DataFrame | None = None) -> Workbench:
    """The global model as the stage `sft` left it, its adapter (if it is one) not put in yet.

    Raises:
        UserError: there is none, or it was made with another backbone, tokenizer or prompt.
    """
    recipe, base, adapter = global_parts()
    bench = _open(base, prompt, recipe, traces=traces, adapter=adapter)
    identity.check(artifacts.SFT, bench.made_with)
    model = bench.model
    hidden = model.backbone.get_input_embeddings().embedding_dim
    if prompt.slots:
        model.projector = SlotProjector.load(artifacts.SFT, model.slot_values.widths, hidden)
    if prompt.soft_tokens:
        model.soft_prompt = SoftPrompt.load(artifacts.SFT, prompt.soft_tokens, hidden)
    model.to(model.device)
    return bench


def global_parts() -> tuple[Recipe, Path, Path | None]:
    """What the stage `sft` left: the recipe, the model directory below, the adapter on it (None: the zero adapter)."""
    recipe = RECIPES[artifacts.read_json(artifacts.SFT / RECIPE)["recipe"]]
    if recipe.adapter:
        return recipe, artifacts.BACKBONE, artifacts.SFT / ADAPTER
    return recipe, artifacts.SFT / MODEL, None


def _open(
    base: Path, prompt: PromptParams, recipe: Recipe, *, traces: pd.DataFrame | None, adapter: Path | None
) -> Workbench:
    interactions = artifacts.read_table(artifacts.INTERACTIONS)
    items = artifacts.read_table(artifacts.ITEMS)
    keywords = artifacts.read_table(artifacts.KEYWORDS)
    features = load_features()
    backbone, tokenizer = open_backbone(base)
    check_positions(backbone, prompt.max_tokens)
    reasons = None
    if traces is not None:
        train = (interactions["split"] == "train").to_numpy()
        reasons = encode_reasons(tokenizer, traces[train[traces["row"].to_numpy()]])
    tokens = encode_once(tokenizer, item_texts(items, keywords, prompt.keywords))
    layout = make_layout(interactions, tokens, tokenizer, prompt, reasons=reasons)
    values = SlotValues(features, prompt.slots)
    model = RecommenderLM(backbone, layout.vocabulary, values, None, scored=recipe.score).to(device())
    return Workbench(
        interactions=interactions,
        features=features,
        tokenizer=tokenizer,
        layout=layout,
        model=model,
        recipe=recipe,
        base=base,
        adapter=adapter,
        made_with={
            "backbone": identity.hash_of(artifacts.BACKBONE),
            "tokenizer": tokenizer_hash(tokenizer),
            **identity.of_prompt(prompt),
        },
    )
