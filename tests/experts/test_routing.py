"""The routing artefact: it round-trips, belongs to its experts and users, and routes users it has no row for."""

import numpy as np
import pytest
import torch

from tests.experts.worlds import groups_at
from tests.project import params_with
from thinkrec.errors import UserError
from thinkrec.experts.gate import Gate
from thinkrec.experts.routing import Routing, load_routing, save_routing

VECTORS = np.random.default_rng(2).normal(size=(7, 2)).astype(np.float32)
VECTORS[2] = 0  # nothing is known of the third user
GROUPS = groups_at([1.0, 0.0], [-0.5, 1.0])
PARAMS = params_with({"gate.temperature": 0.3, "gate.kind": "trained"}).gate


@pytest.fixture
def routing(tmp_path):
    """What some gate makes of the users, in a project whose experts are a single file."""
    (tmp_path / "out" / "experts").mkdir(parents=True)
    (tmp_path / "out" / "experts" / "groups").write_text("some")
    gate = Gate(GROUPS, 0.3)
    with torch.no_grad():
        gate.projection.copy_(torch.tensor([[1.0, 0.4], [-0.2, 0.7]]))
        gate.global_logit.fill_(0.6)
    routing = Routing(groups=GROUPS, temperature=0.3, weights=gate.route(VECTORS), gate=gate)
    save_routing(routing, PARAMS, tmp_path)
    return routing


def test_routing_round_trips_through_disk_and_routes_whom_it_has_no_row_for(tmp_path, routing):
    again = load_routing(GROUPS, PARAMS, tmp_path, states=7)
    assert (again.weights == routing.weights).all()
    some = np.asarray([5, 2, 0])
    np.testing.assert_allclose(again.of_vectors(VECTORS[some]), routing.weights[some], atol=1e-6)
    by_rule = Routing(groups=GROUPS, temperature=0.3, weights=routing.by_rule(VECTORS))
    np.testing.assert_array_equal(by_rule.of_vectors(VECTORS[some]), by_rule.weights[some])
    assert not np.allclose(by_rule.weights, routing.weights)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"temperature": 0.2}, r"gate: made with gate\.temperature 0\.3 \(here 0\.2\); put that back, or run"),
        ({"kind": "centroid"}, r"gate: made with gate\.kind trained \(here centroid\)"),
        ({}, r"gate: made with experts [0-9a-f]{12} \(here [0-9a-f]{12}\); put that back"),
    ],
)
def test_a_routing_made_with_others_is_refused(tmp_path, routing, changed, message):
    if not changed:
        (tmp_path / "out" / "experts" / "groups").write_text("others")
    with pytest.raises(UserError, match=message):
        load_routing(GROUPS, PARAMS.model_copy(update=changed), tmp_path, states=7)


@pytest.mark.parametrize(
    ("centroids", "states", "message"),
    [
        ([[1.0, 0.0], [-0.5, 1.0]], 8, r"not the weights of 8 user states and 2 experts; .* dvc repro gate"),
        ([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], 7, "not the weights of 7 user states and 3 experts"),
        ([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], 7, r"gate\.safetensors: not a gate over 3 dimensions"),
    ],
)
def test_a_routing_of_other_users_or_experts_is_refused(tmp_path, routing, centroids, states, message):
    with pytest.raises(UserError, match=message):
        load_routing(groups_at(*centroids), PARAMS, tmp_path, states=states)
