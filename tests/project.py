"""A small project to run the pipeline in: this repository's code and parameters, with settings that take seconds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import yaml
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from stages.__main__ import app as stages_app
from thinkrec.artifacts import sha256
from thinkrec.campaign.rows import override_params
from thinkrec.cli import app as commands_app
from thinkrec.lm.scoring import score
from thinkrec.metrics import sigmoid
from thinkrec.params import DatasetParams, Params, RunParams, TeacherSettings
from thinkrec.recommender import History, Recommender
from thinkrec.sections import Section

ROOT = Path(__file__).resolve().parents[1]
PARAMS: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
PIPELINE: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
MADE = ("out", "metrics", "plots")
DATA = {name: [dep for dep in stage["deps"] if dep.split("/")[0] in MADE] for name, stage in PIPELINE.items()}
LIKED_AND_NOT = [("i00001", True), ("i00005", False), ("i00007", True)]  # the history of somebody never seen
NEWCOMERS = ROOT / "tests" / "newcomers.txt"  # twelve users of the small world, one not in train, one of nowhere
# On the processor, in one thread, and without anyone's own git settings.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "THINKREC_DEVICE": "cpu",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
}

SMALL: dict[str, Any] = {
    "seed": 7,
    "dataset.name": "synthetic-small",
    "prompt.history": 6,
    "prompt.keywords": 4,
    "features.epochs": 3,
    "mf.dim": 8,
    "lightgcn.dim": 8,
    "sasrec.dim": 8,
    "gsasrec.dim": 8,
    "backbone.vocabulary": 600,
    "backbone.hidden": 32,
    "backbone.layers": 2,
    "backbone.heads": 2,
    "traces.train": 60,
    "traces.held_out": 10,
    "sft.epochs": 3,  # two of the projector
    "refine.steps": 2,
    "refine.rows": 20,
    "refine.answers": 2,
    "sft.batch_rows": 250,
    "experts.n": 2,
    "experts.min_users": 5,
    "experts.layers": 1,
    "lora.r": 4,
    "experts.epochs": 1,
    "experts.learning_rate": 0.1,  # of so few steps, which should say something of their own
    "gate.kind": "trained",
    "gate.epochs": 1,
    "evaluate.reasons": 8,
    "evaluate.max_new_tokens": 24,
    "evaluate.candidates": 3,
    "evaluate.temperature": 1.0,
}


def make_project(folder: Path, changes: dict[str, Any] | None = None) -> Path:
    """A git repository with this project's code, its dvc.yaml and small parameters; nothing has run in it."""
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("stages", "thinkrec"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for name in ("dvc.yaml", "params.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, folder / name)
    (folder / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc" / "config", folder / ".dvc")
    set_params(folder, SMALL | (changes or {}))
    call(folder, "git", "init", "--quiet")
    return folder


def set_params(folder: Path, changes: dict[str, Any]) -> None:
    """Change parameters of a project, each by its dotted name."""
    path = folder / "params.yaml"
    params = override_params(yaml.safe_load(path.read_text(encoding="utf-8")), changes)
    path.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")


def params_with(changes: dict[str, Any]) -> Params:
    """This repository's params.yaml with other values of some parameters, each by its dotted name."""
    return Params.model_validate(override_params(deepcopy(PARAMS), changes))


def dataset_params(**changes: Any) -> DatasetParams:
    """The section `dataset` of this repository's params.yaml, with changes."""
    return params_with({f"dataset.{name}": value for name, value in changes.items()}).dataset


def run_params(**changes: Any) -> RunParams:
    """The section `run` of this repository's params.yaml, with changes."""
    return params_with({f"run.{name}": value for name, value in changes.items()}).run


def finish_project(folder: Path) -> Path:
    """A project whose stages have run in this process, with the lock file and cache that `dvc repro` leaves.

    Each ran in a folder that held the data which dvc.yaml says it needs, and no more. `NAME.json` beside the project
    says what each made there, and which parameters it read.
    """
    from dvc.repo import Repo

    make_project(folder)
    (folder / ".cache").mkdir()
    runs = {}
    for stage, data in DATA.items():
        apart = isolated(folder, folder.with_name("apart") / stage, data)
        (apart / ".cache").symlink_to(folder / ".cache")
        with recorded_params() as read:
            run_stage(apart, stage)
        made = files_in(apart) - set(data)
        for name in made:
            (folder / name).parent.mkdir(exist_ok=True)
            (apart / name).rename(folder / name)
        runs[stage] = {"read": sorted(read), "made": sorted(made)}
    folder.with_suffix(".json").write_text(json.dumps(runs), encoding="utf-8")
    with in_project(folder), Repo() as repo:
        repo.commit(force=True)
    return folder


def isolated(source: Path, folder: Path, data: Sequence[str]) -> Path:
    """A folder that holds the parameters of a project and some of its data, and no more."""
    for made in {"out", *(dep.split("/")[0] for dep in data)}:
        (folder / made).mkdir(parents=True)
    shutil.copy(source / "params.yaml", folder)
    for dep in data:
        (folder / dep).symlink_to(source / dep)
    return folder


def files_in(folder: Path) -> set[str]:
    """What stands in the folders of a project for what stages make, by path."""
    return {path.relative_to(folder).as_posix() for path in folder.glob("[!.]*/*")}


def teacher_project(folder: Path, changes: dict[str, Any], *stages: str) -> Path:
    """A folder with the parameters of a small project whose teacher is named m, and what some stages made there."""
    folder.mkdir()
    shutil.copy(ROOT / "params.yaml", folder)
    set_params(folder, SMALL | {"teacher.model": "m"} | changes)
    for stage in stages:
        run_stage(folder, stage)
    return folder


def copy_project(source: Path, to: Path, changes: dict[str, Any] | None = None) -> Path:
    """A copy with other parameters, DVC's cache left out: for stages called one by one."""
    shutil.copytree(source, to, ignore=shutil.ignore_patterns("__pycache__", "cache", "tmp", ".git"))
    set_params(to, changes or {})
    return to


def call(folder: Path, *command: str) -> str:
    """What a command said on stdout; it must succeed."""
    done = subprocess.run(command, cwd=folder, env=_environment(), capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def stale_stages(folder: Path) -> dict[str, set[str]]:
    """The stages that `dvc repro` would run first, each with what changed: files, folders and parameters by name."""
    from dvc.repo import Repo

    with in_project(folder), Repo() as repo:
        status = repo.status()
    return {stage: set(_changed_names(changes)) for stage, changes in status.items()}


def _changed_names(changes: list[dict[str, Any]]) -> Iterator[str]:
    """The names in what DVC says of one stage: `params.yaml` stands for the parameters that it lists."""
    for kinds in changes:
        for names in kinds.values() if isinstance(kinds, dict) else ():
            for name, change in names.items():
                yield from change if isinstance(change, dict) else [name]


def dvc(folder: Path, *arguments: str) -> str:
    return call(folder, sys.executable, "-m", "dvc", *arguments)


def start_stage(folder: Path, name: str, *arguments: str) -> subprocess.Popen[str]:
    """A stage as `dvc repro` runs it, in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "stages", name, *arguments],
        cwd=folder,
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def in_project(folder: Path) -> Iterator[None]:
    """The block runs in that folder, in a stage's environment."""
    with chdir(folder), mock.patch.dict(os.environ, ENVIRONMENT):
        yield


def run_stage(folder: Path, name: str) -> str:
    """A stage run in this process alone, which has torch at hand already; returns its closing line."""
    with in_project(folder), mock.patch("joblib.parallel_config", lambda **_: nullcontext()):
        return getattr(import_module(f"stages.{name}"), name)()


def run_command(folder: Path, *arguments: str) -> Result:
    """A command of `thinkrec-stage` or `thinkrec` as a user calls it, run in this process."""
    app = stages_app if arguments[0] in PIPELINE else commands_app
    with chdir(folder):
        return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "120"})


@contextmanager
def recorded_params() -> Iterator[set[str]]:
    """The dotted names of the parameters that the block reads; checks within thinkrec.params do not count."""
    section_of = {field.annotation: f"{name}." for name, field in Params.model_fields.items()}
    section_of |= {TeacherSettings: "teacher.", Params: ""}
    read: set[str] = set()

    def record(self: Section, name: str) -> Any:
        value = object.__getattribute__(self, name)
        inside = sys._getframe(1).f_globals["__name__"] == "thinkrec.params"
        parameter = type(self) in section_of and name in type(self).model_fields and not isinstance(value, Section)
        if parameter and not inside:
            read.add(("run." if name in RunParams.model_fields else section_of[type(self)]) + name)
        return value

    with mock.patch.object(Section, "__getattribute__", record):
        yield read


def leaves(params: dict[str, Any]) -> set[str]:
    """The dotted names of all parameters of a loaded params.yaml."""
    return {
        f"{name}.{key}" if key else name
        for name, value in params.items()
        for key in (value if isinstance(value, dict) else [""])
    }


def declared_params(stage: str) -> set[str]:
    """The parameters that dvc.yaml says a stage reads, whole sections spelt out."""
    every = leaves(PARAMS)
    named = PIPELINE[stage].get("params", [])
    for name in named:
        assert any(leaf == name or leaf.startswith(f"{name}.") for leaf in every), f"{stage}: no parameter {name}"
    return {leaf for leaf in every for name in named if leaf == name or leaf.startswith(f"{name}.")}


def declared_outs(stage: str) -> set[str]:
    """Everything that dvc.yaml says a stage makes."""
    entries = [entry for kind in ("outs", "metrics", "plots") for entry in PIPELINE[stage].get(kind, [])]
    return {next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries}


def digests(folder: Path, *parts: str) -> dict[str, str]:
    """The SHA-256 of every file below some folders of a project (all that stages make, unless named)."""
    found = [path for part in parts or MADE for path in (folder / part, *(folder / part).rglob("*"))]
    files = [path for path in found if path.is_file()]
    return {str(path.relative_to(folder)): sha256(path) for path in sorted(files)}


def _environment() -> dict[str, str]:
    """This process's environment, the interpreter's folder first on the path: dvc.yaml calls plain `python`."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**os.environ, **ENVIRONMENT, "PATH": path, "HF_HUB_OFFLINE": "1"}


def teacher_params(endpoint: str, **changes: Any) -> TeacherSettings:
    """The repository's own settings of a teacher, elsewhere, with a model of a short name and `changes`."""
    given = params_with({}).teacher_settings.model_dump()
    return TeacherSettings(**{**given, "endpoint": endpoint, "model": "m", "timeout": 10.0, **changes})


def scores_of(
    recommender: Recommender, users: Sequence[str | History]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Probabilities of 80 items, several sequences, to each: as the API computes them, and as the stages do."""
    questions = [replace(recommender._question(user), candidates=np.arange(80)) for user in users]
    view = recommender.viewer.view(questions)
    loaded = view.loaded
    plainly = score(loaded.model, loaded.layout, view.targets, loaded.row_weights())
    return recommender.viewer.probabilities(questions), sigmoid(plainly)
