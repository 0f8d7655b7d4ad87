"""Runs of the pipeline as DVC experiments: run several at a time, and fetch what a finished one made.

Every run has a clone of the repository to itself, with the workspace's tracked files as they are now, and shares the
workspace's DVC cache. `dvc exp run --temp` makes clones as well, but concurrent ones share a stash, and one may take up
what another put there. A finished run is a reference in git: refs/exps/<the commit that it started from>/<name>.
"""

from __future__ import annotations

import json
import os
import re
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

from thinkrec import artifacts
from thinkrec.campaign.rows import Overrides
from thinkrec.errors import UserError

DVC = (sys.executable, "-m", "dvc")
PAUSE = 0.5  # seconds between two looks at the processes
CODE = ("stages", "thinkrec", "dvc.yaml")
REFERENCE = re.compile(r"(?P<id>[0-9a-f]{40}) refs/exps/(?P<start>[0-9a-f]{2}/[0-9a-f]{38})/(?P<name>.+)")
CLONES = Path(".dvc") / "tmp" / "campaign"
LAST_LINES = 8  # of a failed run's output: what an error shows


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
    if _call("git", "rev-parse", "--verify", "--quiet", "HEAD").returncode:
        raise UserError("no commit to start experiments from; run from the project's root and commit it: git commit")
    untracked = _output("git", "ls-files", "--others", "--exclude-standard", "--", *CODE).split()
    if untracked:
        raise UserError(f"{untracked[0]}: not tracked by git, so a run would lack it; git add {untracked[0]}")


def run_experiments(experiments: Mapping[str, Overrides], *, jobs: int) -> Generator[tuple[str, str]]:
    """Run experiments, `jobs` at a time; yields each one's name as it ends, and its last lines if it failed.

    Cores are shared out: two runs with two threads each are slower on two cores than with one each. An iterator that
    is closed early, or interrupted, ends what still runs; stages that have finished stay in DVC's cache.
    """
    if not experiments:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = {"OMP_NUM_THREADS": str(max(1, cores // jobs))}
    shutil.rmtree(CLONES, ignore_errors=True)  # an earlier call may have been killed
    cache = Path(_output(*DVC, "cache", "dir").strip()).resolve()
    waiting = list(experiments.items())
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                name, overrides = waiting.pop(0)
                running[name] = _start(name, overrides, cache, threads)
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


def _start(name: str, overrides: Overrides, cache: Path, threads: dict[str, str]) -> subprocess.Popen[bytes]:
    """A process that runs an experiment in a new clone."""
    clone = CLONES / name
    changes = _output("git", "diff", "--binary", "HEAD")
    _output("git", "clone", "--quiet", "--shared", ".", str(clone))
    _output("git", "checkout", "--quiet", "--detach", _output("git", "rev-parse", "HEAD").strip(), folder=clone)
    if changes:
        _output("git", "apply", "--index", "--binary", "-", folder=clone, text=changes)
    (clone / ".dvc" / "config.local").write_text(f"[cache]\n    dir = {cache}\n", encoding="utf-8")
    options = [part for key, value in overrides.items() for part in ("-S", f"{key}={literal(value)}")]
    with _log(name).open("wb") as log:
        return subprocess.Popen(
            [*DVC, "exp", "run", "--name", name, *options],
            cwd=clone,
            env=_environment() | threads,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _end(name: str, *, failed: bool) -> str:
    """Take a finished experiment over from its clone, which goes; returns the last lines of one that failed."""
    clone, lines = CLONES / name, _log(name).read_text(encoding="utf-8", errors="replace").splitlines()
    if not failed:
        start = _output("git", "rev-parse", "HEAD", folder=clone).strip()
        reference = f"refs/exps/{start[:2]}/{start[2:]}/{name}"
        _output("git", "fetch", "--quiet", str(clone), f"+{reference}:{reference}")
    shutil.rmtree(clone)
    return "\n".join([line for line in lines if line.strip()][-LAST_LINES:]) if failed else ""


def _log(name: str) -> Path:
    return CLONES / f"{name}.log"


def literal(value: Any) -> str:
    """A value as `dvc exp run -S` takes it: null, 3, ['user','item']; strings in quotes, by Hydra's grammar."""
    if isinstance(value, (list, tuple)):
        return f"[{','.join(literal(inner) for inner in value)}]"
    if isinstance(value, str):
        # A backslash counts as itself but before a quote, where it has to be doubled.
        return "'" + re.sub(r"(\\*)('|$)", lambda match: 2 * match[1] + match[2].replace("'", "\\'"), value) + "'"
    return json.dumps(value)


def fetch_run(name_or_id: str) -> Run | None:
    """What the newest finished experiment of that name, or id, left; None if there is none, or its files are gone."""
    listed = _output("git", "for-each-ref", "--sort=-committerdate", "--format=%(objectname) %(refname)", "refs/exps")
    for match in filter(None, map(REFERENCE.fullmatch, listed.splitlines())):
        if match["name"] == name_or_id or match["id"].startswith(name_or_id):
            return _read_run(match["id"], match["start"].replace("/", ""))
    return None


def _read_run(revision: str, start: str) -> Run | None:
    """The files of the experiment `revision`, begun at the commit `start`; None if they are gone."""
    with tempfile.TemporaryDirectory() as folder, suppress(UserError):
        root, evaluated = Path(folder), artifacts.PREDICTIONS.parent
        (root / evaluated.parent).mkdir()
        _output(*DVC, "get", ".", evaluated.as_posix(), "--rev", revision, "--out", str(root / evaluated))
        changed = _call("git", "diff", "--quiet", start, revision, "--", *CODE).returncode
        return Run(
            id=revision[:12],
            commit=start[:7] + ("+" if changed else ""),
            table=artifacts.read_json(root / artifacts.TABLE),
            metrics=artifacts.read_json(root / evaluated / artifacts.MEASURES),
            predictions=artifacts.read_table(artifacts.PREDICTIONS, root=root),
            reasons=artifacts.read_table(artifacts.REASONS, root=root),
        )
    return None


def _output(*command: str, folder: Path = Path(), text: str | None = None) -> str:
    """What a command prints that is given this `text`.

    Raises:
        UserError: it failed; with the line that says ERROR, or its last one.
    """
    done = _call(*command, folder=folder, text=text)
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
        raise UserError(f"{' '.join(command[:5])}: {(errors or lines[-1:] or ['failed without a word'])[0]}")
    return done.stdout


def _call(*command: str, folder: Path = Path(), text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, env=_environment(), input=text, capture_output=True, text=True)


def _environment() -> dict[str, str]:
    """This process's, with its interpreter's folder first on the path (stages call plain `python`) and a committer.

    git may know nobody who commits; DVC would guess, and not everywhere with success.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": path}
    if subprocess.run(["git", "var", "GIT_COMMITTER_IDENT"], env=environment, capture_output=True).returncode:
        for role in ("AUTHOR", "COMMITTER"):
            environment |= {f"GIT_{role}_NAME": "thinkrec", f"GIT_{role}_EMAIL": "thinkrec@localhost"}
    return environment
