"""Tiny random models of real families, each with a tokenizer that has its family's habits; nothing is downloaded.

What differs: byte-level pieces or SentencePiece's, which puts a space first; whether the begin token comes from the
tokenizer, the template or not at all; templates that write today's date or open a thought; fused projections; capped or
scaled logits; layers that look back only so far.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from tests.builders import REASON, TITLES
from thinkrec.text.question import PHRASINGS

TEXTS = [*TITLES, REASON, *(text for phrasing in PHRASINGS for text in phrasing.values()), "user", "assistant"]
VERDICTS = [" Yes", " No", "Yes", "No"] * 40
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "initializer_range": 0.15,
    "head_dim": 8,
}

ROLES = "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
ASKED = "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
CHAT = ROLES + ASKED
QWEN3 = ROLES + (
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
THINKING = ROLES + "{% if add_generation_prompt %}{{ '<|assistant|>\n<think>\n' }}{% endif %}"
LLAMA = "{{ bos_token }}" + CHAT
DATED = (
    "{{ bos_token }}{% if date is not defined %}{% set date = strftime_now('%d %b %Y') %}{% endif %}"
    "{{ '<|system|>\nToday Date: ' + date + '<|end|>\n' }}" + CHAT
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] | trim + '<|end|>\n' }}{% endfor %}" + ASKED
)
MISTRAL = "{% for m in messages %}{{ '[INST] ' + m['content'] + ' [/INST]' }}{% endfor %}"  # no begin token
SPECIAL = ["<s>", "</s>", "<unk>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<think>", "</think>"]


@cache
def byte_level(template: str | None = None, *, begins: bool = False, bos: bool = True) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer (Llama 3, Qwen, GPT-NeoX), which `begins` texts by itself or has no begin token at all."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    inner.train_from_iterator([*TEXTS, *VERDICTS], trainer)
    return _fast(inner, template, begins=begins, **({"bos_token": "<s>"} if bos else {}))


@cache
def sentence_piece(template: str | None = None, *, space_first: bool, begins: bool = True) -> PreTrainedTokenizerFast:
    """A tokenizer after SentencePiece's manner: with `space_first` (Llama 2, Mistral, Phi-3) or without (Gemma)."""
    inner = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    spaces = normalizers.Replace(" ", "▁")
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces]) if space_first else spaces
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    inner.decoder = decoders.Sequence([*parts, *([decoders.Strip(" ", 1, 0)] if space_first else [])])
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=[*SPECIAL, *bytes_], show_progress=False)
    inner.train_from_iterator([*TEXTS, *VERDICTS], trainer)
    return _fast(inner, template, begins=begins, bos_token="<s>")


def _fast(inner: Tokenizer, template: str | None, *, begins: bool, **special: str) -> PreTrainedTokenizerFast:
    if begins:
        inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    words = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token="</s>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
        additional_special_tokens=SPECIAL[3:],
        **special,
    )
    words.chat_template = template
    return words


@dataclass(frozen=True)
class Kind:
    """A family: its tokenizer, its configuration's class and what that says beside SHAPE."""

    words: Callable[[], PreTrainedTokenizerFast]
    config: str
    more: dict[str, Any] = field(default_factory=dict)
    targets: tuple[str, ...] = ("q_proj", "v_proj")


WIDE = {"sliding_window": 4096}
KINDS = {
    "llama": Kind(lambda: byte_level(LLAMA, begins=True), "LlamaConfig"),
    "llama dated": Kind(lambda: byte_level(DATED, begins=True), "LlamaConfig"),
    "llama thinking": Kind(lambda: byte_level("{{ bos_token }}" + THINKING, begins=True), "LlamaConfig"),
    "qwen3": Kind(lambda: byte_level(QWEN3, bos=False), "Qwen3Config"),
    "mistral": Kind(lambda: sentence_piece(MISTRAL, space_first=True), "MistralConfig", {"sliding_window": None}),
    "gemma": Kind(lambda: sentence_piece(GEMMA, space_first=False), "GemmaConfig"),
    "gemma2": Kind(
        lambda: sentence_piece(GEMMA, space_first=False),
        "Gemma2Config",
        {"final_logit_softcapping": 1.0, "attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 8, **WIDE},
    ),
    "gemma3": Kind(
        lambda: sentence_piece(GEMMA, space_first=False), "Gemma3TextConfig", {"query_pre_attn_scalar": 8, **WIDE}
    ),
    "granite": Kind(lambda: byte_level(CHAT), "GraniteConfig", {"logits_scaling": 8.0, "embedding_multiplier": 12.0}),
    "cohere": Kind(lambda: byte_level(CHAT), "CohereConfig", {"logit_scale": 0.25}),
    "phi": Kind(byte_level, "PhiConfig", {"num_key_value_heads": 4}),
    "phi3": Kind(
        lambda: sentence_piece(CHAT, space_first=True, begins=False),
        "Phi3Config",
        {"pad_token_id": 1, "num_key_value_heads": 4},
        ("qkv_proj",),
    ),
    "gpt-neox": Kind(byte_level, "GPTNeoXConfig", targets=("query_key_value",)),
}


def config_of(family: str, **more: Any) -> tuple[PreTrainedConfig, PreTrainedTokenizerFast]:
    """The configuration of a tiny model of a family, and its tokenizer."""
    kind = KINDS[family]
    words = kind.words()
    tokens = {"vocab_size": len(words), "bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id}
    return getattr(transformers, kind.config)(**{**SHAPE, **tokens, **kind.more, **more}), words


def build(config: PreTrainedConfig) -> PreTrainedModel:
    """A random model, its weights and norms spread out as if it had been trained."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name and weight.dim() == 1:
                weight.add_(0.2 * torch.randn_like(weight))
    return model
