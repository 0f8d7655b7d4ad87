"""Weights by which a fresh Llama copies from its prompt before it has learned anything.

A reason names titles and words that stand in the prompt. Transformers learn to copy late: one head must find the
previous token before another can ask what followed it earlier (induction heads, Olsson et al., 2022). So small a model
does not get there from some thousand traces (docs/log.md). Here such heads are there from the start, as weights that
training goes on from like any other (compare mimetic initialisation, Trockman and Kolter, 2023).

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

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

THETA = 1e6  # base of the rotary frequencies: about half of them hardly turn within a prompt
SLOW = 0.004  # radians a token, below which a frequency hardly turns
SCALE = 0.2  # of an embedding's units: far above what training moves in its first steps
PARTS = (36 / 96, 52 / 96, 72 / 96)  # shares of D at which own, before and nearby end
ONE_BACK = ((0, 5.7), (1, 4.0), (2, 4.0))  # frequencies, the fastest first, and how sharply each attends
NEARBY = ((2, 2.0), (3, 2.0))
MATCH = 3.0  # how sharply content is matched
BEFORE, NEAR, FOLLOWED, SIMILAR = 1.2, 3.0, 3.0, 1.5  # how large what each head writes is, compared to an embedding


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
