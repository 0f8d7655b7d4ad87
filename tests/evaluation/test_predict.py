"""Predictions: every routing is scored as it says, the oracle is the best adapter, slices know nothing too early."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file
from scipy.special import logit

from tests.builders import interactions, loaded_model, recommender, write_random_adapter
from thinkrec.artifacts import BASELINES, FEATURES, PREDICTIONS, read_table, write_table
from thinkrec.errors import UserError
from thinkrec.evaluation.predict import expert_oracle, known_before, predict
from thinkrec.experts.groups import UserGroups
from thinkrec.experts.routing import Routing
from thinkrec.experts.rule import CASES, centroid_routing
from thinkrec.features.artefact import save_features
from thinkrec.lm.adapters import install_mixture
from thinkrec.lm.loaded import LoadedModel
from thinkrec.metrics import uauc

TEMPERATURE = 0.3
SAME = 1e-5


@pytest.fixture(scope="module")
def experts(tmp_path_factory):
    """Two random adapters on disk."""
    return [write_random_adapter(tmp_path_factory.mktemp("experts") / str(seed), seed) for seed in (1, 2)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What the evaluate stage has at hand."""

    loaded: LoadedModel
    routing: Routing  # by the paper's rule
    baselines: pd.DataFrame

    def predict(self, weights=None, truth=None):
        """Predictions with these routing weights, by default the rule's."""
        routing = self.routing if weights is None else replace(self.routing, weights=weights)
        loaded = replace(self.loaded, routing_weights=routing.weights)
        return predict(loaded, routing, self.baselines, pd.DataFrame({"probability": []}) if truth is None else truth)

    def score(self, weights, loaded=None):
        """Probabilities of the evaluated rows under routing weights."""
        return (loaded or self.loaded).probability(self.baselines["row"].to_numpy(), weights)

    def mix(self):
        """Weights that mix all adapters for everyone, as a trained gate's do."""
        return np.random.default_rng(1).dirichlet([1.0] * 3, len(self.routing.weights)).astype(np.float32)


def make_stage(root, experts, *, users=12):
    """A tiny model with these experts; the paper's rule makes every case occur."""
    table = interactions(3, users=users)
    table["split"] = table["split"].astype("category")
    model = recommender(table, slots=())
    batch_weights = install_mixture(model.backbone, [None, *experts])
    loaded = loaded_model(table, model, batch_weights=batch_weights, root=root)
    features = loaded.features
    features.user_vectors[:2] = 0  # users that train never saw
    static = replace(features, state=features.state[::-1].copy())
    save_features({"online": features, "static": static}, root / FEATURES)
    groups = UserGroups(
        group=np.where(np.arange(users) < 2, -1, np.arange(users) % 2).astype(np.int32),
        centroids=np.eye(4, dtype=np.float32)[: len(experts)],
        mean=np.zeros(4, np.float32),
        spread=np.ones(4, np.float32),
    )
    rows = np.flatnonzero(table["split"] != "train")
    chance = np.random.default_rng(0).random((2, len(rows))).astype(np.float32)
    by_rule = centroid_routing(features.user_vectors, groups, TEMPERATURE)
    return Stage(
        loaded=loaded,
        routing=Routing(groups=groups, temperature=TEMPERATURE, weights=by_rule),
        baselines=pd.DataFrame({"row": rows, "mf": chance[0], "mf_static": chance[1]}),
    )


@pytest.fixture
def stage(tmp_path, experts):
    return make_stage(tmp_path, experts)


def test_ours_its_other_routings_the_oracle_the_baselines_and_the_truth_stand_in_this_order(stage, tmp_path):
    truth = pd.DataFrame({"probability": np.linspace(0.1, 0.9, len(stage.loaded.interactions))})
    predictions, models = stage.predict(stage.mix(), truth)
    ours = ["thinkrec", "thinkrec_static", "thinkrec_global", "thinkrec_centroid", "expert_oracle"]
    assert models == [*ours, "mf", "mf_static", "best"]
    np.testing.assert_array_equal(predictions["mf_static"], stage.baselines["mf_static"])
    np.testing.assert_allclose(predictions["best"], truth["probability"][predictions["row"]], atol=SAME)
    write_table(PREDICTIONS, predictions, root=tmp_path)
    again = read_table(PREDICTIONS, root=tmp_path)
    assert set(models) < set(again)
    np.testing.assert_array_equal(again[models], predictions[models])
    assert (again["split"] != "train").all()


def test_each_routing_is_scored_by_its_own_weights(stage):
    rule, gate = stage.routing.weights, stage.mix()
    predictions, _ = stage.predict(gate)
    assert {CASES[case] for case in predictions["case"]} == set(CASES)
    expected = {
        "thinkrec": stage.score(gate),
        "thinkrec_static": stage.score(gate, stage.loaded.under_static_protocol()),
        "thinkrec_global": stage.score(np.eye(3, dtype=np.float32)[[0] * len(rule)]),
        "thinkrec_centroid": stage.score(rule),
    }
    for name, probability in expected.items():
        np.testing.assert_allclose(predictions[name], probability, atol=SAME, err_msg=name)
    for one, two in combinations(expected.values(), 2):
        assert np.abs(one - two).max() > 0.01


def test_ranks_outlive_logits_at_which_a_probability_is_one(stage, monkeypatch):
    def far_up(loaded, *arguments, **options):
        return score(loaded, *arguments, **options) + 25

    before, models = stage.predict(stage.mix())
    score = LoadedModel.score
    monkeypatch.setattr(LoadedModel, "score", far_up)
    after, _ = stage.predict(stage.mix())
    for name in models[:4]:
        assert after[name].nunique() > 60
        np.testing.assert_allclose(logit(after[name]) - 25, logit(before[name]), atol=1e-3)


def test_the_oracle_has_the_best_uauc_of_all_adapters(stage):
    predictions, _ = stage.predict()
    adapters = [stage.score(only) for only in np.eye(3, dtype=np.float32)]
    for _, rows in predictions.groupby("split", observed=True):
        best = uauc(rows["user"], rows["label"], rows["expert_oracle"])[0]
        assert best > max(uauc(rows["user"], rows["label"], adapter[rows.index])[0] for adapter in adapters)
    for _, rows in predictions.groupby(["split", "user"], observed=True):
        assert any(np.allclose(rows["expert_oracle"], adapter[rows.index], atol=SAME) for adapter in adapters)


def test_without_experts_and_where_the_rule_is_what_routes_nothing_stands_twice(tmp_path, experts):
    assert make_stage(tmp_path, []).predict()[1] == ["thinkrec", "thinkrec_static", "mf", "mf_static"]
    alone = make_stage(tmp_path, experts[:1]).predict()[1]
    assert alone == ["thinkrec", "thinkrec_static", "thinkrec_global", "expert_oracle", "mf", "mf_static"]
    assert "thinkrec_centroid" not in make_stage(tmp_path, experts).predict()[1]


@pytest.mark.parametrize("held", [slice(1, None), slice(None, None, -1)], ids=["fewer", "in another order"])
def test_baselines_of_other_rows_are_refused(held, stage):
    with pytest.raises(UserError, match=rf"^{BASELINES}: .* dvc repro baselines$"):
        replace(stage, baselines=stage.baselines[held]).predict()


def test_the_oracle_worked_out_by_hand():
    # User 4's second adapter ranks both rows right; user 7 has likes alone, and user 9 the same ranking twice: for
    # these the surer adapter is the better one.
    user, label = np.array([4, 4, 7, 7, 9, 9]), np.array([1, 0, 1, 1, 0, 1])
    adapters = np.array([[0.2, 0.3], [0.9, 0.1], [0.6, 0.9], [0.6, 0.7], [0.1, 0.4], [0.9, 0.6]])
    assert expert_oracle(user, label, adapters).tolist() == [0.3, 0.1, 0.9, 0.7, 0.1, 0.9]


def test_slices_worked_out_by_hand():
    table = pd.DataFrame(
        {
            "user": [0, 0, 0, 0, 1, 1],
            "item": [2, 1, 2, 5, 2, 1],
            "timestamp": [1, 5, 5, 9, 2, 8],
            "split": ["train", "valid", "valid", "test", "train", "test"],
        }
    )
    groups = UserGroups(group=np.array([1, -1]), centroids=np.eye(2), mean=np.zeros(2), spread=np.ones(2))
    before = known_before(table, groups, np.array([1, 2, 3, 5]))
    assert {name: column.tolist() for name, column in before.items()} == {
        "warm": [False, True, False, False],
        "history": [1, 1, 3, 1],  # rows of one second do not see each other
        "popularity": [0, 2, 0, 0],  # valid's own ratings of item 1 do not count in test
        "group": [1, 1, 1, -1],
    }


def test_what_slices_go_by_is_the_same_in_a_world_that_ends_with_the_row():
    table = interactions(4, users=6)
    groups = UserGroups(group=np.arange(6) % 3, centroids=np.eye(3), mean=np.zeros(3), spread=np.ones(3))
    rows = np.flatnonzero(table["split"] != "train")
    before = known_before(table, groups, rows)
    for at, row in enumerate(rows):
        until = np.flatnonzero(table["timestamp"] <= table["timestamp"][row])
        ended = known_before(table.loc[until].reset_index(drop=True), groups, np.flatnonzero(until == row))
        assert {name: column[0] for name, column in ended.items()} == {name: before[name][at] for name in before}


def test_an_expert_that_changes_no_score_is_refused(experts, tmp_path):
    shutil.copytree(experts[1], tmp_path / "idle")
    weights = load_file(tmp_path / "idle" / "adapter_model.safetensors")
    save_file({name: 0 * weight for name, weight in weights.items()}, tmp_path / "idle" / "adapter_model.safetensors")
    with pytest.raises(UserError, match=r"^expert_2: changes no score, so it learned nothing"):
        make_stage(tmp_path, [experts[0], tmp_path / "idle"]).predict()
