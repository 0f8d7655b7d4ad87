"""The losses of the method, one function per equation (METHOD: thinking activation), and a step's loss from them.

The method draws a thinking sample with probability p and a recommending one otherwise. Here every row is a recommending
sample, and a row with a trace is a thinking sample as well. Each kind is weighted by its share over its frequency: the
expectation of that draw, without its variance. TRACE_WEIGHT_CAP bounds how much one trace counts.

With `reason_first` every thinking sample is met in two orders: the verdict and then its reason, and the reason and then
the verdict (`Layout.thinking_first`). For n rows of which k have a trace,

    loss = 1/n (w_rec sum L_recommending + w sum [(1 - reason_first) L_thinking + reason_first L_thinking_first])
    w_rec = 1 - think_share,  w = min(think_share / (k/n), TRACE_WEIGHT_CAP)

the first sum over all rows, the second over those with a trace; without traces w_rec = 1. A recommending sample's loss
is eta L_rec + gamma L_think, L_think over the verdict alone. In either order a thinking sample's is alpha L_rec + beta
L_think: L_rec is read where the verdict is predicted, L_think is the mean over the answer's tokens.

Beware: a trace is kept only if its verdict is the label, so a teacher's reason gives the label away, and a reason that
the model samples does not. A verdict after a reason learns to read it, and not how far to trust the model's own.

Shapes: R targets of a batch, Q reason tokens of a batch.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from thinkrec.lm.model import RecommenderLM
from thinkrec.params import SftParams
from thinkrec.text.layout import Batch

TRACE_WEIGHT_CAP = 4.0  # a trace counts at most as so many plain rows
WHOLE_STEP = torch.ones(2, dtype=torch.int64)  # as good as any counts of all


def recommendation_loss(score_R: Tensor, label_R: Tensor) -> Tensor:
    """L_rec (R,): binary cross-entropy between the label and the sigmoid of the score."""
    return functional.binary_cross_entropy_with_logits(score_R, label_R.to(score_R.dtype), reduction="none")


def answer_loss(verdict_loss_R: Tensor, reason_logits_QV: Tensor, reason_tokens_Q: Tensor, target_Q: Tensor) -> Tensor:
    """L_think (R,): cross-entropy per token of the answer, which is the verdict and, where there is one, its reason.

    `verdict_loss_R` is the verdict's cross-entropy; `target_Q` says which of the R targets a reason token belongs to.
    """
    if not len(reason_tokens_Q):
        return verdict_loss_R
    by_token = functional.cross_entropy(reason_logits_QV, reason_tokens_Q, reduction="none")
    total = verdict_loss_R.index_add(0, target_Q, by_token)
    count = torch.ones_like(verdict_loss_R).index_add(0, target_Q, torch.ones_like(by_token))
    return total / count


def pairwise_loss(score_R: Tensor, label_R: Tensor, sequence_R: Tensor) -> Tensor:
    """Mean softplus of -(liked - disliked) over all pairs of one user's window (ours: it trades AUC for UAUC)."""
    above = (label_R[:, None] == 1) & (label_R[None, :] == 0) & (sequence_R[:, None] == sequence_R[None, :])
    if not above.any():
        return score_R.new_zeros(())
    gap = score_R[:, None] - score_R[None, :]
    return functional.softplus(-gap[above]).mean()


class Objective(nn.Module):
    """The loss of a piece of a step: both kinds' sample losses, each by its share, plus the pairwise term.

    `thinking` is the share of an epoch's rows that come with their trace. The pairwise term compares scores that are
    read before any reason. The forward takes a batch's tensors and the piece's counts (`finetune.Piece`); without
    counts the batch is the whole step.

    With `think_only` the loss is the mean L_think of the rows with a trace. A verdict before its reason then learns to
    be a verdict, -log(P(Yes) + P(No)), and not which one: labels that are predicted from text are learned by heart.
    """

    def __init__(
        self,
        model: RecommenderLM,
        label: NDArray[np.integer],
        thinking: float,
        params: SftParams,
        *,
        think_only: bool = False,
    ) -> None:
        super().__init__()
        self.model, self.params, self.think_only = model, params, think_only
        self.label = torch.from_numpy(label.astype(np.int64))
        think_share = params.think_share if thinking else 0.0
        weight = min(think_share / thinking, TRACE_WEIGHT_CAP) if thinking else 0.0
        if think_only:
            weight = 1 / thinking if thinking else 0.0
        self.think_weight, self.first_weight = weight * (1 - params.reason_first), weight * params.reason_first
        self.rec_weight = 1 - think_share

    def forward(self, targets: Tensor = WHOLE_STEP, pairs: Tensor = WHOLE_STEP, **tensors: Tensor) -> Tensor:
        batch, words, weights = Batch(**tensors), self.model.vocabulary, self.params
        output = self.model(batch)
        label_R = self.label[batch.target_rows.cpu()].to(output.score.device)
        verdict_R = torch.where(label_R == 1, words.yes, words.no)
        verdict_loss_R = functional.cross_entropy(output.verdict_logits, verdict_R, reduction="none")
        rec_loss_R = recommendation_loss(output.score, label_R)
        plain_R = ~batch.reason_first  # targets whose verdict comes first: one for each row
        if self.think_only:
            any_verdict_R = output.verdict_logits.log_softmax(-1)[:, list(words.verdicts)].logsumexp(-1)
            verdict_loss_R = torch.where(plain_R, -any_verdict_R, verdict_loss_R)
        think_loss_R = answer_loss(verdict_loss_R, output.reason_logits, batch.reason_tokens, batch.reason_targets)
        with_reason_R = torch.zeros_like(plain_R).index_fill_(0, batch.reason_targets, True)
        think_weight_R = with_reason_R * torch.where(plain_R, self.think_weight, self.first_weight)
        if self.think_only:
            loss_R = think_weight_R * think_loss_R
        else:
            loss_R = self.rec_weight * plain_R * (weights.eta * rec_loss_R + weights.gamma * verdict_loss_R)
            loss_R = loss_R + think_weight_R * (weights.alpha * rec_loss_R + weights.beta * think_loss_R)
        loss = share_of(targets) * loss_R.mean() / plain_R.float().mean()
        if weights.pairwise and not self.think_only:
            compared = (each[plain_R] for each in (output.score, label_R, batch.verdicts[:, 0]))
            loss = loss + weights.pairwise * share_of(pairs) * pairwise_loss(*compared)
        return loss


def share_of(counts: Tensor) -> Tensor:
    """The share () that the counts (own, all) make; of nothing it is 0."""
    return counts[0] / counts[1].clamp(min=1)
