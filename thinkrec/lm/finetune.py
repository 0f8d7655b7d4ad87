"""Supervised fine-tuning on recommending and reasoning, shared by the global model and the experts.

Both sample kinds stand in one pass over the stream. METHOD draws a thinking sample with probability p and a
recommending one otherwise; here every row counts by its kind's share over its kind's frequency, which is the
expectation of that draw without its variance. `trace_weight_cap` bounds how much one trace counts, as the cap on
repeats does in the draw.

Shapes: R targets of a batch, Q reason tokens.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from thinkrec.lm.losses import answer_loss, pairwise_loss, recommendation_loss, sample_loss
from thinkrec.lm.model import RecommenderLM
from thinkrec.lm.scoring import score
from thinkrec.lm.trainer import TrainResult, TrainSettings, train
from thinkrec.metrics import validation
from thinkrec.params import SftParams
from thinkrec.synthesis.verdict import split_verdict
from thinkrec.text.items import encode
from thinkrec.text.layout import Batch, Layout, Window, batches_by_tokens

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
    """The loss of a batch: the four-weight sample loss, each kind by its share, plus the pairwise term.

    `thinking` is the share of an epoch's targets that are met with their trace.
    """

    def __init__(self, model: RecommenderLM, label: NDArray[np.integer], thinking: float, params: SftParams) -> None:
        super().__init__()
        self.model = model
        self.params = params
        self.label = torch.from_numpy(label.astype(np.int64))
        share = params.think_share
        self.think_weight = min(share / thinking, params.trace_weight_cap) if thinking else 0.0
        self.rec_weight = (1 - share) / (1 - thinking) if 0 < thinking < 1 else 1.0

    def forward(self, **tensors: Tensor) -> Tensor:
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
        weight = torch.where(thinking, self.think_weight, self.rec_weight)
        loss = (weight * by_row).mean()
        if self.params.pairwise:
            sequence = batch.verdicts[:, 0]
            loss = loss + self.params.pairwise * pairwise_loss(output.score, label, sequence)
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
    """Train whatever of `model` requires a gradient on `train_rows`; the epoch with the best valid AUC + UAUC stays."""

    def plan(epoch: int) -> list[list[Window]]:
        rng = np.random.default_rng([settings.seed, epoch])
        windows = layout.training_windows(train_rows, rng)
        # Rows, not tokens, make a step: prompts of other lengths take as many steps.
        batches = list(batches_by_tokens(layout, windows, params.batch_tokens, targets=params.batch_rows))
        return [batches[index] for index in rng.permutation(len(batches))]

    with_reason = sum(layout.reasons_shown(window).sum() for batch in plan(0) for window in batch)
    objective = Objective(model, layout.label, float(with_reason / len(train_rows)), params)

    def validate() -> dict[str, float]:
        return validation(user[valid_rows], layout.label[valid_rows], score(model, layout, valid_rows))

    return train(objective, plan, lambda windows: layout.collate(windows).tensors(), validate, settings)
