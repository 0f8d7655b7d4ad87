"""LoRA adapters: the global one of the `paper` recipe, and one per user group (METHOD: experts and fusion).

They touch q_proj and v_proj. Of an expert only the last k layers train: as a fresh LoRA on those layers where the
global model is a backbone of its own, else as a copy of the global LoRA. Adapters are ordinary PEFT directories: those
of the groups found in out/experts, those added later in out/added.

Shapes: U users.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from thinkrec.artifacts import ADDED, EXPERTS, SFT, missing_artifact, write_json
from thinkrec.errors import UserError
from thinkrec.history import late_train_rows
from thinkrec.lm import identity
from thinkrec.lm.finetune import finetune
from thinkrec.lm.mixture import Router, install, read_lora
from thinkrec.lm.model import RecommenderLM
from thinkrec.lm.trainer import PLAIN, TrainSettings
from thinkrec.lm.workbench import Workbench
from thinkrec.params import ExpertParams, LoraParams, SftParams, TrainerParams

TARGETS = ["q_proj", "v_proj"]


def expert_folder(root: Path, number: int) -> Path:
    """Where expert `number` (from 1: column 0 of every routing matrix is the global adapter) lives."""
    return root / f"expert_{number}"


def expert_folders(count: int) -> list[Path]:
    """The folders of experts 1..count: each where it was added, else among those of the groups found.

    Raises:
        UserError: one of them is in neither place.
    """
    found = []
    for number in range(1, count + 1):
        places = [folder for root in (ADDED, EXPERTS) if (folder := expert_folder(root, number)).is_dir()]
        if not places:
            raise missing_artifact(expert_folder(EXPERTS, number))
        found.append(places[0])
    return found


def install_experts(bench: Workbench, count: int) -> Router:
    """Put the mixture of the global adapter and the experts 1..count into the global model, in place.

    Those were made with this very model, or they are refused.

    Raises:
        UserError: an expert is missing, is none that can be mixed, or was made with another global model; or the global
            adapter is one that changes nothing.
    """
    if bench.adapter is not None and not any(b.any() for _, b, _ in read_lora(bench.adapter).values()):
        raise UserError(f"{bench.adapter}: changes no score, so it learned nothing; train it longer (sft.epochs)")
    identity.check(EXPERTS, {"sft": identity.hash_of(SFT)})
    identity.check(ADDED, {"experts": identity.hash_of(EXPERTS)})
    return install(bench.model.backbone, [bench.adapter, *expert_folders(count)])


def train_experts(
    bench: Workbench,
    group: NDArray[np.int32],
    numbers: Iterable[int],
    folder: Path,
    params: ExpertParams,
    lora: LoraParams,
    sft: SftParams,
    trainer: TrainerParams = PLAIN,
    *,
    seed: int,
) -> list[dict[str, float]]:
    """Train these experts one after the other and write them below `folder`; returns their best epochs' measures.

    Expert `number` learns from the train rows of the users of group `number` - 1 (`group`: (U,)), but for the late
    ones, and keeps the epoch that is best on their valid rows.

    Raises:
        UserError: nothing is left for one of them to learn from, or the backbone has too few layers.
    """
    late = late_train_rows(bench.interactions, params.holdout)
    results = []
    for number in numbers:
        own = np.flatnonzero(group[bench.user] == number - 1)
        train_rows = np.setdiff1d(np.intersect1d(bench.rows("train"), own), np.flatnonzero(late))
        if not len(train_rows):
            raise UserError(
                f"expert_{number}: train has nothing of its users before its latest {params.holdout:.0%}, which is the "
                "gate's; lower experts.holdout, or give it more users"
            )
        expert = add_expert(bench.model, lora, layers=params.layers, global_adapter=bench.adapter)
        model, layout = bench.prompted(slots=bench.recipe.expert_slots)
        result = finetune(
            model,
            layout,
            train_rows=train_rows,
            valid_rows=np.intersect1d(bench.rows("valid"), own),
            user=bench.user,
            params=sft,
            settings=TrainSettings(
                name=f"expert_{number}",
                epochs=params.epochs,
                learning_rate=params.learning_rate,
                weight_decay=0.0,
                seed=seed,
                metric=trainer.metric,
                trainer=trainer,
            ),
        )
        save_adapter(expert, expert_folder(folder, number), base=str(bench.base))
        expert.unload()
        results.append({"expert": number, **result.best})
    return results


def add_lora(backbone: PreTrainedModel, params: LoraParams, *, layers: int | None = None) -> PeftModel:
    """Put a fresh trainable LoRA into the last `layers` layers (all), in place, everything else frozen.

    Returns its PEFT handle.

    Raises:
        UserError: the backbone has fewer layers than that, or none named as TARGETS.
    """
    depth = backbone.config.num_hidden_layers
    config = LoraConfig(
        r=params.r,
        lora_alpha=params.alpha,
        lora_dropout=params.dropout,
        target_modules=TARGETS,
        layers_to_transform=list(range(_first_layer(depth, layers), depth)),
        layers_pattern="layers",
        bias="none",
        task_type="CAUSAL_LM",
    )
    backbone.requires_grad_(False)
    try:
        return get_peft_model(backbone, config)
    except ValueError:
        raise UserError(
            f"backbone.name: a {type(backbone).__name__} has no layers with {' and '.join(TARGETS)}, which adapters "
            "change; use a model that names its projections so, as Llama, Mistral and Qwen do"
        ) from None


def add_expert(
    model: RecommenderLM, params: LoraParams, *, layers: int, global_adapter: Path | None = None
) -> PeftModel:
    """Put an expert into the model, in place: only its last `layers` layers train. Returns its PEFT handle.

    With a `global_adapter` it starts as a copy of that, else at zero.

    Raises:
        UserError: the backbone has fewer layers than that.
    """
    model.requires_grad_(False)
    if global_adapter is None:
        return add_lora(model.backbone, params, layers=layers)
    first = _first_layer(model.backbone.config.num_hidden_layers, layers)
    read_lora(global_adapter)  # or peft would ask the hub for a missing folder
    expert = PeftModel.from_pretrained(model.backbone, str(global_adapter), is_trainable=True)
    for name, weight in expert.named_parameters():
        weight.requires_grad_("lora_" in name and _layer_of(name) >= first)
    return expert


def _first_layer(depth: int, layers: int | None) -> int:
    if layers is not None and layers > depth:
        raise UserError(f"experts.layers={layers}: the backbone has only {depth} layers; ask for at most {depth}")
    return 0 if layers is None else depth - layers


def _layer_of(name: str) -> int:
    return int(name.partition(".layers.")[2].partition(".")[0])


def save_adapter(adapter: PeftModel, folder: Path, *, base: str) -> None:
    """Write a PEFT directory whose bytes follow from the weights: lists sorted, `base` as the model's name."""
    adapter.save_pretrained(str(folder), save_embedding_layers=False)  # or peft asks the hub about the base model
    (folder / "README.md").unlink(missing_ok=True)  # a model card template, empty of facts
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["target_modules"] = sorted(config["target_modules"])
    config["base_model_name_or_path"] = base
    config["inference_mode"] = True  # or it would tell whether the adapter was made here or copied
    write_json(path, config)
