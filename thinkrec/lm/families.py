"""What families of language models do each in their own way, read from a model's layers and its config.json.

Which projections adapters touch; what a model makes of its head's output; whether its layers remember by attention and
how far they look back. What cannot be read there is tried by `lm.scoring.check_passes`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from thinkrec.errors import UserError

# The projections of an attention layer that adapters touch: the first line of which a model has all.
TARGETS = (
    ("q_proj", "v_proj"),  # Llama, Qwen, Mistral, Gemma, Phi
    ("qkv_proj",),  # Phi-3
    ("query_key_value",),  # GPT-NeoX, Pythia, Falcon, BLOOM
)
ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}  # the kinds of layers that a mask reaches


def text_config(model: PreTrainedModel) -> PreTrainedConfig:
    """The config that has a model's sizes: of models that can also see, a part of config.json."""
    return model.config.get_text_config(decoder=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sites:
    """Where LoRAs go, as PEFT wants it named."""

    target_modules: list[str]
    layers_pattern: str  # what stands before a layer's number
    exclude_modules: str | None  # those of the same name outside the decoder, such as an image encoder's


def lora_sites(backbone: PreTrainedModel) -> Sites:
    """The projections of `backbone` that adapters touch; a UserError if none of TARGETS fits."""
    decoder = backbone.get_decoder()
    decoder_name = next(name for name, module in backbone.named_modules() if module is decoder)
    inside = [name for name, module in decoder.named_modules() if isinstance(module, nn.Linear)]
    last = {name.rpartition(".")[2] for name in inside}
    targets = next((names for names in TARGETS if last.issuperset(names)), None)
    first = next((name for name in inside if targets and name.rpartition(".")[2] in targets), "")
    numbered = re.search(r"(\w+)\.\d+\.", first)
    if targets is None or numbered is None:
        named = ", ".join(" and ".join(names) for names in TARGETS)
        raise UserError(
            f"backbone.name: a {type(backbone).__name__} has no layers with linear projections that adapters know "
            f"({named}); use another model, such as a Llama, Mistral, Qwen, Gemma, Phi or GPT-NeoX"
        )
    every = [name for name, _ in backbone.named_modules() if name.rpartition(".")[2] in targets]
    outside = not all(name.startswith(f"{decoder_name}.") for name in every)
    return Sites(
        target_modules=list(targets),
        layers_pattern=numbered[1],
        exclude_modules=rf"(?!{re.escape(decoder_name)}\.).*" if outside else None,
    )


def finish_logits(logits: Tensor, config: PreTrainedConfig) -> Tensor:
    """What a model makes of its head's output (..., vocabulary): scaled (Cohere, Granite) and capped (Gemma 2).

    `config` is the model's `text_config`.
    """
    if scale := getattr(config, "logit_scale", None):
        logits = logits * scale
    if divisor := getattr(config, "logits_scaling", None):
        logits = logits / divisor
    if cap := getattr(config, "final_logit_softcapping", None):
        logits = cap * torch.tanh(logits / cap)
    return logits


def check_memory(model: PreTrainedModel) -> None:
    """Refuse layers that remember by a state: no mask reaches it, so that rows would see each other's verdicts."""
    other = sorted(set(getattr(text_config(model), "layer_types", None) or ()) - ATTENTION)
    if other or getattr(model, "_is_stateful", False):
        raise UserError(
            f"backbone.name: layers of a {type(model).__name__} ({', '.join(other) or 'recurrent'}) remember by a "
            "state instead of attention, so rows of one moment would see each other's verdicts; use a model whose "
            "layers are all attention"
        )


def check_positions(model: PreTrainedModel, max_tokens: int) -> None:
    """Refuse prompts that are longer than the positions of a model, or than all of its layers look back."""
    config = text_config(model)
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and max_tokens > positions:
        raise UserError(
            f"prompt.max_tokens={max_tokens}: the backbone has {positions} positions; set it to at most that"
        )
    kinds = set(getattr(config, "layer_types", None) or ATTENTION)
    windows = {"sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}
    for kind in sorted(windows.keys() & kinds):
        window = getattr(config, windows[kind], None)
        if window is not None and max_tokens > window:
            raise UserError(
                f"prompt.max_tokens={max_tokens}: layers of the backbone look back over {window} tokens only; "
                "set it to at most that"
            )
