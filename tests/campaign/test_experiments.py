"""Experiments run by DVC, with one quick stage in the chain's place; what is in the way is said before any starts."""

import sys
from contextlib import closing

import pytest
import yaml

from tests.project import ENVIRONMENT, ROOT, call, dvc
from thinkrec.artifacts import MEASURES, PREDICTIONS, REASONS, SCHEMAS, TABLE, write_table
from thinkrec.campaign.experiments import CLONES, check_repository, fetch_run, run_experiments
from thinkrec.errors import UserError


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """The working directory: a git repository with a dvc.yaml and no commit."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    call(tmp_path, "git", "init", "--quiet")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    return tmp_path


def commit(folder):
    call(folder, "git", "add", "--all")
    call(folder, "git", "-c", "user.name=A", "-c", "user.email=a@b", "commit", "--quiet", "--message", "one")


def test_what_is_in_the_way_of_any_experiment_is_said_before_one_starts(repository):
    with pytest.raises(UserError, match=r"no commit to start experiments from; .* git commit"):
        check_repository()
    commit(repository)
    (repository / "dvc.yaml").write_text("stages: {}  # changed code does not matter, nor do files that are no code\n")
    (repository / "notes.txt").write_text("")
    check_repository()
    assert fetch_run("synthetic-thinkrec-1a2b3c4") is None  # where none ran there is no experiment
    (repository / "thinkrec").mkdir()
    (repository / "thinkrec" / "new.py").write_text("")
    with pytest.raises(UserError, match=r"thinkrec/new.py: not tracked .* git add thinkrec/new.py"):
        check_repository()


# Its outs say which parameter and which code made them; with four experts it fails, with five it takes too long.
STAGE = f"""
import pathlib, time
text = pathlib.Path("params.yaml").read_text()
assert "n: 4" not in text, "four is too many"
time.sleep(1000 if "n: 5" in text else 0)
for path in ["{TABLE.as_posix()}", "{(TABLE.parent / MEASURES).as_posix()}"]:
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    pathlib.Path(path).write_text('["old code", "' + text.strip() + '"]')
for path in ["{PREDICTIONS.as_posix()}", "{REASONS.as_posix()}"]:
    pathlib.Path(path).write_bytes(pathlib.Path(pathlib.Path(path).name).read_bytes())
"""


@pytest.fixture
def project(repository):
    """A committed project whose one stage has the outs of `evaluate` that a run is read from, and new code."""
    for path in (PREDICTIONS, REASONS):
        write_table(path, SCHEMAS[path].empty_table().to_pandas())
        (repository / path).rename(repository / path.name)
    dvc(repository, "init", "--quiet")
    (repository / ".dvc" / "config").write_bytes((ROOT / ".dvc" / "config").read_bytes())
    (repository / "stages").mkdir()
    (repository / "stages" / "evaluate.py").write_text(STAGE, encoding="utf-8")
    (repository / "params.yaml").write_text("n: 3\n", encoding="utf-8")
    stage = {
        "cmd": f"{sys.executable} stages/evaluate.py",
        "deps": ["stages"],
        "params": ["n"],
        "outs": ["out/evaluate"],
    }
    (repository / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"evaluate": stage}}), encoding="utf-8")
    commit(repository)
    (repository / "stages" / "evaluate.py").write_text(STAGE.replace("old code", "new code"), encoding="utf-8")
    return repository


@pytest.mark.integration
def test_experiments_run_side_by_side_with_the_workspaces_code(project):
    ended = dict(run_experiments({"good": {"n": 2}, "bad": {"n": 4}}, jobs=2))
    assert ended["good"] == ""
    assert "AssertionError: four is too many" in ended["bad"].splitlines()
    run = fetch_run("good")
    assert run and fetch_run(run.id).table == run.table == run.metrics == ["new code", "n: 2"]
    assert run.commit == call(project, "git", "rev-parse", "HEAD")[:7] + "+"
    assert fetch_run("bad") is None
    assert not CLONES.exists()
    assert call(project, "git", "status", "--short") == " M stages/evaluate.py\n"


@pytest.mark.integration
def test_who_stops_listening_ends_what_runs(project):
    with closing(run_experiments({"good": {"n": 3}, "endless": {"n": 5}}, jobs=2)) as ended:
        assert next(ended) == ("good", "")
    assert not CLONES.exists()
    assert fetch_run("endless") is None
