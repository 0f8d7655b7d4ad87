"""Supervised fine-tuning of the global model, phase by phase (`lm.recipes`), and what it leaves behind:

- `recipe.json`, `made_with.json`: which recipe it was; the backbone, tokenizer and prompt that it belongs to
- `model/` (compact): the fine-tuned backbone, or `adapter/` (paper): the global LoRA on out/backbone
- `*.safetensors`: projector and soft prompt
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from peft import PeftModel
from torch import nn

from thinkrec import artifacts
from thinkrec.errors import UserError
from thinkrec.lm import identity
from thinkrec.lm.adapters import add_lora, save_adapter
from thinkrec.lm.backbone import save_model
from thinkrec.lm.finetune import finetune
from thinkrec.lm.model import RecommenderLM
from thinkrec.lm.recipes import RECIPES, Part
from thinkrec.lm.trainer import PLAIN, TrainResult, TrainSettings
from thinkrec.lm.workbench import ADAPTER, MODEL, RECIPE, Workbench
from thinkrec.params import LoraParams, SftParams, TrainerParams

Reasons = Mapping[int, NDArray[np.int32]]  # row -> tokens, as `Layout.reasons`
HELD_OUT = 300  # traces


def train_only(model: RecommenderLM, parts: tuple[Part, ...]) -> list[nn.Parameter]:
    """Freeze all of `model` but these parts; returns what trains. An adapter is every LoRA weight in the backbone."""
    model.requires_grad_(False)
    backbone = list(model.backbone.named_parameters())
    inputs = {"projector": model.projector, "soft_prompt": model.soft_prompt}
    of_part = {
        "backbone": [weight for _, weight in backbone],
        "adapter": [weight for name, weight in backbone if "lora_" in name],
        **{name: [] if module is None else list(module.parameters()) for name, module in inputs.items()},
    }
    chosen = [weight for part in parts for weight in of_part[part]]
    for weight in chosen:
        weight.requires_grad_(True)
    return chosen


def fit_global(
    bench: Workbench, params: SftParams, lora: LoraParams, trainer: TrainerParams = PLAIN, *, seed: int
) -> tuple[dict[str, TrainResult], PeftModel | None]:
    """Train the global model in place; returns the result of every phase by name, and the adapter if there is one.

    Some traces are held out of all phases, to tell by `think_loss` how well such are predicted; the tiny backbone
    has read them in its pretraining, as all of train's (`text.corpus`).

    Raises:
        UserError: the recipe trains weights that are quantised.
    """
    recipe = RECIPES[params.recipe]
    if not recipe.adapter and getattr(bench.model.backbone, "is_quantized", False):
        raise UserError(
            f"sft.recipe={params.recipe}: trains all weights, which those in 4 bits cannot; use sft.recipe=paper"
        )
    adapter = add_lora(bench.model.backbone, lora) if recipe.adapter else None
    taught, untaught = hold_out(bench.layout.reasons, seed=seed)
    results: dict[str, TrainResult] = {}
    for phase in recipe.by_text if bench.model.projector is None else recipe.phases:
        model, layout = bench.prompted(slots=phase.slots)
        if not train_only(model, phase.trains) or (phase.think_only and not untaught):
            continue
        results[phase.name] = finetune(
            model,
            replace(layout, reasons=taught),
            train_rows=bench.rows("train"),
            valid_rows=bench.rows("valid"),
            user=bench.user,
            params=params,
            settings=TrainSettings(
                name=phase.name,
                epochs=params.epochs,
                learning_rate=phase.rate * params.learning_rate,
                weight_decay=params.weight_decay,
                seed=seed,
                patience=params.patience,
                metric="think_loss" if phase.think_only else trainer.metric,
                trainer=trainer,
            ),
            think_only=phase.think_only,
            untaught=replace(layout, reasons=untaught) if untaught else None,
        )
    return results, adapter


def hold_out(reasons: Reasons, *, seed: int) -> tuple[Reasons, Reasons]:
    """Reasons by row to learn from, and a seeded few to measure by: one in 20, at most HELD_OUT; of one alone none."""
    rows = sorted(reasons)
    count = min(HELD_OUT, -(-len(rows) // 20)) if len(rows) > 1 else 0
    held = set(np.random.default_rng(seed).permutation(rows)[:count].tolist())
    return {row: reasons[row] for row in rows if row not in held}, {row: reasons[row] for row in held}


def save_global(bench: Workbench, adapter: PeftModel | None, folder: Path, *, recipe: str) -> None:
    """Write the global model into `folder`."""
    artifacts.write_json(folder / RECIPE, {"recipe": recipe})
    identity.stamp(folder, bench.made_with)
    if adapter is None:
        save_model(bench.model.backbone, bench.tokenizer, folder / MODEL)
    else:
        save_adapter(adapter, folder / ADAPTER, base=str(artifacts.BACKBONE))
    bench.model.save_inputs(folder)
