"""Reasons: decoding from the verdict's position on, under the same mixed weights as the score.

Prompts are read as they are for scoring, those of one user as one sequence. New tokens see each other, and what the
token saw that the layout put into the verdict's place. That one is masked, and the answer's positions begin there. Or
they go on behind the verdict that the layout put there, and see it, too.

Decoding is greedy, or draws each token by a number that depends only on the seed, the prompt's tokens and the token's
place in the answer. With a judge, several whole answers are drawn, and the least bad one is given. They stand side by
side behind the prompt, which is read once, and do not see each other.

Shapes: B answers, T the tokens that each sees, C candidates, K tokens, D hidden size, V vocabulary.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import Cache, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicLayer

from thinkrec import processes
from thinkrec.lm.loaded import LoadedModel
from thinkrec.lm.model import RecommenderLM
from thinkrec.lm.scoring import weighted_batches
from thinkrec.params import EvaluateParams
from thinkrec.text.layout import Batch

T = TypeVar("T")
Rows = NDArray[np.int64]
Judge = Callable[[int, str], tuple[int, ...]]  # how bad an answer to a row is, the least being best
AT_ONCE = 64  # answers: bounds the memory of what they see


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

    def answer(answers: Answers) -> list[str]:
        if judge is None or decoding.candidates == 1:
            answers.write(decoding)
            return [text for [text] in answers.texts(tokenizer)]
        answers.write(replace(decoding, temperature=0.0, max_new_tokens=1))
        answers.catch_up()
        answers.branch(decoding.candidates)
        answers.write(decoding)
        by_row = zip(answers.rows.tolist(), answers.texts(tokenizer), strict=True)
        return [min(texts, key=partial(judge, row)) for row, texts in by_row]

    return _answer_rows(loaded, rows, answer, progress=progress)


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
    layout, tokenizer, words = loaded.layout, loaded.tokenizer, loaded.layout.vocabulary

    def answer(answers: Answers) -> list[list[Answer]]:
        answers.branch(decoding.candidates)
        answers.write(decoding)
        verdicts = [[words.verdicts[label], *words.rest[label]] for label in layout.label[answers.rows].tolist()]
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

    return _answer_rows(loaded, rows, answer, judged=True)


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

    def answer(answers: Answers) -> list[tuple[str, float]]:
        answers.read(answers.embeddings(stop.expand(len(answers.rows), 1, -1)))
        answers.write(decoding)
        scores = answers.ask_again([question_tokens[row] for row in answers.rows.tolist()])
        texts = [text for [text] in answers.texts(loaded.tokenizer)]
        return list(zip(texts, scores.float().cpu().tolist(), strict=True))

    pairs = _answer_rows(loaded, rows, answer, progress=progress)
    return [text for text, _ in pairs], np.asarray([score for _, score in pairs], np.float32)


def _answer_rows(
    loaded: LoadedModel,
    rows: Rows,
    answer: Callable[[Answers], Sequence[T]],
    *,
    judged: bool = False,
    progress: str | None = None,
) -> list[T]:
    """What `answer` makes of every row, in the order of `rows`: it is called with each batch of them."""
    model, layout, weights = loaded.model.eval(), loaded.layout, loaded.row_weights()
    state = np.zeros(len(rows), np.int64) if weights is None else weights.state[rows].astype(np.int64)
    windows = layout.scoring_windows(rows, state)
    by_row: list[tuple[int, T]] = []
    for batch in weighted_batches(model, layout, windows, weights, targets=AT_ONCE, progress=progress):
        answers = Answers(model, batch, judged=judged)
        if weights is not None:
            weights.set_rows(batch.target_rows)
        by_row += zip(answers.rows.tolist(), answer(answers), strict=True)
    gathered = dict(processes.gather(by_row))
    return [gathered[row] for row in rows.tolist()]


class _Layer(DynamicLayer):
    """Keys and values that grow in place where there is room; else every token would copy all that came before it."""

    keys: Tensor
    values: Tensor
    full: tuple[Tensor, Tensor] | None = None

    def reserve(self, count: int) -> None:
        """Make room for so many tokens."""
        keys, values = (functional.pad(states, (0, 0, 0, count)) for states in (self.keys, self.values))
        length, self.full = self.get_seq_length(), (keys, values)
        self.keys, self.values = keys[:, :, :length], values[:, :, :length]

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Add those of new tokens; returns all."""
        begin = self.get_seq_length()
        end = begin + key_states.shape[2]
        if self.full is None or end > self.full[0].shape[2]:
            return super().update(key_states, value_states, *args, **kwargs)
        keys, values = self.full
        keys[:, :, begin:end], values[:, :, begin:end] = key_states, value_states
        self.keys, self.values = keys[:, :, :end], values[:, :, :end]
        return self.keys, self.values


class Answers:
    """The answers to all targets of a batch, as far as they are written; C candidates of each, at first one.

    If they are `judged`, they go on behind the verdict that the batch has; else they begin with one.
    """

    def __init__(self, model: RecommenderLM, batch: Batch, *, judged: bool = False) -> None:
        self.model = model
        self.at = batch.verdicts  # (B, 2)
        self.rows = batch.target_rows.cpu().numpy()  # (B,) the interactions that they are about
        # Not the model's own kind, which may forget what a mask of ours still shows.
        self.cache = Cache(layer_class_to_replicate=_Layer)
        self.embedded = model.embed(batch)
        states = model.hidden_states(self.embedded, batch.attention_mask, batch.position_ids, self.cache)
        self.match = model.match_texts(states, batch)  # (B,) a part of a verdict's logits
        self.at_verdict = not judged  # whether the next token is the verdict
        sequence, place = self.at.unbind(1)
        if judged:
            words = model.vocabulary
            rest = torch.tensor([len(tokens) for tokens in words.rest], device=place.device)
            place = place + 1 + rest[(batch.input_ids[sequence, place + 1] == words.yes).long()]
            seen = batch.attention_mask[sequence, 0, place]
        else:
            seen = batch.attention_mask[sequence, 0, place + 1].scatter(1, place[:, None] + 1, False)
        self.hidden = states[sequence, place][:, None]  # (B, C, D) that the next token is predicted from
        self.position = batch.position_ids[sequence, place][:, None]  # (B, C) of the last token
        inside = zip(batch.input_ids[sequence], seen, strict=True)
        # (B,) a number for the tokens that each answer sees
        self.prompts = np.asarray([zlib.crc32(ids[seen].cpu().numpy().tobytes()) for ids, seen in inside])
        self.seen = self.keep(sequence, seen)[:, None]  # (B, C, T)
        self.tokens = self.position.new_zeros(len(self.rows), 1, 0)  # (B, C, K) written, padded with end tokens
        self.length = torch.zeros_like(self.position)  # (B, C) how many were written
        # (B, C) whether the end token was, and whether the last token is yet to be read
        self.ended = self.unread = torch.zeros_like(self.position, dtype=torch.bool)

    def keep(self, sequence_B: Tensor, seen: Tensor) -> Tensor:
        """Keep for each answer those keys and values of its sequence that it sees (B, all); says which of them."""
        count = int(seen.sum(1).max())
        kept = seen.byte().argsort(dim=1, descending=True, stable=True)[:, :count]  # (B, T): the seen first, in order
        for layer in self.cache.layers:
            for name in ("keys", "values"):
                states = getattr(layer, name).index_select(0, sequence_B)  # (B, heads, all, size)
                index = kept[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[3])
                setattr(layer, name, states.gather(2, index))  # unlike indexing, added up in one order in learning
        return seen.gather(1, kept)

    def embeddings(self, tokens: Tensor) -> Tensor:
        """Input embeddings of tokens."""
        return self.model.backbone.get_input_embeddings()(tokens)

    def logits(self, which_BC: Tensor) -> Tensor:
        """Logits (k, V) of the next token of these candidates, prompt by prompt."""
        if self.at_verdict:
            match = None if self.match is None else self.match[which_BC.nonzero()[:, 0]]
            return self.model.read_verdicts(self.hidden[which_BC], match)[1]
        return self.model.logits(self.hidden[which_BC])

    def read(self, embedded_BCKD: Tensor, real_BCK: Tensor | None = None) -> Tensor:
        """Go on from these tokens; where they are not `real` they are padding behind a candidate's last one.

        Returns their hidden states (B, C, K, D).
        """
        prompts, count, width, _ = embedded_BCKD.shape
        real = self.seen.new_ones(embedded_BCKD.shape[:3]) if real_BCK is None else real_BCK
        alone = torch.eye(count, dtype=torch.bool, device=real.device)  # of the new tokens each sees its candidate's
        causal = torch.ones(width, width, dtype=torch.bool, device=real.device).tril()
        among = alone[:, None, :, None] & causal[:, None, :] & real[:, None, None]  # (B, C, K, C, K)
        mask = torch.cat([self.seen[:, :, None].expand(-1, -1, width, -1), among.flatten(3)], dim=3).flatten(1, 2)
        position = self.position[..., None] + torch.arange(1, width + 1, device=real.device)
        flat = self.model.hidden_states(embedded_BCKD.flatten(1, 2), mask[:, None], position.flatten(1), self.cache)
        states = flat.view(prompts, count, width, -1)
        self.at_verdict = False
        length = real.sum(2)
        last = (length - 1).clamp(min=0)[..., None, None].expand(-1, -1, 1, states.shape[-1])
        ended = states.gather(2, last).squeeze(2)
        self.hidden = torch.where((length > 0)[..., None], ended, self.hidden)
        self.seen = torch.cat([self.seen, (alone[:, :, None] & real[:, None]).flatten(2)], dim=2)
        self.position = self.position + length
        return states

    def logits_of(self, tokens_BCK: Tensor, real_BCK: Tensor) -> Tensor:
        """The logits (k, V) from which those of these tokens that are `real` would be chosen, in their order."""
        first = self.hidden[:, :, None]
        states = self.read(self.embeddings(tokens_BCK), real_BCK)
        return self.model.logits(torch.cat([first, states[:, :, :-1]], dim=2)[real_BCK])

    def write(self, decoding: Decoding) -> None:
        """Write on until the end token, or `max_new_tokens`; the last stays unread."""
        end = self.model.vocabulary.end
        for layer in self.cache.layers:
            layer.reserve(decoding.max_new_tokens * self.length.shape[1])
        waiting = self.over(decoding)
        draws = self.draws(decoding)
        while not waiting.all():
            self.catch_up()
            token = torch.full_like(self.position, end)
            token[~waiting] = self.choose(decoding, draws, ~waiting)
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

    def draws(self, decoding: Decoding) -> Tensor:
        """Of every candidate and place in its answer (B, C, max_new_tokens) the number that draws the token there."""
        draws = [
            [draws_of(decoding, prompt, candidate) for candidate in range(self.length.shape[1])]
            for prompt in self.prompts.tolist()
        ]
        return torch.from_numpy(np.asarray(draws)).to(self.model.device)

    def choose(self, decoding: Decoding, draws_BCK: Tensor, going_BC: Tensor) -> Tensor:
        """The next tokens of those that go on (k,), prompt by prompt."""
        length = self.length[going_BC]
        return choose(self.logits(going_BC), decoding, draws_BCK[going_BC].gather(1, length[:, None]))

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


def draws_of(decoding: Decoding, prompt: int, candidate: int) -> NDArray[np.float64]:
    """Numbers (max_new_tokens,) above 0 and at most 1; the first candidate's are those of an only one."""
    return 1.0 - np.random.default_rng([decoding.seed, prompt, candidate]).random(decoding.max_new_tokens)


def choose(logits_BV: Tensor, decoding: Decoding, draws_B1: Tensor) -> Tensor:
    """The next tokens (B,): the likeliest at temperature 0, else what these numbers of (0, 1] draw.

    Sampling inverts the distribution function, in double precision.
    """
    if decoding.temperature == 0:
        return logits_BV.argmax(-1)
    probability = (logits_BV.double() / decoding.temperature).softmax(-1)
    if decoding.top_p < 1:
        falling, order = probability.sort(dim=-1, descending=True, stable=True)
        likeliest = falling.cumsum(-1) - falling < decoding.top_p
        likeliest[:, 0] = True
        probability = probability * torch.zeros_like(likeliest).scatter(-1, order, likeliest)
    upto = probability.cumsum(-1)
    return torch.searchsorted(upto, draws_B1 * upto[:, -1:]).squeeze(-1)  # the first whose share reaches the number
