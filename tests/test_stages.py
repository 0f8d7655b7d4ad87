"""The pipeline at work, on a small project: what reruns when, equal bytes, ablations, and how it stops and resumes.

Most of the time goes to real runs: two of `dvc repro` and one of `dvc exp run`, at some four seconds of imports a
stage. Everything else calls stages in this process.
"""

from __future__ import annotations

import functools
import json
import re
import shutil
import signal
import socket
import time
from collections.abc import Callable
from contextlib import chdir
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.project import (
    PIPELINE,
    call,
    copy_project,
    declared_outs,
    declared_params,
    digests,
    dvc,
    make_project,
    recorded_params,
    run_command,
    run_stage,
    set_params,
    stale_stages,
    start_stage,
)
from thinkrec.artifacts import (
    ADDED,
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
)
from thinkrec.experts import fit as gating
from thinkrec.experts import groups as grouping
from thinkrec.experts.routing import centroid_routing
from thinkrec.features import bank
from thinkrec.ingest.catalogue import DATASETS
from thinkrec.lm.mixture import read_lora
from thinkrec.params import RunParams
from thinkrec.teacher import client

STAGES = list(PIPELINE)


@pytest.fixture
def dvc_project(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished project with DVC's cache, its code and parameters as they were."""
    return shutil.copytree(finished, tmp_path / "project", symlinks=True)


def following(stages: set[str]) -> set[str]:
    """Stages, and those that use what they make."""
    reached = set(stages)
    for name in STAGES:
        if any(dep in declared_outs(earlier) for dep in PIPELINE[name]["deps"] for earlier in reached):
            reached.add(name)
    return reached


class TestReproduction:
    def test_nothing_runs_twice(self, dvc_project: Path) -> None:
        before = digests(dvc_project), (dvc_project / "dvc.lock").read_bytes()
        said = dvc(dvc_project, "repro")
        assert "Running stage" not in said
        assert "up to date" in said
        assert (digests(dvc_project), (dvc_project / "dvc.lock").read_bytes()) == before

    def test_what_a_change_makes_stale(self, dvc_project: Path) -> None:
        after = {name: set(STAGES[STAGES.index(name) :]) for name in STAGES}
        asks_teacher = {"keywords", "traces"}
        params: dict[str, tuple[Any, set[str], set[str]]] = {
            "gate.kind": ("centroid", {"gate", "report"}, after["gate"]),
            "gate.temperature": (0.3, after["gate"], after["gate"]),
            "features.model": ("sasrec", {"features", "report"}, after["features"]),
            "sasrec.history": (9, {"features", "baselines"}, after["features"]),
            "evaluate.reasons": (9, {"evaluate"}, after["evaluate"]),
            "experts.n": (3, {"experts"}, after["experts"]),
            "experts.added": (["new.txt"], {"added"}, after["added"]),  # the experts stay
            "experts.epochs": (2, {"experts", "added"}, after["experts"]),
            "sft.patience": (5, {"sft"}, after["sft"]),
            "prompt.slots": ([], after["sft"] - {"report"}, after["sft"]),  # not the traces
            "teacher.model": ("other", asks_teacher, after["traces"] | asks_teacher),
            "traces.sampling": ("hard", {"traces"}, after["traces"]),
        }
        code: dict[str, tuple[str, set[str]]] = {
            "thinkrec/synthesis/keywords.py": ("thinkrec/synthesis", asks_teacher),  # evaluate stays fresh
            "thinkrec/ingest/clean.py": ("thinkrec/ingest", {"ingest"}),
            "thinkrec/experts/routing.py": ("thinkrec/experts", after["experts"]),
            "thinkrec/claims/prompts.py": ("thinkrec/claims", after["sft"] | asks_teacher),
            "thinkrec/report/page.css": ("thinkrec/report", {"report"}),
            "stages/gate.py": ("stages/gate.py", {"gate"}),
            "stages/pin.py": ("stages/pin.py", set()),
            "stages/_command.py": ("stages/_command.py", set()),
        }
        operational = {"processes": 2, "checkpoint_steps": 9, "gradient_checkpointing": True, "concurrency": 3,
            "timeout": 5.0, "requests_per_minute": 100, "tokens_per_minute": 10_000, "prompt_price": 1.0,
            "completion_price": 2.0, "max_requests": 7, "max_tokens_spent": 900, "max_cost": 5.0}  # fmt: skip
        assert operational.keys() == RunParams.model_fields.keys()
        set_params(dvc_project, {f"run.{name}": value for name, value in operational.items()})
        assert stale_stages(dvc_project) == {}
        set_params(dvc_project, {name: value for name, (value, _, _) in params.items()})
        for name in code:
            with (dvc_project / name).open("a", encoding="utf-8") as file:
                file.write("\n/* changed */\n" if name.endswith(".css") else "\n# changed\n")
        changed = stale_stages(dvc_project)
        for name, (_, itself, all_of_them) in params.items():
            section = name.partition(".")[0]  # where a stage depends on all of it, DVC names that
            stale = {stage for stage, names in changed.items() if {name, section} & names}
            assert (stale, following(stale)) == (itself, all_of_them), name
        for name, (dependency, itself) in code.items():
            assert {stage for stage, names in changed.items() if dependency in names} == itself, name

    def test_two_clones_make_the_same_lock(self, finished: Path, tmp_path: Path) -> None:
        """The whole pipeline once more from nothing, in another folder: the longest test, and the promise it keeps."""
        folder = make_project(tmp_path / "in" / "another place")
        dvc(folder, "repro")
        assert digests(folder) == digests(finished)
        assert (folder / "dvc.lock").read_bytes() == (finished / "dvc.lock").read_bytes()

    def test_no_out_says_where_or_when_it_was_made(self, finished: Path) -> None:
        base, today, host = finished.parent, datetime.now(), socket.gethostname()
        anywhere = [str(base), base.name, *(f"{today:{form}}" for form in ("%Y-%m-%d", "%Y:%m:%d", "%d %b %Y"))]
        for path in [*(finished / name for name in digests(finished)), finished / "dvc.lock"]:
            content = path.read_bytes()
            for word in anywhere:
                assert word.encode() not in content, f"{path}: {word}"
            if path.suffix in (".json", ".lock") and not host.isalpha():  # "test" would be no proof
                assert host not in content.decode(), path

    def test_an_ablation_runs_as_an_experiment(self, dvc_project: Path) -> None:
        call(dvc_project, "git", "config", "user.name", "A. Tester")
        call(dvc_project, "git", "config", "user.email", "tester@example.org")
        call(dvc_project, "git", "add", "--all")
        call(dvc_project, "git", "commit", "--quiet", "--message", "Start")
        said = dvc(
            dvc_project, "exp", "run", "--name", "by-rule", "-S", "gate.kind=centroid", "-S", "gate.temperature=1.0"
        )
        assert re.findall(r"Running stage '(\w+)'", said) == ["gate", "evaluate", "report"]
        shown = json.loads(dvc(dvc_project, "exp", "show", "--json"))
        found = json.dumps(shown)
        assert '"by-rule"' in found
        assert '"centroid"' in found
        metrics = json.loads((dvc_project / "metrics" / "gate.json").read_text(encoding="utf-8"))
        assert "trained" not in metrics["valid"]
        # What differs, and only that: our figures and the gate's, not the baselines', which did not run again.
        changed = json.loads(dvc(dvc_project, "metrics", "diff", "HEAD", "by-rule", "--json"))
        assert set(changed) == {"metrics/evaluate.json", "metrics/gate.json"}
        assert "test.auc" in changed["metrics/evaluate.json"]
        plots = json.loads(dvc(dvc_project, "plots", "diff", "HEAD", "by-rule", "--json"))["data"]
        for name in ("plots/roc.json", "plots/calibration.json", "plots/sft.json"):
            curves = [plot for key, drawn in plots.items() if key.endswith(name) for plot in drawn]
            assert {revision for plot in curves for revision in plot["revisions"]} == {"HEAD", "by-rule"}, name


class TestAblations:
    """Each runs to the end, and reads no parameter that dvc.yaml does not name."""

    @staticmethod
    def run(folder: Path, first: str, changes: dict[str, Any]) -> dict[str, Any]:
        set_params(folder, changes)
        for name in STAGES[STAGES.index(first) :]:
            with recorded_params() as read:
                run_stage(folder, name)
            assert read <= declared_params(name), name
        return {name: read_json(folder / "metrics" / f"{name}.json") for name in STAGES if "metrics" in PIPELINE[name]}

    def test_text_alone_without_thinking_and_experts(self, project: Path) -> None:
        metrics = self.run(project, "backbone", {"sft.think_share": 0, "prompt.slots": [], "experts.n": 0})
        assert metrics["sft"]["traces"] == 0
        assert metrics["experts"]["groups"] == 0
        assert metrics["gate"]["cases"] == {"averaged": 1.0, "single": 0.0, "mixed": 0.0}
        assert not list((project / SFT).glob("*.safetensors"))  # no slots, no projector
        assert metrics["evaluate"]["reasons"]["rows"] == 8

    def test_one_expert_slots_as_collm_and_titles_without_keywords(self, project: Path) -> None:
        changes = {"experts.n": 1, "prompt.slots": ["user", "item"], "prompt.keywords": 0, "sft.reason_first": 0.5}
        metrics = self.run(project, "traces", {**changes, "evaluate.reason_first": 9})
        assert metrics["evaluate"]["reasons"]["reason_first"]["rows"] >= 9
        assert metrics["evaluate"]["reasons"]["interventions"]["mask"]["pairs"] == 0  # no keyword, nothing to mask
        assert metrics["experts"]["groups"] == 1
        assert metrics["gate"]["cases"]["mixed"] == 0
        assert "trained" not in metrics["gate"]["valid"]  # nothing to weigh

    def test_without_reasons_all_else_is_measured_and_reported(self, project: Path) -> None:
        before = read_json(project / TABLE)
        written = self.run(project, "evaluate", {"evaluate.reasons": 0})["evaluate"]["reasons"]
        assert written["rows"] == written["claims"]["ours"]["claims"] == written["interventions"]["flip"]["pairs"] == 0
        assert read_json(project / TABLE) == before

    def test_likes_only_by_the_centroid_rule_with_a_small_group_joined_to_its_nearest(self, project: Path) -> None:
        changes = {"prompt.history_labels": "likes", "gate.kind": "centroid", "experts.space": "raw"}
        metrics = self.run(project, "traces", {**changes, "experts.n": 4, "experts.min_users": 16})
        assert metrics["experts"]["joined"] > 0
        assert metrics["experts"]["groups"] == 4 - metrics["experts"]["joined"] == len(metrics["experts"]["experts"])
        assert min(metrics["experts"]["users"]) >= 16
        assert sum(metrics["experts"]["users"]) == metrics["ingest"]["splits"]["train"]["users"]
        assert "trained" not in metrics["gate"]["valid"]

    def test_as_many_agglomerative_groups_as_the_silhouette_asks_for(self, project: Path) -> None:
        changes = {"experts.n": "auto", "experts.grouping": "agglomerative", "gate.balance": 0.5}
        metrics = self.run(project, "experts", {**changes, "experts.min_users": 2})
        silhouette = metrics["experts"]["silhouette"]
        assert list(silhouette) == ["2", "3", "4", "5", "6"]
        best = int(max(silhouette, key=silhouette.get))
        assert metrics["experts"]["groups"] + metrics["experts"]["joined"] == best
        assert len(metrics["gate"]["mean_weights"]) == metrics["experts"]["groups"] + 1
        assert set(metrics["experts"]["cohens_d"]) >= {"1-2"}


class TestAddedExperts:
    """Files of users make experts beside those that are there."""

    @staticmethod
    def like(project: Path, user: int, count: int) -> list[int]:
        """The users whose vectors point most nearly where this one's does."""
        groups = grouping.load(project / EXPERTS)
        points = groups.project(bank.load(project / FEATURES).user_bank[: len(groups.group)])
        cosine = points @ points[user] / np.maximum(np.linalg.norm(points, axis=1), 1e-9)
        return np.argsort(-np.where(groups.group >= 0, cosine, -np.inf))[:count].tolist()

    @pytest.fixture(scope="class")
    def extended(self, finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A project with two more experts: of ten users that are alike, and of those whom valid has nothing of."""
        project = copy_project(finished, tmp_path_factory.mktemp("extended") / "project")
        table = read_table(INTERACTIONS, root=project)
        users = read_table(USERS, root=project)["user_id"]
        alike = self.like(project, 0, 10)
        in_train, in_valid = (set(table["user"][table["split"] == split]) for split in ("train", "valid"))
        files = {"alike.txt": alike, "gone.txt": sorted(in_train - in_valid - set(alike))}
        for name, chosen in files.items():
            (project / name).write_text("".join(f"{users[user]}\n" for user in chosen), encoding="utf-8")
        TestAblations.run(project, "added", {"experts.added": list(files)})
        return project

    def test_what_is_there_stays_byte_for_byte(self, extended: Path, finished: Path) -> None:
        for part in ("out/sft", "out/experts", "out/features", "metrics/experts.json"):
            assert digests(extended, part) == digests(finished, part) != {}, part
        made = {path.name for path in (extended / ADDED).iterdir()}
        assert made == {"groups.safetensors", "made_with.json", "expert_3", "expert_4"}
        for name in ("expert_3", "expert_4"):
            assert all(b.any() for _, b, _ in read_lora(extended / ADDED / name).values())  # it has learned something
        before, after = (grouping.load(extended / folder) for folder in (EXPERTS, ADDED))
        for name in ("mean", "spread"):
            np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
        np.testing.assert_array_equal(before.centroids, after.centroids[:2])
        moved = before.group != after.group
        assert set(after.group[moved]) == {2, 3}

    def test_the_new_users_go_to_their_expert_and_weights_still_sum_to_one(self, extended: Path) -> None:
        groups, vectors = grouping.load(extended / ADDED), bank.load(extended / FEATURES).user_bank
        with chdir(extended):
            weights = gating.load(GATE, groups, states=len(vectors), temperature=0.1).weights
        assert weights.shape[1] == 5
        np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)
        alike = np.flatnonzero(groups.group == 2)
        by_rule = centroid_routing(vectors[: len(groups.group)], groups, 0.1)
        assert len(alike) == 10
        assert by_rule[alike].mean(0).argmax() == 3
        others = np.flatnonzero((groups.group >= 0) & (groups.group != 2))
        assert by_rule[alike, 3].mean() > 2 * by_rule[others, 3].mean()

    def test_metrics_say_who_they_are_of_and_how_far_from_the_others(self, extended: Path) -> None:
        added = read_json(extended / "metrics" / "added.json")
        users = np.bincount(grouping.load(extended / ADDED).group + 1)[1:]
        assert [(one["expert"], one["users"]) for one in added["experts"]] == [(3, 10), (4, users[3])]
        assert added["experts"][0]["auc"] is not None
        assert added["experts"][1]["auc"] is None  # valid has nothing of its users
        assert set(added["cohens_d"]) == {"1-2", "1-3", "1-4", "2-3", "2-4", "3-4"}
        gate = read_json(extended / "metrics" / "gate.json")
        assert len(gate["mean_weights"]) == 5
        assert "3" in gate["mean_weights_by_group"]

    def test_taken_from_the_list_they_are_gone(self, extended: Path, finished: Path, tmp_path: Path) -> None:
        project = copy_project(extended, tmp_path / "project")
        TestAblations.run(project, "added", {"experts.added": []})
        assert digests(project) == digests(finished)


def write_movielens(folder: Path, *, bad: int = 0) -> Path:
    """A hand-made ml-1m folder, likes by item: 3 of 43 movies have no metadata, some users and items come late."""
    rng = np.random.default_rng(5)
    windows = DATASETS["ml-1m"].windows
    lines = []
    for window, users, items in ((windows.train, 24, 36), (windows.valid, 28, 40), (windows.test, 30, 43)):
        for user in range(1, users + 1):
            chosen = rng.choice(np.arange(1, items + 1), 12 if window is windows.train else 4, replace=False)
            for item in {*chosen.tolist(), items - user % 4}:  # the last ones surely among them
                stars = 5 if rng.random() < (0.8 if item % 2 else 0.2) else 2
                lines.append(f"{user}::{item}::{stars}::{rng.integers(window.start, window.end)}")
    lines[7:7] = ["1::2::many::991353600"] * bad
    folder.mkdir()
    (folder / "ratings.dat").write_text("\n".join(lines) + "\n", encoding="latin-1")
    genres = ("Drama", "Comedy|Crime", "Film-Noir")
    movies = [f"{item}::Caf\xe9 {item}, The (19{item + 50})::{genres[item % 3]}" for item in range(1, 41)]
    (folder / "movies.dat").write_text("\n".join([*movies, "broken"]) + "\n", encoding="latin-1")
    return folder


class TestCarryingOn:
    def test_imperfect_data_and_a_model_of_ones_own_go_through_to_the_end(self, finished: Path, tmp_path: Path) -> None:
        raw = write_movielens(tmp_path / "ml-1m", bad=2)
        model = shutil.copytree(finished / "out" / "backbone", tmp_path / "my model")
        project = copy_project(finished, tmp_path / "project")
        for made in ("out", "metrics", "plots"):
            shutil.rmtree(project / made)
        changes = {"dataset.name": "ml-1m", "dataset.raw": str(raw), "backbone.name": str(model)}
        metrics = TestAblations.run(project, "ingest", {**changes, "traces.train": 20, "evaluate.reasons": 4})

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
        assert [path.name for path in (project / "out" / "backbone").iterdir()] == ["reference.json"]

    def test_few_traces_or_none_are_enough(self, project: Path) -> None:
        set_params(project, {"traces.train": 0, "traces.held_out": 0})
        run_stage(project, "traces")
        assert len(read_table(TRACES, root=project)) == 0
        for name in ("sft", "experts", "added", "gate", "evaluate"):
            run_stage(project, name)
        assert read_json(project / "metrics" / "sft.json")["traces"] == 0


Change = Callable[[Path], dict[str, Any]]


def _no_tokenizer(project: Path) -> dict[str, Any]:
    """A model directory without its tokenizer."""
    ignored = shutil.ignore_patterns("tokenizer*")
    folder = shutil.copytree(project / "out" / "backbone", project / "models" / "mine", ignore=ignored)
    return {"backbone.name": str(folder.relative_to(project))}


def _broken_archive(project: Path) -> dict[str, Any]:
    """The first half of a zip."""
    whole = Path(shutil.make_archive(str(project / "ml"), "zip", write_movielens(project / "files")))
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    return {"dataset.name": "ml-1m", "dataset.raw": "ml.zip"}


def _empty_split(project: Path) -> dict[str, Any]:
    """Ratings of train's time alone."""
    ratings = write_movielens(project / "files") / "ratings.dat"
    start = DATASETS["ml-1m"].windows.valid.start
    lines = ratings.read_text(encoding="latin-1").splitlines()
    early = [line for line in lines if int(line.rpartition("::")[2]) < start]
    ratings.write_text("\n".join(early), encoding="latin-1")
    return {"dataset.name": "ml-1m", "dataset.raw": "files"}


def _bad_rows(project: Path) -> dict[str, Any]:
    write_movielens(project / "files", bad=40)
    return {"dataset.name": "ml-1m", "dataset.raw": "files"}


def _with(**changes: Any) -> Change:
    """Parameters alone, `__` for the dot."""
    named = {name.replace("__", "."): value for name, value in changes.items()}
    return lambda project: named


STOPS = {
    "no archive": (
        "ingest",
        _with(dataset__name="yelp"),
        "yelp has terms that you must accept yourself on Yelp's site; get https://",
    ),
    "missing archive": ("ingest", _with(dataset__name="ml-1m", dataset__raw="x.zip"), "x.zip: no such file or folder"),
    "broken archive": ("ingest", _broken_archive, "ml.zip: not a whole zip archive"),
    "unknown dataset": ("ingest", _with(dataset__name="syntetic"), "did you mean synthetic?"),
    "empty split": ("ingest", _empty_split, "no ratings in the valid window, [2002-04-01, 2002-09-01) UTC"),
    "too many malformed rows": ("ingest", _bad_rows, "first line 8: rating is not a number; mend the file or raise"),
    "no tokenizer": ("backbone", _no_tokenizer, "models/mine: model directory without tokenizer"),
    "unpinned model": ("backbone", _with(backbone__name="org/model"), "thinkrec-stage pin org/model"),
    "no teacher": (
        "traces",
        _with(teacher__endpoint="http://127.0.0.1:9/v1", teacher__timeout=2.0),
        "teacher at http://127.0.0.1:9/v1 cannot be reached",
    ),
    "no key": ("traces", _with(teacher__endpoint="https://example.org/v1"), "needs a key; set THINKREC_TEACHER_KEY"),
    "more experts than users": ("experts", _with(experts__n=1000), "experts.n=1000: there are only 72 users"),
    "too little train for the experts": (
        "experts",
        _with(experts__holdout=0.9999),
        "train has nothing of its users before its latest 100%, which is the gate's; lower experts.holdout",
    ),
    "no file of users": (
        "added",
        _with(experts__added=["new.txt"]),
        "new.txt: no such file; experts.added should name",
    ),
    "more layers than there are": ("experts", _with(experts__layers=9), "the backbone has only 2 layers"),
    "impossible value": ("gate", _with(gate__temperature=0), "gate.temperature should be greater than 0 (it is 0)"),
    "unknown parameter": ("evaluate", _with(evaluate__reason=3), "did you mean evaluate.reasons?"),
}


class TestStops:
    @pytest.fixture(autouse=True)
    def quick_and_keyless(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(client, "open_teacher", functools.partial(client.open_teacher, retries=0))
        for name in client.KEY_VARIABLES:
            monkeypatch.delenv(name, raising=False)

    @pytest.mark.parametrize("case", STOPS)
    def test_the_input_is_at_fault(self, case: str, project: Path) -> None:
        stage, change, said = STOPS[case]
        set_params(project, change(project))
        before = digests(project)
        result = run_command(project, stage)
        assert result.exit_code == 1
        assert result.stdout == ""
        assert re.fullmatch(rf"{stage}: [^\n]+\n", result.stderr), result.stderr
        assert said in result.stderr
        assert "Traceback" not in result.stderr
        assert digests(project) == before
        assert not list(project.rglob("*.partial"))

    def test_nothing_is_made_where_nothing_was(self, project: Path) -> None:
        for name in ("experts", "evaluate"):
            for out in declared_outs(name):
                path = project / out
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        before = digests(project)
        set_params(project, {"experts.layers": 9})
        assert run_command(project, "experts").exit_code == 1
        assert run_command(project, "evaluate").exit_code == 1
        assert digests(project) == before
        assert not (project / "out" / "experts").exists()

    def test_a_real_process_says_one_line_and_with_debug_shows_where(self, project: Path) -> None:
        set_params(project, {"dataset.name": "embeded"})
        said = {}
        for option in ((), ("--debug",)):
            process = start_stage(project, "ingest", *option)
            stdout, said[option] = process.communicate(timeout=120)
            assert (process.returncode, stdout) == (1, "")
        assert re.fullmatch(r"ingest: [^\n]+\n", said[()])
        assert said["--debug",].startswith("Traceback")
        assert said["--debug",].rstrip().endswith(said[()].removeprefix("ingest: ").rstrip())

    def test_a_closing_line_says_what_was_made_and_the_log_how_long_it_took(self, project: Path) -> None:
        result = run_command(project, "keywords")
        assert result.exit_code == 0
        assert re.fullmatch(r"keywords: \d\.\d keywords per item for 80 items \(\d+\.\d s\)\n", result.stdout)
        last = (project / ".cache" / "runs.jsonl").read_text(encoding="utf-8").splitlines()[-1]
        assert json.loads(last)["stage"] == "keywords"

    def test_of_several_processes_the_main_one_speaks_and_writes(
        self, project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = digests(project)
        monkeypatch.setenv("RANK", "1")
        assert run_command(project, "keywords").output == ""
        set_params(project, {"keywords.max_per_item": 3})
        assert run_command(project, "keywords").output == ""
        assert digests(project) == before
        set_params(project, {"dataset.name": "embeded"})
        refused = run_command(project, "ingest")
        assert (refused.exit_code, refused.output) == (1, "")


def test_a_killed_stage_resumes_and_ends_as_if_nothing_had_been(
    project: Path, finished: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for out in declared_outs("sft"):
        path = project / out
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    process = start_stage(project, "sft")
    checkpoint = ".cache/checkpoints/projector-*/checkpoint-*/trainer_state.json"  # the last file of a checkpoint
    while process.poll() is None and not any(path.stat().st_size for path in project.glob(checkpoint)):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    _, stderr = process.communicate()
    assert process.returncode == -signal.SIGKILL, f"not killed in time\n{stderr}"
    assert not (project / "out" / "sft").exists()
    steps = int(next(project.glob(checkpoint)).parent.name.removeprefix("checkpoint-"))

    run_stage(project, "sft")
    told = capfd.readouterr().err
    assert "thinking: step" not in told  # nor did the phase that had ended
    trained = re.findall(r"projector: step (\d+)/", told)
    assert trained
    assert min(map(int, trained)) > steps  # the epochs before the kill did not run again
    assert digests(project, *declared_outs("sft")) == digests(finished, *declared_outs("sft"))
    assert not list(project.glob(".cache/checkpoints/*"))
