"""Other parameters, added experts and imperfect data: each project runs to its end and says what it should."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from tests.builders import write_movielens
from tests.project import (
    LIKED_AND_NOT,
    PIPELINE,
    copy_project,
    declared_outs,
    declared_params,
    digests,
    recorded_params,
    run_command,
    run_stage,
    set_params,
)
from thinkrec.artifacts import (
    EXPERTS,
    FEATURES,
    GATE,
    INTERACTIONS,
    KEYWORDS,
    PREDICTIONS,
    QUARANTINE,
    REASONS,
    SFT,
    TABLE,
    TRACES,
    USERS,
    read_json,
    read_table,
    read_tensors,
)
from thinkrec.experts.groups import load_groups
from thinkrec.experts.rule import centroid_routing
from thinkrec.features.artefact import load_features
from thinkrec.lm.adapters import read_lora
from thinkrec.recommender import Recommender

STAGES = list(PIPELINE)
ONE_EPOCH = {"sft.epochs": 1}


def run_from(folder, first, changes):
    """Change parameters and run a stage and all after it, none of which may read what dvc.yaml does not name."""
    set_params(folder, changes)
    for name in STAGES[STAGES.index(first) :]:
        with recorded_params() as read:
            run_stage(folder, name)
        assert {param for param in read if not param.startswith("run.")} <= declared_params(name), name
    return {name: read_json(folder / "out" / name / "measures.json") for name in STAGES if "metrics" in PIPELINE[name]}


class TestAblations:
    """Each runs to the end, and reads no parameter that dvc.yaml does not name."""

    def test_text_alone_without_thinking_and_experts(self, project):
        changes = {"sft.think_share": 0, "prompt.slots": [], "experts.n": 0}
        metrics = run_from(project, "backbone", changes | ONE_EPOCH)
        assert metrics["sft"]["traces"] == 0
        assert metrics["experts"]["groups"] == 0
        assert metrics["gate"]["cases"] == {"averaged": 1.0, "single": 0.0, "mixed": 0.0}
        assert {path.name for path in (project / SFT).glob("*.safetensors")} == {"match.safetensors"}  # no projector
        trained = metrics["sft"]["best"]["whole"]["auc"]  # what was trained is what is read back and scored
        assert metrics["evaluate"]["valid"]["auc"] == pytest.approx(trained, abs=2e-4)
        assert metrics["evaluate"]["reasons"]["rows"] == 8
        asked = Recommender.load(project)
        assert len(asked.recommend("u00003", 3)) == 3
        assert asked.explain(LIKED_AND_NOT, "i00009").weights == {"global": 1}

    def test_one_expert_slots_as_collm_and_titles_without_keywords(self, project):
        changes = {"experts.n": 1, "prompt.slots": ["user", "item"], "prompt.keywords": 0, "sft.reason_first": 0.5}
        metrics = run_from(project, "traces", {**changes, **ONE_EPOCH, "evaluate.reason_first": 9})
        assert metrics["evaluate"]["reasons"]["reason_first"]["rows"] >= 9
        assert metrics["evaluate"]["reasons"]["interventions"]["mask"]["pairs"] == 0  # no keyword, nothing to mask
        assert metrics["experts"]["groups"] == 1
        assert metrics["gate"]["cases"]["mixed"] == 0
        assert "trained" not in metrics["gate"]["valid"]  # nothing to weigh

    def test_without_reasons_all_else_is_measured_and_reported(self, project):
        before = read_json(project / TABLE)
        written = run_from(project, "evaluate", {"evaluate.reasons": 0})["evaluate"]["reasons"]
        assert written["rows"] == written["claims"]["ours"]["claims"] == written["interventions"]["flip"]["pairs"] == 0
        assert read_json(project / TABLE) == before

    def test_the_centroid_rule_on_as_many_agglomerative_groups_as_the_silhouette_asks_for(self, project):
        changes = {"gate.kind": "centroid", "experts.space": "raw", "experts.n": "auto"}
        changes |= {"experts.grouping": "agglomerative", "experts.min_users": 16}
        metrics = run_from(project, "experts", changes)
        experts, silhouette = metrics["experts"], metrics["experts"]["silhouette"]
        assert list(silhouette) == ["2", "3", "4", "5", "6"]
        measured = {n: value for n, value in silhouette.items() if value is not None}
        assert experts["groups"] + experts["joined"] == int(max(measured, key=measured.get))
        assert experts["groups"] == len(experts["experts"]) == len(metrics["gate"]["mean_weights"]) - 1
        assert min(experts["users"]) >= 16
        assert sum(experts["users"]) == metrics["ingest"]["splits"]["train"]["users"]
        assert "trained" not in metrics["gate"]["valid"]
        asked = Recommender.load(project)  # of whom it has never seen, the rule decides as well
        question = replace(asked._question(LIKED_AND_NOT), candidates=np.asarray([9]))
        state = asked.viewer.view([question]).loaded.features.user_vectors_of(np.asarray([-1]))
        by_rule = centroid_routing(state, load_groups(project / EXPERTS), 0.1)[0]
        assert list(asked.explain(LIKED_AND_NOT, "i00009").weights.values()) == by_rule.tolist()


def alike(project, user, count):
    """The users whose vectors point most nearly where this one's does."""
    groups = load_groups(project / EXPERTS)
    points = groups.project(load_features(project / FEATURES).user_vectors[: len(groups.group)])
    cosine = points @ points[user] / np.maximum(np.linalg.norm(points, axis=1), 1e-9)
    return np.argsort(-np.where(groups.group >= 0, cosine, -np.inf))[:count].tolist()


@pytest.fixture(scope="module")
def extended(finished, tmp_path_factory):
    """A project with two more experts: of ten users that are alike, and of those whom valid has nothing of."""
    project = copy_project(finished, tmp_path_factory.mktemp("extended") / "project")
    table = read_table(INTERACTIONS, root=project)
    users = read_table(USERS, root=project)["user_id"]
    ten = alike(project, 0, 10)
    in_train, in_valid = (set(table["user"][table["split"] == split]) for split in ("train", "valid"))
    files = {"alike.txt": ten, "gone.txt": sorted(in_train - in_valid - set(ten))}
    for name, chosen in files.items():
        (project / name).write_text("".join(f"{users[user]}\n" for user in chosen), encoding="utf-8")
    run_from(project, "experts", {"experts.added": list(files)})
    return project


class TestAddedExperts:
    """Files of users make experts beside those that are there."""

    def test_what_is_there_stays_byte_for_byte(self, extended, finished):
        for part in ("out/sft", "out/experts/expert_1", "out/experts/expert_2", "out/features"):
            assert digests(extended, part) == digests(finished, part) != {}, part
        for name in ("expert_3", "expert_4"):
            assert any(b.any() for _, b, _ in read_lora(extended / EXPERTS / name).values())  # it has learned something
        before, after = (load_groups(folder / EXPERTS) for folder in (finished, extended))
        for name in ("mean", "spread"):
            np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
        np.testing.assert_array_equal(before.centroids, after.centroids[:2])
        moved = before.group != after.group
        assert set(after.group[moved]) == {2, 3}

    def test_the_new_users_go_to_their_expert_and_weights_still_sum_to_one(self, extended):
        groups, vectors = load_groups(extended / EXPERTS), load_features(extended / FEATURES).user_vectors
        weights = read_tensors(extended / GATE / "routing.safetensors")["weights"]
        assert weights.shape[1] == 5
        np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)
        alike = np.flatnonzero(groups.group == 2)
        by_rule = centroid_routing(vectors[: len(groups.group)], groups, 0.1)
        assert len(alike) == 10
        assert by_rule[alike].mean(0).argmax() == 3
        others = np.flatnonzero((groups.group >= 0) & (groups.group != 2))
        assert by_rule[alike, 3].mean() > 2 * by_rule[others, 3].mean()

    def test_metrics_say_who_they_are_of_and_how_far_from_the_others(self, extended, finished):
        metrics, before = (read_json(folder / "out" / "experts" / "measures.json") for folder in (extended, finished))
        users = np.bincount(load_groups(extended / EXPERTS).group + 1)[1:]
        assert metrics["experts"][:2] == before["experts"]
        third, fourth = metrics["experts"][2:]
        assert (third["expert"], third["users"], fourth["expert"], fourth["users"]) == (3, 10, 4, users[3])
        assert third["auc"] is not None
        assert fourth["auc"] is None  # valid has nothing of its users
        assert set(metrics["cohens_d"]) == {"1-2", "1-3", "1-4", "2-3", "2-4", "3-4"}
        gate = read_json(extended / "out" / "gate" / "measures.json")
        assert len(gate["mean_weights"]) == 5
        assert "3" in gate["mean_weights_by_group"]

    def test_they_speak_and_are_exported_with_the_others(self, extended):
        names = ["expert_1", "expert_2", "expert_3", "expert_4"]
        weights = Recommender.load(extended).explain("u00020", "i00009").weights
        assert list(weights) == ["global", *names] and sum(weights.values()) == pytest.approx(1)
        assert run_command(extended, "export", "served").exit_code == 0
        adapters = read_json(extended / "served" / "manifest.json")["adapters"]
        assert [adapter["name"] for adapter in adapters] == names and adapters[2]["users"] == 10
        assert (extended / "served" / "expert_3" / "adapter_model.safetensors").is_file()

    def test_taken_from_the_list_they_are_gone(self, extended, finished, tmp_path):
        project = copy_project(extended, tmp_path / "project", {"experts.added": []})
        for name in ("experts", "gate"):
            run_stage(project, name)
        made = [*declared_outs("experts"), *declared_outs("gate")]
        assert digests(project, *made) == digests(finished, *made)


class TestCarryingOn:
    def test_imperfect_data_and_a_model_of_ones_own_go_through_to_the_end(self, finished, tmp_path):
        raw = write_movielens(tmp_path / "ml-1m", bad=2)
        model = shutil.copytree(finished / "out" / "backbone", tmp_path / "my model")
        project = copy_project(finished, tmp_path / "project")
        for made in ("out", "metrics", "plots"):
            shutil.rmtree(project / made)
        few = {"dataset.max_bad_share": 0.03}  # one of 41 lines of metadata
        changes = {"dataset.name": "ml-1m", "dataset.raw": str(raw), "backbone.name": str(model), **few}
        metrics = run_from(project, "ingest", {**changes, "traces.train": 20, "evaluate.reasons": 4})

        quarantine = read_table(QUARANTINE, root=project)
        assert quarantine.to_dict("records") == [
            {"file": "ratings.dat", "row": 8, "reason": "rating is not a number", "text": "1::2::many::991353600"},
            {"file": "ratings.dat", "row": 9, "reason": "rating is not a number", "text": "1::2::many::991353600"},
            {"file": "movies.dat", "row": 41, "reason": "not 3 fields separated by ::", "text": "broken"},
        ]
        stats = metrics["ingest"]
        assert stats["quarantined"] == {
            "movies.dat: not 3 fields separated by ::": 1,
            "ratings.dat: rating is not a number": 2,
        }
        assert stats["items_without_metadata"] == 3
        splits = stats["splits"]
        assert (splits["train"]["users"], splits["valid"]["users"], splits["test"]["users"]) == (24, 28, 30)
        assert splits["train"]["items"] == 36 < stats["items"]
        assert splits["train"]["warm_share"] == 1 > splits["valid"]["warm_share"] > splits["test"]["warm_share"]
        assert splits["train"]["no_history_share"] >= 24 / splits["train"]["interactions"]
        assert splits["test"]["no_history_share"] > 0  # the first rows of users nobody knew

        keywords = read_table(KEYWORDS, root=project)
        assert len(keywords) == stats["items"] == 43
        predictions = read_table(PREDICTIONS, root=project)
        assert len(predictions) == splits["valid"]["interactions"] + splits["test"]["interactions"]
        assert not predictions["warm"].all()
        probability = predictions["thinkrec"]
        assert probability.between(0, 1, inclusive="neither").all()
        assert "best" not in predictions  # the truth of real data is not known
        assert len(read_table(REASONS, root=project)) == 4
        assert metrics["gate"]["cases"]["averaged"] > 0  # users nobody knew get the global model

        reference = read_json(project / "out" / "backbone" / "reference.json")
        assert set(reference) == {"name", "files"}
        assert {path.name for path in (project / "out" / "backbone").iterdir()} == {"reference.json", "measures.json"}

    def test_no_traces_are_enough(self, project):
        set_params(project, {"traces.train": 0, "traces.held_out": 0})
        for name in ("traces", "sft"):
            run_stage(project, name)
        assert len(read_table(TRACES, root=project)) == 0
        assert read_json(project / "out" / "sft" / "measures.json")["traces"] == 0
