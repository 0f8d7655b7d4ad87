"""Predictions: every routing is scored as it says, the oracle is the best adapter, slices know nothing too early."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.numpy import load_file, save_file

from tests.builders import causal_lm, features_of, interactions, layout_of, recommender, tokenizer
from thinkrec.artifacts import BASELINES, PREDICTIONS, read_table, write_table
from thinkrec.errors import UserError
from thinkrec.evaluation.predict import expert_oracle, known_before, predict
from thinkrec.experts.fit import Routing
from thinkrec.experts.groups import UserGroups
from thinkrec.experts.routing import CASES, centroid_routing
from thinkrec.history import static_view
from thinkrec.lm.mixture import Router, install
from thinkrec.lm.recipes import RECIPES
from thinkrec.lm.scoring import score
from thinkrec.lm.workbench import Workbench
from thinkrec.metrics import log_loss, uauc

TEMPERATURE = 0.3
SAME = 1e-5


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two random adapters on disk."""
    folders = []
    for seed in (1, 2):
        config = LoraConfig(r=4, lora_alpha=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        expert = get_peft_model(causal_lm(), config)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weight in expert.named_parameters():
                if "lora_" in name:
                    weight.copy_(torch.randn(weight.shape, generator=generator) * 0.5)
        folders.append(tmp_path_factory.mktemp("experts") / str(seed))
        expert.save_pretrained(str(folders[-1]))
    return folders


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What the evaluate stage has at hand."""

    bench: Workbench
    static: Workbench
    router: Router
    groups: UserGroups
    routing: Routing  # by the paper's rule
    baselines: pd.DataFrame

    def predict(
        self, routing: Routing | None = None, truth: pd.DataFrame | None = None
    ) -> tuple[pd.DataFrame, list[str]]:
        return predict(
            self.bench,
            self.static,
            self.router,
            routing or self.routing,
            self.groups,
            self.baselines,
            pd.DataFrame({"probability": []}) if truth is None else truth,
            temperature=TEMPERATURE,
        )

    def scored(self, weights: np.ndarray, view: Workbench | None = None) -> np.ndarray:
        """Probabilities of the evaluated rows under a routing matrix."""
        view, rows = view or self.bench, self.baselines["row"].to_numpy()
        logits = score(view.model, view.layout, rows, router=self.router, routing=weights, route=view.features.state)
        return 1 / (1 + np.exp(-logits))


def stage(experts: list[Path], *, users: int = 12) -> Stage:
    """A tiny model with these experts; the paper's rule makes every case occur."""
    table = interactions(3, users=users)
    table["split"] = table["split"].astype("category")
    features, model = features_of(table), recommender(table, slots=())
    features.user_vectors[:2] = 0  # users that train never saw
    bench = Workbench(
        interactions=table,
        features=features,
        tokenizer=tokenizer(),
        layout=layout_of(table),
        model=model,
        recipe=RECIPES["compact"],
        base=Path("out/sft/model"),
        adapter=None,
        made_with={},
    )
    told_less = static_view(table)
    router = install(model.backbone, [None, *experts])
    groups = UserGroups(
        group=np.where(np.arange(users) < 2, -1, np.arange(users) % 2).astype(np.int32),
        centroids=np.eye(4, dtype=np.float32)[: len(experts)],
        mean=np.zeros(4, np.float32),
        spread=np.ones(4, np.float32),
    )
    rows = np.flatnonzero(table["split"] != "train")
    chance = np.random.default_rng(0).random((2, len(rows))).astype(np.float32)
    return Stage(
        bench=bench,
        static=replace(
            bench,
            interactions=told_less,
            layout=layout_of(told_less),
            features=replace(features, state=features.state[::-1].copy()),
        ),
        router=router,
        groups=groups,
        routing=Routing(weights=centroid_routing(features.user_vectors, groups, TEMPERATURE), gate={}),
        baselines=pd.DataFrame({"row": rows, "mf": chance[0], "mf_static": chance[1]}),
    )


def gate_of(stage: Stage) -> Routing:
    """Weights that mix all adapters for everyone, as a trained gate's do."""
    weights = np.random.default_rng(1).dirichlet([1.0] * 3, len(stage.routing.weights)).astype(np.float32)
    return Routing(weights=weights, gate={})


def test_ours_its_other_routings_the_oracle_the_baselines_and_the_truth_stand_in_this_order(
    experts: list[Path], tmp_path: Path
) -> None:
    one = stage(experts)
    truth = pd.DataFrame({"probability": np.linspace(0.1, 0.9, len(one.bench.interactions))})
    predictions, models = one.predict(gate_of(one), truth)
    ours = ["thinkrec", "thinkrec_static", "thinkrec_global", "thinkrec_centroid", "expert_oracle"]
    assert models == [*ours, "mf", "mf_static", "best"]
    np.testing.assert_array_equal(predictions["mf_static"], one.baselines["mf_static"])
    np.testing.assert_allclose(predictions["best"], truth["probability"][predictions["row"]], atol=SAME)
    write_table(PREDICTIONS, predictions, root=tmp_path)
    again = read_table(PREDICTIONS, root=tmp_path)
    assert set(models) < set(again) and (again[models].dtypes == np.float32).all()
    assert (again["split"] != "train").all()


def test_each_routing_is_scored_by_its_own_weights(experts: list[Path]) -> None:
    one = stage(experts)
    rule = one.routing.weights
    assert {CASES[case] for case in one.predict()[0]["case"]} == set(CASES)
    gate = gate_of(one)
    predictions, _ = one.predict(gate)
    only_global = np.zeros_like(rule)
    only_global[:, 0] = 1
    expected = {
        "thinkrec": one.scored(gate.weights),
        "thinkrec_static": one.scored(gate.weights, one.static),
        "thinkrec_global": one.scored(only_global),
        "thinkrec_centroid": one.scored(rule),
    }
    for name, probability in expected.items():
        np.testing.assert_allclose(predictions[name], probability, atol=SAME, err_msg=name)
    apart = np.abs(np.stack(list(expected.values()))[:, None] - np.stack(list(expected.values()))).max(axis=2)
    assert (apart[~np.eye(len(expected), dtype=bool)] > 0.01).all()


def test_the_oracle_has_the_best_uauc_of_all_adapters(experts: list[Path]) -> None:
    one = stage(experts)
    predictions, _ = one.predict()
    adapters = [one.scored(np.tile(only, (len(one.routing.weights), 1))) for only in np.eye(3, dtype=np.float32)]
    for split in ("valid", "test"):
        held = (predictions["split"] == split).to_numpy()
        user, label = predictions.loc[held, "user"], predictions.loc[held, "label"]
        best = uauc(user, label, predictions.loc[held, "expert_oracle"])[0]
        assert best > max(uauc(user, label, adapter[held])[0] for adapter in adapters)
    oracle = predictions["expert_oracle"].to_numpy()
    for _, held in predictions.groupby(["split", "user"], observed=True).indices.items():
        assert any(np.allclose(oracle[held], adapter[held], atol=SAME) for adapter in adapters)


def test_without_experts_and_where_the_rule_is_what_routes_nothing_stands_twice(experts: list[Path]) -> None:
    assert stage([]).predict()[1] == ["thinkrec", "thinkrec_static", "mf", "mf_static"]
    alone = stage(experts[:1]).predict()[1]
    assert alone == ["thinkrec", "thinkrec_static", "thinkrec_global", "expert_oracle", "mf", "mf_static"]
    assert "thinkrec_centroid" not in stage(experts).predict()[1]


@pytest.mark.parametrize("held", [slice(1, None), slice(None, None, -1)], ids=["fewer", "in another order"])
def test_baselines_of_other_rows_are_refused(held: slice, experts: list[Path]) -> None:
    one = stage(experts)
    with pytest.raises(UserError, match=rf"^{BASELINES}: .* dvc repro baselines$"):
        replace(one, baselines=one.baselines[held]).predict()


def test_the_oracle_worked_out_by_hand() -> None:
    # User 4's second adapter ranks both rows right; user 7 has likes alone, and user 9 the same ranking twice: for
    # these the surer adapter is the better one.
    user, label = np.array([4, 4, 7, 7, 9, 9]), np.array([1, 0, 1, 1, 0, 1])
    adapters = np.array([[0.2, 0.3], [0.9, 0.1], [0.6, 0.9], [0.6, 0.7], [0.1, 0.4], [0.9, 0.6]])
    assert expert_oracle(user, label, adapters).tolist() == [0.3, 0.1, 0.9, 0.7, 0.1, 0.9]
    losses = [log_loss(label[4:], adapter) for adapter in adapters[4:].T]
    assert losses[0] < losses[1]


def test_slices_worked_out_by_hand() -> None:
    table = pd.DataFrame(
        {
            "user": [0, 0, 0, 0, 1, 1],
            "item": [2, 1, 2, 5, 2, 1],
            "timestamp": [1, 5, 5, 9, 2, 8],
            "split": ["train", "valid", "valid", "test", "train", "test"],
        }
    )
    groups = UserGroups(group=np.array([1, -1]), centroids=np.eye(2), mean=np.zeros(2), spread=np.ones(2))
    found = known_before(table, groups, np.array([1, 2, 3, 5]))
    assert {name: column.tolist() for name, column in found.items()} == {
        "warm": [False, True, False, False],
        "history": [1, 1, 3, 1],  # rows of one second do not see each other
        "popularity": [0, 2, 0, 0],  # valid's own ratings of item 1 do not count in test
        "group": [1, 1, 1, -1],
    }


def test_what_slices_go_by_is_the_same_in_a_world_that_ends_with_the_row() -> None:
    table = interactions(4, users=6)
    groups = UserGroups(group=np.arange(6) % 3, centroids=np.eye(3), mean=np.zeros(3), spread=np.ones(3))
    rows = np.flatnonzero(table["split"] != "train")
    found = known_before(table, groups, rows)
    for at, row in enumerate(rows):
        until = np.flatnonzero(table["timestamp"] <= table["timestamp"][row])
        ended = known_before(table.loc[until].reset_index(drop=True), groups, np.flatnonzero(until == row))
        assert {name: column[0] for name, column in ended.items()} == {name: found[name][at] for name in found}


def test_an_expert_that_changes_no_score_is_refused(experts: list[Path], tmp_path: Path) -> None:
    shutil.copytree(experts[1], tmp_path / "idle")
    weights = load_file(tmp_path / "idle" / "adapter_model.safetensors")
    save_file({name: 0 * weight for name, weight in weights.items()}, tmp_path / "idle" / "adapter_model.safetensors")
    with pytest.raises(UserError, match=r"^expert_2: changes no score, so it learned nothing"):
        stage([experts[0], tmp_path / "idle"]).predict()
