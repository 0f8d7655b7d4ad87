"""The pipeline at work: what reruns when, equal bytes, experiments, and how stages stop and resume."""

import json
import re
import shutil
import signal
import socket
import time
from dataclasses import replace
from datetime import datetime

import pytest
from dvc.repo import Repo

from tests.builders import write_movielens
from tests.lm.test_trainer import step_of
from tests.project import (
    PIPELINE,
    call,
    declared_outs,
    digests,
    dvc,
    in_project,
    make_project,
    run_command,
    run_stage,
    set_params,
    stale_stages,
    start_stage,
)
from thinkrec.artifacts import read_json
from thinkrec.params import RunParams
from thinkrec.teacher import endpoint, job

STAGES = list(PIPELINE)


@pytest.fixture
def dvc_project(finished, tmp_path):
    """A copy of the finished project with DVC's cache, its code and parameters as they were."""
    return shutil.copytree(finished, tmp_path / "project", symlinks=True)


def following(stages):
    """Stages, and those that use what they make."""
    reached = set(stages)
    for name in STAGES:
        if any(dep in declared_outs(earlier) for dep in PIPELINE[name]["deps"] for earlier in reached):
            reached.add(name)
    return reached


class TestReproduction:
    def test_nothing_runs_twice(self, dvc_project):
        before = digests(dvc_project), (dvc_project / "dvc.lock").read_bytes()
        with in_project(dvc_project), Repo() as repo:
            assert repo.reproduce() == []
        assert (digests(dvc_project), (dvc_project / "dvc.lock").read_bytes()) == before

    def test_what_a_change_makes_stale(self, dvc_project):
        after = {name: set(STAGES[STAGES.index(name) :]) for name in STAGES}
        after_features = after["features"] - {"traces", "backbone"}
        asks_teacher = {"keywords", "traces"}
        params = {
            "gate.kind": ("centroid", {"gate", "report"}, after["gate"]),
            "gate.temperature": (0.3, after["gate"] - {"report"}, after["gate"]),  # report reads it in the gate's outs
            "features.model": ("sasrec", {"features", "report"}, after_features),
            "sasrec.history": (9, {"features", "baselines"}, after_features),
            "evaluate.reasons": (9, {"evaluate"}, after["evaluate"]),
            "experts.n": (3, {"experts"}, after["experts"]),
            "experts.added": (["new.txt"], {"experts"}, after["experts"]),
            "experts.epochs": (2, {"experts"}, after["experts"]),
            "sft.patience": (5, {"sft"}, after["sft"]),
            "prompt.slots": ([], after["sft"] - {"report"}, after["sft"]),  # not the traces
            "teacher.model": ("other", asks_teacher, after["features"] | after["traces"] | asks_teacher),
            "traces.train": (30, {"traces"}, after["traces"]),
        }
        code = {
            "thinkrec/synthesis/keywords.py": ("thinkrec/synthesis", asks_teacher),  # evaluate stays fresh
            "thinkrec/ingest/clean.py": ("thinkrec/ingest", {"ingest"}),
            "thinkrec/experts/routing.py": ("thinkrec/experts", after["experts"]),
            "thinkrec/claims/names.py": ("thinkrec/claims", after["sft"] | asks_teacher),
            "thinkrec/report/page.css": ("thinkrec/report", {"report"}),
            "stages/gate.py": ("stages/gate.py", {"gate"}),
            "thinkrec/cli.py": ("thinkrec/cli.py", set()),
            "thinkrec/command.py": ("thinkrec/command.py", set()),
        }
        operational = {"processes": 2, "checkpoint_steps": 9, "gradient_checkpointing": True,
            "report_to": ["none"], "concurrency": 3, "timeout": 5.0, "requests_per_minute": 100,
            "tokens_per_minute": 10_000, "prompt_price": 1.0,
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

    def test_two_clones_make_the_same_lock(self, finished, tmp_path):
        """The whole pipeline once more from nothing, in another folder: the longest test, and the promise it keeps."""
        folder = make_project(tmp_path / "in" / "another place")
        dvc(folder, "repro")
        assert digests(folder) == digests(finished)
        assert (folder / "dvc.lock").read_bytes() == (finished / "dvc.lock").read_bytes()

    def test_no_out_says_where_or_when_it_was_made(self, finished):
        base, today, host = finished.parent, datetime.now(), socket.gethostname()
        anywhere = [str(base), base.name, *(f"{today:{form}}" for form in ("%Y-%m-%d", "%Y:%m:%d", "%d %b %Y"))]
        for path in [*(finished / name for name in digests(finished)), finished / "dvc.lock"]:
            content = path.read_bytes()
            for word in anywhere:
                assert word.encode() not in content, f"{path}: {word}"
            if path.suffix in (".json", ".lock") and not host.isalpha():  # "test" would be no proof
                assert host not in content.decode(), path

    def test_an_ablation_runs_as_an_experiment(self, dvc_project):
        call(dvc_project, "git", "config", "user.name", "A. Tester")
        call(dvc_project, "git", "config", "user.email", "tester@example.org")
        call(dvc_project, "git", "add", "--all")
        call(dvc_project, "git", "commit", "--quiet", "--message", "Start")
        said = dvc(
            dvc_project, "exp", "run", "--name", "by-rule", "-S", "gate.kind=centroid", "-S", "gate.temperature=1.0"
        )
        assert re.findall(r"Running stage '(\w+)'", said) == ["gate", "evaluate", "report"]
        assert "trained" not in read_json(dvc_project / "metrics" / "gate.json")["valid"]
        with in_project(dvc_project), Repo() as repo:
            changed = repo.metrics.diff("HEAD", "by-rule")["diff"]
            params = repo.params.diff("HEAD", "by-rule")["diff"]["params.yaml"]
        # What differs, and only that: our figures and the gate's, not the baselines', which did not run again.
        assert set(changed) == {"metrics/evaluate.json", "metrics/gate.json"}
        assert "test.auc" in changed["metrics/evaluate.json"]
        assert {name: change["new"] for name, change in params.items()} == {
            "gate.kind": "centroid",
            "gate.temperature": 1.0,
        }
        plots = json.loads(dvc(dvc_project, "plots", "diff", "HEAD", "by-rule", "--json"))["data"]
        for name in ("plots/roc.json", "plots/calibration.json", "plots/sft.json"):
            curves = [plot for key, drawn in plots.items() if key.endswith(name) for plot in drawn]
            assert {revision for plot in curves for revision in plot["revisions"]} == {"HEAD", "by-rule"}, name


def _bad_rows(project):
    write_movielens(project / "files", bad=40)
    return {"dataset.name": "ml-1m", "dataset.raw": "files"}


def _with(**changes):
    """Parameters alone, `__` for the dot."""
    named = {name.replace("__", "."): value for name, value in changes.items()}
    return lambda project: named


# One of each way to stop: while raw files are read, while others are asked, midway, before anything. What else there is
# to refuse, the tests of the rooms hold.
STOPS = {
    "too many malformed rows": ("ingest", _bad_rows, "first line 8: rating is not a number; mend the file or raise"),
    "no teacher": (
        "traces",
        _with(teacher__endpoint="http://127.0.0.1:9/v1", run__timeout=2.0),
        "teacher at http://127.0.0.1:9/v1 cannot be reached",
    ),
    "unknown parameter": ("evaluate", _with(evaluate__reason=3), "did you mean evaluate.reasons?"),
}


class TestStops:
    @pytest.fixture(autouse=True)
    def quick_and_keyless(self, monkeypatch):
        monkeypatch.setattr(job, "open_teacher", lambda params: replace(endpoint.open_teacher(params), retries=0))
        for name in endpoint.KEY_VARIABLES:
            monkeypatch.delenv(name, raising=False)

    @pytest.mark.parametrize("case", STOPS)
    def test_the_input_is_at_fault(self, case, project):
        stage, change, said = STOPS[case]
        set_params(project, change(project))
        before = digests(project)
        result = run_command(project, stage)
        assert result.exit_code == 1
        assert result.stdout == ""
        assert re.fullmatch(rf"{stage}: [^\n]+\n", result.stderr), result.stderr
        assert said in result.stderr
        assert digests(project) == before
        assert not list(project.rglob("*.partial"))

    def test_nothing_is_made_where_nothing_was(self, project):
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

    def test_a_real_process_says_one_line_and_with_debug_shows_where(self, project):
        set_params(project, {"dataset.name": "embeded"})
        said = {}
        for option in ((), ("--debug",)):
            process = start_stage(project, "ingest", *option)
            stdout, said[option] = process.communicate(timeout=120)
            assert (process.returncode, stdout) == (1, "")
        assert re.fullmatch(r"ingest: [^\n]+\n", said[()])
        assert said["--debug",].startswith("Traceback")
        assert said["--debug",].rstrip().endswith(said[()].removeprefix("ingest: ").rstrip())

    def test_a_closing_line_says_what_was_made_and_the_log_how_long_it_took(self, project):
        result = run_command(project, "keywords")
        assert result.exit_code == 0
        assert re.fullmatch(r"keywords: \d\.\d keywords per item for 80 items \(\d+\.\d s\)\n", result.stdout)
        last = (project / ".cache" / "runs.jsonl").read_text(encoding="utf-8").splitlines()[-1]
        assert json.loads(last)["stage"] == "keywords"

    def test_of_several_processes_the_main_one_speaks_and_writes(self, project, monkeypatch):
        before = digests(project)
        monkeypatch.setenv("RANK", "1")
        assert run_command(project, "keywords").output == ""
        set_params(project, {"keywords.source": "teacher"})
        assert run_command(project, "keywords").output == ""
        assert digests(project) == before
        set_params(project, {"dataset.name": "embeded"})
        refused = run_command(project, "ingest")
        assert (refused.exit_code, refused.output) == (1, "")


def test_a_killed_stage_resumes_and_ends_as_if_nothing_had_been(project, finished, capfd):
    for out in declared_outs("sft"):
        path = project / out
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    set_params(project, {"run.checkpoint_steps": 1})  # the projector has one epoch, whose end would be too late
    process = start_stage(project, "sft")
    checkpoint = ".cache/checkpoints/projector-*.safetensors"
    while process.poll() is None and not list(project.glob(checkpoint)):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    _, stderr = process.communicate()
    assert process.returncode == -signal.SIGKILL, f"not killed in time\n{stderr}"
    assert not (project / "out" / "sft").exists()
    steps = step_of(next(project.glob(checkpoint)))

    run_stage(project, "sft")
    told = capfd.readouterr().err
    assert "thinking: step" not in told  # nor did the phase that had ended
    trained = re.findall(r"projector: step (\d+)/", told)
    assert trained
    assert min(map(int, trained)) > steps  # the epochs before the kill did not run again
    assert digests(project, *declared_outs("sft")) == digests(finished, *declared_outs("sft"))
    assert not list(project.glob(".cache/checkpoints/*"))
