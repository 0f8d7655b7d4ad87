"""LoRA adapters: what every one is, the global one of the `paper` recipe and the experts alike.

They touch q_proj and v_proj, and are ordinary PEFT directories.
"""

from __future__ import annotations

import json
from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from thinkrec.artifacts import write_json
from thinkrec.errors import UserError
from thinkrec.params import LoraParams

TARGETS = ["q_proj", "v_proj"]


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
        layers_to_transform=list(range(first_adapted_layer(backbone, layers), depth)),
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


def first_adapted_layer(backbone: PreTrainedModel, layers: int | None) -> int:
    """The first of the last `layers` layers (all).

    Raises:
        UserError: the backbone has fewer.
    """
    depth = backbone.config.num_hidden_layers
    if layers is not None and layers > depth:
        raise UserError(f"experts.layers={layers}: the backbone has only {depth} layers; ask for at most {depth}")
    return 0 if layers is None else depth - layers


def save_adapter(adapter: PeftModel, folder: Path, *, base: str) -> None:
    """Write a PEFT directory whose bytes follow from the weights: lists sorted, `base` as the model's name."""
    adapter.save_pretrained(str(folder), save_embedding_layers=False)  # or peft asks the hub about the base model
    (folder / "README.md").unlink(missing_ok=True)  # a model card template, empty of facts
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["target_modules"] = sorted(config["target_modules"])
    config["base_model_name_or_path"] = base
    config["inference_mode"] = True  # or it would say whether the adapter was made here or copied
    write_json(path, config)
