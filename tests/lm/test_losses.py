"""Each loss worked out by hand."""

from __future__ import annotations

from math import exp, log

import pytest
import torch

from thinkrec.lm.losses import answer_loss, pairwise_loss, recommendation_loss


def test_recommendation_loss_is_binary_cross_entropy_on_the_score() -> None:
    loss = recommendation_loss(torch.tensor([0.0, 2.0, 2.0]), torch.tensor([1, 1, 0]))
    assert loss.tolist() == pytest.approx([log(2), log(1 + exp(-2)), log(1 + exp(2))])


def test_answer_loss_is_the_mean_over_the_verdict_and_its_reason() -> None:
    said = torch.tensor([log(2), log(4 / 3)])
    reasons = torch.tensor([[0.0, log(7)], [0.0, 0.0]])
    loss = answer_loss(said, reasons, torch.tensor([1, 0]), torch.tensor([1, 1]))
    # Target 0 has its verdict alone; target 1 a verdict at 3/4 and tokens at 7/8 and 1/2.
    assert loss.tolist() == pytest.approx([log(2), (log(4 / 3) + log(8 / 7) + log(2)) / 3])


def test_answer_loss_without_any_reason_is_the_verdicts() -> None:
    none = torch.zeros(0, dtype=torch.long)
    loss = answer_loss(torch.tensor([log(4)]), torch.zeros(0, 2), none, none)
    assert loss.tolist() == pytest.approx([log(4)])


def test_pairwise_loss_compares_within_a_sequence_only() -> None:
    score, label = torch.tensor([1.0, 0.0, 5.0, -1.0]), torch.tensor([1, 0, 0, 1])
    one = pairwise_loss(score, label, torch.tensor([0, 0, 1, 2]))
    assert float(one) == pytest.approx(log(1 + exp(-1)))
    two = pairwise_loss(score, label, torch.tensor([0, 0, 1, 1]))
    assert float(two) == pytest.approx((log(1 + exp(-1)) + log(1 + exp(6))) / 2)


def test_pairwise_loss_without_a_pair_is_zero_and_has_a_gradient_to_give() -> None:
    score = torch.ones(2, requires_grad=True)
    assert float(pairwise_loss(score, torch.tensor([1, 1]), torch.tensor([0, 0]))) == 0
