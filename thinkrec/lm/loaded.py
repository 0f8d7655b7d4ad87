"""A loaded model: all that a stage or a question needs to score rows, from the artefacts so far.

Shapes: n interactions, S states of users, N experts, k rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from thinkrec import artifacts, provenance
from thinkrec.features.artefact import Features, load_features
from thinkrec.history import static_view
from thinkrec.lm.adapters import BatchWeights
from thinkrec.lm.backbone import open_backbone
from thinkrec.lm.families import check_positions
from thinkrec.lm.finetune import encode_reasons
from thinkrec.lm.model import RecommenderLM, SlotProjector, SlotValues, SoftPrompt, TextMatch
from thinkrec.lm.recipes import RECIPES, Recipe
from thinkrec.lm.scoring import RowWeights, check_passes, score
from thinkrec.metrics import sigmoid
from thinkrec.params import Params
from thinkrec.processes import device, has_bf16
from thinkrec.text.chat import frame_hash
from thinkrec.text.items import Ragged, encode_once, item_texts
from thinkrec.text.layout import Layout
from thinkrec.text.layouts import make_layout
from thinkrec.text.vocabulary import tokenizer_hash

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
RECIPE, MODEL, ADAPTER = "recipe.json", "model", "adapter"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model on its device, the interactions with their features and prompts, and every user's adapter weights."""

    root: Path  # the project's folder
    interactions: pd.DataFrame
    features: Features
    tokenizer: PreTrainedTokenizerBase
    layout: Layout
    model: RecommenderLM
    recipe: Recipe
    base: Path  # the model directory that adapters stand on, below the root
    adapter: Path | None  # the global adapter's folder; None is the zero adapter
    provenance: dict[str, Any]  # what the global model belongs to: dataset, backbone, tokenizer and prompt
    batch_weights: BatchWeights | None = None  # of the mixture in the model; None before it is put in
    routing_weights: Floats | None = None  # (S, N + 1) by the users' states, once there is a gate

    @property
    def user(self) -> NDArray[np.int32]:
        """User (n,) of every interaction."""
        return self.interactions["user"].to_numpy()

    def rows(self, split: str) -> Rows:
        """Row numbers of a split."""
        return np.flatnonzero((self.interactions["split"] == split).to_numpy())

    def prompted(self, *, slots: bool) -> tuple[RecommenderLM, Layout]:
        """The model and its prompts: with features in their slots or, without `slots`, of text alone."""
        if slots:
            return self.model, self.layout
        return self.model.with_inputs(self.model.slot_values, None), self.layout.without_slots()

    def over(self, interactions: pd.DataFrame, features: Features, *, item_tokens: Ragged | None = None) -> LoadedModel:
        """The same model over other rows with their features and, if given, other texts of the items."""
        layout = self.layout.over(interactions)
        if item_tokens is not None:
            layout = replace(layout, items=item_tokens)
        values = SlotValues(features, self.model.slot_values.parts)
        model = self.model.with_inputs(values, self.model.projector).eval()
        return replace(self, interactions=interactions, features=features, layout=layout, model=model)

    def under_static_protocol(self) -> LoadedModel:
        """The same model under the static protocol: rows know nothing of what came after their split began."""
        features = load_features(self.root / artifacts.FEATURES, protocol="static")
        return self.over(static_view(self.interactions), features)

    def row_weights(self, weights: Floats | None = None) -> RowWeights | None:
        """The adapter weights of every row; None if there is no mixture in the model.

        `weights` are others than the users' own: by state (S, N + 1), or one row (N + 1,) for everybody.
        """
        weights = self.routing_weights if weights is None else weights
        if self.batch_weights is None:
            return None
        assert weights is not None, "a mixture needs weights: give some, or open the project with its gate"
        if weights.ndim == 1:  # rows of one state share sequences, so this is twice as fast as the same rows by state
            return RowWeights(self.batch_weights, weights[None], np.zeros(len(self.interactions), np.int64))
        return RowWeights(self.batch_weights, weights, self.features.state)

    def score(self, rows: Rows, weights: Floats | None = None, *, progress: str | None = None) -> Floats:
        """Scores (k,) of the interactions `rows`, logits of a like, under adapter weights as in `row_weights`."""
        return score(self.model, self.layout, rows, self.row_weights(weights), progress=progress)

    def probability(
        self, rows: Rows, weights: Floats | None = None, *, progress: str | None = None
    ) -> NDArray[np.float64]:
        """Probabilities (k,) of a like: the sigmoid of `score`."""
        return sigmoid(self.score(rows, weights, progress=progress))


def open_untrained(params: Params) -> LoadedModel:
    """The backbone with a fresh projector, scaled by train's values, and soft prompt, where the prompt has them.

    A UserError says that it is of a family that cannot be used (`lm.families`).
    """
    loaded = _open(params, RECIPES[params.sft.recipe], trained=False, with_reasons=True)
    check_passes(loaded.model)
    model, embeddings = loaded.model, loaded.model.backbone.get_input_embeddings()
    if params.prompt.slots:
        values = model.slot_values
        model.projector = SlotProjector(values.widths, embeddings.embedding_dim, dropout=params.sft.slot_dropout)
        model.projector.fit_scale(values(loaded.rows("train")))
    if params.prompt.soft_tokens:
        model.soft_prompt = SoftPrompt.from_tokens(embeddings, params.prompt.soft_tokens)
    model.to(model.device)
    return loaded


def open_global(params: Params, root: Path = Path(), *, with_reasons: bool = False) -> LoadedModel:
    """The global model as the stage `sft` of the project at `root` left it, its adapter (if any) not put in yet.

    The layout has train's reasons only if the model is to learn from them (`with_reasons`). A UserError says that there
    is no model, or that it was made with another dataset, backbone, tokenizer or prompt than params.yaml says.
    """
    record = artifacts.read_json(root / artifacts.SFT / RECIPE)
    loaded = _open(params, RECIPES[record["recipe"]], trained=True, with_reasons=with_reasons, root=root)
    provenance.check_provenance(root / artifacts.SFT, loaded.provenance)
    model = loaded.model
    embeddings = model.backbone.get_input_embeddings()
    hidden = embeddings.embedding_dim
    if params.prompt.slots:
        model.projector = SlotProjector(model.slot_values.widths, hidden)
    if params.prompt.soft_tokens:
        model.soft_prompt = SoftPrompt(torch.empty(params.prompt.soft_tokens, hidden))
    if record["match_size"]:
        model.match = TextMatch(hidden, record["match_size"])
    model.load_inputs(root / artifacts.SFT)
    model.to(model.device).eval()
    return loaded


def _open(params: Params, recipe: Recipe, *, trained: bool, with_reasons: bool, root: Path = Path()) -> LoadedModel:
    """The backbone, as it is or `trained` by the recipe, with what stands around it."""
    provenance.check_dataset(params.dataset, root)
    interactions, items, keywords = (
        artifacts.read_table(path, root=root) for path in (artifacts.INTERACTIONS, artifacts.ITEMS, artifacts.KEYWORDS)
    )
    features = load_features(root / artifacts.FEATURES)
    base = artifacts.SFT / MODEL if trained and not recipe.adapter else artifacts.BACKBONE
    backbone, tokenizer = open_backbone(base, root)
    precision = params.trainer.precision
    widen = precision == "fp32" or (precision == "auto" and not has_bf16())
    if widen and not getattr(backbone, "is_quantized", False):
        backbone.float()
    check_positions(backbone, params.prompt.max_tokens)
    reasons = None
    if with_reasons and params.sft.think_share:
        traces = artifacts.read_table(artifacts.TRACES, root=root)
        train = (interactions["split"] == "train").to_numpy()
        reasons = encode_reasons(tokenizer, traces[train[traces["row"].to_numpy()]])
    tokens = encode_once(tokenizer, item_texts(items, keywords, params.prompt.keywords), root)
    layout = make_layout(interactions, tokens, tokenizer, params.prompt, reasons=reasons)
    values = SlotValues(features, params.prompt.slots)
    framed = params.prompt.layout == "question" and tokenizer.chat_template is not None
    frame = {"frame": frame_hash(tokenizer, layout.vocabulary.begin)} if framed else {}
    return LoadedModel(
        root=root,
        interactions=interactions,
        features=features,
        tokenizer=tokenizer,
        layout=layout,
        model=RecommenderLM(backbone, layout.vocabulary, values, None, scored=recipe.score).to(device()),
        recipe=recipe,
        base=base,
        adapter=root / artifacts.SFT / ADAPTER if trained and recipe.adapter else None,
        provenance={
            **provenance.dataset_parameters(params.dataset),
            "backbone": provenance.hash_of(root / artifacts.BACKBONE),
            "tokenizer": tokenizer_hash(tokenizer),
            **frame,
            **provenance.parameters("prompt", params.prompt),
        },
    )
