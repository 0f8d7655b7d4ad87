"""Groups: small ones join their nearest, the largest comes first, and whoever is unknown belongs to none."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn import cluster

from tests.project import params_with
from thinkrec.errors import UserError
from thinkrec.experts import groups as grouping
from thinkrec.experts.groups import (
    UserGroups,
    cohens_d,
    group_users,
    load_groups,
    save_groups,
    separation,
    silhouette,
)

KINDS = pytest.mark.parametrize("kind", ["kmeans", "agglomerative"])


def blobs(*sizes, at=((0, 9), (9, 0), (9, 3))):
    """Tight clouds of users around the given places."""
    rng = np.random.default_rng(0)
    return np.concatenate(
        [np.asarray(place) + 0.1 * rng.normal(size=(size, 2)) for size, place in zip(sizes, at, strict=False)]
    ).astype(np.float32)


def grouped(vectors, n, kind="kmeans", *, min_users=1, space="raw"):
    changes = {"n": n, "grouping": kind, "min_users": min_users, "space": space}
    params = params_with({f"experts.{name}": value for name, value in changes.items()}).experts
    return group_users(vectors.astype(np.float32), params, seed=1)


@KINDS
def test_clear_groups_are_found_and_the_largest_has_number_zero(kind):
    groups, metrics = grouped(blobs(5, 12, 8), 3, kind)
    assert groups.group.tolist() == [2] * 5 + [0] * 12 + [1] * 8
    assert (metrics["groups"], metrics["joined"], metrics["users"]) == (3, 0, [12, 8, 5])
    np.testing.assert_allclose(groups.centroids, [[9, 0], [9, 3], [0, 9]], atol=0.2)
    assert grouped(blobs(5, 12, 8), 1, kind)[0].group.tolist() == [0] * 25
    assert grouped(np.ones((8, 2)), 3)[0].group.tolist() == [0] * 8  # users that are all alike


@pytest.mark.parametrize(("min_users", "users"), [(3, [14, 5]), (50, [19])])
def test_a_small_group_joins_the_nearest_until_one_is_left(min_users, users):
    vectors = blobs(5, 12, 2)
    groups, metrics = grouped(vectors, 3, min_users=min_users)
    assert groups.group.tolist() == [len(users) - 1] * 5 + [0] * 14
    assert (metrics["groups"], metrics["joined"], metrics["users"]) == (len(users), 3 - len(users), users)
    np.testing.assert_allclose(groups.centroids[0], vectors[groups.group == 0].mean(0), rtol=1e-5)


def test_users_without_a_vector_belong_to_no_group():
    groups, metrics = grouped(np.insert(blobs(5, 6), 3, 0, axis=0), 2, space="standardised")
    assert groups.group[3] == -1 and (np.delete(groups.group, 3) >= 0).all()
    assert sum(metrics["users"]) == 11
    np.testing.assert_array_equal(groups.mean, grouped(blobs(5, 6), 2, space="standardised")[0].mean)


def test_the_same_seed_gives_the_same_groups():
    vectors = np.random.default_rng(3).normal(size=(60, 4))
    first, second = (grouped(vectors, 4, min_users=2, space="standardised")[0] for _ in range(2))
    assert (first.group == second.group).all() and (first.centroids == second.centroids).all()


def test_the_standardised_space_centres_and_scales_every_dimension_and_the_raw_one_none():
    vectors = (blobs(10, 10) * [1, 100] + 5).astype(np.float32)
    groups, _ = grouped(vectors, 2, space="standardised")
    points = groups.project(vectors)
    np.testing.assert_allclose(points.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(points.std(0), 1, atol=1e-5)
    np.testing.assert_allclose(groups.centroids[1], points[groups.group == 1].mean(0), atol=1e-5)
    assert groups.project(np.zeros((1, 2), np.float32)).tolist() == [[0, 0]]
    np.testing.assert_array_equal(grouped(vectors, 2)[0].project(vectors), vectors)


def test_no_groups_are_wanted(tmp_path):
    groups, metrics = grouped(blobs(4, 5), 0, space="standardised")
    assert (groups.group == -1).all() and groups.centroids.shape == (0, 2)
    assert (metrics["groups"], metrics["joined"], metrics["users"], metrics["silhouette"]) == (0, 0, [], {})
    save_groups(groups, tmp_path)
    assert load_groups(tmp_path).centroids.shape == (0, 2)


def test_more_groups_than_users_is_a_user_error():
    with pytest.raises(UserError, match=r"experts\.n=4: there are only 3 users to group; ask for fewer experts"):
        grouped(np.append(blobs(3), [[0, 0]], axis=0), 4)
    with pytest.raises(UserError, match=r"experts\.n=auto: there are only 2 users to group; give a number"):
        grouped(blobs(2), "auto")
    assert list(grouped(blobs(3), "auto")[1]["silhouette"]) == [2]  # as many groups as three users can form


def test_wards_groups_differ_from_k_means_where_the_best_merge_is_not_the_best_cut():
    """Four on a line: Ward joins 4 and 6 first, and never parts them again; k-means does."""
    vectors = np.asarray([[1.0], [4.0], [6.0], [9.5]]).repeat(2, axis=1)
    # Squares about the means: {1} {4 6 9.5} 15.5, {1 4} {6 9.5} 10.6, {1 4 6} {9.5} 12.7 (per dimension).
    assert grouped(vectors, 2)[0].group.tolist() == [0, 0, 1, 1]
    # Ward merges 4 and 6 (cost 2), then 1 with them (2/3 * 16 = 10.7) or 9.5 (2/3 * 20.25 = 13.5).
    assert grouped(vectors, 2, "agglomerative")[0].group.tolist() == [0, 0, 0, 1]


def test_beyond_its_bound_ward_clusters_a_sample_and_the_others_join_the_nearest_centroid(
    monkeypatch,
):
    vectors = blobs(30, 60, 45)
    whole = grouped(vectors, 3, "agglomerative")[0]
    clustered = []

    class Ward(cluster.AgglomerativeClustering):
        def fit_predict(self, points, y=None):
            clustered.append(len(points))
            return super().fit_predict(points)

    monkeypatch.setattr(cluster, "AgglomerativeClustering", Ward)
    monkeypatch.setattr(grouping, "WARD_USERS", 20)
    assert grouped(vectors, 3, "agglomerative")[0].group.tolist() == whole.group.tolist()
    assert clustered == [20]


@KINDS
@pytest.mark.parametrize("places", [((0, 9), (9, 0)), ((0, 9), (9, 0), (9, 9)), ((0, 0), (0, 9), (9, 0), (9, 9))])
def test_auto_finds_as_many_groups_as_there_are(kind, places):
    groups, metrics = grouped(blobs(*[10] * len(places), at=places), "auto", kind)
    assert len(groups.centroids) == metrics["groups"] == len(places)
    assert list(metrics["silhouette"]) == [2, 3, 4, 5, 6]
    assert max(metrics["silhouette"], key=metrics["silhouette"].get) == len(places)


def test_auto_judges_the_groups_that_are_left_once_small_ones_have_joined():
    """One user far off, against all others, has the best silhouette; who goes by it is left with a single expert."""
    vectors = blobs(40, 40, 1, at=((0, 0), (3, 0), (43, 0)))
    assert grouped(vectors, "auto")[0].group.tolist() == [0] * 80 + [1]
    groups, metrics = grouped(vectors, "auto", min_users=3)
    assert groups.group.tolist() == [1] * 40 + [0] * 41
    assert np.isnan(metrics["silhouette"][2]) and metrics["joined"] == 1


def test_the_silhouette_by_hand_and_of_a_bounded_sample(monkeypatch):
    points = np.asarray([[0], [1], [4], [6]], np.float32)
    # a, b per user: 1, 5; 1, 4; 2, 3.5; 2, 5.5 -> .8, .75, 1.5 / 3.5, 3.5 / 5.5
    by_hand = np.mean([0.8, 0.75, 1.5 / 3.5, 3.5 / 5.5])
    assert silhouette(points, np.asarray([0, 0, 1, 1]), seed=1) == pytest.approx(by_hand)
    assert np.isnan(silhouette(points, np.zeros(4, np.int32), seed=1))
    assert np.isnan(silhouette(points, np.arange(4), seed=1))
    points, group = blobs(40, 40), np.repeat([0, 1], 40)
    whole = silhouette(points, group, seed=1)
    monkeypatch.setattr(grouping, "SILHOUETTE_USERS", 10)
    sampled = silhouette(points, group, seed=1)
    assert sampled != whole and sampled == pytest.approx(whole, abs=0.01)


FIRST = np.asarray([[-1, 0], [1, 5]], np.float32)
SECOND = np.asarray([[3, 0], [4, 2.5], [5, 5]], np.float32)


def test_cohens_d_by_hand_along_the_line_between_the_centroids_however_that_lies():
    """Means 0 and 4 along the first axis, variances 2 (of two) and 1 (of three): pooled (1 * 2 + 2 * 1) / 3."""
    by_hand = pytest.approx(4 / (4 / 3) ** 0.5, rel=1e-5)
    rotation = np.asarray([[0.6, -0.8], [0.8, 0.6]], np.float32)
    assert cohens_d(FIRST, SECOND) == cohens_d(SECOND, FIRST) == by_hand
    assert cohens_d(7 + FIRST @ rotation, 7 + SECOND @ rotation) == by_hand
    assert np.isnan(cohens_d(FIRST[:1], SECOND[:1]))  # without any spread it is undefined
    assert np.isnan(cohens_d(FIRST * [0, 1], SECOND * [0, 1] + [4, 0]))


def test_every_pair_of_groups_is_told_apart_by_its_cohens_d_in_the_space_of_the_groups():
    vectors = blobs(5, 12, 8) * np.asarray([1, 50], np.float32)
    groups, metrics = grouped(vectors, 3, space="standardised")
    points = [groups.project(vectors[groups.group == number]) for number in range(3)]
    assert metrics["cohens_d"] == {
        f"{a + 1}-{b + 1}": cohens_d(points[a], points[b]) for a, b in ((0, 1), (0, 2), (1, 2))
    }
    assert metrics["smallest_cohens_d"] == min(metrics["cohens_d"].values()) > 1
    assert separation(grouped(vectors, 1)[0], vectors)["cohens_d"] == {}


@pytest.mark.parametrize(
    "change",
    [
        {"group": np.asarray([0, 1, 2], np.int32)},
        {"group": np.asarray([0.0, 1.0], np.float32)},
        {"centroids": np.zeros(2, np.float32)},
        {"mean": np.zeros(3, np.float32)},
        {"spread": np.zeros((1, 2), np.float32)},
    ],
)
def test_groups_round_trip_through_disk_unless_they_have_another_shape(change, tmp_path):
    groups, folder = grouped(blobs(4, 5), 2, space="standardised")[0], tmp_path / "out" / "experts"
    save_groups(groups, folder)
    again = load_groups(folder)
    for name in UserGroups.__slots__:
        np.testing.assert_array_equal(getattr(again, name), getattr(groups, name))
    save_groups(replace(groups, **change), folder)
    with pytest.raises(UserError, match="do not fit each other; rerun its stage: dvc repro experts"):
        load_groups(folder)
