"""What holds of every recommender: it learns, tells the same each time, and reads a user from the past alone."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.features.worlds import (
    ITEMS,
    KINDS,
    KNOWN_ITEMS,
    KNOWN_USERS,
    ROWS,
    USERS,
    fitted,
    params_of,
    planted,
    ratings_of,
)
from thinkrec.errors import UserError
from thinkrec.features.models import MODELS, fit_model, refit_model
from thinkrec.metrics import auc, validation

few = settings(max_examples=15, deadline=None)
every_model = pytest.mark.parametrize("kind", KINDS)
kinds = st.sampled_from(KINDS)


@cache
def model_of(kind):
    """A model fitted for two epochs on `planted`."""
    return fitted(kind, epochs=2)


def weights(model):
    return [value.numpy().tobytes() for value in model.state_dict().values()]


def states_of(model, ratings, rows):
    """Vector and bias (k, d + 1) of the users before these rows."""
    vectors, biases = model.states(ratings, ratings.start[rows], ratings.end[rows])
    return np.column_stack([vectors, biases])


@every_model
def test_a_planted_structure_is_learned_and_holds_for_users_that_the_fit_never_saw(kind):
    ratings, train, later = planted()
    params = params_of(kind)
    model, epoch, measured = fit_model(kind, ratings, train, later, params, epochs=12, seed=1)
    untrained = MODELS[kind](ratings, train, params, seed=1).eval()
    assert 1 <= epoch <= 12
    assert measured == validation(ratings.user[later], ratings.label[later], model.logits(ratings, later))
    assert measured["auc"] > 0.95 and measured["uauc"] > 0.95
    assert auc(ratings.label[later], untrained.logits(ratings, later)) < 0.85


@every_model
def test_the_model_that_is_kept_is_the_one_of_as_many_epochs_alone(kind):
    ratings, train, later = planted()
    noise = replace(ratings, label=np.random.default_rng(3).integers(0, 2, len(ratings.label)))
    params = params_of(kind)
    model, epoch, _ = fit_model(kind, noise, train, later, params, epochs=12, seed=1)
    assert epoch < 12  # in noise the best comes early
    assert weights(model) == weights(refit_model(kind, noise, train, params, epochs=epoch, seed=1))


@every_model
def test_the_seed_alone_decides_the_fit_and_nothing_else_notices_it(kind):
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    one = fitted(kind)
    assert (torch.random.get_rng_state() == before).all()
    torch.manual_seed(4)
    assert weights(one) == weights(fitted(kind))
    assert weights(one) != weights(fitted(kind, seed=2))


@every_model
def test_a_logit_is_the_sum_of_the_biases_and_the_inner_product(kind):
    model, (ratings, _, later) = model_of(kind), planted()
    items, rows = model.items(), later[::7]
    assert items.vectors.shape == (ITEMS, params_of(kind).dim) and items.biases.shape == (ITEMS,)
    assert len(np.unique(items.biases)) == KNOWN_ITEMS + 1
    vectors, biases = model.states(ratings, ratings.start[rows], ratings.end[rows])
    wanted = [
        items.bias + items.biases[item] + bias + float(np.dot(u, items.vectors[item]))
        for u, bias, item in zip(vectors, biases, ratings.item[rows], strict=True)
    ]
    np.testing.assert_allclose(model.logits(ratings, rows), wanted, atol=1e-5)


@every_model
def test_what_the_fit_never_saw_has_no_vector_and_no_bias(kind):
    model = model_of(kind)
    users, items = model.fitted_users(), model.items()
    assert users.shape == (USERS, params_of(kind).dim)
    assert (users[KNOWN_USERS:] == 0).all() and (users[:KNOWN_USERS] != 0).any(1).all()
    assert (items.vectors[KNOWN_ITEMS:] == 0).all() and (items.vectors[:KNOWN_ITEMS] != 0).any(1).all()
    assert (items.biases[KNOWN_ITEMS:] == 0).all()


@every_model
def test_without_a_history_there_is_no_state_and_an_unknown_item_has_the_prior(kind):
    model, (ratings, _, _) = model_of(kind), planted()
    first = np.flatnonzero(ratings.start == ratings.end)
    assert len(first) == 2 * USERS
    states = states_of(model, ratings, np.asarray([*first, 30]))
    assert (states[:-1] == 0).all() and (states[-1] != 0).any()
    assert states_of(model, ratings, first[:0]).shape[0] == 0
    unknown = replace(ratings, item=np.full_like(ratings.item, ITEMS - 1))
    np.testing.assert_array_equal(model.logits(unknown, first), np.float32(model.items().bias))


@few
@given(kinds, st.integers(0, USERS - 1), st.integers(2, ROWS - 1), st.integers(0, 99))
def test_a_state_knows_its_history_and_nothing_else(kind, user, place, seed):
    """Rows of the same moment, later ones and other users' rows are all replaced; then one of the history is."""
    model, (ratings, _, _) = model_of(kind), planted()
    rows = np.asarray([user * ROWS + place])
    start, end = int(ratings.start[rows[0]]), int(ratings.end[rows[0]])
    before = states_of(model, ratings, rows)
    rng = np.random.default_rng(seed)
    outside = (np.arange(len(ratings.item)) < start) | (np.arange(len(ratings.item)) >= end)
    moved = replace(
        ratings,
        item=np.where(outside, rng.integers(0, ITEMS, len(ratings.item)), ratings.item),
        label=np.where(outside, 1 - ratings.label, ratings.label),
    )
    np.testing.assert_allclose(states_of(model, moved, rows), before, atol=1e-6)
    label = ratings.label.copy()
    label[end - 1] = 1 - label[end - 1]
    assert np.abs(states_of(model, replace(ratings, label=label), rows) - before).max() > 1e-6


@few
@given(kinds, st.lists(st.integers(0, USERS * ROWS - 1), min_size=1, max_size=40), st.data())
def test_a_state_does_not_depend_on_what_else_is_asked_for(kind, rows, data):
    model, (ratings, _, _) = model_of(kind), planted()
    one = data.draw(st.sampled_from(range(len(rows))))
    together = states_of(model, ratings, np.asarray(rows))
    np.testing.assert_allclose(together[one], states_of(model, ratings, np.asarray([rows[one]]))[0], atol=1e-5)


@every_model
def test_a_state_is_of_the_history_whoever_the_user_is(kind):
    model, (ratings, _, _) = model_of(kind), planted()
    first, end = 3 * ROWS, np.arange(ROWS + 1)
    item, label = (column[first : first + ROWS].tolist() for column in (ratings.item, ratings.label))
    alone = ratings_of([0] * ROWS, item, label, items=ITEMS)
    states = model.states(ratings, np.full_like(end, first), first + end)
    for one, two in zip(states, model.states(alone, np.zeros_like(end), end), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)


@every_model
@pytest.mark.parametrize("label", [0, 1])
def test_labels_of_one_class_only_still_give_numbers(kind, label):
    ratings, train, later = planted()
    same = replace(ratings, label=np.full_like(ratings.label, label))
    model, epochs, measured = fit_model(kind, same, train, later, params_of(kind), epochs=2, seed=1)
    logits = model.logits(same, later)
    assert np.isfinite(logits).all() and ((logits > 0) == label).all()
    assert np.isnan(measured["auc"]) and measured["objective"] == 0.5
    assert epochs == 2  # where valid has one class only, all are trained
    plain = refit_model(kind, same, train, params_of(kind), epochs=2, seed=1)
    np.testing.assert_array_equal(model.items().vectors, plain.items().vectors)


@every_model
def test_a_fit_that_diverges_says_where_and_what_to_lower(kind):
    ratings, train, later = planted()
    params = params_of(kind).model_copy(update={"learning_rate": 1e30})
    with pytest.raises(UserError, match=r"training diverged at epoch 1, .*lower the learning rate \(1e\+30\)"):
        fit_model(kind, ratings, train, later, params, epochs=2, seed=1)
