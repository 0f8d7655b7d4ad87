"""One LoRA per user group on top of the global model (METHOD: experts and fusion).

Only q_proj and v_proj of the last k layers train; the slot projector and everything below are the global model's.
Adapters are ordinary PEFT directories.
"""

from __future__ import annotations

import json
from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from thinkrec.artifacts import write_json
from thinkrec.errors import UserError
from thinkrec.lm.mixture import Router, install
from thinkrec.lm.model import RecommenderLM
from thinkrec.params import ExpertParams

TARGETS = ["q_proj", "v_proj"]


def expert_folder(root: Path, number: int) -> Path:
    """Where expert `number` (from 1: column 0 of every routing matrix is the global adapter) lives."""
    return root / f"expert_{number}"


def install_experts(backbone: PreTrainedModel, root: Path, count: int) -> Router:
    """Put the mixture of the global model and the `count` experts below `root` into `backbone`, in place."""
    return install(backbone, [None, *(expert_folder(root, number) for number in range(1, count + 1))])


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
