"""Two processes make what one makes: the same losses, weights, scores and answers, written once."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from tests.lm import work
from tests.lm.test_trainer import step_of
from tests.project import copy_project, declared_outs, digests, run_stage, set_params, start_stage

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
SAME = 1e-5


def torchrun(folder, kind, *arguments):
    """Run tests.lm.work in two processes (gloo), in `folder`; returns how they ended if not well."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, "-m", "tests.lm.work", str(folder), kind, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "THINKREC_DEVICE": "cpu", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.stderr if done.returncode else ""


@pytest.fixture(scope="module", params=["all", "adapter"])
def kind(request):
    """All weights trained, or an adapter and the projector."""
    return request.param


@pytest.fixture(scope="module")
def two(tmp_path_factory, kind):
    """The folder in which two processes have worked."""
    folder = tmp_path_factory.mktemp("two")
    assert torchrun(folder, kind) == ""
    return folder


@pytest.fixture(scope="module")
def one(tmp_path_factory, kind):
    """What one process has."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("one"))
    try:
        said, weights = work.fine_tuned(adapter=kind == "adapter")
        return said | work.scored() | work.refined(), weights
    finally:
        os.chdir(before)


def said(folder, rank):
    return json.loads((folder / f"{rank}.json").read_text())


def test_two_processes_have_the_losses_weights_scores_and_answers_of_one(two, one):
    (alone, weights), together = one, said(two, 0)
    assert [epoch["epoch"] for epoch in alone["epochs"]] == [1, 2]
    for mine, theirs in zip(alone["epochs"], together["epochs"], strict=True):
        assert theirs == pytest.approx(mine, abs=SAME)
    first, second = alone["epochs"]
    assert first["train_loss"] != pytest.approx(second["train_loss"], abs=100 * SAME)  # something was learned
    others = load_file(two / "0.safetensors")
    assert others.keys() == weights.keys()
    assert all(others[name].allclose(weight, rtol=0, atol=SAME) for name, weight in weights.items())
    for name in ("scores", "greedy", "sampled"):
        assert together[name] == alone[name]  # to the bit
    assert not np.isnan(together["scores"]).any()
    assert len(alone["refined"]) == 2
    for mine, theirs in zip(alone["refined"], together["refined"], strict=True):
        assert theirs == pytest.approx(mine, abs=SAME)


def test_all_processes_have_the_same_and_the_main_one_alone_writes(two):
    assert said(two, 0) == said(two, 1)
    mine, theirs = load_file(two / "0.safetensors"), load_file(two / "1.safetensors")
    assert all(weight.equal(theirs[name]) for name, weight in mine.items())
    assert json.loads((two / "artefact.json").read_text()) == {"rank": 0}
    assert not [path for path in two.iterdir() if "partial" in path.name]
    assert not list((two / ".cache" / "checkpoints").iterdir())


@pytest.mark.parametrize("kind", ["all"], indirect=True)  # what is frozen, one process alone holds (test_trainer)
def test_killed_within_an_epoch_two_processes_go_on_to_the_same_bytes(two, kind, tmp_path):
    assert "Signal 9 (SIGKILL)" in torchrun(tmp_path, kind, "10")
    (checkpoint,) = (tmp_path / ".cache" / "checkpoints").iterdir()
    assert step_of(checkpoint) == 4  # of six steps, three in an epoch
    assert not (tmp_path / "0.json").exists()
    assert torchrun(tmp_path, kind) == ""
    for name in ("0.json", "0.safetensors"):
        assert (tmp_path / name).read_bytes() == (two / name).read_bytes()


def test_a_stage_with_two_processes_starts_them_and_makes_what_one_makes(project, tmp_path, monkeypatch):
    set_params(project, {"lora.dropout": 0.0, "sft.slot_dropout": 0.0})  # for which two processes draw other numbers
    together = copy_project(project, tmp_path / "together", {"run.processes": 2})
    for out in declared_outs("experts"):
        path = together / out
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    run_stage(project, "experts")
    monkeypatch.setenv("LOGLEVEL", "INFO")  # torchrun says what it starts
    process = start_stage(together, "experts")
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert re.search(r"nproc_per_node *: 2\b", stderr)
    assert re.fullmatch(r"experts: 2 experts for groups of \d+, \d+ users \(\d+\.\d s\)\n", stdout)
    assert digests(together).keys() == digests(project).keys()
    weights = sorted(project.glob("out/experts/*/*.safetensors"))
    assert len(weights) == 2
    for path in weights:
        others = load_file(together / path.relative_to(project))
        for name, weight in load_file(path).items():
            assert others[name].allclose(weight, rtol=0, atol=SAME), name
    assert not list(together.glob(".cache/checkpoints/*"))
