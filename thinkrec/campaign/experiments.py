"""Runs of the pipeline as DVC experiments: run several at a time, and fetch what a finished one made.

Every run has a clone of the repository to itself, with the workspace's tracked files as they are now, and shares the
workspace's DVC cache. `dvc exp run --temp` makes clones as well, but concurrent ones share a stash, and one may take up
what another put there. A finished run is a reference in git: refs/exps/<the commit that it started from>/<name>.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from thinkrec import artifacts
from thinkrec.campaign.rows import Overrides, override_params
from thinkrec.errors import UserError
from thinkrec.params import PARAMS_FILE

DVC = (sys.executable, "-m", "dvc")
PAUSE = 0.5  # seconds between two looks at the processes
CODE = ("stages", "thinkrec", "dvc.yaml")
CLONES = Path(".dvc") / "tmp" / "campaign"
LAST_LINES = 8  # of a failed run's output: what an error shows
# git may know nobody who commits; DVC would guess, and not everywhere with success.
COMMITTER = {
    f"GIT_{role}_{key}": value
    for role in ("AUTHOR", "COMMITTER")
    for key, value in (("NAME", "thinkrec"), ("EMAIL", "thinkrec@localhost"))
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a finished experiment left: artefacts of the evaluation, all that it measured among them."""

    id: str  # its commit, shortened
    commit: str  # that it started from, shortened; `+` says that code in the workspace differed
    table: dict[str, Any]
    metrics: dict[str, Any]
    predictions: pd.DataFrame
    reasons: pd.DataFrame


def check_repository() -> None:
    """Stop where no experiment could start, or would leave code behind.

    Raises:
        UserError: not a git repository with a commit, or code that git does not track.
    """
    try:
        _output("git", "rev-parse", "--verify", "HEAD")
    except UserError:
        fault = "no commit to start experiments from; run from the project's root and commit it: git commit"
        raise UserError(fault) from None
    untracked = _output("git", "ls-files", "--others", "--exclude-standard", "--", *CODE).split()
    if untracked:
        raise UserError(f"{untracked[0]}: not tracked by git, so a run would lack it; git add {untracked[0]}")


def run_experiments(experiments: Mapping[str, Overrides], *, jobs: int) -> Generator[tuple[str, str]]:
    """Run experiments, `jobs` at a time; yields each one's name as it ends, and its last lines if it failed.

    Cores are shared out: two runs with two threads each are slower on two cores than with one each. An iterator that
    is closed early, or interrupted, ends what still runs; stages that have finished stay in DVC's cache.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = {"OMP_NUM_THREADS": str(max(1, cores // jobs))}
    shutil.rmtree(CLONES, ignore_errors=True)  # an earlier call may have been killed
    waiting = list(experiments.items())
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                name, overrides = waiting.pop(0)
                running[name] = _start(name, overrides, threads)
            time.sleep(PAUSE)
            for name, process in list(running.items()):
                if process.poll() is not None:
                    del running[name]
                    yield name, _end(name, failed=process.returncode != 0)
    finally:
        for process in running.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()
        shutil.rmtree(CLONES, ignore_errors=True)


def _start(name: str, overrides: Overrides, threads: dict[str, str]) -> subprocess.Popen[bytes]:
    """A process that runs an experiment in a new clone, whose `params.yaml` is changed."""
    clone = CLONES / name
    head, changes = _output("git", "rev-parse", "HEAD"), _output("git", "stash", "create")
    cache = Path(_output(*DVC, "cache", "dir")).resolve()
    _output("git", "clone", "--quiet", "--shared", ".", str(clone))
    _output("git", "checkout", "--quiet", "--detach", head, folder=clone)
    if changes:
        _output("git", "stash", "apply", "--quiet", "--index", changes, folder=clone)
    (clone / ".dvc" / "config.local").write_text(f"[cache]\n    dir = {cache}\n", encoding="utf-8")
    change_params(clone / PARAMS_FILE, overrides)
    with (CLONES / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            [*DVC, "exp", "run", "--name", name],
            cwd=clone,
            env=_environment() | threads,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def change_params(path: Path, overrides: Overrides) -> None:
    """Change parameters in a `params.yaml`; its comments stay."""
    yaml = YAML()
    yaml.dump(override_params(yaml.load(path), overrides), path)


def _end(name: str, *, failed: bool) -> str:
    """Take a finished experiment over from its clone, which goes; returns the last lines of one that failed."""
    if not failed:
        start = _output("git", "rev-parse", "HEAD", folder=CLONES / name)
        reference = f"refs/exps/{start[:2]}/{start[2:]}/{name}"
        _output("git", "fetch", "--quiet", str(CLONES / name), f"+{reference}:{reference}")
    shutil.rmtree(CLONES / name)
    lines = (CLONES / f"{name}.log").read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join([line for line in lines if line.strip()][-LAST_LINES:]) if failed else ""


def fetch_run(name_or_id: str) -> Run | None:
    """What the newest finished experiment of that name, or id, left; None if there is none, or its files are gone."""
    listed = _output(
        *("git", "for-each-ref", "--sort=-committerdate", "--format=%(objectname) %(refname:lstrip=2)"),
        "refs/exps/??/*/*",
    )
    for line in listed.splitlines():
        revision, start = line.split(" ", 1)
        first, rest, name = start.split("/", 2)
        if name == name_or_id or revision.startswith(name_or_id):
            return _read_run(revision, first + rest)
    return None


def _read_run(revision: str, start: str) -> Run | None:
    """The files of the experiment `revision`, begun at the commit `start`; None if they are gone."""
    with tempfile.TemporaryDirectory() as folder, suppress(UserError):
        root, evaluated = Path(folder), artifacts.PREDICTIONS.parent
        (root / evaluated.parent).mkdir()
        _output(*DVC, "get", ".", evaluated.as_posix(), "--rev", revision, "--out", str(root / evaluated))
        changed = _output("git", "diff", "--name-only", start, revision, "--", *CODE)
        return Run(
            id=revision[:12],
            commit=start[:7] + ("+" if changed else ""),
            table=artifacts.read_json(root / artifacts.TABLE),
            metrics=artifacts.read_json(root / evaluated / artifacts.MEASURES),
            predictions=artifacts.read_table(artifacts.PREDICTIONS, root=root),
            reasons=artifacts.read_table(artifacts.REASONS, root=root),
        )
    return None


def _output(*command: str, folder: Path = Path()) -> str:
    """What a command prints, without the white space around it.

    Raises:
        UserError: it failed; with its last line.
    """
    done = subprocess.run(command, cwd=folder, env=_environment(), capture_output=True, text=True)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["failed without a word"]
        raise UserError(f"{' '.join(command[:5])}: {lines[-1].removeprefix('ERROR: ')}")
    return done.stdout.strip()


def _environment() -> dict[str, str]:
    """This process's, with its interpreter's folder first on the path, as stages call plain `python`."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**COMMITTER, **os.environ, "PATH": path}
