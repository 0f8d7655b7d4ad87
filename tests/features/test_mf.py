"""Matrix factorisation learns what is there, the same each time; unseen users are folded in from their past alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from thinkrec.features import mf
from thinkrec.metrics import auc

few = settings(max_examples=30, deadline=None)


def planted() -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Even users like even items, odd users odd ones: no bias tells it, one dimension does."""
    user, item = np.divmod(np.random.default_rng(0).permutation(40 * 30), 30)
    return user, item, (user % 2 == item % 2).astype(np.int64)


def fit(rows: slice = slice(None), **changes: Any) -> list[mf.MatrixFactors]:
    user, item, label = planted()
    values = {"users": 41, "items": 31, "dim": 2, "epochs": 40, "learning_rate": 0.05, "weight_decay": 0.001, "seed": 1}
    return mf.fit(user[rows], item[rows], label[rows], **(values | changes))


def factors(seed: int = 0, dim: int = 3) -> mf.MatrixFactors:
    rng = np.random.default_rng(seed)
    return mf.MatrixFactors(
        user=rng.normal(size=(7, dim)).astype(np.float32),
        item=rng.normal(size=(9, dim)).astype(np.float32),
        user_bias=rng.normal(size=7).astype(np.float32),
        item_bias=rng.normal(size=9).astype(np.float32),
        bias=0.3,
    )


def test_a_planted_structure_is_learned_on_held_out_pairs() -> None:
    user, item, label = planted()
    by_epoch = fit(slice(0, 800))
    held = slice(800, None)
    assert len(by_epoch) == 40
    assert auc(label[held], by_epoch[-1].logits(user[held], item[held])) > 0.95
    assert auc(label[held], by_epoch[0].logits(user[held], item[held])) < 0.8


def test_the_same_seed_gives_the_same_factors() -> None:
    one, two, other = fit(epochs=2)[-1], fit(epochs=2)[-1], fit(epochs=2, seed=2)[-1]
    assert (one.user == two.user).all() and (one.item_bias == two.item_bias).all()
    assert not (one.user == other.user).any(1)[:40].all()


def test_an_epochs_model_does_not_depend_on_how_many_follow() -> None:
    assert (fit(epochs=3)[1].item == fit(epochs=2)[1].item).all()


def test_what_was_never_seen_has_no_vector_and_no_bias() -> None:
    model = fit(epochs=2)[-1]
    assert (model.user[40] == 0).all() and model.user_bias[40] == 0
    assert (model.item[30] == 0).all() and model.item_bias[30] == 0
    assert model.logits(np.asarray([40]), np.asarray([30])) == pytest.approx([model.bias])
    assert (model.user[:40] != 0).any(1).all()


def test_labels_of_one_class_only_still_give_numbers() -> None:
    user, item, _ = planted()
    model = mf.fit(
        user, item, np.ones(len(user)), users=40, items=30, dim=2, epochs=1, learning_rate=0.1, weight_decay=0, seed=1
    )[0]
    assert np.isfinite(model.logits(user, item)).all()


def test_logits_by_hand() -> None:
    model = mf.MatrixFactors(
        user=np.asarray([[1, 2]], np.float32),
        item=np.asarray([[0, 0], [3, -1]], np.float32),
        user_bias=np.asarray([0.5], np.float32),
        item_bias=np.asarray([0, 0.25], np.float32),
        bias=-1.0,
    )
    assert model.logits(np.asarray([0, 0]), np.asarray([0, 1])).tolist() == [-0.5, 0.75]


@few
@given(st.integers(0, 99), st.integers(1, 5))
def test_alignment_brings_a_rotated_copy_back_and_keeps_every_logit(seed: int, dim: int) -> None:
    model = factors(seed, dim)
    turn = np.linalg.qr(np.random.default_rng(seed + 1).normal(size=(dim, dim)))[0].astype(np.float32)
    rotated = replace(model, user=model.user @ turn, item=model.item @ turn)
    back = mf.align(rotated, model)
    np.testing.assert_allclose(back.user, model.user, atol=1e-4)
    np.testing.assert_allclose(back.item, model.item, atol=1e-4)
    user, item = np.divmod(np.arange(63), 9)
    other = mf.align(factors(seed + 2, dim), model)
    np.testing.assert_allclose(other.logits(user, item), factors(seed + 2, dim).logits(user, item), atol=1e-4)


def folded(model: mf.MatrixFactors, item: Any, label: Any, ends: list[int], **changes: Any) -> tuple[Any, Any]:
    """One user's vectors and biases after the first `ends` rows."""
    rows = np.zeros(len(item), np.int64)
    end = np.asarray(ends)
    return mf.fold_in(model, item, label, rows, start=np.zeros_like(end), end=end, **({"widening": 2.0} | changes))


@few
@given(st.integers(0, 99), st.integers(1, 8))
def test_fold_in_is_ridge_regression_of_what_the_items_leave_open(seed: int, count: int) -> None:
    model, rng = factors(seed), np.random.default_rng(seed)
    item, label = rng.integers(0, 9, count), rng.integers(0, 2, count)
    expected = 1 / (1 + np.exp(-(model.bias + model.item_bias[item].astype(np.float64))))
    x = np.column_stack([model.item[item], np.ones(count)]).astype(np.float64)
    spread = np.append([np.square(model.user).mean()] * 3, np.square(model.user_bias).mean()) * 2.0
    # The minimum of sum_k s_k (r_k / s_k - x_k e)^2 + sum_d e_d^2 / spread_d, as least squares with pseudo-rows.
    slope = expected * (1 - expected)
    rows = np.concatenate([np.sqrt(slope)[:, None] * x, np.diag(1 / np.sqrt(np.maximum(spread, mf.LEAST_VARIANCE)))])
    wanted = np.concatenate([(label - expected) / np.sqrt(slope), np.zeros(len(spread))])
    solution = np.linalg.lstsq(rows, wanted, rcond=None)[0]
    vectors, bias = folded(model, item, label, [count])
    np.testing.assert_allclose(np.append(vectors[0], bias[0]), solution, atol=1e-4)


@few
@given(st.integers(0, 99), st.integers(0, 8))
def test_fold_in_knows_the_first_rows_only(seed: int, end: int) -> None:
    model, rng = factors(seed), np.random.default_rng(seed)
    item, label = rng.integers(0, 9, 8), rng.integers(0, 2, 8)
    before = folded(model, item, label, [end, 8])[0][0]
    item[end:], label[end:] = rng.integers(0, 9, 8 - end), 1 - label[end:]
    np.testing.assert_array_equal(folded(model, item, label, [8, end])[0][1], before)


def test_users_are_folded_in_apart_from_each_other_whatever_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    model, rng = factors(3), np.random.default_rng(3)
    item, label = rng.integers(0, 9, 12), rng.integers(0, 2, 12)
    first = np.repeat([0, 5, 7], [5, 2, 5])
    start, end = np.asarray([7, 0, 5, 7]), np.asarray([12, 5, 6, 7])
    whole = mf.fold_in(model, item, label, first, start=start, end=end, widening=2.0)
    monkeypatch.setattr(mf, "CHUNK_ROWS", 3)
    parts = mf.fold_in(model, item, label, first, start=start, end=end, widening=2.0)
    alone = folded(model, item[7:], label[7:], [5])
    for one, two, three in zip(whole, parts, alone, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)
        np.testing.assert_allclose(one[0], three[0], atol=1e-5)
        assert (one[3] == 0).all()


def test_no_history_folds_in_to_zeros() -> None:
    none = np.zeros(0, np.int64)
    assert folded(factors(), none, none, [0])[0].tolist() == [[0, 0, 0]]
    vectors, bias = folded(factors(), np.asarray([1]), np.asarray([1]), [0, 1])
    assert (vectors != 0).any(1).tolist() == (bias != 0).tolist() == [False, True]
