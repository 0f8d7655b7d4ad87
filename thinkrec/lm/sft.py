"""Supervised fine-tuning of the global model, phase by phase (`lm.recipes`), and what it leaves behind:

- `recipe.json`, `provenance.json`: which recipe it was and the size of its match of texts; the dataset, backbone,
  tokenizer and prompt that it belongs to
- `model/` (compact): the fine-tuned backbone, or `adapter/` (paper): the global LoRA on out/backbone
- `*.safetensors`: projector, soft prompt and match of texts
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from torch import nn

from thinkrec import artifacts
from thinkrec.errors import UserError
from thinkrec.lm.adapters import add_lora, save_adapter
from thinkrec.lm.backbone import save_model
from thinkrec.lm.finetune import finetune
from thinkrec.lm.loaded import ADAPTER, MODEL, RECIPE, LoadedModel
from thinkrec.lm.model import RecommenderLM, TextMatch
from thinkrec.lm.recipes import Part
from thinkrec.lm.scoring import text_states
from thinkrec.lm.trainer import TrainResult, TrainSettings
from thinkrec.params import Params, SftParams
from thinkrec.provenance import write_provenance

Reasons = Mapping[int, NDArray[np.int32]]  # row -> tokens, as `Layout.reasons`
Refine = Callable[..., TrainResult]
HELD_OUT = 300  # traces
SCALED_BY = 1000  # train rows


def train_only(model: RecommenderLM, parts: tuple[Part, ...]) -> list[nn.Parameter]:
    """Freeze all of `model` but these parts; returns what trains. An adapter is every LoRA weight in the backbone."""
    model.requires_grad_(False)
    backbone = list(model.backbone.named_parameters())
    weights_of = {
        "backbone": [weight for _, weight in backbone],
        "adapter": [weight for name, weight in backbone if "lora_" in name],
        "projector": [] if model.projector is None else list(model.projector.parameters()),
        "soft_prompt": [] if model.soft_prompt is None else list(model.soft_prompt.parameters()),
        "match": [] if model.match is None else list(model.match.parameters()),
    }
    trained = [weight for part in parts for weight in weights_of[part]]
    for weight in trained:
        weight.requires_grad_(True)
    return trained


def fit_global(loaded: LoadedModel, params: Params, refine: Refine) -> tuple[dict[str, TrainResult], PeftModel | None]:
    """Train the global model in place; returns the result of every phase by name, and the adapter if there is one.

    `refine` is `reasons.refinement.refine`, which stands in a room below this one.
    Some traces are held out of all phases, and `think_loss` says how well those are predicted.
    """
    recipe, sft = loaded.recipe, params.sft
    if not recipe.adapter and getattr(loaded.model.backbone, "is_quantized", False):
        raise UserError(f"sft.recipe={sft.recipe}: trains all weights, and 4 bits cannot learn; use sft.recipe=paper")
    adapter = add_lora(loaded.model.backbone, params.lora) if recipe.adapter else None
    learned, held_out = hold_out(loaded.layout.reasons, seed=params.seed)
    results: dict[str, TrainResult] = {}
    for phase in recipe.by_text if loaded.model.projector is None else recipe.phases:
        if "match" in phase.trains and sft.match_size:
            loaded.model.match = start_match(loaded, sft, seed=params.seed)
        model, layout = loaded.prompted(slots=phase.slots)
        think_only = phase.learns == "reasons"
        if not train_only(model, phase.trains) or (think_only and not held_out):
            continue
        if phase.learns == "truth":
            if held_out and params.refine.steps:
                taught = replace(loaded, model=model, layout=replace(layout, reasons=learned))
                results[phase.name] = refine(taught, params, held_out=held_out, name=phase.name)
            continue
        results[phase.name] = finetune(
            model,
            replace(layout, reasons={} if phase.learns == "labels" else learned),
            train_rows=loaded.rows("train"),
            valid_rows=loaded.rows("valid"),
            user=loaded.user,
            params=sft,
            settings=TrainSettings.of(
                phase.name,
                params,
                sft,
                epochs=math.ceil(phase.epochs * sft.epochs),
                learning_rate=phase.rate * sft.learning_rate,
                weight_decay=sft.weight_decay,
                patience=sft.patience,
                **({"metric": "think_loss"} if think_only else {}),
            ),
            think_only=think_only,
            untaught=replace(layout, reasons=held_out) if held_out else None,
        )
    return results, adapter


def start_match(loaded: LoadedModel, params: SftParams, *, seed: int) -> TextMatch:
    """A fresh match of texts, scaled by the hidden states of the texts in some train rows' prompts."""
    rows = loaded.rows("train")
    states = text_states(loaded.model, loaded.layout, rows[:: -(-len(rows) // SCALED_BY)])
    torch.manual_seed(seed)
    match = TextMatch(states.shape[1], params.match_size, dropout=params.match_dropout)
    match.fit_scale(states)
    return match.to(loaded.model.device)


def hold_out(reasons: Reasons, *, seed: int) -> tuple[Reasons, Reasons]:
    """Reasons by row to learn from, and some to measure by: one in 20, at most HELD_OUT; none of a single one."""
    rows = sorted(reasons)
    count = min(HELD_OUT, -(-len(rows) // 20)) if len(rows) > 1 else 0
    held = set(np.random.default_rng(seed).permutation(rows)[:count].tolist())
    return {row: reasons[row] for row in rows if row not in held}, {row: reasons[row] for row in held}


def save_global(loaded: LoadedModel, adapter: PeftModel | None, folder: Path, *, recipe: str) -> None:
    """Write the global model into `folder`."""
    match = loaded.model.match
    artifacts.write_json(folder / RECIPE, {"recipe": recipe, "match_size": 0 if match is None else len(match.weight)})
    write_provenance(folder, loaded.provenance)
    if adapter is None:
        save_model(loaded.model.backbone, loaded.tokenizer, folder / MODEL)
    else:
        save_adapter(adapter, folder / ADAPTER, base=str(artifacts.BACKBONE))
    loaded.model.save_inputs(folder)
