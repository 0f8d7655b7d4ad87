"""Matrix factorisation: its loss by hand, and users folded in by one Newton step of ridge regression."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.features.worlds import params_of, ratings_of
from thinkrec.features import mf
from thinkrec.features.mf import MatrixFactorisation
from thinkrec.features.recommender import running_sums

few = settings(max_examples=30, deadline=None)
USERS, ITEMS = 7, 9


def random_model(seed=0, *, weight_decay=0.0):
    """Random factors and biases of 8 users, the last of them unknown, and 9 items, all known."""
    user, item = np.divmod(np.arange(USERS * ITEMS), ITEMS)
    rows = np.arange(len(user))
    ratings = ratings_of([*user.tolist(), USERS], [*item.tolist(), 0], [*(user % 2).tolist(), 1], items=ITEMS)
    params = params_of("mf", dim=3, weight_decay=weight_decay)
    model = MatrixFactorisation(ratings, rows, params, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))
    return model


def history(seed, count):
    """`count` random rows of one user."""
    rng = np.random.default_rng(seed)
    item, label = rng.integers(0, ITEMS, count).tolist(), rng.integers(0, 2, count).tolist()
    return ratings_of([0] * count, item, label, items=ITEMS)


def after(model, ratings, ends):
    """Vector and bias (k, d + 1) of the first user after the first so many rows."""
    return np.column_stack(model.states(ratings, np.zeros(len(ends), np.int64), np.asarray(ends)))


def test_the_loss_of_a_batch_by_hand():
    model = random_model(weight_decay=0.25)
    with torch.no_grad():
        model.user[0], model.user[1] = torch.tensor([1.0, 0.0, 2.0]), torch.tensor([0.0, 1.0, 0.0])
        model.item[0], model.item[3] = torch.tensor([0.5, 1.0, 0.0]), torch.tensor([1.0, 1.0, 1.0])
        model.user_bias[:2], model.item_bias[0], model.item_bias[3] = torch.tensor([0.5, -1.0]), 0.25, 2.0
        model.bias = -0.5
    # Rows 0 and 12: user 0 dislikes item 0, logit -.5 + .5 + .25 + .5; user 1 likes item 3, logit -.5 - 1 + 2 + 1.
    entropy = (np.log1p(np.exp(0.75)) + np.log1p(np.exp(-1.5))) / 2
    squares = (5 + 1) / 2 + (1.25 + 3) / 2 + (0.25 + 1) / 2 + (0.0625 + 4) / 2
    assert model.loss(torch.tensor([0, 12])).item() == pytest.approx(entropy + 0.25 * squares, abs=1e-5)


@few
@given(st.integers(0, 99), st.integers(1, 8))
def test_a_state_is_ridge_regression_of_what_the_items_leave_open(seed, count):
    model, ratings = random_model(seed), history(seed, count)
    weights = {name: weight.detach().double().numpy() for name, weight in model.named_parameters()}
    user, item, user_bias, item_bias = (weights[name] for name in ("user", "item", "user_bias", "item_bias"))
    expected = 1 / (1 + np.exp(-(model.bias + item_bias[ratings.item])))
    x = np.column_stack([item[ratings.item], np.ones(count)])
    # FOLD_IN_WIDENING times the mean square of what the known users have.
    spread = 4.0 * np.append([np.square(user[:USERS]).mean()] * 3, np.square(user_bias[:USERS]).mean())
    # The minimum of sum_k s_k (r_k / s_k - x_k e)^2 + sum_d e_d^2 / spread_d, as least squares with pseudo-rows.
    slope = expected * (1 - expected)
    rows = np.concatenate([np.sqrt(slope)[:, None] * x, np.diag(1 / np.sqrt(spread))])
    wanted = np.concatenate([(ratings.label - expected) / np.sqrt(slope), np.zeros(len(spread))])
    solution = np.linalg.lstsq(rows, wanted, rcond=None)[0]
    np.testing.assert_allclose(after(model, ratings, [count])[0], solution, atol=1e-4)


@few
@given(st.integers(0, 99), st.integers(0, 8))
def test_a_state_is_of_the_first_rows_to_the_last_bit(seed, end):
    model, one, other = random_model(seed), history(seed, 8), history(seed + 1, 8)
    item, label = (
        [*getattr(one, name)[:end].tolist(), *getattr(other, name)[end:].tolist()] for name in ("item", "label")
    )
    mixed = ratings_of([0] * 8, item, label, items=ITEMS)
    np.testing.assert_array_equal(after(model, mixed, [8, end])[1], after(model, one, [end, 8])[0])


def test_users_are_folded_in_apart_from_each_other_whatever_the_chunks(monkeypatch):
    model, rows = random_model(3), history(3, 12)
    ratings = ratings_of([0] * 5 + [1] * 2 + [2] * 5, rows.item.tolist(), rows.label.tolist(), items=ITEMS)
    start, end = np.asarray([7, 0, 5, 7]), np.asarray([12, 5, 6, 7])
    whole = model.states(ratings, start, end)
    monkeypatch.setattr(mf, "CHUNK_ROWS", 3)
    parts = model.states(ratings, start, end)
    last = ratings_of([0] * 5, rows.item[7:].tolist(), rows.label[7:].tolist(), items=ITEMS)
    for one, two, three in zip(whole, parts, model.states(last, np.asarray([0]), np.asarray([5])), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)
        np.testing.assert_allclose(one[0], three[0], atol=1e-5)
        assert (one[:3] != 0).all() and (one[3] == 0).all()


def test_each_row_of_the_users_asked_about_is_summed_up_once_and_no_other(monkeypatch):
    rows, summed = history(3, 12), []
    ratings = ratings_of([0] * 5 + [1] * 2 + [2] * 5, rows.item.tolist(), rows.label.tolist(), items=ITEMS)
    monkeypatch.setattr(mf, "CHUNK_ROWS", 1)
    monkeypatch.setattr(mf, "running_sums", lambda values: summed.append(len(values)) or running_sums(values))
    random_model().states(ratings, np.asarray([7, 0, 7, 5]), np.asarray([12, 5, 9, 5]))
    assert summed == [5, 5, 5, 5]  # two sums for each of users 0 and 2; user 1's history is empty
