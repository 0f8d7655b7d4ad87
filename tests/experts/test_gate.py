"""The trained gate starts at the rule, learns which expert is right for whom, and touches nothing else."""

import numpy as np
import pytest
import torch

from tests.builders import interactions, loaded_model, recommender, write_random_adapter
from tests.experts.worlds import groups_at
from tests.project import params_with
from thinkrec.experts.gate import Gate, train_gate
from thinkrec.experts.rule import centroid_routing, centroid_weights
from thinkrec.lm.adapters import install_mixture

USERS, ROWS = 24, 8
KIND = np.arange(USERS) % 2
CENTROIDS = [1, 0, 0, 0], [0, 1, 0, 0]
GROUPS = groups_at(*CENTROIDS, group=KIND.tolist())
POINTS = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)


def global_share(gate, points=POINTS):
    return float(gate(torch.from_numpy(points))[:, 0].mean().detach())


@pytest.mark.parametrize(("asked", "given"), [(0.3, 0.3), (0.0, 0.02), (1.0, 0.98)])
def test_the_gate_starts_at_the_rule_but_leaves_every_adapter_a_say(asked, given):
    gate = Gate(GROUPS, 0.1)
    assert gate.projection.equal(torch.eye(4))
    gate.start_at(POINTS, asked)
    assert global_share(gate) == pytest.approx(given, abs=1e-5)
    experts = gate.route(POINTS)[:, 1:]
    expected = centroid_weights(POINTS, GROUPS.centroids, 0.1)
    np.testing.assert_allclose(experts / experts.sum(1, keepdims=True), expected, atol=1e-4)


def test_who_has_no_vector_is_global_whatever_the_gate_learned():
    gate = Gate(GROUPS, 0.5)
    with torch.no_grad():
        gate.global_logit.fill_(-30)
        gate.projection.mul_(-2)
    weights = gate(torch.tensor([[0.0] * 4, [1.0, 0, 0, 0]]))
    assert weights[0].tolist() == [1, 0, 0]
    assert weights.sum(1).tolist() == pytest.approx([1, 1])
    weights[0].sum().backward()
    assert torch.isfinite(gate.projection.grad).all()


def test_users_are_routed_in_the_space_of_the_groups():
    gate, vectors = Gate(groups_at(*CENTROIDS, mean=[9] * 4, spread=[3] * 4), 0.5), POINTS[:6].copy()
    vectors[2] = 0
    expected = gate(torch.from_numpy((vectors - 9) / 3)).detach().numpy()
    expected[2] = [1, 0, 0]
    np.testing.assert_allclose(gate.route(vectors), expected, atol=1e-6)


@pytest.fixture(scope="module")
def experts(tmp_path_factory):
    return [write_random_adapter(tmp_path_factory.mktemp("experts") / str(seed), seed) for seed in (1, 2)]


@pytest.fixture(autouse=True)
def checkpoints_below(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def with_experts(table, vectors, experts):
    """A text-only model with the two experts in it, and these user vectors (U, 4)."""
    model = recommender(table, slots=(), match=False)
    loaded = loaded_model(table, model, batch_weights=install_mixture(model.backbone, [None, *experts]))
    loaded.features.user_vectors[:] = vectors
    return loaded


def fitted(loaded, rows=None, **changes):
    """A gate fitted on these rows (all); `epochs`, `learning_rate` and `temperature` are the gate's."""
    settings = {"epochs": 1, "learning_rate": 1e-9, "temperature": 0.15} | changes
    params = params_with({f"gate.{name}": value for name, value in settings.items()} | {"sft.batch_tokens": 500})
    return train_gate(loaded, GROUPS, np.arange(len(loaded.interactions)) if rows is None else rows, params)


def world(experts):
    """Users of two kinds, each label the verdict of its kind's own expert.

    By the rule all are rather of the first kind. Their third number, which no centroid has, parts the kinds.
    """
    vectors = np.stack([np.full(USERS, 1.3), np.ones(USERS), np.where(KIND == 0, 1.0, -1.0), np.zeros(USERS)], axis=1)
    vectors += 0.05 * np.random.default_rng(0).normal(size=vectors.shape)
    table = interactions(5, users=USERS, rows=ROWS, ties=False)
    for nth in range(ROWS):  # a label is part of what later rows see
        rows = np.arange(USERS) * ROWS + nth
        scores = with_experts(table, vectors, experts).score(rows, np.eye(3, dtype=np.float32)[1 + KIND])
        table.loc[rows, "label"] = (scores > 0).astype(np.int8)
    assert 0.2 < table["label"].mean() < 0.8
    vectors[-1] = 0  # nothing is known of the last user
    return with_experts(table, vectors, experts)


def test_training_moves_weight_to_the_expert_that_is_right_and_nothing_else(experts):
    loaded, known = world(experts), np.arange(USERS - 1)
    vectors = loaded.features.user_vectors
    rule = centroid_routing(vectors, GROUPS, 0.15)[known]
    assert (rule[:, 1] > 2 * rule[:, 2]).sum() > 15 and (rule[:, 0] == 0).all()
    before = {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}
    gate, result = fitted(loaded, loaded.rows("train"), epochs=6, learning_rate=0.15)
    weights = gate.route(vectors)
    right, wrong = weights[known, 1 + KIND[known]], weights[known, 2 - KIND[known]]
    assert (right > 2 * wrong).all() and right.mean() > 0.5
    assert weights[-1].tolist() == [1, 0, 0]
    assert result.best["objective"] > result.epochs[0]["objective"] - 1e-9
    after = loaded.model.state_dict()
    assert set(before) == set(after) and all(tensor.equal(before[name]) for name, tensor in after.items())
    assert {name for name, weight in gate.named_parameters() if weight.requires_grad} == {"projection", "global_logit"}
    assert not any(weight.requires_grad for weight in loaded.model.parameters())


PEAKED = np.asarray([[1, 0.1, 0, 0], [0.1, 1, 0, 0], [0] * 4, [0] * 4], np.float32)


@pytest.mark.parametrize("users", [(0, 1, 2, 3), (2, 3)], ids=["some known", "none known"])
def test_the_start_counts_only_users_that_have_a_vector(experts, users):
    """The rule gives the two known users an expert each; it is where a gate starts whose late rows know nobody, too."""
    table = interactions(5, users=4, rows=ROWS, ties=False)
    loaded = with_experts(table, PEAKED, experts)
    gate, _ = fitted(loaded, np.flatnonzero(np.isin(loaded.user, users)), temperature=0.1)
    assert global_share(gate, PEAKED[:2]) == pytest.approx(0.02, abs=1e-3)
    gate, _ = fitted(with_experts(table, 0 * PEAKED, experts))
    assert float(gate.global_logit.detach()) == pytest.approx(0)  # without any vector the gate starts even
