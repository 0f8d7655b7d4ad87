"""The tables filled through DVC's real queue, with one quick stage in the chain's place; and the committed tables."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml

from tests.project import ENVIRONMENT, ROOT, call, make_project
from thinkrec.campaign import experiments
from thinkrec.campaign.experiments import Task
from thinkrec.campaign.fill import fill, settle, write_tables
from thinkrec.campaign.render import fill_markers, readme_block, render
from thinkrec.campaign.rows import BASE, plan, read_joint, read_rows, read_seeds
from thinkrec.campaign.spread import Spread, across
from thinkrec.errors import UserError

DATASET = "synthetic-small"

# A run whose ThinkRec is worse with fewer experts, and which fails with four, or of seed 2.
FAKE = """
import numpy as np
import pandas as pd

from thinkrec import artifacts
from thinkrec.evaluation.reasons import score_reasons
from thinkrec.evaluation.tables import evaluate
from thinkrec.params import load

number = load().experts.n
assert number != 4, "four is too many"
assert load().seed != 2, "an unlucky one"
random = np.random.default_rng(0)
label = random.integers(0, 2, 400)
noise = np.random.default_rng(load().seed).normal(size=400)
frame = pd.DataFrame({
    "row": np.arange(400), "split": np.where(np.arange(400) % 2, "test", "valid"), "user": np.arange(400) % 20,
    "item": 0, "label": label, "warm": True, "history": 0, "popularity": 0, "group": 0, "case": 0,
    "thinkrec": 1 / (1 + np.exp(-(number * (label - 0.5) + noise))), "mf": random.random(400),
}).astype({"split": "category"})
said = "yes it fits"
reasons = pd.DataFrame({"row": [1, 3], "label": 1, "probability": 0.9, "reason": said, "teacher": said})
artifacts.write_table(artifacts.PREDICTIONS, frame)
artifacts.write_table(artifacts.REASONS, reasons)
table = evaluate(frame, ["thinkrec", "mf"], seed=load().seed, draws=100)
artifacts.write_json(artifacts.TABLE, artifacts.rounded(table, 4))
artifacts.write_metrics("evaluate", {"reasons": score_reasons(reasons)})
"""
PIPELINE = {
    "stages": {
        "evaluate": {
            "cmd": "python fake.py",
            "deps": ["fake.py"],
            "params": ["seed", "dataset", "experts"],
            "outs": ["out/evaluate"],
            "metrics": [{"metrics/evaluate.json": {"cache": False}}],
        }
    }
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working directory: a committed project with the quick stage, in which nothing has run."""
    folder = make_project(tmp_path_factory.mktemp("campaign"), {"experts.n": 3})
    (folder / "dvc.yaml").write_text(yaml.safe_dump(PIPELINE), encoding="utf-8")
    (folder / "fake.py").write_text(FAKE, encoding="utf-8")
    (folder / "README.md").write_text(f"<!-- tables:{DATASET} -->\n<!-- /tables -->\n", encoding="utf-8")
    call(folder, "git", "add", "--all")
    call(folder, "git", "-c", "user.name=A", "-c", "user.email=a@b", "commit", "--quiet", "--message", "one")
    with chdir(folder), mock.patch.dict(os.environ, ENVIRONMENT):
        yield folder


@pytest.fixture(scope="module")
def stopped(project: Path) -> str:
    """The error of a call that queues three rows, one of which fails; someone had queued the base row already."""
    with pytest.raises(UserError, match="no such file; run its row first"):
        write_tables(DATASET)
    base = plan(DATASET, raw=None, names=[BASE])[BASE]
    experiments.put(base.experiment, base.overrides)  # and nobody works on it
    with pytest.raises(UserError) as error:
        run([BASE, "experts_1", "experts_4"])
    return str(error.value)


@pytest.fixture(scope="module")
def unlucky(stopped: str) -> str:
    """The error of a call for three seeds, one of which fails."""
    with pytest.raises(UserError) as error:
        run(["no_experts"], seeds=("7", "1", "2"))
    return str(error.value)


def run(names: list[str], *, seeds: tuple[str, ...] = ("7",), **options: Any) -> tuple[str, list[str]]:
    """The summary of a call, and what was said meanwhile."""
    said: list[str] = []
    summary = fill(DATASET, names=names, seeds=seeds, jobs=2, say=said.append, pause=0.3, **options)
    return summary, said


def spread(dataset: str, root: Path = Path()) -> Spread:
    return across(read_seeds(dataset, root=root), read_joint(dataset, root=root))


class TestQueue:
    def test_a_row_that_fails_is_named_with_its_log_and_the_others_go_on(self, project: Path, stopped: str) -> None:
        named = re.fullmatch(r"1 of 3 rows not done: experts_4 \(dvc queue logs (\S+)\)", stopped)
        assert named
        assert "four is too many" in call(project, "dvc", "queue", "logs", named[1])
        assert list(read_rows(DATASET)) == [BASE, "experts_1"]

    def test_a_row_left_in_the_queue_is_taken_up_not_queued_again(self, project: Path, stopped: str) -> None:
        queue = call(project, "dvc", "queue", "status")
        assert len([line for line in queue.splitlines() if f"{DATASET}-{BASE}-" in line]) == 1

    def test_what_is_done_is_not_run_again(self, stopped: str) -> None:
        with mock.patch.object(experiments, "_dvc", side_effect=AssertionError("nothing is to be asked of dvc")):
            summary, said = run([BASE, "experts_1"])
        assert summary.startswith("0 rows added, 2 were done")
        assert said == []

    def test_files_hold_the_run_and_the_lead_over_it(self, project: Path, stopped: str) -> None:
        files = read_rows(DATASET)
        assert files["experts_1"]["commit"] == call(project, "git", "rev-parse", "HEAD")[:7]
        assert files["experts_1"]["params"]["experts"]["n"] == 1
        assert files["experts_1"]["compared_with"] == files[BASE]["experiment"]
        ours, theirs = (files[name]["lines"][name]["test"]["auc"] for name in (BASE, "experts_1"))
        assert theirs["lead"]["value"] == pytest.approx(ours["value"] - theirs["value"], abs=2e-4)
        assert theirs["lead"]["low"] > 0
        assert str(project) not in json.dumps(files)

    def test_page_and_readme_show_them(self, project: Path, stopped: str) -> None:
        files = read_rows(DATASET)
        page = (project / "tables" / f"{DATASET}.md").read_text(encoding="utf-8")
        assert page == render(DATASET, files, {})
        assert "Not run yet: no_thinking" in page
        assert readme_block(DATASET, files, {}) in (project / "README.md").read_text(encoding="utf-8")

    def test_a_finished_run_that_was_not_collected_is_found(self, project: Path, stopped: str) -> None:
        path = project / "tables" / DATASET / "experts_1.json"
        before = path.read_bytes()
        path.unlink()
        with mock.patch.object(experiments, "put", side_effect=AssertionError("nothing is to be queued")):
            _, said = run(["experts_1"])
        assert said[-1].startswith("experts_1: found finished; test AUC ")
        assert path.read_bytes() == before

    def test_the_base_row_is_always_collected_with_others(self, project: Path, stopped: str) -> None:
        paths = [project / "tables" / DATASET / f"{name}.json" for name in (BASE, "experts_1")]
        before = [path.read_bytes() for path in paths]
        for path in paths:
            path.unlink()
        run(["experts_1"])
        assert [path.read_bytes() for path in paths] == before

    def test_a_further_seed_is_compared_with_its_own_thinkrec_and_joined_with_the_others(self, unlucky: str) -> None:
        files = read_seeds(DATASET)
        assert {seed: list(rows) for seed, rows in files.items()} == {7: [BASE, "no_experts"], 1: [BASE, "no_experts"]}
        assert files[1]["no_experts"]["compared_with"] == files[1][BASE]["experiment"] != files[7][BASE]["experiment"]
        over = spread(DATASET)
        leads = [rows["no_experts"]["lines"]["no_experts"]["test"]["auc"]["lead"]["value"] for rows in files.values()]
        assert over["no_experts"]["lead"]["auc"]["value"] == pytest.approx(sum(leads) / 2, abs=2e-4)
        assert set(over) == {BASE, "no_experts", "mf"}
        with mock.patch.object(experiments, "_dvc", side_effect=AssertionError("nothing is to be asked of dvc")):
            assert run(["no_experts"], seeds=("7", "1"))[0].startswith("0 rows added, 4 were done")
        page = Path(f"tables/{DATASET}.md").read_text(encoding="utf-8")
        assert page == render(DATASET, read_rows(DATASET), over)
        assert "## Over seeds" in page

    def test_a_seeds_rows_do_not_run_without_its_thinkrec(self, project: Path, unlucky: str) -> None:
        assert re.fullmatch(
            r"2 of 5 rows not done: thinkrec of seed 2 \(dvc queue logs \S+\); "
            r"no_experts of seed 2 \(needs thinkrec of seed 2\)",
            unlucky,
        )
        queue = call(project, "dvc", "queue", "status")
        planned = plan(DATASET, raw=None, seed=2)
        assert planned[BASE].experiment in queue
        assert planned["no_experts"].experiment not in queue

    def test_only_again_runs_a_row_that_is_done_with_the_present_code(self, project: Path, stopped: str) -> None:
        (project / "fake.py").write_text(FAKE.replace("number * (", "0.7 * number * ("), encoding="utf-8")
        before = read_rows(DATASET)["experts_1"]
        run(["experts_1"])
        assert read_rows(DATASET)["experts_1"] == before
        run(["experts_1"], again=True)
        after = read_rows(DATASET)["experts_1"]["lines"]["experts_1"]["test"]["auc"]
        assert after["value"] < before["lines"]["experts_1"]["test"]["auc"]["value"]

    def test_joint_leads_are_of_the_runs_that_the_files_name_though_parameters_are_new(
        self, project: Path, unlucky: str
    ) -> None:
        params = project / "params.yaml"
        before = read_joint(DATASET)["no_experts"]
        text = params.read_text(encoding="utf-8")
        params.write_text(re.sub(r"candidates: \d+", "candidates: 9", text), encoding="utf-8")
        _, said = run(["no_experts"], seeds=("7", "1"))  # of seed 1 the parameters of reasons undo nothing
        assert [line for line in said if ": to run" in line] == [
            f"{name}: to run, as parameters changed: evaluate.candidates 3 -> 9" for name in (BASE, "no_experts")
        ]
        after = read_joint(DATASET)["no_experts"]
        assert after["runs"]["1"] == before["runs"]["1"] and after["runs"]["7"] != before["runs"]["7"]
        assert spread(DATASET)["no_experts"]["lead"]["auc"] == after["leads"]["no_experts"]["auc"]


class Queue:
    """DVC's queue as told: what each look at it lists, and which experiments are finished by the last; notes calls."""

    def __init__(self, looks: list[dict[str, str]], *, logs: bool = True, workers: int = 1) -> None:
        self.looks = looks
        self.logs = logs
        self.workers = workers
        self.calls: list[str] = []

    def status(self) -> tuple[dict[str, Task], int]:
        look = self.looks.pop(0)
        return {name: Task(id=name, state=state) for name, state in look.items()}, self.workers

    def fetch(self, name: str) -> str | None:
        return None if self.looks else name

    def has_log(self, task: Task) -> bool:
        return self.logs

    def is_alive(self, task: Task) -> bool:
        return False

    def put(self, name: str, overrides: Any) -> None:
        self.calls.append(f"put {name}")

    def drop(self, task: Task) -> None:
        self.calls.append(f"drop {task.id}")

    def forget(self, name: str) -> None:
        pass

    def start(self, jobs: int) -> None:
        pass


class TestSettle:
    @pytest.mark.parametrize(
        ("looks", "options", "failed", "calls"),
        [
            pytest.param(
                [{"e": "Queued"}, {}, {"e": "Running"}, {"e": "Success"}], {}, {}, [], id="taken up between two lists"
            ),
            pytest.param([{}, {"e": "Running"}, {"e": "Success"}], {}, {}, [], id="so at the first look"),
            pytest.param([{}, {}, {"e": "Success"}], {}, {}, ["put e"], id="new"),
            pytest.param(
                [{"e": "Queued"}, {"e": "Running"}, {"e": "Queued"}, {"e": "Success"}],
                {"workers": 0},
                {},
                [],
                id="a worker that did not answer at once",
            ),
            pytest.param(
                [{"e": "Running"}, {"e": "Running"}, {"e": "Success"}],
                {"workers": 0},
                {},
                ["drop e", "put e"],
                id="left by a crash",
            ),
            pytest.param(
                [{"e": "Queued"}, {"e": "Failed"}, {"e": "Running"}, {"e": "Success"}],
                {"logs": False},
                {},
                ["drop e", "put e"],
                id="failed before it began",
            ),
            pytest.param(
                [{"e": "Queued"}, *[{"e": "Failed"}] * 3, {}],
                {"logs": False},
                {"row": "dvc queue logs e"},
                ["drop e", "put e"] * 2,
                id="failed before it began, every time",
            ),
            pytest.param(
                [{"e": "Queued"}, {"e": "Failed"}, {}], {}, {"row": "dvc queue logs e"}, [], id="failed with a log"
            ),
            pytest.param(
                [{"e": "Queued"}, {}, {}, {}],
                {},
                {"row": "someone took it off the queue"},
                [],
                id="taken off the queue",
            ),
        ],
    )
    def test_only_what_nobody_works_on_is_queued_or_given_up(
        self,
        monkeypatch: pytest.MonkeyPatch,
        looks: list[dict[str, str]],
        options: dict[str, Any],
        failed: dict[str, str],
        calls: list[str],
    ) -> None:
        queue = Queue(looks, **options)
        for name in ("status", "fetch", "has_log", "is_alive", "put", "drop", "forget", "start"):
            monkeypatch.setattr(experiments, name, getattr(queue, name))
        row = mock.Mock(experiment="e", overrides={})
        assert settle({"row": row}, lambda row, run: "", jobs=1, say=lambda text: None, pause=0) == failed
        assert queue.calls == calls


COMMITTED = sorted(path.stem for path in (ROOT / "tables").glob("*.md"))


def test_committed_pages_and_readme_are_what_the_committed_files_render() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for dataset in COMMITTED:
        files = read_rows(dataset, root=ROOT)
        over = spread(dataset, ROOT)
        assert (ROOT / "tables" / f"{dataset}.md").read_text(encoding="utf-8") == render(dataset, files, over)
        assert fill_markers(readme, dataset, readme_block(dataset, files, over)) == readme
    marked = {part.partition(" ")[0] for part in readme.split("<!-- tables:")[1:]}
    assert marked <= set(COMMITTED)
