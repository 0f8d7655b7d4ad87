"""SASRec reads a bounded window of strictly earlier rows; gSASRec's loss by hand."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.features.worlds import fitted, params_of, planted, ratings_of
from thinkrec.features import sasrec
from thinkrec.features.sasrec import GSASRec, SASRec

few = settings(max_examples=25, deadline=None)
HISTORY, LONGEST, ITEMS, KNOWN_ITEMS = 3, 14, 9, 6


@cache
def random_model():
    """A model whose every weight matters, over one long history; items beyond KNOWN_ITEMS are not in the fit."""
    ratings = long_history(0)
    rows = np.flatnonzero(ratings.item < KNOWN_ITEMS)
    params = params_of("sasrec", history=HISTORY)
    model = SASRec(ratings, rows, params, seed=0).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in (model.item, model.label, model.position, model.item_bias):
            weight.copy_(torch.randn(weight.shape, generator=generator))
    assert set(ratings.item[rows]) == set(range(KNOWN_ITEMS))
    return model


def long_history(seed):
    """One user's LONGEST random rows, the first of which are of each item in turn."""
    rng = np.random.default_rng(seed)
    item = [*range(ITEMS), *rng.integers(0, ITEMS, LONGEST - ITEMS).tolist()]
    return ratings_of([0] * LONGEST, item, rng.integers(0, 2, LONGEST).tolist(), items=ITEMS)


def state(ratings, length):
    """The user's vector (d,) after the first `length` rows."""
    return random_model().states(ratings, np.asarray([0]), np.asarray([length]))[0][0]


def changed(ratings, name, row, value):
    column = getattr(ratings, name).copy()
    column[row] = value
    return replace(ratings, **{name: column})


@pytest.mark.parametrize("length", range(1, LONGEST + 1))
def test_a_state_sees_between_history_and_twice_that_or_all_there_is(length):
    ratings = long_history(0)
    before = state(ratings, length)
    moves = [
        np.abs(state(changed(ratings, "label", row, 1 - ratings.label[row]), length) - before).max() > 1e-4
        for row in range(LONGEST)
    ]
    seen = sum(moves)
    assert moves == [length - seen <= row < length for row in range(LONGEST)]  # the last rows of the history
    assert seen == length if length < 2 * HISTORY else HISTORY <= seen <= 2 * HISTORY - 1


def test_the_order_of_a_history_matters():
    """Positions tell it: a single block, as here, sees its input as a set."""
    states = []
    for item, label in [([0, 1, 2], [1, 0, 1]), ([1, 0, 2], [0, 1, 1])]:
        ratings = ratings_of([0, 0, 0], item, label, items=ITEMS)
        states.append(planted_model().states(ratings, np.asarray([0]), np.asarray([3]))[0])
    assert np.abs(states[0] - states[1]).max() > 1e-3


@few
@given(st.integers(0, 99), st.integers(1, LONGEST), st.integers(KNOWN_ITEMS, ITEMS - 1))
def test_items_that_the_fit_never_saw_are_all_alike(seed, length, other):
    ratings = long_history(seed)
    swapped = np.where(ratings.item >= KNOWN_ITEMS, other, ratings.item)
    np.testing.assert_allclose(state(replace(ratings, item=swapped), length), state(ratings, length), atol=1e-6)


def test_an_item_that_the_fit_never_saw_still_tells_its_label():
    liked = ratings_of([0], [ITEMS - 1], [1], items=ITEMS)
    assert np.abs(state(liked, 1) - state(changed(liked, "label", 0, 0), 1)).max() > 1e-3


@cache
def planted_model():
    model = fitted("sasrec", epochs=2)
    assert isinstance(model, SASRec)
    return model


def test_an_epoch_holds_every_row_with_a_history_once_and_few_sequences_at_a_time():
    ratings, train, _ = planted()
    batches = planted_model().batches(torch.Generator().manual_seed(0))
    rows = np.concatenate(batches)
    assert sorted(rows) == train[ratings.end[train] > ratings.start[train]].tolist()
    assert len(batches) > 1
    length, history = ratings.end - ratings.start, planted_model().params.history
    for batch in batches:  # rows of a user share a sequence if their histories are equally many windows longer than one
        window = np.maximum(length[batch] - history, 0) // history
        assert len(set(zip(ratings.user[batch], window, strict=True))) <= sasrec.BATCH


def test_the_loss_is_the_cross_entropy_of_the_logits():
    ratings, train, _ = planted()
    model = planted_model()
    rows = train[ratings.end[train] > ratings.start[train]][::5]
    logits = model.logits(ratings, rows).astype(np.float64)
    entropy = np.logaddexp(0, np.where(ratings.label[rows] == 1, -logits, logits)).mean()
    assert model.loss(rows).item() == pytest.approx(entropy, abs=1e-5)


def generalised(negatives, calibration):
    """Five known items that are all alike, whichever are drawn, and a sixth, unknown, that would be ruinous to draw."""
    ratings = ratings_of([0] * 5, range(5), [1, 0, 1, 0, 1], items=6)
    params = params_of("gsasrec", dim=2)
    model = GSASRec(ratings, np.arange(5), params, seed=0)
    model.negatives, model.calibration, model.bias = negatives, calibration, -0.5
    with torch.no_grad():
        model.item[:], model.item_bias[:] = torch.tensor([1.0, -1.0]), 0.25
        model.item_bias[5] = 1e6
    return model


@pytest.mark.parametrize(
    ("negatives", "calibration", "beta"),
    [
        (1, 0.0, 1.0),
        (1, 1.0, 0.25),  # one of four: a = 1 / 4
        (2, 0.5, 0.75),  # 1 / 2 (1 / 2 (1 - 2) + 2)
        (1, 0.5, 0.625),  # 1 / 4 (1 / 2 (1 - 4) + 4)
        (4, 0.7, 1.0),
        (9, 0.7, 1.0),  # more draws than there are items: nothing to take back
    ],
)
def test_the_generalised_cross_entropy_by_hand(negatives, calibration, beta):
    model = generalised(negatives=negatives, calibration=calibration)
    states = torch.tensor([[2.0, 1.0], [0.0, 3.0]])
    drawn = [-0.5 + 0.25 + 1.0, -0.5 + 0.25 - 3.0]  # what every draw's logit is for either state
    liked = beta * np.log1p(np.exp(-0.8)) + negatives * np.log1p(np.exp(drawn[0]))
    disliked = np.log1p(np.exp(0.3))
    both = model.objective(states, torch.tensor([0.8, 0.3]), torch.tensor([1, 0]))
    assert both.item() == pytest.approx((liked + disliked) / 2, rel=1e-5)


@pytest.mark.parametrize(("calibration", "expected"), [(1.0, 1 / 5), (0.0, 1 / 2)])
def test_full_calibration_takes_back_what_few_draws_inflate(calibration, expected):
    """Which of five like items is liked: each has chance 1/5, and with one draw a model comes to say 1/2."""
    model = generalised(negatives=1, calibration=calibration)
    probability = np.linspace(0.05, 0.95, 181)
    losses = []
    for logit in np.log(probability / (1 - probability)):
        with torch.no_grad():
            model.item_bias[:5] = logit - model.bias
        losses.append(model.objective(torch.zeros(1, 2), torch.tensor([logit]), torch.tensor([1])).item())
    assert probability[np.argmin(losses)] == pytest.approx(expected, abs=0.006)
