"""Supervised fine-tuning on recommending and reasoning, shared by the global model and the experts.

The method draws a thinking sample with probability p and a recommending one otherwise. Here every row is a recommending
sample, and a row with a trace is a thinking sample as well. Each kind is weighted by its share over its frequency: the
expectation of that draw, without its variance. TRACE_WEIGHT_CAP bounds how much one trace counts.

With `reason_first` every thinking sample is met in two orders, so that one model knows both: the verdict and then its
reason, and the reason and then the verdict (`Layout.thinking_first`). For n rows of which k have a trace,

    loss = 1/n (w_rec sum L_recommending + w sum [(1 - reason_first) L_thinking + reason_first L_thinking_first])
    w_rec = 1 - think_share,  w = min(think_share / (k/n), TRACE_WEIGHT_CAP)

the first sum over all rows, the second over those with a trace; without traces w_rec = 1. A recommending sample's loss
is eta L_rec + gamma L_think, L_think over the verdict alone. In either order a thinking sample's is alpha L_rec + beta
L_think: L_rec is read where the verdict is predicted, L_think is the mean over the answer's tokens, which are the
verdict's and the reason's.

Beware: a trace is kept only if its verdict is the label, so a teacher's reason gives the label away. A reason that the
model samples does not know the label. A verdict after a reason therefore learns to read the reason, and not how far to
trust the model's own.

Shapes: R targets of a batch, Q reason tokens.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from thinkrec.claims.answers import split_verdict
from thinkrec.lm import processes
from thinkrec.lm.losses import answer_loss, pairwise_loss, recommendation_loss
from thinkrec.lm.model import RecommenderLM
from thinkrec.lm.scoring import score, weighted_batches
from thinkrec.lm.steps import WHOLE_STEP, Step, collate, cut, passes, share, steps_by_rows
from thinkrec.lm.trainer import Plan, TrainResult, TrainSettings, train
from thinkrec.metrics import log_loss, sigmoid, validation
from thinkrec.params import SftParams
from thinkrec.text.items import encode
from thinkrec.text.layout import Batch, Layout

Rows = NDArray[np.int64]
TRACE_WEIGHT_CAP = 4.0  # a trace counts at most as so many plain rows


def encode_reasons(tokenizer: PreTrainedTokenizerBase, traces: pd.DataFrame) -> dict[int, NDArray[np.int32]]:
    """Tokens of every trace from the full stop after its verdict on, the end token included, by row."""
    encoded = encode(tokenizer, (split_verdict(text)[1] for text in traces["text"]), lead=". ")
    return {
        int(row): np.append(encoded[index], tokenizer.eos_token_id).astype(np.int32)
        for index, row in enumerate(traces["row"].tolist())
    }


class Objective(nn.Module):
    """The loss of a piece of a step: both kinds' sample losses, each by its share, plus the pairwise term.

    The pairwise term compares scores that are read before any reason. `thinking` is the share of an epoch's rows that
    come with their trace. The forward takes a batch's tensors and the piece's counts (`steps.Piece`); without counts
    the batch is the whole step.
    """

    def __init__(self, model: RecommenderLM, label: NDArray[np.integer], thinking: float, params: SftParams) -> None:
        super().__init__()
        self.model = model
        self.params = params
        self.label = torch.from_numpy(label.astype(np.int64))
        think_share = params.think_share if thinking else 0.0
        weight = min(think_share / thinking, TRACE_WEIGHT_CAP) if thinking else 0.0
        self.think_weight, self.first_weight = weight * (1 - params.reason_first), weight * params.reason_first
        self.rec_weight = 1 - think_share

    def forward(self, targets: Tensor = WHOLE_STEP, pairs: Tensor = WHOLE_STEP, **tensors: Tensor) -> Tensor:
        batch = Batch(**tensors)
        output = self.model(batch)
        label, verdict_loss_R = _verdict_losses(self.model, batch, self.label, output.verdict_logits)
        rec_loss_R = recommendation_loss(output.score, label)
        think_loss_R = answer_loss(verdict_loss_R, output.reason_logits, batch.reason_tokens, batch.reason_targets)
        plain = ~batch.reason_first  # targets whose verdict comes first: one for each row
        think_weight = _with_reason(batch) * torch.where(plain, self.think_weight, self.first_weight)
        loss_R = self.rec_weight * plain * (self.params.eta * rec_loss_R + self.params.gamma * verdict_loss_R)
        loss_R = loss_R + think_weight * (self.params.alpha * rec_loss_R + self.params.beta * think_loss_R)
        loss = share(targets) * loss_R.mean() / plain.float().mean()
        if self.params.pairwise:
            compared = (each[plain] for each in (output.score, label, batch.verdicts[:, 0]))
            loss = loss + self.params.pairwise * share(pairs) * pairwise_loss(*compared)
        return loss


class ThinkingObjective(nn.Module):
    """The loss of a piece in a phase that learns reasons alone: the mean L_think of the rows with a trace.

    A verdict before its reason learns to be a verdict, -log(P(Yes) + P(No)), and not which one: labels that are
    predicted from text are learned by heart. `thinking` is the share of an epoch's rows that come with their trace,
    `reason_first` the weight of traces whose reason comes before the verdict.
    """

    def __init__(self, model: RecommenderLM, label: NDArray[np.integer], thinking: float, reason_first: float) -> None:
        super().__init__()
        self.model = model
        self.label = torch.from_numpy(label.astype(np.int64))
        weight = 1 / thinking if thinking else 0.0
        self.think_weight, self.first_weight = weight * (1 - reason_first), weight * reason_first

    def forward(self, targets: Tensor = WHOLE_STEP, pairs: Tensor = WHOLE_STEP, **tensors: Tensor) -> Tensor:
        batch = Batch(**tensors)
        output = self.model(batch)
        _, verdict_loss_R = _verdict_losses(self.model, batch, self.label, output.verdict_logits)
        any_verdict = output.verdict_logits.log_softmax(-1)[:, list(self.model.vocabulary.verdicts)].logsumexp(-1)
        plain = ~batch.reason_first
        verdict_loss_R = torch.where(plain, -any_verdict, verdict_loss_R)
        think_loss_R = answer_loss(verdict_loss_R, output.reason_logits, batch.reason_tokens, batch.reason_targets)
        think_weight = _with_reason(batch) * torch.where(plain, self.think_weight, self.first_weight)
        return share(targets) * (think_weight * think_loss_R).mean() / plain.float().mean()


def _verdict_losses(model: RecommenderLM, batch: Batch, label: Tensor, logits_RV: Tensor) -> tuple[Tensor, Tensor]:
    """The targets' labels (R,), and the cross-entropy (R,) of the verdicts that state them."""
    label_R = label[batch.target_rows.cpu()].to(logits_RV.device)
    verdict_R = torch.where(label_R == 1, model.vocabulary.yes, model.vocabulary.no)
    return label_R, functional.cross_entropy(logits_RV, verdict_R, reduction="none")


def _with_reason(batch: Batch) -> Tensor:
    """Which targets (R,) have a reason to be learned."""
    return torch.zeros_like(batch.reason_first).index_fill_(0, batch.reason_targets, True)


def finetune(
    model: RecommenderLM,
    layout: Layout,
    *,
    train_rows: Rows,
    valid_rows: Rows,
    user: NDArray[np.integer],
    params: SftParams,
    settings: TrainSettings,
    think_only: bool = False,
    untaught: Layout | None = None,
) -> TrainResult:
    """Train whatever of `model` requires a gradient on `train_rows`; the best epoch by `settings.metric` stays.

    Validation measures the scores of `valid_rows`, which are read before any reason. With a layout `untaught`, whose
    reasons are not `layout`'s, it also measures how well those are predicted (`think_loss`). With `think_only` reasons
    alone are learned.
    """
    taught = replace(layout, thoughts=layout.reasons if params.reason_first else {})

    def steps_of(epoch: int) -> list[Step]:
        rng = np.random.default_rng([settings.seed, epoch])
        steps = steps_by_rows(taught, taught.training_windows(train_rows, rng), params.batch_rows)
        return [steps[index] for index in rng.permutation(len(steps))]

    with_reason = sum(taught.reasons_shown(window).sum() for step in steps_of(0) for window in step)
    thinking = float(with_reason / len(train_rows))
    objective = (
        ThinkingObjective(model, layout.label, thinking, params.reason_first)
        if think_only
        else Objective(model, layout.label, thinking, params)
    )

    def validate() -> dict[str, float]:
        of_scores = measures(user[valid_rows], layout.label[valid_rows], score(model, layout, valid_rows))
        return of_scores if untaught is None else of_scores | {"think_loss": think_loss(model, untaught)}

    plan = Plan(
        steps=steps_of,
        collate=partial(collate, taught),
        cut=partial(cut, taught),
        passes=max(
            passes(taught, steps_of(epoch), params.batch_tokens, processes.count()) for epoch in range(settings.epochs)
        ),
        inputs=[taught, untaught, model.slot_values, user, train_rows, valid_rows, params, think_only],
    )
    return train(objective, plan, validate, settings)


@torch.inference_mode()
def think_loss(model: RecommenderLM, layout: Layout) -> float:
    """Mean cross-entropy, in nats, of a token of the layout's reasons, each after its verdict; NaN without any."""
    model.eval()
    rows = np.asarray(sorted(layout.reasons), np.int64)
    windows = layout.scoring_windows(rows, np.arange(len(rows)))  # each is a sequence with one target
    by_batch = []
    for batch in weighted_batches(model, layout, windows):
        loss = functional.cross_entropy(model(batch).reason_logits.float(), batch.reason_tokens, reduction="sum")
        by_batch.append((float(loss), len(batch.reason_tokens)))
    total, tokens = (sum(part) for part in zip(*processes.gather(by_batch), strict=True)) if len(rows) else (0.0, 0)
    return total / tokens if tokens else float("nan")


def measures(user: NDArray[np.integer], label: NDArray[np.integer], score: NDArray[np.floating]) -> dict[str, float]:
    """What a phase is validated by: `metrics.validation`, and the log-loss of the scores' probabilities."""
    return validation(user, label, score) | {"log_loss": log_loss(label, sigmoid(score))}
