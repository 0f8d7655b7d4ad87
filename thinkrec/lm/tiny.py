"""The tiny language model: a tokenizer learned from training text, and a small Llama that has learned nothing yet.

The first phase of fine-tuning teaches it to reason. But it can copy from its prompt at once. A reason names titles and
words that stand in the prompt, and transformers learn to copy late: one head must find the previous token before
another can ask what followed it earlier (induction heads, Olsson et al., 2022). So small a model does not get there
from some thousand traces (docs/log.md). Here such heads are there from the start, as weights that training goes on from
like any other (compare mimetic initialisation, Trockman and Kolter, 2023). They are made for prompts and reasons like

    "Iron Bridge": revenge, slow <slot> Yes "Last River": war <slot> Yes. They liked "Iron Bridge": revenge. This is ...

A verdict stands behind its item, so no word of an item can know it. The quotation mark behind the verdict can: what it
is preceded by says whether the item was liked, and what stands nearby which one it was.

The hidden units D are cut into parts. P is a random projection, e a token's embedding:

    constant  one unit that is the same for all tokens
    own       e
    before    P e of the previous token                                              layer 0, head 0
              and, turned by a random rotation, of the one before that               layer 0, head 1
    nearby    mean of P e over about a dozen tokens up to here, but commas           layer 0, head 2
              and of what stands near the latest verdict: the words of its item      layer 1, head 3
    title     P e of the first token of the latest title                             layer 1, head 1
    last      P e of the last token of the latest title                              layer 1, head 2
    copied    P e of the token that followed this one earlier                        layer 1, head 0
              after `liked "`: the first token of a title that was liked, and like
              the target                                                             layer 2, head 0
              after a title: its words, and rather those that the target has         layer 2, head 1
              after a title's first token: its last, of what was liked               layer 2, head 2
              after `is "`: the first token of the target's title                    layer 2, head 3

The output reads `copied`. Attention by place needs no token: query and key read the constant alone, and rotary
position embeddings turn their product into a sum of cos((distance - offset) f) over the frequencies f that are used.
Attention by content must not depend on the distance: it uses frequencies that hardly turn in a prompt.
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
SLOW = 0.004  # radians a token, below which a frequency hardly turns in a prompt
SCALE = 0.2  # of an embedding's units: far above what training moves in its first steps
ENDS = (28 / 127, 48 / 127, 76 / 127, 86 / 127, 99 / 127)  # of the parts but `copied`, as shares of D - 1
# Frequencies in radians a token, and how sharply each attends.
ONE_PLACE = ((1.0, 5.6), (0.316, 4.0), (0.1, 4.0))
NEARBY = ((0.1, 2.0), (0.0316, 2.0))
LATEST = ((0.1, 5.0), (0.0316, 5.0))
DIRECTIONS = 3  # that a head may agree in, at most
LATEST_BY_FAR = ((0.0316, 7.0), (0.01, 7.0))  # of what is rarer than titles


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
    half = shape.hidden // shape.heads // 2  # frequencies a head
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=shape.hidden,
            intermediate_size=shape.hidden,  # twice as much was measured to bring nothing
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.heads,
            max_position_embeddings=LONGEST,
            # Each frequency is a third of the one before: five turn within a prompt, by all others content is matched.
            rope_parameters={"rope_type": "default", "rope_theta": 10 ** (half / 2)},
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
    """Give a fresh model the heads described above.

    They are made for four heads a layer: with another number, or less than three layers or 16 units a head, it stays as
    it is.
    """
    config = model.config
    hidden, width = config.hidden_size, config.hidden_size // config.num_attention_heads
    if config.num_hidden_layers < 3 or config.num_attention_heads != 4 or width < 16:
        return
    bounds = [1, *(1 + round((hidden - 1) * share) for share in ENDS), hidden]
    own, before, title, last, nearby, copied = (slice(*ends) for ends in pairwise(bounds))
    count = own.stop - own.start
    random = torch.Generator().manual_seed(seed)

    def rotation(size: int) -> Tensor:
        return torch.linalg.qr(torch.randn(size, size, generator=random))[0]

    project = rotation(max(width, count))[:width, :count] * (count / (hidden / 2)) ** 0.5
    same, mixed, turned = torch.eye(width), rotation(width), rotation(width)
    twice = (turned @ project)[: before.stop - before.start]  # of the token two places back

    embedding = model.get_input_embeddings().weight
    embedding[:, own.stop :] = 0
    length = embedding[:, own].norm(dim=1, keepdim=True).clamp(min=1e-6)  # the pad token's is 0
    embedding[:, own] *= SCALE * (hidden / 2) ** 0.5 / length  # equally long, or the longest would be attended to
    embedding[:, 0] = 2 * SCALE

    def signature(part: slice, *texts: str, through: Tensor | None = None) -> Tensor:
        """The direction of some texts' last tokens in a part: of e in `own`, of P e in others."""
        tokens = [tokenizer(text, add_special_tokens=False)["input_ids"][-1] for text in texts]
        seen = embedding[tokens][:, own].T
        if part != own:
            seen = (project if through is None else through)[: part.stop - part.start] @ seen
        total = (seen / seen.norm(dim=0)).sum(1)
        return total / total.norm()

    def against(part: slice, one: str, other: str, *, through: Tensor | None = None) -> Tensor:
        """The direction from one text to another."""
        difference = signature(part, one, through=through) - signature(part, other, through=through)
        return difference / difference.norm()

    quote, colon, comma = ' "', '":', ","
    no, yes = (f" {word}" for word in VERDICTS)
    likings = (" liked", " disliked")  # as reasons put it
    was_liked = against(before, yes, no)

    head = _Head(model, 0, 0)
    head.attend(ONE_PLACE, offset=1)
    head.write(project, own, before, 1.5)
    head = _Head(model, 0, 1)
    head.attend(ONE_PLACE, offset=2)
    head.write(twice, own, before, 0.7)
    head = _Head(model, 0, 2)
    head.attend(NEARBY)
    head.prefer(own, -signature(own, comma), 1.0)
    head.write(project, own, nearby, 3.0)

    head = _Head(model, 1, 0)
    head.match((project * 3.5, own), (same * 3.5, before))
    # All titles follow a quotation mark: there it rests on the begin token, of which it writes nothing.
    begin = signature(own, BEGIN)
    head.agree(own, signature(own, quote), own, begin, 6.0)
    head.write(project @ (torch.eye(count) - torch.outer(begin, begin)), own, copied, 4.0)
    head = _Head(model, 1, 1)
    head.attend(LATEST)
    head.prefer(before, signature(before, quote), 4.0)
    head.write(project, own, title, 3.0)
    head = _Head(model, 1, 2)
    head.attend(LATEST)
    head.prefer(own, signature(own, colon), 4.0)
    head.write(same, before, last, 3.0)
    head = _Head(model, 1, 3)
    head.attend(LATEST_BY_FAR)
    head.prefer(own, signature(own, yes, no), 6.0)
    head.write(same, nearby, nearby, 1.0)

    head = _Head(model, 2, 0)
    head.agree(own, signature(own, quote), own, signature(own, quote), 4.0)
    head.agree(before, against(before, *likings), before, was_liked, 4.0)
    head.prefer(before, signature(before, yes, no), 4.0)
    head.match((mixed, nearby), (mixed, nearby))
    head.write(same, title, copied, 5.0)
    head = _Head(model, 2, 1)
    head.agree(own, signature(own, comma, colon), before, signature(before, comma, colon), 6.0)
    head.match((same * 3.0, title), (same * 3.0, title))
    head.match((mixed.T * 3.0, last), (mixed.T * 3.0, last))
    size = nearby.stop - nearby.start
    head.match((mixed * 1.5, nearby), (mixed[:, :size] @ project[:size] * 1.5, own))
    head.write(project, own, copied, 10.0)
    head = _Head(model, 2, 2)
    head.agree(before, signature(before, quote), own, signature(own, quote), 5.0)
    head.agree(before, against(before, *likings, through=twice), before, was_liked, 4.0)
    head.match((project * 3.0, own), (same * 3.0, title))
    head.write(same, last, copied, 3.0)
    head = _Head(model, 2, 3)
    head.attend(LATEST_BY_FAR)
    head.agree(before, signature(before, " is"), own, signature(own, yes, no), 5.0)
    head.write(same, title, copied, 3.0)

    size = copied.stop - copied.start
    output = model.get_output_embeddings().weight
    output *= 0.3
    output[:, nearby] = 0
    output[:, copied] = embedding[:, own] @ project[:size].T / SCALE * 0.5


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
        self.directions = 0
        self.frequency = model.config.rope_parameters["rope_theta"] ** -(torch.arange(self.half) / self.half)
        slow = torch.nonzero(self.frequency < SLOW)[:, 0].tolist()
        self.slow = [*slow, *(unit + self.half for unit in slow)]  # units whose product depends on content alone

    def attend(self, by: Sequence[tuple[float, float]], *, offset: int = 0) -> None:
        """Attend to the place `offset` tokens back, by the frequencies nearest to these."""
        for wanted, sharpness in by:
            unit = int((self.frequency.log() - math.log(wanted)).abs().argmin())
            angle = self.frequency[unit] * offset
            self.query[unit, 0] = sharpness * torch.cos(angle)
            self.query[unit + self.half, 0] = -sharpness * torch.sin(angle)
            self.key[unit, 0] = sharpness

    def match(self, query: tuple[Tensor, slice], key: tuple[Tensor, slice]) -> None:
        """Attend to where a matrix times a part is what another matrix times another part is here."""
        units = self.slow[:-DIRECTIONS]
        for weight, (matrix, part) in ((self.query, query), (self.key, key)):
            rows = matrix[: len(units), : part.stop - part.start]
            weight[units[: len(rows)], part] += rows

    def agree(self, part: slice, direction: Tensor, of: slice, there: Tensor, strength: float) -> None:
        """From places with one direction in a part attend to those with another in a part of theirs.

        And from the opposite to the opposite, and so not from one to the other.
        """
        self.directions += 1
        unit = self.slow[-self.directions]
        self.query[unit, part], self.key[unit, of] = direction * strength, there * strength

    def prefer(self, part: slice, direction: Tensor, strength: float) -> None:
        """Attend rather to places that have this direction in a part."""
        self.agree(slice(0, 1), torch.ones(1), part, direction, strength)

    def write(self, matrix: Tensor, source: slice, target: slice, size: float) -> None:
        """Write `matrix` times what is read at the source to the target part, as far as there is room."""
        rows = min(len(matrix), target.stop - target.start, len(self.value))
        self.value[:rows, source] = matrix[:rows, : source.stop - source.start]
        self.output[target.start : target.start + rows, :rows] = torch.eye(rows) * SCALE * size
