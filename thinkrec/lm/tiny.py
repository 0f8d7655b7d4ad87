"""The tiny language model: a tokenizer learned from training text, and a small Llama that has learned nothing yet.

It can copy from its prompt, though (`lm.induction`). The first phase of fine-tuning teaches it to reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from thinkrec.lm.induction import THETA, start_copying
from thinkrec.params import BackboneParams
from thinkrec.text.vocabulary import VERDICTS

BEGIN, END, PAD = "<s>", "</s>", "<pad>"
LONGEST = 8192  # positions


def build_tokenizer(texts: Sequence[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of `vocabulary` tokens, learned from `texts`; both verdicts are single tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[BEGIN, END, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # Verdicts are rare in metadata: repeated often enough, their merges come first.
    verdicts = [f" {word}" for word in VERDICTS] * (10 * len(texts) + 10)
    tokenizer.train_from_iterator([*(f" {text}" for text in texts), *verdicts], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
    )


def build_tiny(
    texts: Sequence[str], shape: BackboneParams, *, seed: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, dict[str, Any]]:
    """Build a tokenizer from `texts` (training text only) and a small Llama; returns their sizes, too."""
    tokenizer = build_tokenizer(texts, shape.vocabulary)
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=shape.hidden,
            intermediate_size=2 * shape.hidden,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.heads,
            max_position_embeddings=LONGEST,
            rope_parameters={"rope_type": "default", "rope_theta": THETA},
            # What is predicted in the same places gets like output vectors: tied, Yes and No would look alike in the
            # history and before a reason, where they say opposite things.
            tie_word_embeddings=False,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    start_copying(model, seed=seed)
    parameters = sum(weight.numel() for weight in model.parameters())
    return model, tokenizer, {"vocabulary": len(tokenizer), "parameters": parameters}
