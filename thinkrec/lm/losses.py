"""The losses of the method, one function per equation (METHOD: thinking activation).

Shapes: R targets of a batch, Q reason tokens of a batch.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


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
