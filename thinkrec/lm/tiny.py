"""The tiny language model: a tokenizer learned from training text, and a small Llama that has learned nothing yet.

The first phase of fine-tuning teaches it to reason. But it can copy from its prompt at once. A reason names titles and
words that stand in the prompt, and transformers learn to copy late: one head must find the previous token before
another can ask what followed it earlier (induction heads, Olsson et al., 2022). So small a model does not get there
from some thousand traces (docs/log.md). Here such heads are there from the start, as weights that training goes on from
like any other (compare mimetic initialisation, Trockman and Kolter, 2023).

The hidden units D are cut into parts, by what is written there:

    constant    one unit that is the same for all tokens
    own         e, the token's embedding
    before      P e of the previous token, by head 0 of layer 0
    nearby      mean of P e over about a dozen tokens up to here, by head 1 of layer 0: at a verdict, its item's words
    copied      what the output reads: P e of the token that followed this one earlier, by head 0 of layer 1, and the
                `nearby` of places with a similar one, by head 1 of layer 1

P is a random projection. Attention by place needs no token: query and key read the constant alone, and rotary position
embeddings turn their product into a sum of cos((distance - offset) f) over the frequencies f that are used. Attention
by content must not depend on the distance, so it uses frequencies that hardly turn within a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from thinkrec.params import BackboneParams
from thinkrec.text.vocabulary import VERDICTS

BEGIN, END, PAD = "<s>", "</s>", "<pad>"
LONGEST = 8192  # positions
THETA = 1e6  # base of the rotary frequencies: about half of them hardly turn within a prompt
SLOW = 0.004  # radians a token, below which a frequency hardly turns
SCALE = 0.2  # of an embedding's units: far above what training moves in its first steps
PARTS = (36 / 96, 52 / 96, 72 / 96)  # shares of D at which own, before and nearby end
ONE_BACK = ((0, 5.7), (1, 4.0), (2, 4.0))  # frequencies, the fastest first, and how sharply each attends
NEARBY = ((2, 2.0), (3, 2.0))
MATCH = 3.0  # how sharply content is matched
BEFORE, NEAR, FOLLOWED, SIMILAR = 1.2, 3.0, 3.0, 1.5  # how large what each head writes is, compared to an embedding


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


@torch.no_grad()
def start_copying(model: LlamaForCausalLM, *, seed: int) -> None:
    """Give a fresh model with the rotary base THETA the heads described above.

    Without room for them (two layers, two heads, eight units a head) it stays as it is.
    """
    hidden, heads = model.config.hidden_size, model.config.num_attention_heads
    width = hidden // heads
    if min(model.config.num_hidden_layers, heads) < 2 or width < 8:
        return
    half = width // 2
    frequency = THETA ** -(torch.arange(half) / half)
    own, before, nearby, copied = (
        slice(*ends) for ends in pairwise([1, *(round(hidden * share) for share in PARTS), hidden])
    )
    count = own.stop - own.start
    square = torch.randn(max(width, count), max(width, count), generator=torch.Generator().manual_seed(seed))
    project = torch.linalg.qr(square)[0][:width, :count] * (count / (hidden / 2)) ** 0.5

    embedding = model.get_input_embeddings().weight
    embedding[:, own.stop :] = 0
    length = embedding[:, own].norm(dim=1, keepdim=True).clamp(min=1e-6)  # the pad token's is 0
    embedding[:, own] *= SCALE * (hidden / 2) ** 0.5 / length  # equally long, or the longest would be attended to
    embedding[:, 0] = 2 * SCALE

    first, second = (layer.self_attn for layer in model.model.layers[:2])
    previous, around = _Head(first, 0, width), _Head(first, 1, width)
    previous.attend(ONE_BACK, frequency, offset=1)
    around.attend(NEARBY, frequency, offset=0)
    previous.write(project, own, before, BEFORE)
    around.write(project, own, nearby, NEAR)

    induction, topic = _Head(second, 0, width), _Head(second, 1, width)
    slow = torch.nonzero(frequency < SLOW)[:, 0].tolist()
    for number, unit in enumerate([*slow, *(unit + half for unit in slow)]):
        if number < before.stop - before.start:
            induction.query[unit, own] = project[number] * MATCH
            induction.key[unit, before.start + number] = MATCH * BEFORE
        if number < nearby.stop - nearby.start:
            topic.query[unit, nearby.start + number] = topic.key[unit, nearby.start + number] = MATCH
    induction.write(project, own, copied, FOLLOWED)
    topic.write(torch.eye(nearby.stop - nearby.start), nearby, copied, SIMILAR)

    output = model.get_output_embeddings().weight
    size = min(copied.stop - copied.start, width)
    output *= 0.3
    output[:, copied.start : copied.start + size] = embedding[:, own] @ project[:size].T / SCALE / 2


class _Head:
    """One attention head's weights, zero to begin with: `query`, `key`, `value` (width, D) and `output` (D, width)."""

    def __init__(self, attention: Any, number: int, width: int) -> None:
        units = slice(number * width, (number + 1) * width)
        self.query, self.key, self.value = (
            layer.weight[units] for layer in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        self.output = attention.o_proj.weight[:, units]
        for weight in (self.query, self.key, self.value, self.output):
            weight.zero_()

    def attend(self, by: tuple[tuple[int, float], ...], frequency: Tensor, *, offset: int) -> None:
        """Attend to the token `offset` places back, by these frequencies, each so sharply."""
        half = len(frequency)
        for number, sharpness in by:
            angle = frequency[number] * offset
            self.query[number, 0] = sharpness * torch.cos(angle)
            self.query[number + half, 0] = -sharpness * torch.sin(angle)
            self.key[number, 0] = sharpness

    def write(self, matrix: Tensor, source: slice, target: slice, size: float) -> None:
        """Write `matrix` (w, units of `source`) times what is read there to `target`, as far as there is room."""
        rows = min(len(matrix), target.stop - target.start, len(self.value))
        self.value[:rows, source] = matrix[:rows]
        self.output[target.start : target.start + rows, :rows] = torch.eye(rows) * SCALE * size
