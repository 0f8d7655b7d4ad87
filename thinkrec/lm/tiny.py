"""The tiny language model: a tokenizer learned from training text, and a small Llama that has learned nothing yet.

The first phase of fine-tuning teaches it to reason. But it can copy from its prompt at once. A reason names titles and
words that stand in the prompt, and transformers learn to copy late: one head must find the previous token before
another can ask what followed it earlier (induction heads, Olsson et al., 2022). So small a model does not get there
from some thousand traces (docs/log.md). Here such heads are there from the start, as weights that training goes on from
like any other (compare mimetic initialisation, Trockman and Kolter, 2023).

The hidden units D are cut into parts. P is a random projection, e a token's embedding:

    constant  one unit that is the same for all tokens
    own       e
    before    P e of the previous token                                              layer 0, head 0
    second    P e of the token before that                                           layer 0, head 1
    nearby    mean of P e over about a dozen tokens up to here                       layer 0, head 2
    copied    P e of the token that followed this one earlier: the rest of a title   layer 1, head 0
    title     P e of the first token of the latest quoted title                      layer 1, head 1
    copied    also, after `word in "`: the title of an item that has the word        layer 2, head 0

The output reads `copied` and, a little, `nearby`. Attention by place needs no token: query and key read the constant
alone, and rotary position embeddings turn their product into a sum of cos((distance - offset) f) over the frequencies f
that are used. Attention by content must not depend on the distance: it uses frequencies that hardly turn in a prompt.
"""

from __future__ import annotations

import math
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
ENDS = (40 / 127, 58 / 127, 76 / 127, 91 / 127, 109 / 127)  # of the parts but `copied`, as shares of D - 1
# Frequencies in radians a token, and how sharply each attends.
ONE_PLACE = ((1.0, 5.6), (0.316, 4.0), (0.1, 4.0))
NEARBY = ((0.1, 2.0), (0.0316, 2.0))
LATEST = ((0.1, 2.2), (0.0316, 2.2))
FAR = ((0.01, 3.5),)


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
    start_copying(model, tokenizer, seed=seed)
    parameters = sum(weight.numel() for weight in model.parameters())
    return model, tokenizer, {"vocabulary": len(tokenizer), "parameters": parameters}


@torch.no_grad()
def start_copying(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, *, seed: int) -> None:
    """Give a fresh model with the rotary base THETA the heads described above.

    Without room for them (three layers, three heads, 16 units a head) it stays as it is.
    """
    config = model.config
    hidden, width = config.hidden_size, config.hidden_size // config.num_attention_heads
    if min(config.num_hidden_layers, config.num_attention_heads) < 3 or width < 16:
        return
    bounds = [1, *(1 + round((hidden - 1) * share) for share in ENDS), hidden]
    own, before, second, title, nearby, copied = (slice(*ends) for ends in pairwise(bounds))
    count = own.stop - own.start
    square = torch.randn(max(width, count), max(width, count), generator=torch.Generator().manual_seed(seed))
    project = torch.linalg.qr(square)[0][:width, :count] * (count / (hidden / 2)) ** 0.5

    embedding = model.get_input_embeddings().weight
    embedding[:, own.stop :] = 0
    length = embedding[:, own].norm(dim=1, keepdim=True).clamp(min=1e-6)  # the pad token's is 0
    embedding[:, own] *= SCALE * (hidden / 2) ** 0.5 / length  # equally long, or the longest would be attended to
    embedding[:, 0] = 2 * SCALE

    def signature(*texts: str) -> Tensor:
        """The direction of P e of some texts' last tokens, as far as `before` holds it."""
        tokens = [tokenizer(text, add_special_tokens=False)["input_ids"][-1] for text in texts]
        seen = (project @ embedding[tokens][:, own].T)[: before.stop - before.start].sum(1)
        return seen / seen.norm()

    for number, (part, offset) in enumerate(((before, 1), (second, 2))):
        head = _Head(model, 0, number)
        head.attend(ONE_PLACE, offset=offset)
        head.write(project, own, part, 1.2)
    head = _Head(model, 0, 2)
    head.attend(NEARBY)
    head.write(project, own, nearby, 3.0)

    head = _Head(model, 1, 0)
    head.match((project * 3.0, own), (torch.eye(width) * 3.6, before))
    head.write(project, own, copied, 3.0)
    head = _Head(model, 1, 1)
    head.attend(LATEST)
    head.prefer(signature(' "'), before, 8.0)
    head.write(project, own, title, 3.0)

    head = _Head(model, 2, 0)
    head.attend(FAR, away=True)
    head.match((torch.eye(width) * 1.5, second), (project * 1.5, own))
    head.prefer(signature(",", '":'), before, 2.0)  # words of an item's line, not those of reasons
    head.write(torch.eye(title.stop - title.start), title, copied, 1.0)

    output = model.get_output_embeddings().weight
    output *= 0.3
    for part, strength in ((copied, 0.5), (nearby, 0.15)):
        size = part.stop - part.start
        output[:, part] = embedding[:, own] @ project[:size].T / SCALE * strength


class _Head:
    """One attention head's weights, zero to begin with: `query`, `key`, `value` (w, D) and `output` (D, w)."""

    def __init__(self, model: LlamaForCausalLM, layer: int, number: int) -> None:
        attention = model.model.layers[layer].self_attn
        width = attention.head_dim
        units = slice(number * width, (number + 1) * width)
        self.query, self.key, self.value = (
            part.weight[units] for part in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        self.output = attention.o_proj.weight[:, units]
        for weight in (self.query, self.key, self.value, self.output):
            weight.zero_()
        self.half = width // 2
        self.frequency = THETA ** -(torch.arange(self.half) / self.half)
        slow = torch.nonzero(self.frequency < SLOW)[:, 0].tolist()
        self.slow = [*slow, *(unit + self.half for unit in slow)]  # units whose product depends on content alone

    def attend(self, by: Sequence[tuple[float, float]], *, offset: int = 0, away: bool = False) -> None:
        """Attend to the place `offset` tokens back or, `away`, least to it: by the frequencies nearest to these."""
        for wanted, sharpness in by:
            unit = int((self.frequency.log() - math.log(wanted)).abs().argmin())
            angle = self.frequency[unit] * offset
            self.query[unit, 0] = sharpness * torch.cos(angle) * (-1 if away else 1)
            self.query[unit + self.half, 0] = -sharpness * torch.sin(angle)
            self.key[unit, 0] = sharpness

    def match(self, query: tuple[Tensor, slice], key: tuple[Tensor, slice]) -> None:
        """Attend to where a matrix times a part is what another matrix times another part is here."""
        units = self.slow[:-1]  # the last is for `prefer`
        for weight, (matrix, part) in ((self.query, query), (self.key, key)):
            rows = matrix[: len(units), : part.stop - part.start]
            weight[units[: len(rows)], part] = rows

    def prefer(self, signature: Tensor, part: slice, strength: float) -> None:
        """Attend rather to places that have this signature in a part."""
        unit = self.slow[-1]
        self.query[unit, 0] = strength
        self.key[unit, part.start : part.start + len(signature)] = signature * strength

    def write(self, matrix: Tensor, source: slice, target: slice, size: float) -> None:
        """Write `matrix` times what is read at the source to the target part, as far as there is room."""
        rows = min(len(matrix), target.stop - target.start, len(self.value))
        self.value[:rows, source] = matrix[:rows]
        self.output[target.start : target.start + rows, :rows] = torch.eye(rows) * SCALE * size
