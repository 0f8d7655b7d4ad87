"""The paper's three cases, worked out by hand, as rows of one matrix."""

from __future__ import annotations

from math import cos, log, radians, sin
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from thinkrec.errors import UserError
from thinkrec.experts.fit import Routing, load, route_states, save
from thinkrec.experts.gate import Gate, gate_routing
from thinkrec.experts.groups import UserGroups
from thinkrec.experts.routing import CASES, centroid_routing, routing_cases


def groups_at(*centroids: list[float]) -> UserGroups:
    """Groups in the raw space."""
    width = len(centroids[0]) if centroids else 2
    return UserGroups(
        group=np.zeros(0, np.int32),
        centroids=np.asarray(centroids, np.float32).reshape(-1, width),
        mean=np.zeros(width, np.float32),
        spread=np.ones(width, np.float32),
    )


def user_with(first: float, temperature: float) -> list[float]:
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
def test_two_experts_by_hand(weight: float, row: list[float], case: str) -> None:
    vectors = 3 * np.asarray([user_with(weight, 0.1)], np.float32)
    routing = centroid_routing(vectors, groups_at([2.0, 0.0], [-1.0, 0.0]), 0.1)
    np.testing.assert_allclose(routing, [row], atol=1e-5)
    assert CASES[routing_cases(routing)[0]] == case


def test_three_experts_by_hand() -> None:
    groups = groups_at([1.0, 0.0], [0.0, 1.0], [-1.0, 0.0])
    angle = radians(40)
    routing = centroid_routing(np.asarray([[cos(angle), sin(angle)]], np.float32), groups, 0.2)
    weights = np.exp(np.asarray([cos(angle), sin(angle), -cos(angle)]) / 0.2)
    weights /= weights.sum()
    assert weights.max() < 0.5 + 0.6 / 3  # mixed
    np.testing.assert_allclose(routing, [[0, *weights]], atol=1e-5)


def test_cosines_are_taken_in_the_space_of_the_groups() -> None:
    groups = UserGroups(
        group=np.zeros(0, np.int32),
        centroids=np.asarray([[1, 0], [-1, 0]], np.float32),
        mean=np.asarray([10, 0], np.float32),
        spread=np.asarray([2, 1], np.float32),
    )
    vectors = np.asarray([[9, 0.01], [11, 0.01]], np.float32)  # raw, both lie along the first centroid
    assert centroid_routing(vectors, groups, 0.1).tolist() == [[0, 0, 1], [0, 1, 0]]


def test_without_experts_everyone_is_global() -> None:
    assert centroid_routing(np.ones((2, 2), np.float32), groups_at(), 0.1).tolist() == [[1], [1]]


def test_one_expert_serves_everyone_it_knows() -> None:
    vectors = np.asarray([[1, 2], [0, 0]], np.float32)
    assert centroid_routing(vectors, groups_at([1.0, 0.0]), 0.1).tolist() == [[0, 1], [1, 0]]


def test_whoever_has_no_vector_is_global() -> None:
    routing = centroid_routing(np.asarray([[0, 0], [5, 0]], np.float32), groups_at([1.0, 0.0], [0.0, 1.0]), 0.1)
    assert routing.tolist() == [[1, 0, 0], [0, 1, 0]]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 999), st.integers(0, 5), st.sampled_from([0.01, 0.1, 1.0]))
def test_rows_sum_to_one(seed: int, n: int, temperature: float) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(20, 3)).astype(np.float32)
    vectors[::7] = 0
    routing = centroid_routing(vectors, groups_at(*rng.normal(size=(n, 3)).tolist()) if n else groups3(), temperature)
    assert routing.shape == (20, n + 1) and (routing >= 0).all()
    np.testing.assert_allclose(routing.sum(1), 1, atol=1e-5)


def groups3() -> UserGroups:
    return UserGroups(
        group=np.zeros(0, np.int32),
        centroids=np.zeros((0, 3), np.float32),
        mean=np.zeros(3, np.float32),
        spread=np.ones(3, np.float32),
    )


@pytest.fixture(autouse=True)
def experts_that_it_belongs_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("out/added").mkdir(parents=True)
    Path("out/added/groups").write_text("some")


def trained_routing() -> tuple[Routing, UserGroups, NDArray[np.float32]]:
    """What some gate makes of some user states; of the third nothing is known."""
    rng = np.random.default_rng(2)
    groups = groups_at([1.0, 0.0], [-0.5, 1.0])
    vectors = rng.normal(size=(7, 2)).astype(np.float32)
    vectors[2] = 0
    gate = Gate(groups.centroids, 0.3)
    with torch.no_grad():
        gate.projection.copy_(torch.tensor([[1.0, 0.4], [-0.2, 0.7]]))
        gate.global_logit.fill_(0.6)
    parameters = {name: weight.detach().numpy() for name, weight in gate.named_parameters()}
    return Routing(weights=gate_routing(gate, groups, vectors), gate=parameters), groups, vectors


def test_routing_round_trips_through_disk(tmp_path: Path) -> None:
    routing, groups, _ = trained_routing()
    save(routing, tmp_path / "gate", temperature=0.3)
    again = load(tmp_path / "gate", groups, states=7, temperature=0.3)
    assert (again.weights == routing.weights).all()
    assert {name: weight.tolist() for name, weight in again.gate.items()} == {
        name: weight.tolist() for name, weight in routing.gate.items()
    }
    with pytest.raises(UserError, match="no such artefact"):
        load(tmp_path / "nowhere", groups, states=7, temperature=0.3)


def test_a_routing_of_experts_that_have_changed_is_refused(tmp_path: Path) -> None:
    routing, groups, _ = trained_routing()
    save(routing, tmp_path / "gate", temperature=0.3)
    with pytest.raises(UserError, match=r"gate: made with gate\.temperature 0\.3 \(here 0\.2\); put that back, or run"):
        load(tmp_path / "gate", groups, states=7, temperature=0.2)
    Path("out/added/groups").write_text("others")
    with pytest.raises(UserError, match=r"gate: made with added [0-9a-f]{12} \(here [0-9a-f]{12}\); put that back"):
        load(tmp_path / "gate", groups, states=7, temperature=0.3)


def test_a_routing_of_other_users_or_experts_is_refused(tmp_path: Path) -> None:
    routing, groups, _ = trained_routing()
    save(routing, tmp_path / "gate", temperature=0.3)
    with pytest.raises(UserError, match=r"not the weights of 8 user states and 2 experts; rerun its stage: dvc repro"):
        load(tmp_path / "gate", groups, states=8, temperature=0.3)
    with pytest.raises(UserError, match="not the weights of 7 user states and 3 experts"):
        load(tmp_path / "gate", groups_at([1.0, 0.0], [0.0, 1.0], [1.0, 1.0]), states=7, temperature=0.3)
    with pytest.raises(UserError, match=r"gate\.safetensors: not a gate over 3 dimensions"):
        load(tmp_path / "gate", groups_at([1.0, 0.0, 0.0], [0.0, 1.0, 0.0]), states=7, temperature=0.3)
    (tmp_path / "gate" / "routing.safetensors").write_bytes(b"not tensors")
    with pytest.raises(UserError, match="not the tensors that it should hold"):
        load(tmp_path / "gate", groups, states=7, temperature=0.3)


def test_a_state_without_a_row_is_routed_as_an_equal_one_with_a_row(tmp_path: Path) -> None:
    routing, groups, vectors = trained_routing()
    save(routing, tmp_path / "gate", temperature=0.3)
    loaded = load(tmp_path / "gate", groups, states=7, temperature=0.3)
    some = np.asarray([5, 2, 0])
    np.testing.assert_allclose(route_states(loaded, groups, vectors[some], 0.3), routing.weights[some], atol=1e-6)
    by_rule = Routing(weights=centroid_routing(vectors, groups, 0.3), gate={})
    np.testing.assert_array_equal(route_states(by_rule, groups, vectors[some], 0.3), by_rule.weights[some])
    assert not np.allclose(by_rule.weights, routing.weights)
