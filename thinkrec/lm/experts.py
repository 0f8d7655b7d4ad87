"""One LoRA per user group on top of the global model (METHOD: experts and fusion).

Only q_proj and v_proj of the last k layers train; the slot projector and everything below are the global model's.
Adapters are ordinary PEFT directories: those of the groups found in out/experts, those added later in out/added.

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

from thinkrec.artifacts import ADDED, EXPERTS, SFT, write_json
from thinkrec.data.holdout import late_train_rows
from thinkrec.errors import UserError
from thinkrec.lm.finetune import finetune
from thinkrec.lm.mixture import Router, install
from thinkrec.lm.model import RecommenderLM
from thinkrec.lm.trainer import TrainSettings
from thinkrec.lm.workbench import Workbench
from thinkrec.params import ExpertParams, SftParams

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
            folder = expert_folder(EXPERTS, number)
            raise UserError(f"{folder}: no such artefact; run its stage first: dvc repro experts")
        found.append(places[0])
    return found


def install_experts(backbone: PreTrainedModel, count: int) -> Router:
    """Put the mixture of the global model and the experts 1..count into `backbone`, in place.

    Raises:
        UserError: an expert is missing, or is none that can be mixed.
    """
    return install(backbone, [None, *expert_folders(count)])


def train_experts(
    bench: Workbench,
    group: NDArray[np.int32],
    numbers: Iterable[int],
    folder: Path,
    params: ExpertParams,
    sft: SftParams,
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
        expert = add_expert(bench.model, params)
        result = finetune(
            bench.model,
            bench.layout,
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
            ),
        )
        save_expert(expert, expert_folder(folder, number), base=str(SFT / "model"))
        expert.unload()
        results.append({"expert": number, **result.best})
    return results


def add_expert(model: RecommenderLM, params: ExpertParams) -> PeftModel:
    """Put a fresh trainable LoRA into `model`, in place, everything else frozen; returns its PEFT handle.

    Raises:
        UserError: the backbone has fewer layers than `experts.layers`.
    """
    depth = model.backbone.config.num_hidden_layers
    if params.layers > depth:
        raise UserError(
            f"experts.layers={params.layers}: the backbone has only {depth} layers; ask for at most {depth}"
        )
    config = LoraConfig(
        r=params.r,
        lora_alpha=params.lora_alpha,
        lora_dropout=params.dropout,
        target_modules=TARGETS,
        layers_to_transform=list(range(depth - params.layers, depth)),
        layers_pattern="layers",
        bias="none",
        task_type="CAUSAL_LM",
    )
    model.requires_grad_(False)
    return get_peft_model(model.backbone, config)


def save_expert(expert: PeftModel, folder: Path, *, base: str) -> None:
    """Write a PEFT directory whose bytes follow from the weights: lists sorted, `base` as the model's name."""
    expert.save_pretrained(str(folder), save_embedding_layers=False)  # or peft asks the hub about the base model
    (folder / "README.md").unlink(missing_ok=True)  # a model card template, empty of facts
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["target_modules"] = sorted(config["target_modules"])
    config["base_model_name_or_path"] = base
    write_json(path, config)
