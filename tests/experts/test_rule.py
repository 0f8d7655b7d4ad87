"""The paper's three cases, worked out by hand, as rows of one matrix."""

from math import cos, log, radians, sin

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.experts.worlds import groups_at
from thinkrec.experts.rule import CASES, centroid_routing, routing_cases


def user_with(first, temperature):
    """A vector whose weight for the first of two opposite centroids [1, 0] and [-1, 0] is `first`."""
    cosine = temperature * log(first / (1 - first)) / 2
    return [cosine, (1 - cosine**2) ** 0.5]


# N = 2: averaged where the entropy is above .95 ln 2 (weights within .369...631), single above .5 + .6 / 2 = .8.
@pytest.mark.parametrize(
    ("weight", "row", "case"),
    [
        (0.5, [1, 0, 0], "averaged"),
        (0.62, [1, 0, 0], "averaged"),
        (0.38, [1, 0, 0], "averaged"),
        (0.64, [0, 0.64, 0.36], "mixed"),
        (0.36, [0, 0.36, 0.64], "mixed"),
        (0.79, [0, 0.79, 0.21], "mixed"),
        (0.81, [0, 1, 0], "single"),
        (0.01, [0, 0, 1], "single"),
    ],
)
def test_two_experts_by_hand(weight, row, case):
    vectors = 3 * np.asarray([user_with(weight, 0.1)], np.float32)
    routing = centroid_routing(vectors, groups_at([2.0, 0.0], [-1.0, 0.0]), 0.1)
    np.testing.assert_allclose(routing, [row], atol=1e-5)
    assert CASES[routing_cases(routing)[0]] == case


def test_three_experts_by_hand():
    groups = groups_at([1.0, 0.0], [0.0, 1.0], [-1.0, 0.0])
    angle = radians(40)
    routing = centroid_routing(np.asarray([[cos(angle), sin(angle)]], np.float32), groups, 0.2)
    weights = np.exp(np.asarray([cos(angle), sin(angle), -cos(angle)]) / 0.2)
    weights /= weights.sum()
    assert weights.max() < 0.5 + 0.6 / 3  # mixed
    np.testing.assert_allclose(routing, [[0, *weights]], atol=1e-5)


def test_cosines_are_taken_in_the_space_of_the_groups():
    groups = groups_at([1.0, 0.0], [-1.0, 0.0], mean=[10, 0], spread=[2, 1])
    vectors = np.asarray([[9, 0.01], [11, 0.01]], np.float32)  # raw, both lie along the first centroid
    assert centroid_routing(vectors, groups, 0.1).tolist() == [[0, 0, 1], [0, 1, 0]]


@pytest.mark.parametrize(
    ("centroids", "rows"),
    [
        ([], [[1], [1]]),  # without experts everybody is global
        ([[1.0, 0.0]], [[0, 1], [1, 0]]),  # one expert serves everybody who has a vector
        ([[1.0, 0.0], [0.0, 1.0]], [[0, 1, 0], [1, 0, 0]]),  # without a vector the global adapter serves
    ],
)
def test_no_experts_one_and_no_vector(centroids, rows):
    vectors = np.asarray([[5, 0], [0, 0]], np.float32)
    assert centroid_routing(vectors, groups_at(*centroids), 0.1).tolist() == rows


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 999), st.integers(0, 5), st.sampled_from([0.01, 0.1, 1.0]))
def test_rows_sum_to_one(seed, n, temperature):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(20, 3)).astype(np.float32)
    vectors[::7] = 0
    routing = centroid_routing(vectors, groups_at(*rng.normal(size=(n, 3)).tolist(), width=3), temperature)
    assert routing.shape == (20, n + 1) and (routing >= 0).all()
    np.testing.assert_allclose(routing.sum(1), 1, atol=1e-5)
