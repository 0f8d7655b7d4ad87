"""Tokens are drawn as often as their probability says."""

import numpy as np
import pytest
import torch

from thinkrec.reasons.decoding import Decoding, choose


def drawn(logits, count=20_000, **sampling):
    """How often each token is chosen, over so many rows with the same logits."""
    decoding = Decoding(max_new_tokens=1, seed=1, **sampling)
    nought = np.zeros(count, np.int64)
    chosen = choose(torch.tensor(logits).expand(count, -1), decoding, np.arange(count), nought, nought)
    return np.bincount(chosen.numpy(), minlength=len(logits)) / count


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_tokens_are_drawn_as_often_as_their_probability_says(temperature):
    logits = [0.3, -1.0, 2.0, 0.0, -torch.inf, 1.1]
    expected = (torch.tensor(logits) / temperature).softmax(0).numpy()
    error = np.sqrt(expected * (1 - expected) / 20_000)
    assert (np.abs(drawn(logits, temperature=temperature) - expected) <= 4 * error).all()


def test_top_p_keeps_the_likeliest_tokens_that_reach_it_in_their_proportions():
    logits = np.log([0.1, 0.5, 0.15, 0.25]).tolist()
    assert drawn(logits, temperature=1.0, top_p=0.74) == pytest.approx([0, 2 / 3, 0, 1 / 3], abs=0.015)
    assert drawn(logits, temperature=1.0, top_p=0.76) == pytest.approx([0, 5 / 9, 1.5 / 9, 2.5 / 9], abs=0.015)
    assert drawn(logits, temperature=1.0, top_p=0.4).tolist() == [0, 1, 0, 0]
    assert drawn(logits, temperature=0.0).tolist() == [0, 1, 0, 0]


def test_an_answers_draws_differ_from_token_to_token():
    decoding = Decoding(max_new_tokens=2, temperature=1.0)
    nought = np.zeros(50, np.int64)
    first, second = (choose(torch.zeros(50, 1000), decoding, np.arange(50), nought + step, nought) for step in (0, 1))
    assert (first == second).sum() <= 2 and len(set(first.tolist())) > 40
