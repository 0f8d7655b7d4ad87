"""LightGCN: propagation by hand and by matrices, states by the same formula, and no edge that tells its own label."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.features.worlds import params_of, ratings_of
from thinkrec.features.lightgcn import LightGCN

few = settings(max_examples=30, deadline=None)
USERS, ITEMS = 5, 6


def everything(model):
    return torch.ones(model.rows.shape[1], dtype=torch.bool)


def by_hand(*, weight_decay=0.0):
    """User 0 likes items 0 and 1, user 1 likes item 1 and dislikes item 0; vectors of one dimension."""
    ratings = ratings_of([0, 0, 1, 1], [0, 1, 0, 1], [1, 1, 0, 1], items=2)
    params = params_of("lightgcn", dim=1, weight_decay=weight_decay)
    model = LightGCN(ratings, np.arange(4), params, seed=0)
    model.layers = 1
    with torch.no_grad():
        model.user[:, 0] = torch.tensor([1.0, 2.0])
        model.item[:, 0] = torch.tensor([3.0, 5.0])
        model.item_bias[:] = torch.tensor([0.5, -0.25])
    return model


@st.composite
def worlds(draw, **changes):
    """A model of random vectors over some pairs of 5 users and 6 items; the first rows are known to the fit."""
    pairs = st.tuples(st.integers(0, USERS - 1), st.integers(0, ITEMS - 1))
    rows = sorted(
        draw(st.lists(st.tuples(pairs, st.integers(0, 1)), min_size=1, max_size=20, unique_by=lambda r: r[0]))
    )
    user, item, label = zip(*[(user, item, label) for (user, item), label in rows], strict=True)
    ratings = ratings_of(user, item, label, items=ITEMS)
    known = draw(st.integers(1, len(rows)))
    params = params_of("lightgcn", dim=3, **changes)
    layers, seed = draw(st.integers(1, 3)), draw(st.integers(0, 99))
    model = LightGCN(ratings, np.arange(known), params, seed=seed)
    model.layers = layers
    return model, ratings


def test_propagation_by_hand():
    users, items, passed = by_hand().propagate(torch.ones(4, dtype=torch.bool))
    # Degrees: users 2 and 1, items 1 and 2. After a layer, user 0 is 3 / sqrt(2 * 1) + 5 / sqrt(2 * 2), and so on.
    root = np.sqrt(2)
    np.testing.assert_allclose(users.detach()[:, 0], [(1 + 3 / root + 5 / 2) / 2, (2 + 5 / root) / 2], rtol=1e-6)
    np.testing.assert_allclose(items.detach()[:, 0], [(3 + 1 / root) / 2, (5 + 1 / 2 + 2 / root) / 2], rtol=1e-6)
    np.testing.assert_allclose(passed.detach()[:, 0], [3 / 2, 5 / root / 2], rtol=1e-6)


@few
@given(worlds())
def test_propagation_is_the_mean_of_powers_of_the_normalised_adjacency(world):
    model, _ = world
    user, item, label = model.rows.numpy()
    liked = np.zeros((USERS, ITEMS))
    liked[user[label == 1], item[label == 1]] = 1
    # Users before items in one symmetric matrix; users and items that no row names start at zero.
    users = int(model.user.shape[0])
    adjacency = np.block([[np.zeros((users, users)), liked[:users]], [liked[:users].T, np.zeros((ITEMS, ITEMS))]])
    degree = np.maximum(adjacency.sum(1), 1)
    step = adjacency / np.sqrt(np.outer(degree, degree))
    start = np.concatenate([model.user.detach(), model.item.detach()])
    start[np.setdiff1d(np.arange(users + ITEMS), np.concatenate([user, users + item]))] = 0
    layers = model.layers
    wanted = sum(np.linalg.matrix_power(step, power) @ start for power in range(layers + 1)) / (layers + 1)
    got = torch.cat(model.propagate(everything(model))[:2]).detach()
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    np.testing.assert_array_equal(model.items().vectors, got[users:])


def test_the_loss_of_a_batch_by_hand():
    model = by_hand(weight_decay=0.25)
    # Without row 1, user 0 likes item 0 alone and user 1 item 1 alone: each pair takes the mean with its partner.
    logit = model.bias - 0.25 + (1 + 3) / 2 * (5 + 2) / 2
    squares = 1**2 + 5**2 + 0.25**2
    wanted = np.log1p(np.exp(-logit)) + 0.25 * squares
    assert model.loss(torch.tensor([1])).item() == pytest.approx(wanted, rel=1e-5)


@few
@given(worlds(weight_decay=0.0), st.data())
def test_what_a_step_expects_of_its_rows_does_not_depend_on_their_edges(world, data):
    model, _ = world
    row = data.draw(st.sampled_from(range(model.rows.shape[1])))
    as_is = model.loss(torch.tensor([row])).item()
    model.rows[2, row] = 1 - model.rows[2, row]
    # If nothing but the label differs, the two losses are -log p and -log (1 - p) of one p.
    assert np.exp(-as_is) + np.exp(-model.loss(torch.tensor([row])).item()) == pytest.approx(1, abs=1e-5)


@few
@given(worlds())
def test_a_state_is_what_propagation_gives_a_user_without_a_free_vector(world):
    model, ratings = world
    known = model.rows[0].unique().numpy()
    with torch.no_grad():
        model.user.zero_()
    start, end = ratings.bounds_by_user(np.arange(model.rows.shape[1]))
    vectors, biases = model.states(ratings, start, end)
    propagated = model.propagate(everything(model))[0].detach().numpy()
    np.testing.assert_allclose(vectors[known], propagated[known], atol=1e-6)
    np.testing.assert_array_equal(vectors, model.fitted_users())  # which groups are made of, and states routed by
    assert (biases == 0).all()


@few
@given(worlds(), st.data())
def test_a_state_is_what_the_liked_items_of_the_history_pass_on(world, data):
    model, ratings = world
    user = data.draw(st.sampled_from(ratings.user.tolist()))
    rows = np.flatnonzero(ratings.user == user)
    start, end = int(rows[0]), data.draw(st.integers(rows[0], rows[-1] + 1))
    liked = [int(item) for item, label in zip(ratings.item[start:end], ratings.label[start:end], strict=True) if label]
    passed = model.propagate(everything(model))[2].detach().numpy()
    wanted = sum((passed[item] for item in liked), np.zeros(3)) / np.sqrt(max(len(liked), 1))
    vectors, _ = model.states(ratings, np.asarray([start]), np.asarray([end]))
    np.testing.assert_allclose(vectors[0], wanted, atol=1e-6)
