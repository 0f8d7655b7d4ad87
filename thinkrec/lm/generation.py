"""Reasons: decoding from the verdict's position on, under the same fused weights as the score.

The prompt pass is the very one that scores. New tokens see what the target's slot saw and each other; the token
that stands in the target's verdict place (there is always one) is masked, and where a generated token goes its
position does too.

Decoding is greedy, or draws each token by a number that depends on the seed, the row and the token's place in the
answer alone: batches, processes and the other rows asked for change nothing.

Shapes: B prompts, T their padded length, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache, PreTrainedTokenizerBase

from thinkrec.lm import processes
from thinkrec.lm.mixture import Router
from thinkrec.lm.model import RecommenderLM
from thinkrec.lm.scoring import routed_batches
from thinkrec.params import EvaluateParams
from thinkrec.text.layout import Batch, Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How answers are written: the likeliest token each time at temperature 0, else sampled.

    Attributes:
        max_new_tokens: an answer's most tokens, the end token included.
        temperature: that logits are divided by; 0 is greedy.
        top_p: sampled are the likeliest tokens that together have at least this probability, no more than needed.
        seed: of the sampling.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    @classmethod
    def of(cls, params: EvaluateParams, *, seed: int) -> Self:
        """As the parameters say."""
        return cls(max_new_tokens=params.max_new_tokens, temperature=params.temperature, top_p=params.top_p, seed=seed)


@torch.inference_mode()
def generate(
    model: RecommenderLM,
    tokenizer: PreTrainedTokenizerBase,
    layout: Layout,
    rows: NDArray[np.int64],
    decoding: Decoding,
    *,
    router: Router | None = None,
    routing: NDArray[np.float32] | None = None,
    route: NDArray[np.integer] | None = None,
    progress: str | None = None,
) -> list[str]:
    """The answer (verdict, then reason) to every row, in the order of `rows`; weights as in `routed_batches`."""
    model.eval()
    # A state of its own for every row: each is a sequence with one target.
    windows = layout.scoring_windows(rows, np.arange(len(rows)))
    written: list[tuple[int, str]] = []
    batches = routed_batches(model, layout, windows, router=router, routing=routing, route=route, progress=progress)
    for batch in batches:
        answer = _Answers(model, batch)
        answer.write(decoding)
        written += zip(answer.rows.tolist(), answer.texts(tokenizer), strict=True)
    answers = dict(processes.gather(written))
    return [answers[row] for row in rows.tolist()]


@torch.inference_mode()
def reason_first(
    model: RecommenderLM,
    tokenizer: PreTrainedTokenizerBase,
    layout: Layout,
    rows: NDArray[np.int64],
    decoding: Decoding,
    *,
    router: Router | None = None,
    routing: NDArray[np.float32] | None = None,
    route: NDArray[np.integer] | None = None,
    progress: str | None = None,
) -> tuple[list[str], NDArray[np.float32]]:
    """A reason without a verdict for every row, and the score (k,) that is read after it, in the order of `rows`.

    In the verdict's place stands the full stop that follows one in training, and the reason goes on from there. Then
    the row's own block stands once more (the target's text and slot, or the question about it), and the verdict is read
    at its end. It sees all that the first one saw, that one itself, and the reason. Weights as in `routed_batches`.
    `Layout.thinking_first` is this form in training (`sft.reason_first`).
    """
    model.eval()
    windows = layout.scoring_windows(rows, np.arange(len(rows)))
    asked = {int(window.rows[-1]): layout.blocks(window)[-1].verdict + 1 for window in windows}  # tokens of a question
    stop = torch.tensor(layout.vocabulary.stop, device=model.device)
    found: list[tuple[int, tuple[str, float]]] = []
    batches = routed_batches(model, layout, windows, router=router, routing=routing, route=route, progress=progress)
    for batch in batches:
        answer = _Answers(model, batch)
        answer.read(answer.embeddings(stop.expand(len(answer.rows), -1)))
        answer.write(decoding)
        score = answer.ask_again([asked[row] for row in answer.rows.tolist()]).float().cpu().tolist()
        found += zip(answer.rows.tolist(), zip(answer.texts(tokenizer), score, strict=True), strict=True)
    answers = dict(processes.gather(found))
    texts, scores = zip(*(answers[row] for row in rows.tolist()), strict=True) if len(rows) else ((), ())
    return list(texts), np.asarray(scores, np.float32)


class _Answers:
    """The answers to a batch of one target each, as far as they are written.

    Attributes:
        rows: the interactions that they are about (B,).
        hidden: states (B, D) that the next token is predicted from.
        seen: which of the tokens so far the next ones see (B, T).
        position: of the last token (B,).
        tokens: written, padded with end tokens (B,) each.
    """

    def __init__(self, model: RecommenderLM, batch: Batch) -> None:
        self.model = model
        self.at = batch.verdicts
        self.rows = batch.first_target.cpu().numpy()
        self.cache = DynamicCache(config=model.backbone.config)
        self.embedded = model.embed(batch)
        states = model.hidden_states(self.embedded, batch.attention_mask, batch.position_ids, self.cache)
        self.hidden = states[self.at[:, 0], self.at[:, 1]]
        self.seen = batch.attention_mask[self.at[:, 0], 0, self.at[:, 1]]  # what the slot sees
        self.position = batch.position_ids[self.at[:, 0], self.at[:, 1]]
        self.tokens: list[Tensor] = []

    def embeddings(self, tokens: Tensor) -> Tensor:
        """Input embeddings of tokens."""
        return self.model.backbone.get_input_embeddings()(tokens)

    def logits(self) -> Tensor:
        """Logits (B, V) of the next token."""
        return self.model.backbone.get_output_embeddings()(self.hidden).float()

    def read(self, embedded_BKD: Tensor, own_BK: Tensor | None = None) -> None:
        """Go on from these tokens; where they are not a sequence's `own` they are padding behind its last one."""
        width = embedded_BKD.shape[1]
        own = self.seen.new_ones(embedded_BKD.shape[:2]) if own_BK is None else own_BK
        causal = torch.ones(width, width, dtype=torch.bool, device=own.device).tril()
        among = causal & own[:, None, :]
        mask = torch.cat([self.seen[:, None, :].expand(-1, width, -1), among], dim=2)[:, None]
        position = self.position[:, None] + torch.arange(1, width + 1, device=own.device)
        states = self.model.hidden_states(embedded_BKD, mask, position, self.cache)
        length = own.sum(1)
        self.seen = torch.cat([self.seen, own], dim=1)
        self.position = self.position + length
        ended = states[torch.arange(len(states), device=own.device), (length - 1).clamp(min=0)]
        self.hidden = torch.where((length > 0)[:, None], ended, self.hidden)

    def write(self, decoding: Decoding) -> None:
        """Write on until the end token, which is not read, or `max_new_tokens`."""
        end = self.model.vocabulary.end
        finished = torch.zeros(len(self.rows), dtype=torch.bool, device=self.model.device)
        for step in range(decoding.max_new_tokens):
            if step:
                self.read(self.embeddings(self.tokens[-1])[:, None], ~finished[:, None])
            chosen = choose(self.logits(), decoding, self.rows, step)
            token = torch.where(finished, end, chosen)
            self.tokens.append(token)
            finished |= token == end
            if finished.all():
                break

    def ask_again(self, length: Sequence[int]) -> Tensor:
        """The scores (B,) after each target's own last `length` (B,) tokens, up to the verdict, stood once more."""
        last = self.tokens[-1]
        self.read(self.embeddings(last)[:, None], (last != self.model.vocabulary.end)[:, None])
        width = max(length)
        embedded = self.embedded.new_zeros(len(self.rows), width, self.embedded.shape[-1])
        own = self.seen.new_zeros(len(self.rows), width)
        for number, (size, (sequence, place)) in enumerate(zip(length, self.at.tolist(), strict=True)):
            embedded[number, :size] = self.embedded[sequence, place + 1 - size : place + 1]
            own[number, :size] = True
        self.read(embedded, own)
        return self.model.score_of(self.logits())

    def texts(self, tokenizer: PreTrainedTokenizerBase) -> list[str]:
        """What was written."""
        texts = tokenizer.batch_decode(torch.stack(self.tokens, dim=1), skip_special_tokens=True)
        return [text.strip() for text in texts]


def choose(logits_BV: Tensor, decoding: Decoding, rows: NDArray[np.int64], step: int) -> Tensor:
    """The next token (B,) of the answers to `rows` (B,), which have `step` tokens so far.

    Sampling inverts the distribution function, tokens in order of falling probability, in double precision.
    """
    if decoding.temperature == 0:
        return logits_BV.argmax(-1)
    scaled = logits_BV.double() / decoding.temperature
    probability, order = scaled.softmax(-1).sort(dim=-1, descending=True, stable=True)
    before = probability.cumsum(-1) - probability
    kept = before < decoding.top_p
    kept[:, 0] = True
    upto = probability.masked_fill(~kept, 0.0).cumsum(-1)
    drawn = [np.random.default_rng([decoding.seed, row, step]).random() for row in rows.tolist()]
    point = torch.tensor(drawn, dtype=torch.float64, device=upto.device)[:, None] * upto[:, -1:]
    place = torch.searchsorted(upto, point, right=True)  # the first token whose share ends beyond the point
    return order.gather(-1, place.minimum(kept.sum(-1, keepdim=True) - 1)).squeeze(-1)
