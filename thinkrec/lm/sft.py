"""Supervised fine-tuning of the global model, phase by phase (`lm.recipes`), and what it leaves behind:

- `recipe.json`, `made_with.json`: which recipe it was; the backbone, tokenizer and prompt that it belongs to
- `model/` (compact): the backbone, fine-tuned unless that was undone, or `adapter/` (paper): the global LoRA on
  out/backbone
- `*.safetensors`: projector and soft prompt
"""

from __future__ import annotations

from pathlib import Path

import torch
from peft import PeftModel
from torch import nn

from thinkrec import artifacts
from thinkrec.errors import UserError
from thinkrec.lm import identity
from thinkrec.lm.backbone import save_model
from thinkrec.lm.experts import add_lora, save_adapter
from thinkrec.lm.finetune import finetune
from thinkrec.lm.model import RecommenderLM
from thinkrec.lm.recipes import RECIPES, Part
from thinkrec.lm.trainer import HIGHER_IS_BETTER, PLAIN, TrainResult, TrainSettings
from thinkrec.lm.workbench import ADAPTER, MODEL, RECIPE, Workbench
from thinkrec.params import LoraParams, Metric, SftParams, TrainerParams


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

    A phase that has nothing to train (a projector without slots) is left out. An optional one that did not help is
    undone; `kept` tells.

    Raises:
        UserError: the recipe trains weights that are quantised.
    """
    recipe = RECIPES[params.recipe]
    if not recipe.adapter and getattr(bench.model.backbone, "is_quantized", False):
        raise UserError(
            f"sft.recipe={params.recipe}: trains all weights, which those in 4 bits cannot; use sft.recipe=paper"
        )
    adapter = add_lora(bench.model.backbone, lora) if recipe.adapter else None
    results: dict[str, TrainResult] = {}
    for phase in recipe.phases:
        model, layout = bench.prompted(slots=phase.slots)
        weights = train_only(model, phase.trains)
        if not weights:
            continue
        before = [weight.detach().clone() for weight in weights] if phase.optional else []
        results[phase.name] = finetune(
            model,
            layout,
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
                metric=trainer.metric,
                trainer=trainer,
            ),
        )
        if kept(params.recipe, results, trainer.metric) != phase.name:
            with torch.no_grad():
                for weight, value in zip(weights, before, strict=True):
                    weight.copy_(value)
    return results, adapter


def kept(recipe: str, results: dict[str, TrainResult], metric: Metric) -> str:
    """The phase whose best epoch the model holds after those of `results`: the last but for optional ones undone."""
    optional = {phase.name for phase in RECIPES[recipe].phases if phase.optional}
    sign = 1 if HIGHER_IS_BETTER[metric] else -1
    held, *later = results
    for name in later:
        if name not in optional or sign * results[name].best[metric] > sign * results[held].best[metric]:
            held = name
    return held


def save_global(bench: Workbench, adapter: PeftModel | None, folder: Path, *, recipe: str) -> None:
    """Write the global model into `folder`."""
    artifacts.write_json(folder / RECIPE, {"recipe": recipe})
    identity.stamp(folder, bench.made_with)
    if adapter is None:
        save_model(bench.model.backbone, bench.tokenizer, folder / MODEL)
    else:
        save_adapter(adapter, folder / ADAPTER, base=str(artifacts.BACKBONE))
    bench.model.save_inputs(folder)
