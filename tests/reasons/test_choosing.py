"""Tokens are drawn as often as their probability says."""

import numpy as np
import pytest
import torch

from thinkrec.reasons.decoding import Decoding, choose, draws_of


def drawn(logits, count=20_000, **sampling):
    """How often each token is chosen, over so many rows with the same logits."""
    draws = 1.0 - torch.rand(count, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    chosen = choose(torch.tensor(logits).expand(count, -1), Decoding(max_new_tokens=1, **sampling), draws)
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


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_the_least_and_the_largest_number_draw_tokens_that_can_be(top_p):
    logits = torch.tensor([[-torch.inf, 0.0, 0.3, 0.1, -torch.inf]] * 2)
    draws = torch.tensor([[5e-324], [1.0]], dtype=torch.float64)
    assert choose(logits, Decoding(max_new_tokens=1, temperature=1.0, top_p=top_p), draws).tolist() == [1, 3]


def test_draws_differ_by_prompt_candidate_seed_and_place_and_a_first_candidates_are_an_only_ones():
    def of(prompt, candidate, **other):
        return draws_of(Decoding(max_new_tokens=9, temperature=1.0, candidates=3, **other), prompt, candidate)

    every = np.concatenate([of(1, 0), of(2, 0), of(1, 1), of(1, 0, seed=1)])
    assert len(set(every.tolist())) == 36 and every.min() > 0 and every.max() <= 1
    assert (of(1, 0) == draws_of(Decoding(max_new_tokens=9, temperature=1.0), 1, 0)).all()
