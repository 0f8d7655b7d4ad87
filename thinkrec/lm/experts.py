"""LoRA adapters: the global one of the `paper` recipe, and one per user group (METHOD: experts and fusion).

They touch q_proj and v_proj. Of an expert only the last k layers train: as a fresh LoRA on those layers where the global
model is a backbone of its own, else as a copy of the global LoRA. Adapters are ordinary PEFT directories.
"""

from __future__ import annotations

import json
from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from thinkrec.artifacts import write_json
from thinkrec.errors import UserError
from thinkrec.lm.mixture import Router, install, read_lora
from thinkrec.params import LoraParams

TARGETS = ["q_proj", "v_proj"]


def expert_folder(root: Path, number: int) -> Path:
    """Where expert `number` (from 1: column 0 of every routing matrix is the global adapter) lives."""
    return root / f"expert_{number}"


def install_experts(backbone: PreTrainedModel, global_adapter: Path | None, root: Path, count: int) -> Router:
    """Put the mixture of the global adapter and the `count` experts below `root` into `backbone`, in place."""
    return install(backbone, [global_adapter, *(expert_folder(root, number) for number in range(1, count + 1))])


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
    return get_peft_model(backbone, config)


def add_expert(
    backbone: PreTrainedModel, params: LoraParams, *, layers: int, global_adapter: Path | None = None
) -> PeftModel:
    """Put an expert into the backbone, in place: only its last `layers` layers train. Returns its PEFT handle.

    With a `global_adapter` it starts as a copy of that, else at zero.

    Raises:
        UserError: the backbone has fewer layers than that.
    """
    if global_adapter is None:
        return add_lora(backbone, params, layers=layers)
    first = _first_layer(backbone.config.num_hidden_layers, layers)
    read_lora(global_adapter)  # or peft would ask the hub for a missing folder
    backbone.requires_grad_(False)
    expert = PeftModel.from_pretrained(backbone, str(global_adapter), is_trainable=True)
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
