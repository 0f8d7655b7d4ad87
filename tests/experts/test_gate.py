"""The trained gate starts at the rule, learns which expert is right for whom, and touches nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from peft import LoraConfig, get_peft_model

from tests.builders import causal_lm, interactions, layout_of, recommender
from thinkrec.experts.gate import Gate, gate_routing, train_gate
from thinkrec.experts.groups import UserGroups
from thinkrec.experts.routing import centroid_routing, centroid_weights
from thinkrec.lm.mixture import Router, install
from thinkrec.lm.model import RecommenderLM
from thinkrec.lm.scoring import score
from thinkrec.lm.trainer import TrainSettings

CENTROIDS = np.asarray([[1, 0, 0, 0], [0, 1, 0, 0]], np.float32)
TEMPERATURE = 0.5
UNIT = {"mean": np.zeros(4, np.float32), "spread": np.ones(4, np.float32)}


def test_the_gate_starts_at_the_rule() -> None:
    points = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    gate = Gate(CENTROIDS, 0.1)
    assert gate.projection.equal(torch.eye(4))
    gate.start_at(points, 0.3)
    weights = gate(torch.from_numpy(points)).detach().numpy()
    assert weights[:, 0].mean() == pytest.approx(0.3, abs=1e-4)
    experts = weights[:, 1:] / weights[:, 1:].sum(1, keepdims=True)
    np.testing.assert_allclose(experts, centroid_weights(points, CENTROIDS, 0.1), atol=1e-4)


@pytest.mark.parametrize(("asked", "given"), [(0.0, 0.02), (1.0, 0.98)])
def test_the_start_leaves_every_adapter_a_say(asked: float, given: float) -> None:
    points = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    gate = Gate(CENTROIDS, TEMPERATURE)
    gate.start_at(points, asked)
    assert float(gate(torch.from_numpy(points))[:, 0].mean().detach()) == pytest.approx(given, abs=1e-4)


def test_who_has_no_vector_is_global_whatever_the_gate_learned() -> None:
    gate = Gate(CENTROIDS, TEMPERATURE)
    with torch.no_grad():
        gate.global_logit.fill_(-30)
        gate.projection.mul_(-2)
    weights = gate(torch.tensor([[0.0] * 4, [1.0, 0, 0, 0]]))
    assert weights[0].tolist() == [1, 0, 0]
    assert weights.sum(1).tolist() == pytest.approx([1, 1])
    weights[0].sum().backward()
    assert torch.isfinite(gate.projection.grad).all()


def test_gate_routing_works_in_the_space_of_the_groups() -> None:
    groups = UserGroups(
        group=np.zeros(0, np.int32),
        centroids=CENTROIDS,
        mean=np.full(4, 9, np.float32),
        spread=np.full(4, 3, np.float32),
    )
    gate = Gate(CENTROIDS, TEMPERATURE)
    vectors = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    vectors[2] = 0
    routing = gate_routing(gate, groups, vectors)
    assert routing[2].tolist() == [1, 0, 0]
    known = gate(torch.from_numpy((vectors - 9) / 3)).detach().numpy()
    np.testing.assert_allclose(np.delete(routing, 2, axis=0), np.delete(known, 2, axis=0), atol=1e-6)


def with_experts(table: pd.DataFrame) -> tuple[RecommenderLM, Router]:
    """A text-only model with two strong random experts in it."""
    model = recommender(table, slots=())
    return model, install(model.backbone, [None, *EXPERTS])


@pytest.fixture(scope="module", autouse=True)
def experts(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Two random adapters on disk."""
    EXPERTS.clear()
    for seed in (1, 2):
        config = LoraConfig(r=4, lora_alpha=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        expert = get_peft_model(causal_lm(), config)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weight in expert.named_parameters():
                if "lora_" in name:
                    weight.copy_(torch.randn(weight.shape, generator=generator) * 0.5)
        EXPERTS.append(tmp_path_factory.mktemp("experts") / str(seed))
        expert.save_pretrained(str(EXPERTS[-1]))


EXPERTS: list[Path] = []
USERS, ROWS = 24, 8
KIND = np.arange(USERS) % 2


def world() -> tuple[pd.DataFrame, np.ndarray]:
    """Users of two kinds, each label the verdict of its kind's own expert; and the users' vectors.

    By the rule all are rather of the first kind; their third number, which no centroid has, tells the kinds apart.
    """
    rng = np.random.default_rng(0)
    vectors = np.stack([np.full(USERS, 1.3), np.ones(USERS), np.where(KIND == 0, 1.0, -1.0), np.zeros(USERS)], axis=1)
    table = interactions(5, users=USERS, rows=ROWS, ties=False)
    own = np.eye(3, dtype=np.float32)[1 + KIND]
    model, router = with_experts(table)
    for nth in range(ROWS):  # a label is part of what later rows see
        rows = np.arange(USERS) * ROWS + nth
        said = score(model, layout_of(table), rows, router=router, routing=own, route=table["user"].to_numpy())
        table.loc[rows, "label"] = (said > 0).astype(np.int8)
    return table, (vectors + 0.05 * rng.normal(size=vectors.shape)).astype(np.float32)


def test_training_moves_weight_to_the_expert_that_is_right_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table, vectors = world()
    assert 0.2 < table["label"].mean() < 0.8
    vectors[-1] = 0  # nothing is known of the last user
    groups = UserGroups(group=KIND.astype(np.int32), centroids=CENTROIDS, **UNIT)
    known = np.arange(USERS - 1)
    rule = centroid_routing(vectors, groups, 0.15)[known]
    assert (rule[:, 1] > 2 * rule[:, 2]).sum() > 15 and (rule[:, 0] == 0).all()
    model, router = with_experts(table)
    frozen = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rows = np.arange(len(table))
    gate, result = train_gate(
        model,
        router,
        layout_of(table),
        groups,
        vectors,
        table["user"].to_numpy(),
        fit_rows=rows[rows % 4 != 3],
        valid_rows=rows[rows % 4 == 3],
        user=table["user"].to_numpy(),
        temperature=0.15,
        batch_tokens=500,
        settings=TrainSettings(name="gate", epochs=10, learning_rate=0.05, weight_decay=0.0, seed=1),
    )
    routing = gate_routing(gate, groups, vectors)
    mine, other = routing[known, 1 + KIND[known]], routing[known, 2 - KIND[known]]
    assert (mine > 2 * other).all() and mine.mean() > 0.5
    assert routing[-1].tolist() == [1, 0, 0]
    assert result.best["objective"] > result.epochs[0]["objective"] - 1e-9
    assert set(frozen) == set(model.state_dict())
    assert all(tensor.equal(frozen[name]) for name, tensor in model.state_dict().items())
    assert {name for name, weight in gate.named_parameters() if weight.requires_grad} == {"projection", "global_logit"}
    assert not any(weight.requires_grad for weight in model.parameters())


def test_the_start_counts_only_users_that_the_gate_can_say_something_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table = interactions(5, users=4, rows=ROWS, ties=False)
    vectors = np.asarray([[1, 0.1, 0, 0], [0.1, 1, 0, 0], [0] * 4, [0] * 4], np.float32)
    model, router = with_experts(table)
    rows = np.arange(len(table))
    settings = TrainSettings(name="gate", epochs=1, learning_rate=1e-9, weight_decay=0.0, seed=1)
    gate, _ = train_gate(
        model,
        router,
        layout_of(table),
        UserGroups(group=np.zeros(4, np.int32), centroids=CENTROIDS, **UNIT),
        vectors,
        table["user"].to_numpy(),
        fit_rows=rows,
        valid_rows=rows,
        user=table["user"].to_numpy(),
        temperature=0.1,
        batch_tokens=500,
        settings=settings,
    )
    # The rule gives the two known users an expert each; half of all states are global for want of a vector.
    assert float(gate(torch.from_numpy(vectors[:2]))[:, 0].mean().detach()) == pytest.approx(0.02, abs=1e-3)
