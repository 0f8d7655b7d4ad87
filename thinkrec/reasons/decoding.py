"""Reasons: decoding from the verdict's position on, under the same mixed weights as the score.

The prompt is read as it is for scoring. New tokens see each other, and what the token saw that the
layout put into the verdict's place. That one is masked, and the answer's positions begin there.

Decoding is greedy, or draws each token by a number that depends only on the seed, the prompt's tokens and the token's
place in the answer. With a judge, several whole answers are drawn, and the least bad one is given. They stand side by
side behind the prompt, which is read once, and do not see each other.

Shapes: B prompts, T their padded length and what was written since, C candidates, K tokens, V vocabulary.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache, PreTrainedTokenizerBase

from thinkrec import processes
from thinkrec.lm.loaded import LoadedModel
from thinkrec.lm.model import RecommenderLM
from thinkrec.lm.scoring import weighted_batches
from thinkrec.params import EvaluateParams
from thinkrec.text.layout import Batch

T = TypeVar("T")
Rows = NDArray[np.int64]
Judge = Callable[[int, str], tuple[int, ...]]  # how bad an answer to a row is, the least being best


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How answers are written: the likeliest token each time at temperature 0, else sampled."""

    max_new_tokens: int  # of an answer, the end token included
    temperature: float = 0.0  # that logits are divided by; 0 is greedy
    top_p: float = 1.0  # sampled are the likeliest tokens that together have this probability, no more than needed
    seed: int = 0  # of the sampling
    candidates: int = 1  # of an answer, where there is a judge

    @classmethod
    def from_params(cls, params: EvaluateParams, *, seed: int) -> Self:
        """As params.yaml says."""
        names = ("max_new_tokens", "temperature", "top_p", "candidates")
        return cls(seed=seed, **{name: getattr(params, name) for name in names})


@torch.inference_mode()
def write_answers(
    loaded: LoadedModel, rows: Rows, decoding: Decoding, *, judge: Judge | None = None, progress: str | None = None
) -> list[str]:
    """The answer (verdict, then reason) to every row, in the order of `rows`, under its user's adapter weights.

    With a `judge` and several `decoding.candidates`, it is the best of these, the first of equals; all of them begin
    with the likeliest verdict.
    """
    tokenizer = loaded.tokenizer

    def answer(answers: _Answers) -> list[str]:
        if judge is None or decoding.candidates == 1:
            answers.write(decoding)
            return [text for [text] in answers.texts(tokenizer)]
        answers.write(replace(decoding, temperature=0.0, max_new_tokens=1))
        answers.catch_up()
        answers.branch(decoding.candidates)
        answers.write(decoding)
        by_row = zip(answers.rows.tolist(), answers.texts(tokenizer), strict=True)
        return [min(texts, key=partial(judge, row)) for row, texts in by_row]

    return _answer_rows(loaded, rows, answer, progress)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was written after a verdict."""

    text: str  # the verdict included
    tokens: list[int]  # K after the verdict, the end token included
    ends: list[int]  # (K,) characters of the text up to the end of each
    finished: bool  # whether it has one


@torch.inference_mode()
def sample_answers(loaded: LoadedModel, rows: Rows, decoding: Decoding) -> list[list[Answer]]:
    """`decoding.candidates` answers to every row, in the order of `rows`, after the verdict that its label says."""
    layout, tokenizer = loaded.layout, loaded.tokenizer
    words = layout.vocabulary

    def answer(answers: _Answers) -> list[list[Answer]]:
        verdicts = [[words.verdicts[label], *words.rest[label]] for label in layout.label[answers.rows].tolist()]
        answers.begin(verdicts)
        answers.branch(decoding.candidates)
        answers.write(decoding)
        written = zip(verdicts, answers.tokens.tolist(), answers.length.tolist(), answers.ended.tolist(), strict=True)
        return [
            [spell(verdict, tokens[:length], ended) for tokens, length, ended in zip(*candidates, strict=True)]
            for verdict, *candidates in written
        ]

    def spell(verdict: list[int], tokens: list[int], ended: bool) -> Answer:
        parts = tokenizer.batch_decode(
            [[*verdict, *tokens[: count + 1]] for count in range(len(tokens))], skip_special_tokens=True
        )
        lead = len(parts[-1]) - len(parts[-1].lstrip())
        return Answer(text=parts[-1].strip(), tokens=tokens, ends=[len(part) - lead for part in parts], finished=ended)

    return _answer_rows(loaded, rows, answer, None)


@torch.inference_mode()
def reason_first(
    loaded: LoadedModel, rows: Rows, decoding: Decoding, *, progress: str | None = None
) -> tuple[list[str], NDArray[np.float32]]:
    """A reason without a verdict for every row, and the score (k,) that is read after it, in the order of `rows`.

    A full stop stands in the verdict's place, and the reason goes on from there. Then the row's own block stands once
    more, and the verdict is read at its end. `Layout.thinking_first` is this form in training (`sft.reason_first`).
    """
    layout = loaded.layout
    windows = layout.scoring_windows(rows, np.arange(len(rows)))
    question_tokens = {int(window.rows[-1]): layout.blocks(window)[-1].verdict + 1 for window in windows}
    stop = torch.tensor(layout.vocabulary.stop, device=loaded.model.device)

    def answer(answers: _Answers) -> list[tuple[str, float]]:
        answers.read(answers.embeddings(stop.expand(len(answers.rows), 1, -1)))
        answers.write(decoding)
        scores = answers.ask_again([question_tokens[row] for row in answers.rows.tolist()])
        texts = [text for [text] in answers.texts(loaded.tokenizer)]
        return list(zip(texts, scores.float().cpu().tolist(), strict=True))

    pairs = _answer_rows(loaded, rows, answer, progress)
    return [text for text, _ in pairs], np.asarray([score for _, score in pairs], np.float32)


def _answer_rows(
    loaded: LoadedModel, rows: Rows, answer: Callable[[_Answers], Sequence[T]], progress: str | None
) -> list[T]:
    """What `answer` makes of every row, in the order of `rows`: it is called with each batch of them."""
    model, layout = loaded.model.eval(), loaded.layout
    windows = layout.scoring_windows(rows, np.arange(len(rows)))  # a state of its own for every row: one target each
    by_row: list[tuple[int, T]] = []
    for batch in weighted_batches(model, layout, windows, loaded.row_weights(), progress=progress):
        answers = _Answers(model, batch)
        by_row += zip(answers.rows.tolist(), answer(answers), strict=True)
    gathered = dict(processes.gather(by_row))
    return [gathered[row] for row in rows.tolist()]


class _Answers:
    """The answers to a batch of one target each, as far as they are written; C candidates of each, at first one."""

    def __init__(self, model: RecommenderLM, batch: Batch) -> None:
        self.model = model
        self.at = batch.verdicts
        self.rows = batch.first_target.cpu().numpy()  # (B,) the interactions that they are about
        self.cache = DynamicCache()  # not the model's own kind, which may forget what a mask of ours still shows
        self.embedded = model.embed(batch)
        states = model.hidden_states(self.embedded, batch.attention_mask, batch.position_ids, self.cache)
        self.match = model.match_texts(states, batch)  # (B,) a part of a verdict's logits
        self.at_verdict = True  # whether the next token is the verdict
        sequence, place = self.at[:, :1], self.at[:, 1:]
        self.hidden = states[sequence, place]  # (B, C, D) that the next token is predicted from
        # (B, C, T) which tokens the next ones see: as what the layout put into the verdict's place, but not that itself
        self.seen = batch.attention_mask[sequence, 0, place + 1].scatter(2, place[..., None] + 1, False)
        self.position = batch.position_ids[sequence, place]  # (B, C) of the last token
        inside = zip(batch.input_ids[self.at[:, 0]], self.seen[:, 0], strict=True)
        # (B,) a number for the tokens that each answer sees
        self.prompts = np.asarray([zlib.crc32(ids[seen].cpu().numpy().tobytes()) for ids, seen in inside])
        self.forget_unseen()
        self.tokens = self.position.new_zeros(len(self.rows), 1, 0)  # (B, C, K) written, padded with end tokens
        self.length = torch.zeros_like(self.position)  # (B, C) how many were written
        # (B, C) whether the end token was, and whether the last token is yet to be read
        self.ended = self.unread = torch.zeros_like(self.position, dtype=torch.bool)

    def forget_unseen(self) -> None:
        """Keep only those of the prompts' keys and values that some new token sees."""
        seen = self.seen[:, 0]
        count = int(seen.sum(1).max())
        kept = seen.byte().argsort(dim=1, descending=True, stable=True)[:, :count]  # (B, T): the seen first, in order
        self.seen = seen.gather(1, kept)[:, None]
        for layer in self.cache.layers:
            for name in ("keys", "values"):
                states = getattr(layer, name)
                index = kept[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[3])
                setattr(layer, name, states.gather(2, index))

    def embeddings(self, tokens: Tensor) -> Tensor:
        """Input embeddings of tokens."""
        return self.model.backbone.get_input_embeddings()(tokens)

    def logits(self, which_BC: Tensor) -> Tensor:
        """Logits (k, V) of the next token of these candidates, prompt by prompt."""
        if self.at_verdict:
            match = None if self.match is None else self.match[which_BC.nonzero()[:, 0]]
            return self.model.read_verdicts(self.hidden[which_BC], match)[1]
        return self.model.logits(self.hidden[which_BC])

    def begin(self, tokens: Sequence[Sequence[int]]) -> None:
        """Go on from these tokens of every prompt, which are no part of what is written."""
        width = max(map(len, tokens))
        real = torch.tensor([[place < len(each) for place in range(width)] for each in tokens])
        padded = torch.tensor([[*each, *[0] * (width - len(each))] for each in tokens])
        self.read(self.embeddings(padded.to(self.model.device))[:, None], real.to(self.model.device)[:, None])

    def read(self, embedded_BCKD: Tensor, real_BCK: Tensor | None = None) -> None:
        """Go on from these tokens; where they are not `real` they are padding behind a candidate's last one."""
        prompts, count, width, _ = embedded_BCKD.shape
        real = self.seen.new_ones(embedded_BCKD.shape[:3]) if real_BCK is None else real_BCK
        alone = torch.eye(count, dtype=torch.bool, device=real.device)  # of the new tokens each sees its candidate's
        causal = torch.ones(width, width, dtype=torch.bool, device=real.device).tril()
        among = alone[:, None, :, None] & causal[:, None, :] & real[:, None, None]  # (B, C, K, C, K)
        mask = torch.cat([self.seen[:, :, None].expand(-1, -1, width, -1), among.flatten(3)], dim=3).flatten(1, 2)
        position = self.position[..., None] + torch.arange(1, width + 1, device=real.device)
        states = self.model.hidden_states(embedded_BCKD.flatten(1, 2), mask[:, None], position.flatten(1), self.cache)
        self.at_verdict = False
        length = real.sum(2)
        last = (length - 1).clamp(min=0)[..., None, None].expand(-1, -1, 1, states.shape[-1])
        ended = states.view(prompts, count, width, -1).gather(2, last).squeeze(2)
        self.hidden = torch.where((length > 0)[..., None], ended, self.hidden)
        self.seen = torch.cat([self.seen, (alone[:, :, None] & real[:, None]).flatten(2)], dim=2)
        self.position = self.position + length

    def write(self, decoding: Decoding) -> None:
        """Write on until the end token, or `max_new_tokens`; the last stays unread."""
        end = self.model.vocabulary.end
        waiting = self.over(decoding)
        while not waiting.all():
            self.catch_up()
            token = torch.full_like(self.position, end)
            token[~waiting] = self.choose(decoding, ~waiting)
            self.tokens = torch.cat([self.tokens, token[..., None]], dim=2)
            self.length = self.length + ~waiting
            self.unread = ~waiting & (token != end)
            self.ended = self.ended | (~waiting & (token == end))
            waiting = waiting | self.over(decoding)

    def over(self, decoding: Decoding) -> Tensor:
        """Which answers (B, C) may not go on."""
        return self.ended | (self.length >= decoding.max_new_tokens)

    def branch(self, count: int) -> None:
        """Go on as so many candidates, each written as far as the only one is."""
        for name in ("tokens", "hidden", "seen", "position", "length", "ended", "unread"):
            value = getattr(self, name)
            setattr(self, name, value.expand(-1, count, *value.shape[2:]))

    def catch_up(self) -> None:
        """Read the last tokens that were written."""
        if self.unread.any():
            self.read(self.embeddings(self.tokens[..., -1:]), self.unread[..., None])
            self.unread = torch.zeros_like(self.unread)

    def choose(self, decoding: Decoding, going_BC: Tensor) -> Tensor:
        """The next tokens of those that go on (k,), prompt by prompt."""
        prompt, candidate = (place.cpu().numpy() for place in going_BC.nonzero(as_tuple=True))
        length = self.length[going_BC].cpu().numpy()
        return choose(self.logits(going_BC), decoding, self.prompts[prompt], length, candidate)

    def ask_again(self, length: Sequence[int]) -> Tensor:
        """The scores (B,) after each target's own last `length` (B,) tokens, up to the verdict, stood once more."""
        self.catch_up()
        width = max(length)
        embedded = self.embedded.new_zeros(len(self.rows), 1, width, self.embedded.shape[-1])
        real = self.seen.new_zeros(len(self.rows), 1, width)
        for number, (size, (sequence, place)) in enumerate(zip(length, self.at.tolist(), strict=True)):
            embedded[number, 0, :size] = self.embedded[sequence, place + 1 - size : place + 1]
            real[number, 0, :size] = True
        self.read(embedded, real)
        return self.model.read_verdicts(self.hidden[:, 0], self.match)[0]

    def texts(self, tokenizer: PreTrainedTokenizerBase) -> list[list[str]]:
        """What was written, of every prompt its candidates (B, C)."""
        texts = iter(tokenizer.batch_decode(self.tokens.flatten(0, 1), skip_special_tokens=True))
        return [[next(texts).strip() for _ in prompt] for prompt in self.tokens]


def choose(
    logits_BV: Tensor,
    decoding: Decoding,
    prompts: NDArray[np.int64],
    length: NDArray[np.int64],
    candidate: NDArray[np.int64],
) -> Tensor:
    """The next token (B,) of these candidates for an answer to `prompts` (B,), with `length` (B,) tokens so far.

    Sampling inverts the distribution function, tokens in order of falling probability, in double precision. A prompt's
    first candidate draws what its only one would.
    """
    if decoding.temperature == 0:
        return logits_BV.argmax(-1)
    scaled = logits_BV.double() / decoding.temperature
    probability, order = scaled.softmax(-1).sort(dim=-1, descending=True, stable=True)
    before = probability.cumsum(-1) - probability
    likeliest = before < decoding.top_p
    likeliest[:, 0] = True
    upto = probability.masked_fill(~likeliest, 0.0).cumsum(-1)
    keys = np.stack([prompts, length, candidate], axis=1).tolist()
    drawn = [np.random.default_rng([decoding.seed, *(key if key[-1] else key[:-1])]).random() for key in keys]
    point = torch.tensor(drawn, dtype=torch.float64, device=upto.device)[:, None] * upto[:, -1:]
    place = torch.searchsorted(upto, point, right=True)  # the first token whose share ends beyond the point
    return order.gather(-1, place.minimum(likeliest.sum(-1, keepdim=True) - 1)).squeeze(-1)
