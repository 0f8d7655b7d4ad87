"""Groups: small ones join their nearest, the largest comes first, and whoever is unknown belongs to none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from thinkrec.errors import UserError
from thinkrec.experts import groups as grouping
from thinkrec.experts.groups import Grouping, cohens_d, group_users, load, save, separation, silhouette


def blobs(*sizes: int, at: tuple[tuple[float, float], ...] = ((0, 9), (9, 0), (9, 3))) -> NDArray[np.float32]:
    """Tight clouds of users around the given places."""
    rng = np.random.default_rng(0)
    return np.concatenate(
        [np.asarray(place) + 0.1 * rng.normal(size=(size, 2)) for size, place in zip(sizes, at, strict=False)]
    ).astype(np.float32)


def test_the_largest_group_has_number_zero() -> None:
    groups, stats = group_users(blobs(5, 12, 8), n=3, grouping="kmeans", space="raw", min_users=1, seed=1)
    assert groups.group.tolist() == [2] * 5 + [0] * 12 + [1] * 8
    assert (stats["groups"], stats["joined"], stats["users"]) == (3, 0, [12, 8, 5])
    np.testing.assert_allclose(groups.centroids, [[9, 0], [9, 3], [0, 9]], atol=0.2)


def test_a_small_group_joins_the_nearest() -> None:
    vectors = blobs(5, 12, 2)
    groups, stats = group_users(vectors, n=3, grouping="kmeans", space="raw", min_users=3, seed=1)
    assert groups.group.tolist() == [1] * 5 + [0] * 14
    assert (stats["groups"], stats["joined"], stats["users"]) == (2, 1, [14, 5])
    np.testing.assert_allclose(groups.centroids[0], vectors[5:].mean(0), rtol=1e-5)


def test_all_groups_too_small_leave_one() -> None:
    groups, stats = group_users(blobs(3, 4, 2), n=3, grouping="kmeans", space="raw", min_users=50, seed=1)
    assert groups.group.tolist() == [0] * 9
    assert stats["joined"] == 2


def test_users_without_a_vector_belong_to_no_group() -> None:
    vectors = np.insert(blobs(5, 6), 3, 0, axis=0)
    groups, stats = group_users(vectors, n=2, grouping="kmeans", space="standardised", min_users=1, seed=1)
    assert groups.group[3] == -1 and (np.delete(groups.group, 3) >= 0).all()
    assert sum(stats["users"]) == 11
    without, _ = group_users(blobs(5, 6), n=2, grouping="kmeans", space="standardised", min_users=1, seed=1)
    np.testing.assert_array_equal(groups.mean, without.mean)


def test_the_same_seed_gives_the_same_groups() -> None:
    vectors = np.random.default_rng(3).normal(size=(60, 4)).astype(np.float32)
    one, two = (
        group_users(vectors, n=4, grouping="kmeans", space="standardised", min_users=2, seed=5)[0] for _ in range(2)
    )
    assert (one.group == two.group).all() and (one.centroids == two.centroids).all()


def test_the_standardised_space_centres_and_scales_every_dimension() -> None:
    vectors = blobs(10, 10) * [1, 100] + 5
    groups, _ = group_users(
        vectors.astype(np.float32), n=2, grouping="kmeans", space="standardised", min_users=1, seed=1
    )
    points = groups.project(vectors.astype(np.float32))
    np.testing.assert_allclose(points.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(points.std(0), 1, atol=1e-5)
    np.testing.assert_allclose(groups.centroids[1], points[groups.group == 1].mean(0), atol=1e-5)
    assert groups.project(np.zeros((1, 2), np.float32)).tolist() == [[0, 0]]


def test_the_raw_space_leaves_vectors_as_they_are() -> None:
    vectors = blobs(4, 5)
    groups, _ = group_users(vectors, n=2, grouping="kmeans", space="raw", min_users=1, seed=1)
    np.testing.assert_array_equal(groups.project(vectors), vectors)


def test_no_groups_are_wanted(tmp_path: Path) -> None:
    groups, stats = group_users(blobs(4, 5), n=0, grouping="kmeans", space="standardised", min_users=1, seed=1)
    assert (groups.group == -1).all() and groups.centroids.shape == (0, 2)
    assert (stats["groups"], stats["joined"], stats["users"], stats["silhouette"]) == (0, 0, [], {})
    save(groups, tmp_path)
    assert load(tmp_path).centroids.shape == (0, 2)


def test_more_groups_than_users_is_a_user_error() -> None:
    with pytest.raises(UserError, match=r"experts\.n=4: there are only 3 users"):
        group_users(
            np.append(blobs(3), [[0, 0]], axis=0).astype(np.float32),
            n=4,
            grouping="kmeans",
            space="raw",
            min_users=1,
            seed=1,
        )


def grouped(vectors: NDArray[np.float32], n: object, kind: Grouping = "kmeans", min_users: int = 1):
    return group_users(vectors, n=n, grouping=kind, space="raw", min_users=min_users, seed=1)


def test_wards_groups_differ_from_k_means_where_the_best_merge_is_not_the_best_cut() -> None:
    """Four on a line: Ward joins 4 and 6 first, and never parts them again; k-means does."""
    vectors = np.asarray([[1.0], [4.0], [6.0], [9.5]], np.float32).repeat(2, axis=1)
    # Squares about the means: {1} {4 6 9.5} 15.5, {1 4} {6 9.5} 10.6, {1 4 6} {9.5} 12.7 (per dimension).
    assert grouped(vectors, 2)[0].group.tolist() == [0, 0, 1, 1]
    # Ward merges 4 and 6 (cost 2), then 1 with them (2/3 * 16 = 10.7) or 9.5 (2/3 * 20.25 = 13.5).
    assert grouped(vectors, 2, "agglomerative")[0].group.tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("kind", ["kmeans", "agglomerative"])
def test_clear_groups_are_found_either_way(kind: Grouping) -> None:
    groups, stats = grouped(blobs(5, 12, 8), 3, kind)
    assert groups.group.tolist() == [2] * 5 + [0] * 12 + [1] * 8
    assert stats["users"] == [12, 8, 5]
    assert grouped(blobs(5, 12, 8), 1, kind)[0].group.tolist() == [0] * 25


def test_beyond_its_bound_ward_clusters_a_sample_and_the_others_join_the_nearest_centroid(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vectors = blobs(30, 60, 45)
    whole = grouped(vectors, 3, "agglomerative")[0]
    clustered = []

    class Ward(grouping.AgglomerativeClustering):
        def fit_predict(self, points: NDArray[np.float32], y: None = None) -> NDArray[np.int64]:
            clustered.append(len(points))
            return super().fit_predict(points)

    monkeypatch.setattr(grouping, "AgglomerativeClustering", Ward)
    monkeypatch.setattr(grouping, "WARD_USERS", 20)
    assert grouped(vectors, 3, "agglomerative")[0].group.tolist() == whole.group.tolist()
    assert clustered == [20]


@pytest.mark.parametrize("kind", ["kmeans", "agglomerative"])
@pytest.mark.parametrize("places", [((0, 9), (9, 0)), ((0, 9), (9, 0), (9, 9)), ((0, 0), (0, 9), (9, 0), (9, 9))])
def test_auto_finds_as_many_groups_as_there_are(kind: Grouping, places: tuple[tuple[float, float], ...]) -> None:
    groups, stats = grouped(blobs(*[10] * len(places), at=places), "auto", kind)
    assert len(groups.centroids) == stats["groups"] == len(places)
    assert list(stats["silhouette"]) == [2, 3, 4, 5, 6]
    assert max(stats["silhouette"], key=stats["silhouette"].get) == len(places)


def test_auto_judges_the_groups_that_are_left_once_small_ones_have_joined() -> None:
    """One user far off, against all others, has the best silhouette; who goes by it is left with a single expert."""
    vectors = blobs(40, 40, 1, at=((0, 0), (3, 0), (43, 0)))
    assert grouped(vectors, "auto")[0].group.tolist() == [0] * 80 + [1]
    groups, stats = grouped(vectors, "auto", min_users=3)
    assert groups.group.tolist() == [1] * 40 + [0] * 41
    assert np.isnan(stats["silhouette"][2]) and stats["joined"] == 1


def test_auto_wants_three_users_and_tries_no_more_groups_than_they_can_form() -> None:
    with pytest.raises(UserError, match=r"experts\.n=auto: there are only 2 users to group; give a number"):
        grouped(blobs(2), "auto")
    assert list(grouped(blobs(3), "auto")[1]["silhouette"]) == [2]


def test_users_that_are_all_alike_form_one_group() -> None:
    groups, stats = grouped(np.ones((8, 2), np.float32), 3)
    assert groups.group.tolist() == [0] * 8
    assert stats["groups"] == 1


def test_the_silhouette_by_hand() -> None:
    points = np.asarray([[0], [1], [4], [6]], np.float32)
    # a, b per user: 1, 5; 1, 4; 2, 3.5; 2, 5.5 -> .8, .75, 1.5 / 3.5, 3.5 / 5.5
    by_hand = np.mean([0.8, 0.75, 1.5 / 3.5, 3.5 / 5.5])
    assert silhouette(points, np.asarray([0, 0, 1, 1]), seed=1) == pytest.approx(by_hand)
    assert np.isnan(silhouette(points, np.zeros(4, np.int32), seed=1))
    assert np.isnan(silhouette(points, np.arange(4), seed=1))


def test_the_silhouette_looks_at_a_bounded_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    points, group = blobs(40, 40), np.repeat([0, 1], 40)
    whole = silhouette(points, group, seed=1)
    monkeypatch.setattr(grouping, "SILHOUETTE_USERS", 10)
    sampled = silhouette(points, group, seed=1)
    assert sampled != whole
    assert sampled == pytest.approx(whole, abs=0.01)


ONE = np.asarray([[-1, 0], [1, 5]], np.float32)
OTHER = np.asarray([[3, 0], [4, 2.5], [5, 5]], np.float32)


def test_cohens_d_by_hand() -> None:
    """Means 0 and 4 along the first axis, variances 2 (of two) and 1 (of three): pooled (1 * 2 + 2 * 1) / 3."""
    assert cohens_d(ONE, OTHER) == pytest.approx(4 / (4 / 3) ** 0.5)
    assert cohens_d(OTHER, ONE) == pytest.approx(cohens_d(ONE, OTHER))


def test_cohens_d_goes_along_the_line_between_the_centroids_however_that_lies() -> None:
    turned = np.asarray([[0.6, -0.8], [0.8, 0.6]], np.float32)
    assert cohens_d(7 + ONE @ turned, 7 + OTHER @ turned) == pytest.approx(cohens_d(ONE, OTHER), rel=1e-5)


def test_cohens_d_of_users_without_spread_is_undefined() -> None:
    assert np.isnan(cohens_d(ONE[:1], OTHER[:1]))
    assert np.isnan(cohens_d(ONE * [0, 1], OTHER * [0, 1] + [4, 0]))


def test_every_pair_of_groups_is_told_apart_by_its_cohens_d_in_the_space_of_the_groups() -> None:
    vectors = blobs(5, 12, 8) * np.asarray([1, 50], np.float32)
    groups, stats = group_users(vectors, n=3, grouping="kmeans", space="standardised", min_users=1, seed=1)
    own = [groups.project(vectors[groups.group == number]) for number in range(3)]
    assert stats["cohens_d"] == {
        "1-2": cohens_d(own[0], own[1]), "1-3": cohens_d(own[0], own[2]), "2-3": cohens_d(own[1], own[2])
    }  # fmt: skip
    assert stats["smallest_cohens_d"] == min(stats["cohens_d"].values()) > 1
    assert separation(grouped(vectors, 1)[0], vectors)["cohens_d"] == {}


def test_groups_round_trip_through_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups, _ = group_users(blobs(4, 5), n=2, grouping="kmeans", space="standardised", min_users=1, seed=1)
    save(groups, tmp_path)
    again = load(tmp_path)
    for name in ("group", "centroids", "mean", "spread"):
        np.testing.assert_array_equal(getattr(again, name), getattr(groups, name))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"out/experts/groups.safetensors: no such artefact; .*: dvc repro experts$"):
        load(Path("out/experts"))


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("group", np.asarray([0, 1, 2], np.int32)),
        ("group", np.asarray([0.0, 1.0], np.float32)),
        ("centroids", np.zeros(2, np.float32)),
        ("mean", np.zeros(3, np.float32)),
        ("spread", np.zeros((1, 2), np.float32)),
    ],
)
def test_groups_of_another_shape_are_refused(
    name: str, broken: NDArray[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    groups = grouped(blobs(4, 5), 2)[0]
    save(replace(groups, **{name: broken}), Path("out/experts"))
    with pytest.raises(UserError, match="do not fit each other; rerun its stage: dvc repro experts"):
        load(Path("out/experts"))


def test_another_file_is_no_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("out/added/groups.safetensors")
    path.parent.mkdir(parents=True)
    save_file({"weights": np.zeros(2)}, path)
    for content in (path.read_bytes(), b"not tensors"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"not the tensors .*; rerun its stage: dvc repro added"):
            load(path.parent)
