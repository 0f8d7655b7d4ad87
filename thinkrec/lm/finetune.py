"""Supervised fine-tuning on recommending and reasoning, shared by the global model and the experts.

Both sample kinds stand in one pass over the rows. METHOD draws a thinking sample with probability p and a
recommending one otherwise; here every row counts by its kind's share over its kind's frequency, which is the
expectation of that draw without its variance. `trace_weight_cap` bounds how much one trace counts, as the cap on
repeats does in the draw.

With `reason_first` every thinking sample is met in two orders, so that one model knows both: the verdict and then its
reason, and the reason and then the verdict (`Layout.thinking_first`). For n rows of which k have a trace,

    loss = 1/n (w_rec sum L_recommending + w sum [(1 - reason_first) L_thinking + reason_first L_thinking_first])
    w_rec = (1 - think_share) / (1 - k/n),  w = min(think_share / (k/n), trace_weight_cap)

the first sum over rows without a trace, the second over those with one. In either order a thinking sample's loss is
alpha L_rec + beta L_think: L_rec is read where the verdict is predicted, L_think is the mean over the answer's tokens,
which are the verdict's and the reason's.

Beware: a trace is kept only if its verdict is the label, so a teacher's reason gives the label away, and a reason that
the model samples does not know it. What is learned of the verdict after a reason is how to read the reason, not how
far to trust one's own.

Shapes: R targets of a batch, Q reason tokens.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache, partial

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from thinkrec.lm import processes
from thinkrec.lm.losses import answer_loss, pairwise_loss, recommendation_loss, sample_loss
from thinkrec.lm.model import RecommenderLM
from thinkrec.lm.scoring import score
from thinkrec.lm.steps import WHOLE_STEP, Step, collate, cut, passes, share, steps_by_rows
from thinkrec.lm.trainer import TrainResult, TrainSettings, train
from thinkrec.metrics import log_loss, validation
from thinkrec.params import SftParams
from thinkrec.synthesis.verdict import split_verdict
from thinkrec.text.items import encode
from thinkrec.text.layout import Batch, Layout

Rows = NDArray[np.int64]


def encode_reasons(tokenizer: PreTrainedTokenizerBase, traces: pd.DataFrame) -> dict[int, NDArray[np.int32]]:
    """Tokens of every trace from the full stop after its verdict on, the end token included, by row."""
    parts = [split_verdict(text) for text in traces["text"]]
    encoded = encode(tokenizer, (part[1] if part else "" for part in parts), lead=". ")
    return {
        int(row): np.append(encoded[index], tokenizer.eos_token_id).astype(np.int32)
        for index, row in enumerate(traces["row"].tolist())
    }


class Objective(nn.Module):
    """The loss of a piece of a step: the four-weight sample loss, each kind by its share, plus the pairwise term.

    The pairwise term compares scores that are read before any reason.
    `thinking` is the share of an epoch's rows that are met with their trace. The forward takes a batch's tensors
    and the piece's counts of the step (`steps.Piece`); without them it is the whole step.
    """

    def __init__(self, model: RecommenderLM, label: NDArray[np.integer], thinking: float, params: SftParams) -> None:
        super().__init__()
        self.model = model
        self.params = params
        self.label = torch.from_numpy(label.astype(np.int64))
        share = params.think_share
        both = min(share / thinking, params.trace_weight_cap) if thinking else 0.0
        self.think_weight, self.first_weight = both * (1 - params.reason_first), both * params.reason_first
        self.rec_weight = (1 - share) / (1 - thinking) if 0 < thinking < 1 else 1.0

    def forward(self, targets: Tensor = WHOLE_STEP, pairs: Tensor = WHOLE_STEP, **tensors: Tensor) -> Tensor:
        batch = Batch(**tensors)
        output = self.model(batch)
        label = self.label[batch.target_rows.cpu()].to(output.score.device)
        thinking = torch.zeros_like(label, dtype=torch.bool).index_fill_(0, batch.reason_targets, True)
        words = self.model.vocabulary
        verdict = torch.where(label == 1, words.yes, words.no)
        by_row = sample_loss(
            recommendation_loss(output.score, label),
            answer_loss(
                output.verdict_logits, verdict, output.reason_logits, batch.reason_tokens, batch.reason_targets
            ),
            thinking,
            alpha=self.params.alpha,
            beta=self.params.beta,
            eta=self.params.eta,
            gamma=self.params.gamma,
        )
        plain = ~batch.reason_first  # one for each row
        weight = torch.where(thinking, self.think_weight, self.rec_weight).where(plain, self.first_weight)
        loss = share(targets) * (weight * by_row).mean() / plain.float().mean()
        if self.params.pairwise:
            compared = (each[plain] for each in (output.score, label, batch.verdicts[:, 0]))
            loss = loss + self.params.pairwise * share(pairs) * pairwise_loss(*compared)
        return loss


def finetune(
    model: RecommenderLM,
    layout: Layout,
    *,
    train_rows: Rows,
    valid_rows: Rows,
    user: NDArray[np.integer],
    params: SftParams,
    settings: TrainSettings,
) -> TrainResult:
    """Train whatever of `model` requires a gradient on `train_rows`; the epoch that `settings.metric` says stays.

    What validates, and so chooses it, is the score before any reason.
    """
    taught = replace(layout, thoughts=layout.reasons if params.reason_first else {})

    @lru_cache(maxsize=2)
    def plan(epoch: int) -> list[Step]:
        rng = np.random.default_rng([settings.seed, epoch])
        steps = steps_by_rows(taught, taught.training_windows(train_rows, rng), params.batch_rows)
        return [steps[index] for index in rng.permutation(len(steps))]

    with_reason = sum(taught.reasons_shown(window).sum() for step in plan(0) for window in step)
    objective = Objective(model, layout.label, float(with_reason / len(train_rows)), params)

    def validate() -> dict[str, float]:
        return measures(user[valid_rows], layout.label[valid_rows], score(model, layout, valid_rows))

    return train(
        objective,
        plan,
        partial(collate, taught),
        validate,
        settings,
        cut=partial(cut, taught),
        passes=max(
            passes(taught, plan(epoch), params.batch_tokens, processes.count()) for epoch in range(settings.epochs)
        ),
        inputs=[taught, model.slot_values, user, train_rows, valid_rows, params],
    )


def measures(user: NDArray[np.integer], label: NDArray[np.integer], score: NDArray[np.floating]) -> dict[str, float]:
    """What a phase is validated by: `metrics.validation`, and the log-loss of the scores' probabilities."""
    probability = 1 / (1 + np.exp(-score.astype(np.float64)))
    return validation(user, label, score) | {"log_loss": log_loss(label, probability)}
