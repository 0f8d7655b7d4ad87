"""Refinement: the model answers train rows, the checker of claims rewards what is true, and the model learns from that.

A step draws k train rows. The model writes G answers to each, after the verdict that the label says, so that no label
is learned here. An answer is compared with the others to its row (GRPO, Shao et al. 2024; without division by the
rewards' spread and by the answer's length, Liu et al. 2025):

    loss = - 1/(k G L) sum over rows and answers of (R - mean R of the row's answers) sum over tokens of log p(token)

with L the most tokens of an answer. To R - mean R is added, for the tokens of a claim, CREDIT times what it is truer
than the step's claims of its kind are on average: so the blame for a false word falls on that word. Without that
average, a kind of claim that is seldom true would be unlearned as a whole.

Answers are used once, so no ratio of probabilities needs a bound. There is no penalty for leaving the start: so few
steps do not lead far, and one was measured to hinder (docs/log.md).

Answers are learned as they are written (`reasons.decoding.Answers`): the prompts of a user's rows are one sequence,
read once, and the G answers to a row stand side by side behind what they see of it.

Shapes: B rows of a pass, G answers, K tokens, V vocabulary.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from thinkrec import processes
from thinkrec.claims.checker import Checker
from thinkrec.claims.claims import LIKING, Check
from thinkrec.lm.finetune import Step, passes, think_loss
from thinkrec.lm.loaded import LoadedModel
from thinkrec.lm.model import RecommenderLM
from thinkrec.lm.sft import Reasons
from thinkrec.lm.trainer import MUCH, Plan, TrainResult, TrainSettings, kept_by_token, show, train
from thinkrec.params import Params
from thinkrec.reasons.decoding import Answer, Answers, Decoding, sample_answers
from thinkrec.text.layout import Batch, Window

UNSAID = 2
# What they add to the share of true claims.
WHOLLY_TRUE, CONNECTED, TWICE, BARE, AGAINST_ITSELF = 0.5, 0.5, -0.2, -0.5, -0.5
CREDIT = 1.25  # of a true claim over an untrue one, in the advantage of its own tokens
EVERY, MEASURED = 6, 100  # steps between two measurements, and rows of each
USUAL = 0.9  # an answer has at most as many tokens as this share of the learned reasons
_CLAUSE_ENDS = re.compile(r"[;.!?]\s*")


def reward(check: Check, answer: Answer) -> float:
    """How good an answer is, below 2: the share of its claims that is literally true, and what the constants add.

    The share is taken as if UNSAID claims more were untrue, or the surest answer would be the shortest.

    It is 0 for one that is unfinished, or that says nothing of tastes or nothing of the target. An argument is
    connected if it truly names a keyword of the target that the user, as it truly says, liked (of a Yes) or disliked.
    Clauses that are said twice cost by their share; so do titles that were liked or disliked for no keyword, and a
    conclusion against the answer's own verdict.
    """
    claims = check.claims
    of_both = any(claim.of_target for claim in claims) and any(claim.says in LIKING for claim in claims)
    if not (answer.finished and of_both):
        return 0.0
    explained = {title for claim in claims for title in claim.titles}
    bare = sum(claim.kind == "item" and claim.says in LIKING and claim.name not in explained for claim in claims)
    true = [claim for claim in claims if claim.true]
    tastes = {claim.name for claim in true if claim.taste and LIKING[claim.says] == check.verdict}
    connected = any(claim.says == "target" and claim.name in tastes for claim in true)
    clauses = [clause for clause in _CLAUSE_ENDS.split(answer.text.lower()) if clause]
    twice = 1 - len(set(clauses)) / len(clauses)
    return (
        len(true) / (len(claims) + UNSAID)
        + WHOLLY_TRUE * (check.true and not twice and not bare)
        + CONNECTED * connected
        + TWICE * twice
        + BARE * bool(bare)
        + AGAINST_ITSELF * (check.conclusion not in (None, check.verdict))
    )


@dataclass(frozen=True, slots=True)
class Piece:
    """Some windows of a step."""

    step: Step
    windows: list[Window]


class PolicyGradient(nn.Module):
    """The loss of a piece."""

    def __init__(self, model: RecommenderLM) -> None:
        super().__init__()
        self.model = model

    def forward(self, answers: Tensor, advantages: Tensor, **tensors: Tensor) -> Tensor:
        """`answers` (B, G, K) are padded with -1; the `advantages` of their tokens are divided by k G L."""
        written = Answers(self.model, Batch(**tensors), judged=True)
        written.branch(answers.shape[1])
        real = answers >= 0
        logits = written.logits_of(answers.clamp(min=0), real)
        return (advantages[real] * functional.cross_entropy(logits, answers[real], reduction="none")).sum()


Judged = tuple[Answer, NDArray[np.float64]]  # an answer, and the advantage of each of its tokens


@dataclass(frozen=True, slots=True)
class _Group:
    """The answers to one row, and what each is worth."""

    answers: list[Answer]
    checks: list[Check]
    rewards: NDArray[np.float64]

    @classmethod
    def of(cls, row: int, answers: list[Answer], checker: Checker) -> Self:
        """What `checker` makes of these answers to a row."""
        checks = [checker.check(row, answer.text) for answer in answers]
        return cls(answers, checks, np.asarray([reward(*pair) for pair in zip(checks, answers, strict=True)]))

    def judge(self, usual: Mapping[tuple[str, str], float]) -> list[Judged]:
        """Every answer with its tokens' advantages; `usual` is how often claims are true, by kind and what they say.

        Each token but those behind the last claim belongs to the first claim that ends at its own end or later.
        """
        judged = []
        whole = self.rewards - self.rewards.mean()
        for answer, check, of_answer in zip(self.answers, self.checks, whole, strict=True):
            of_claim = np.searchsorted(np.maximum.accumulate([0, *check.ends])[1:], answer.ends)
            worth = np.asarray([*(claim.true - usual[claim.kind, claim.says] for claim in check.claims), 0.0])
            judged.append((answer, of_answer + CREDIT * worth[of_claim]))
        return judged


def usually_true(groups: Iterable[_Group]) -> dict[tuple[str, str], float]:
    """The share of true ones among the claims of these answers, by kind and what they say."""
    truth: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for claim in (claim for group in groups for check in group.checks for claim in check.claims):
        truth[claim.kind, claim.says].append(claim.true)
    return {what: float(np.mean(true)) for what, true in truth.items()}


def _measures(groups: Sequence[_Group]) -> dict[str, float]:
    """Means over the answers; none, NaN, without any."""
    checks = [check for group in groups for check in group.checks]
    if not checks:
        return dict.fromkeys(("reward", "wholly_true", "claims", "tokens"), float("nan"))
    return {
        "reward": float(np.mean([group.rewards for group in groups])),
        "wholly_true": float(np.mean([check.true for check in checks])),
        "claims": float(np.mean([len(check.claims) for check in checks])),
        "tokens": float(np.mean([len(answer.tokens) for group in groups for answer in group.answers])),
    }


def refine(loaded: LoadedModel, params: Params, checker: Checker, *, held_out: Reasons, name: str) -> TrainResult:
    """Refine whatever of the model requires a gradient, on train rows that are not `held_out`.

    Every EVERY steps, greedy answers to some rows held out are measured (`reward`, `wholly_true`, and mean numbers of
    `claims` and `tokens`), and how well their own reasons are still predicted (`think_loss`). The log has the same of
    every step's sampled answers, and the share of its rows whose answers were all worth the same.
    """
    how, layout = params.refine, loaded.layout
    longest = int(np.quantile([len(tokens) for tokens in layout.reasons.values()], USUAL))
    rows, plain = np.setdiff1d(loaded.rows("train"), list(held_out)), replace(layout, reasons={})
    sampling = Decoding(max_new_tokens=longest, temperature=1.0, candidates=how.answers, seed=params.seed)
    greedy = replace(sampling, temperature=0.0, candidates=1)
    steps = [min(EVERY, how.steps - done) for done in range(0, how.steps, EVERY)]  # between two measurements
    written: tuple[Step, dict[int, list[Judged]]] = ([], {})  # the step at hand and, by row, its answers
    objective = PolicyGradient(loaded.model)
    tokens = MUCH // 4 // max(kept_by_token(objective, loaded.model.backbone), 1)  # a pass; logits take as much again

    def lengths(windows: Sequence[Window]) -> NDArray[np.int64]:
        answered = np.asarray([window.target.sum() for window in windows])
        return plain.lengths(windows) + answered * how.answers * longest

    whole = layout.scoring_windows(rows, np.zeros(len(rows), np.int64))
    most = np.maximum((tokens - plain.lengths(whole)) // (how.answers * longest), 1)  # targets that a pass has room for

    def parts(index: int) -> Iterator[Window]:
        window, targets = whole[index], np.flatnonzero(whole[index].target)
        for part in np.split(targets, range(most[index], len(targets), most[index])):
            yield replace(window, target=np.isin(np.arange(len(window.rows)), part))

    def steps_of(epoch: int) -> list[Step]:
        drawn = np.random.default_rng([params.seed, epoch]).permutation(len(whole))
        windows = [part for index in drawn for part in parts(index)]
        ends = np.cumsum([window.target.sum() for window in windows])
        edges = np.searchsorted(ends, how.rows * np.arange(steps[epoch] + 1))
        return [windows[first:last] for first, last in pairwise(edges) if first < last] or [windows[:1]]

    def answer(asked: Sequence[int], decoding: Decoding) -> dict[int, _Group]:
        answers = sample_answers(loaded, np.asarray(asked, np.int64), decoding)
        return {row: _Group.of(row, group, checker) for row, group in zip(asked, answers, strict=True)}

    def answers_of(step: Step) -> dict[int, list[Judged]]:
        nonlocal written
        if step is not written[0]:  # its first piece is asked for: the model has learned from the step before
            asked = [row for window in step for row in window.rows[window.target].tolist()]
            groups = answer(asked, sampling)
            usual = usually_true(groups.values())
            written = step, {row: group.judge(usual) for row, group in groups.items()}
            alike = float(np.mean([np.ptp(group.rewards) == 0 for group in groups.values()]))
            show(f"{name}: of sampled answers", _measures(list(groups.values())) | {"rows_without_spread": alike})
        return written[1]

    def cut(step: Step, pieces: int) -> list[Piece]:
        return [Piece(step, [step[index] for index in part]) for part in np.array_split(np.arange(len(step)), pieces)]

    def collate(piece: Piece) -> dict[str, Tensor]:
        judged = answers_of(piece.step)
        batch = plain.collate(piece.windows or piece.step[:1])
        answers = torch.full((len(batch.target_rows), how.answers, longest), -1)
        advantages = torch.zeros(answers.shape)
        for target, row in enumerate(batch.target_rows.tolist()):
            for number, (each, advantage) in enumerate(judged[row]):
                answers[target, number, : len(advantage)] = torch.tensor(each.tokens)
                advantages[target, number, : len(advantage)] = torch.from_numpy(advantage)
        counted = bool(piece.windows) / (len(judged) * how.answers * longest)
        return {"answers": answers, "advantages": advantages * counted, **batch.tensors()}

    def validate() -> dict[str, float]:
        asked = np.random.default_rng(params.seed).permutation(sorted(held_out))[:MEASURED].tolist()
        untaught = {"think_loss": think_loss(loaded.model, replace(layout, reasons=held_out))}
        return _measures(list(answer(asked, greedy).values())) | untaught

    every_step = [step for epoch in range(len(steps)) for step in steps_of(epoch)]
    plan = Plan(
        steps=steps_of,
        collate=collate,
        cut=cut,
        passes=passes(lengths, every_step, tokens, processes.count()),
        cached=True,
        inputs=[layout, held_out, loaded.model.slot_values, rows, how, checker.titles, checker.keywords],
    )
    settings = TrainSettings(
        name=name,
        epochs=len(steps),
        learning_rate=how.learning_rate,
        weight_decay=0.0,
        seed=params.seed,
        metric="reward",
        trainer=params.trainer,
    )
    return train(objective, plan, validate, settings)
