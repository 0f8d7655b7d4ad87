"""Groups: small ones join their nearest, the largest comes first, and whoever is unknown belongs to none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from thinkrec.errors import UserError
from thinkrec.gate.groups import group_users, load, save


def blobs(*sizes: int, at: tuple[tuple[float, float], ...] = ((0, 9), (9, 0), (9, 3))) -> NDArray[np.float32]:
    """Tight clouds of users around the given places."""
    rng = np.random.default_rng(0)
    return np.concatenate(
        [np.asarray(place) + 0.1 * rng.normal(size=(size, 2)) for size, place in zip(sizes, at, strict=False)]
    ).astype(np.float32)


def test_the_largest_group_has_number_zero() -> None:
    groups, stats = group_users(blobs(5, 12, 8), n=3, space="raw", min_users=1, seed=1)
    assert groups.group.tolist() == [2] * 5 + [0] * 12 + [1] * 8
    assert stats == {"groups": 3, "joined": 0, "users": [12, 8, 5]}
    np.testing.assert_allclose(groups.centroids, [[9, 0], [9, 3], [0, 9]], atol=0.2)


def test_a_small_group_joins_the_nearest() -> None:
    vectors = blobs(5, 12, 2)
    groups, stats = group_users(vectors, n=3, space="raw", min_users=3, seed=1)
    assert groups.group.tolist() == [1] * 5 + [0] * 14
    assert stats == {"groups": 2, "joined": 1, "users": [14, 5]}
    np.testing.assert_allclose(groups.centroids[0], vectors[5:].mean(0), rtol=1e-5)


def test_all_groups_too_small_leave_one() -> None:
    groups, stats = group_users(blobs(3, 4, 2), n=3, space="raw", min_users=50, seed=1)
    assert groups.group.tolist() == [0] * 9
    assert stats["joined"] == 2


def test_users_without_a_vector_belong_to_no_group() -> None:
    vectors = np.insert(blobs(5, 6), 3, 0, axis=0)
    groups, stats = group_users(vectors, n=2, space="standardised", min_users=1, seed=1)
    assert groups.group[3] == -1 and (np.delete(groups.group, 3) >= 0).all()
    assert sum(stats["users"]) == 11
    without, _ = group_users(blobs(5, 6), n=2, space="standardised", min_users=1, seed=1)
    np.testing.assert_array_equal(groups.mean, without.mean)


def test_the_same_seed_gives_the_same_groups() -> None:
    vectors = np.random.default_rng(3).normal(size=(60, 4)).astype(np.float32)
    one, two = (group_users(vectors, n=4, space="standardised", min_users=2, seed=5)[0] for _ in range(2))
    assert (one.group == two.group).all() and (one.centroids == two.centroids).all()


def test_the_standardised_space_centres_and_scales_every_dimension() -> None:
    vectors = blobs(10, 10) * [1, 100] + 5
    groups, _ = group_users(vectors.astype(np.float32), n=2, space="standardised", min_users=1, seed=1)
    points = groups.project(vectors.astype(np.float32))
    np.testing.assert_allclose(points.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(points.std(0), 1, atol=1e-5)
    np.testing.assert_allclose(groups.centroids[1], points[groups.group == 1].mean(0), atol=1e-5)
    assert groups.project(np.zeros((1, 2), np.float32)).tolist() == [[0, 0]]


def test_the_raw_space_leaves_vectors_as_they_are() -> None:
    vectors = blobs(4, 5)
    groups, _ = group_users(vectors, n=2, space="raw", min_users=1, seed=1)
    np.testing.assert_array_equal(groups.project(vectors), vectors)


def test_no_groups_are_wanted(tmp_path: Path) -> None:
    groups, stats = group_users(blobs(4, 5), n=0, space="standardised", min_users=1, seed=1)
    assert (groups.group == -1).all() and groups.centroids.shape == (0, 2)
    assert stats == {"groups": 0, "joined": 0, "users": []}
    save(groups, tmp_path)
    assert load(tmp_path).centroids.shape == (0, 2)


def test_more_groups_than_users_is_a_user_error() -> None:
    with pytest.raises(UserError, match=r"experts\.n=4: there are only 3 users"):
        group_users(np.append(blobs(3), [[0, 0]], axis=0).astype(np.float32), n=4, space="raw", min_users=1, seed=1)


def test_groups_round_trip_through_disk(tmp_path: Path) -> None:
    groups, _ = group_users(blobs(4, 5), n=2, space="standardised", min_users=1, seed=1)
    save(groups, tmp_path)
    again = load(tmp_path)
    for name in ("group", "centroids", "mean", "spread"):
        np.testing.assert_array_equal(getattr(again, name), getattr(groups, name))
    with pytest.raises(UserError, match="dvc repro experts"):
        load(tmp_path / "nowhere")
