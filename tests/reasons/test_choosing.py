"""Tokens are drawn as often as their probability says; the pieces that sentences are judged and steered by."""

import numpy as np
import pytest
import torch

from tests.builders import tokenizer
from thinkrec.reasons.decoding import Decoding, choose, next_of, sentence_ends, word_tokens


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


def test_a_wanted_word_is_data():
    words = tokenizer()
    assert word_tokens(words, "") == []
    for word in ("Yes", "no Yes", words.eos_token):
        tokens = word_tokens(words, word)
        assert words.decode(tokens) == f" {word}" and words.eos_token_id not in tokens


@pytest.mark.parametrize(
    ("word", "written", "token"),
    [
        ([], [], None),
        ([], [7], None),
        ([7], [], 7),
        ([7], [8], 7),
        ([7], [7], None),
        ([7], [8, 7, 9], None),
        ([7, 8, 9], [7], 8),
        ([7, 8, 9], [7, 8], 9),
        ([7, 8, 9], [8, 7], 8),
        ([7, 8, 9], [7, 9], 7),
        ([7, 8, 9], [1, 7, 8, 9, 1], None),
        ([7, 7, 8], [7, 7, 7], 8),
    ],
)
def test_the_next_token_of_a_word_goes_on_with_it_or_begins_it(word, written, token):
    assert next_of(word, written) == token


def test_sentences_end_where_a_token_ends_with_a_mark():
    words = tokenizer()
    ends = sentence_ends(words, 400)
    assert len(ends) == 400 and not ends[len(words) :].any()
    assert ends[words(". ", add_special_tokens=False)["input_ids"][0]]
    assert not ends[words.eos_token_id] and not ends[words(" Yes", add_special_tokens=False)["input_ids"]].any()
