"""Hybrid recommenders: an item is its own vector plus the mean of its keywords', so new items have vectors."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.features.worlds import ITEMS, KNOWN_ITEMS, fitted, params_of, planted, ratings_of
from thinkrec.features.hybrid import HybridMF, HybridSASRec
from thinkrec.features.models import refit_model
from thinkrec.metrics import auc
from thinkrec.shown import LONGEST_KEYWORD

HYBRIDS = {"hybrid_mf": "mf", "hybrid_sasrec": "sasrec"}  # and what each extends
every_hybrid = pytest.mark.parametrize("kind", HYBRIDS)
KEYWORDS = [["even"] if item % 2 == 0 else ["odd", "strange"] for item in range(ITEMS)]


def fit_on(ratings, kind, *, epochs=12):
    return refit_model(kind, ratings, planted()[1], params_of(kind), epochs=epochs, seed=1)


def model_of(keywords, *, decay=0.0, keyword_decay=0.0):
    """Of one user who likes items 0 and 1, in this order, with random vectors of two dimensions."""
    ratings = replace(ratings_of([0, 0], [0, 1], [1, 1], items=len(keywords)), keywords=keywords)
    model = HybridMF(ratings, np.arange(2), params_of("hybrid_mf", weight_decay=decay), seed=0)
    model.keyword_decay = keyword_decay
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))
    return model


def test_an_item_is_its_own_vector_plus_the_mean_of_its_keywords():
    model = model_of([["a", "b"], [], ["b", "c", "a"]])
    items, own, words = model.items(), model.item.detach().numpy(), model.keyword.detach().numpy()
    a, b, c = words[1:]  # numbered as they first stand in the lists
    np.testing.assert_allclose(items.vectors, [own[0] + (a + b) / 2, own[1], (a + b + c) / 3], atol=1e-6)
    own, words = model.item_bias.detach().numpy(), model.keyword_bias.detach().numpy()[:, 0]
    wanted = [own[0] + words[1:3].mean(), own[1], words[1:].mean()]  # the fit never saw the last item
    np.testing.assert_allclose(items.biases, wanted, atol=1e-6)


def test_keywords_are_those_that_readers_are_shown_each_once():
    long = "x" * LONGEST_KEYWORD
    model = model_of([[f"{long}1", f"{long}2", "a"], [" a ", long], ["b\n"]])
    assert model.keywords.tolist() == [[1, 2], [2, 1], [3, 0]]


def test_what_the_keywords_say_has_a_penalty_of_its_own():
    plain, decayed = (model_of([["a", "b"], []], decay=weight, keyword_decay=2 * weight) for weight in (0.0, 0.5))
    words, word_biases = (weight.detach().numpy()[1:] for weight in (plain.keyword, plain.keyword_bias))
    parts = [plain.user[0], plain.user_bias[0], plain.item[0], plain.item_bias[0]]
    squares = sum(float(part.detach().square().sum()) for part in parts)
    squares += 2 * (np.square(words.mean(0)).sum() + np.square(word_biases.mean(0)).sum())
    batch = torch.tensor([0])
    assert (decayed.loss(batch) - plain.loss(batch)).item() == pytest.approx(0.5 * squares, rel=1e-4)


@every_hybrid
def test_without_keywords_it_is_the_plain_model(kind):
    ratings = planted()[0]
    plain = fit_on(ratings, HYBRIDS[kind], epochs=2)
    for keywords in ([], [[]] * ITEMS):
        hybrid = fit_on(replace(ratings, keywords=keywords), kind, epochs=2)
        np.testing.assert_array_equal(hybrid.items().vectors, plain.items().vectors)
        np.testing.assert_array_equal(hybrid.fitted_users(), plain.fitted_users())


@every_hybrid
def test_items_that_the_fit_never_saw_are_told_apart_by_their_keywords(kind):
    ratings, _, later = planted()
    model = fit_on(replace(ratings, keywords=KEYWORDS), kind)
    new = replace(
        ratings, item=np.where(np.arange(len(ratings.item)) % 5, ratings.item, KNOWN_ITEMS + ratings.item % 2)
    )
    rows = later[later % 5 == 0]
    assert set(new.item[rows]) == set(range(KNOWN_ITEMS, ITEMS))
    assert auc(new.label[rows], model.logits(new, rows)) > 0.95
    assert auc(new.label[rows], fit_on(ratings, HYBRIDS[kind]).logits(new, rows)) < 0.75  # users like more or less


@every_hybrid
def test_a_keyword_of_no_item_of_the_fit_says_nothing(kind):
    named = [*KEYWORDS[:KNOWN_ITEMS], ["new"], []]
    items = fit_on(replace(planted()[0], keywords=named), kind, epochs=2).items()
    assert (items.vectors[KNOWN_ITEMS:] == 0).all() and (items.biases[KNOWN_ITEMS:] == 0).all()


def test_a_past_of_new_items_makes_a_state_by_their_keywords():
    model = fit_on(replace(planted()[0], keywords=KEYWORDS), "hybrid_sasrec", epochs=2)
    assert isinstance(model, HybridSASRec)
    start, end = np.zeros(1, np.int64), np.ones(1, np.int64)
    states = [
        model.states(ratings_of([0], [item], [1], items=ITEMS), start, end)[0] for item in range(KNOWN_ITEMS, ITEMS)
    ]
    assert np.abs(states[0] - states[1]).max() > 1e-3
    plain = fitted("sasrec", epochs=2)
    alike = [
        plain.states(ratings_of([0], [item], [1], items=ITEMS), start, end)[0] for item in range(KNOWN_ITEMS, ITEMS)
    ]
    np.testing.assert_array_equal(*alike)
