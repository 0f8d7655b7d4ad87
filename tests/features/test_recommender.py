"""One loop fits every recommender and keeps its best epoch; a rotation aligns one fit's vectors with another's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from thinkrec.features.recommender import (
    ItemSide,
    Recommender,
    align_vectors,
    fit,
    prior_logit,
    running_sums,
)

few = settings(max_examples=50, deadline=None)
RATE = 0.5  # Adam moves a weight under a constant gradient by just this in a step


class Counter(Recommender):
    """A model whose one weight says how many steps of RATE it has made, two to an epoch."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.drawn: list[float] = []
        self.modes: list[bool] = []

    @property
    def epochs(self):
        return round(self.weight.item() / (2 * RATE), 4)

    def batches(self, generator):
        self.drawn.append(torch.rand((), generator=generator).item())
        return [0, 1]

    def loss(self, batch):
        self.modes.append(self.training)
        return -self.weight

    def items(self):
        return ItemSide(vectors=np.zeros((1, 1), np.float32), biases=np.zeros(1, np.float32), bias=0.0)

    def states(self, ratings, start, end):
        return np.zeros((len(end), 1), np.float32), np.zeros(len(end), np.float32)

    def fitted_users(self):
        return np.zeros((1, 1), np.float32)


def fit_judged(model, objectives, *, patience):
    """Fit with a validation that measures these, epoch by epoch, and finds the model ready for use."""
    left = iter(objectives)

    def validate():
        assert not model.training
        return {"objective": next(left), "epoch": model.epochs}

    epochs = len(objectives)
    return fit(model, epochs=epochs, learning_rate=RATE, seed=0, patience=patience, validate=validate)


def test_the_model_ends_as_its_best_epoch_left_it_the_first_of_equals():
    model = Counter()
    measured = fit_judged(model, [0.1, 0.4, 0.3, 0.4, 0.2], patience=9)
    assert model.epochs == 2
    assert [after["epoch"] for after in measured] == [1, 2, 3, 4, 5]
    assert model.modes == [True] * 10 and not model.training


@few
@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.integers(1, 4))
def test_fitting_stops_after_patience_epochs_without_a_better_one(objectives, patience):
    model = Counter()
    measured = fit_judged(model, objectives, patience=patience)
    stopped = [
        epoch
        for epoch in range(patience, len(objectives))
        if max(objectives[epoch - patience + 1 : epoch + 1]) <= max(objectives[: epoch - patience + 1])
    ]
    seen = objectives[: stopped[0] + 1] if stopped else objectives
    assert [after["objective"] for after in measured] == seen
    assert model.epochs == seen.index(max(seen)) + 1


def test_without_a_validation_the_last_epoch_stays():
    model = Counter()
    assert fit(model, epochs=3, learning_rate=RATE, seed=0) == []
    assert model.epochs == 3 and not model.training


def test_the_seed_alone_decides_what_an_epoch_draws():
    drawn = []
    for seed, epochs, outside in [(5, 3, 0), (5, 2, 1), (6, 3, 0)]:
        torch.manual_seed(outside)
        model = Counter()
        fit(model, epochs=epochs, learning_rate=RATE, seed=seed)
        drawn.append(model.drawn)
    assert drawn[0][:2] == drawn[1]
    assert len({*drawn[0], *drawn[2]}) == 6


def test_what_rows_share_adds_up_in_a_fixed_order_while_fitting_and_no_longer():
    """The gradients of SASRec's items came out otherwise in every run on two threads."""

    class Watching(Counter):
        def loss(self, batch):
            fixed.append(torch.are_deterministic_algorithms_enabled())
            return super().loss(batch)

    fixed = []
    fit(Watching(), epochs=1, learning_rate=RATE, seed=0)
    assert fixed == [True, True] and not torch.are_deterministic_algorithms_enabled()


def test_logits_by_hand():
    side = ItemSide(
        vectors=np.asarray([[0, 0], [3, -1]], np.float32), biases=np.asarray([0, 0.25], np.float32), bias=-1.0
    )
    logits = side.logits(np.asarray([[1, 2], [1, 2]], np.float32), np.asarray([0.5, 0.125]), np.asarray([0, 1]))
    assert logits.tolist() == [-0.5, 0.375]
    assert logits.dtype == np.float32


def test_running_sums_begin_with_nothing():
    assert running_sums(np.asarray([[1, 2], [3, 4]])).tolist() == [[0, 0], [1, 2], [4, 6]]


def test_the_prior_is_the_log_odds_of_a_like_and_finite_for_one_class():
    assert prior_logit(np.asarray([1, 1, 1, 0])) == pytest.approx(np.log(3), abs=1e-5)
    assert prior_logit(np.ones(9)) == pytest.approx(-prior_logit(np.zeros(9)))
    assert 10 < prior_logit(np.ones(9)) < 20


@few
@given(st.integers(0, 99), st.integers(1, 5))
def test_aligning_brings_a_rotated_copy_back_and_others_as_close_as_a_rotation_can(seed, dim):
    rng = np.random.default_rng(seed)
    source, reference = (tuple(rng.normal(size=(count, dim)).astype(np.float32) for count in (7, 9)) for _ in range(2))
    rotations = [np.linalg.qr(rng.normal(size=(dim, dim)))[0].astype(np.float32) for _ in range(5)]
    rotated = [vectors @ rotations[0] for vectors in reference]
    np.testing.assert_allclose(align_vectors(rotated, reference), rotations[0].T, atol=1e-4)

    def distance(rotation):
        return sum(float(np.square(one @ rotation - two).sum()) for one, two in zip(source, reference, strict=True))

    best = align_vectors(source, reference)
    np.testing.assert_allclose(best @ best.T, np.eye(dim), atol=1e-5)
    assert distance(best) <= min(map(distance, rotations)) + 1e-3
