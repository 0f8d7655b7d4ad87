"""dvc.yaml says what the code does: each stage's dependencies, parameters and outs are those that it really has."""

import json
import re
import subprocess
import sys
from contextlib import chdir
from unittest import mock

import pytest
import yaml
from dvc.repo import Repo
from dvc.stage.run import cmd_run
from typer.testing import CliRunner

from stages.__main__ import PIPELINE as COMMANDS
from stages.__main__ import app
from tests.project import (
    DATA,
    MADE,
    NEWCOMERS,
    PARAMS,
    PIPELINE,
    ROOT,
    call,
    declared_outs,
    declared_params,
    dvc,
    files_in,
    isolated,
    leaves,
    recorded_params,
    run_stage,
    set_params,
)
from tests.source import imported_files
from thinkrec.artifacts import leaves as leaves_of
from thinkrec.errors import UserError
from thinkrec.features.models import MODELS
from thinkrec.params import load

STAGES = list(PIPELINE)
DEFAULT_MODEL = load(ROOT / "params.yaml").features.model
# What a stage reads only under another value of a parameter: declared all the same, since dvc.yaml knows no conditions.
VARIANTS = {
    "keywords": [{"keywords.source": "teacher"}],
    "features": [{"features.model": model} for model in MODELS if model != DEFAULT_MODEL],
    "sft": [{"sft.recipe": "paper"}, {"prompt.slots": []}],
    "experts": [{"experts.added": [str(NEWCOMERS)]}],
}
# What is read does not depend on how long a stage trains.
QUICK = {"sft.epochs": 1, "features.epochs": 1, "refine.steps": 1}
CODE = {name: [dep for dep in stage["deps"] if dep.split("/")[0] not in MADE] for name, stage in PIPELINE.items()}
MAKER = {out: name for name in STAGES for out in declared_outs(name)}


def closure(stage):
    """The files that a stage's code consists of, as paths from the project's root."""
    reached = set()
    ahead = [ROOT / "stages" / f"{stage}.py"]
    while ahead:
        path = ahead.pop()
        if path not in reached:
            reached.add(path)
            ahead += imported_files(path)
    return {path.relative_to(ROOT).as_posix() for path in reached}


def covers(dep, file):
    return file == dep or file.startswith(f"{dep}/")


class TestOrder:
    def test_the_stages_stand_in_the_order_of_the_commands(self):
        assert [work.__name__ for work in COMMANDS] == STAGES

    def test_help_lists_them_in_that_order(self):
        said = CliRunner().invoke(app, ["--help"]).stdout
        places = [re.search(rf"^\W*{name}\s", said, re.MULTILINE) for name in STAGES]
        assert all(places)
        assert [place.start() for place in places if place] == sorted(place.start() for place in places if place)

    @pytest.mark.parametrize("stage", STAGES)
    def test_a_stages_command_runs_the_workspaces_own_code(self, stage):
        assert PIPELINE[stage]["cmd"] == f"python -m stages {stage}"

    @pytest.mark.parametrize("stage", STAGES)
    def test_data_comes_from_earlier_stages(self, stage):
        assert {MAKER[dep] for dep in DATA[stage]} <= set(STAGES[: STAGES.index(stage)])

    @pytest.mark.parametrize(
        ("program", "needed"),
        [
            ("from stages.__main__ import app; app(['--help'], standalone_mode=False)", set()),
            ("from thinkrec.cli import app; app(['--help'], standalone_mode=False)", set()),
            ("import thinkrec.terminal, thinkrec.answers.names", {"pandas", "numpy", "pyarrow"}),
            ("import stages.report, thinkrec.report.contents", {"pandas", "numpy", "pyarrow"}),
        ],
    )
    def test_no_heavy_library_is_imported_where_none_is_needed(self, program, needed):
        code = f"import sys; {program}; print(*sys.modules)"
        loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        heavy = {"torch", "transformers", "peft", "pandas", "numpy", "pyarrow", "sklearn", "openai", "matplotlib"}
        assert heavy & set(loaded.stdout.split()) == needed


class TestCode:
    @pytest.mark.parametrize("stage", STAGES)
    def test_every_module_that_a_stage_runs_is_a_dependency(self, stage):
        assert {file for file in closure(stage) if not any(covers(dep, file) for dep in CODE[stage])} == set()

    @pytest.mark.parametrize("stage", STAGES)
    def test_no_dependency_is_code_that_a_stage_does_not_run(self, stage):
        assert {dep for dep in CODE[stage] if not any(covers(dep, file) for file in closure(stage))} == set()

    @pytest.mark.parametrize("stage", STAGES)
    def test_every_dependency_exists_and_is_named_once(self, stage):
        deps = PIPELINE[stage]["deps"]
        assert all((ROOT / dep).exists() for dep in CODE[stage])
        assert not [dep for dep in deps for other in deps if dep is not other and covers(dep, other)]


@pytest.fixture(scope="module")
def runs(finished):
    """What each stage read and made in a folder that held its data alone."""
    return json.loads(finished.with_suffix(".json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def read(runs, finished, tmp_path_factory):
    """The parameters that each stage reads."""
    found = {stage: set(run["read"]) for stage, run in runs.items()}
    for stage, variants in VARIANTS.items():
        for changes in variants:
            folder = isolated(finished, tmp_path_factory.mktemp(stage), DATA[stage])
            set_params(folder, QUICK | changes)
            with recorded_params() as more:
                run_stage(folder, stage)
            found[stage] |= more
    return found


class TestDataAndParams:
    """Each stage has run in a folder that held what dvc.yaml says it needs, and no more (`finish_project`)."""

    @pytest.mark.parametrize("stage", STAGES)
    def test_a_stage_makes_the_declared_outs(self, stage, runs):
        assert set(runs[stage]["made"]) == declared_outs(stage)

    @pytest.mark.parametrize("stage", STAGES)
    def test_the_declared_parameters_are_those_that_are_read(self, stage, read):
        declared = declared_params(stage)
        assert declared == {name for name in read[stage] if not name.startswith("run.")}

    def test_no_parameter_is_dead(self, read):
        assert leaves(PARAMS) - set.union(*read.values()) == {"run.processes"}  # which a stage's command reads

    @pytest.mark.parametrize(("stage", "missing"), [(stage, dep) for stage in STAGES for dep in DATA[stage]])
    def test_a_stage_reads_each_of_its_data_and_names_the_one_that_is_missing(self, stage, missing, finished, tmp_path):
        folder = isolated(finished, tmp_path / "project", [dep for dep in DATA[stage] if dep != missing])
        with pytest.raises(UserError, match=rf"^{missing}.*; run its stage first: dvc repro {MAKER[missing]}$"):
            run_stage(folder, stage)
        left = files_in(folder)
        assert left == set(DATA[stage]) - {missing}
        assert {path.name for path in folder.iterdir()} - {dep.split("/")[0] for dep in left} <= {
            "params.yaml",
            "out",
            ".cache",
        }


def test_plots_and_metrics_are_in_git_not_in_the_cache():
    for stage in STAGES:
        for entry in [*PIPELINE[stage].get("metrics", []), *PIPELINE[stage].get("plots", [])]:
            assert next(iter(entry.values()))["cache"] is False, json.dumps(entry)


def test_make_show_hides_no_parameter_and_of_the_metrics_all_but_those_of_test():
    """DVC drops the columns whose names begin as the expression says."""
    (hidden,) = re.findall(r"^HIDDEN = (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    dropped = re.compile(hidden.replace("$$", "$"))
    assert not [name for name in leaves(PARAMS) if dropped.match(name)]
    values = [json.loads(path.read_text(encoding="utf-8")) for path in (ROOT / "metrics").glob("*.json")]
    names = [name for value in values for name, _ in leaves_of(value)]
    assert len(names) < 100  # what `dvc metrics diff` lists at most
    shown = {name for name in names if not dropped.match(name)}
    assert shown == {"test.auc", "test.uauc", "test.new_items.auc", "test.new_items.uauc"}


def test_no_out_keeps_its_stage_out_of_the_run_cache():
    # DVC does not save a run that has an uncached out which is neither a metric nor a plot.
    for stage in PIPELINE.values():
        assert all(isinstance(out, str) for out in stage["outs"])


def test_evaluate_is_taken_from_the_run_cache_when_one_goes_back(tmp_path):
    """Of a stage with the outs of `evaluate`, whose command writes its parameter into each of them."""
    outs = sorted(declared_outs("evaluate"))
    files = [f"{out}/table.json" if out.startswith("out/") else out for out in outs]
    code = [
        "from pathlib import Path",
        f"for path in map(Path, {files}):",
        "    path.parent.mkdir(parents=True, exist_ok=True)",
        "    path.write_text(Path('params.yaml').read_text())",
    ]
    (tmp_path / "code.py").write_text("\n".join(code), encoding="utf-8")
    kinds = {kind: PIPELINE["evaluate"][kind] for kind in ("outs", "metrics", "plots")}
    stage = {"cmd": f"{sys.executable} code.py", "deps": ["code.py"], "params": ["seed"], **kinds}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"evaluate": stage}}), encoding="utf-8")
    call(tmp_path, "git", "init", "--quiet")
    dvc(tmp_path, "init", "--quiet")
    ran = []
    with chdir(tmp_path), Repo(tmp_path) as repo:
        for seed in (7, 8, 7):
            (tmp_path / "params.yaml").write_text(f"seed: {seed}\n", encoding="utf-8")
            with mock.patch("dvc.stage.run.cmd_run", side_effect=cmd_run) as run:
                repo.reproduce()
            ran.append(run.called)
            assert {file: (tmp_path / file).read_text() for file in files} == dict.fromkeys(files, f"seed: {seed}\n")
    assert ran == [True, True, False]
