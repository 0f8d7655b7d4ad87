"""DVC experiments: queue them, start workers, ask how they stand, and fetch what a finished one made.

All through the command lines of git and dvc, from the project's root. A queued experiment runs in a clone of its own
with the workspace's tracked files as they were when it was queued.
"""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from thinkrec import artifacts
from thinkrec.campaign.rows import Overrides
from thinkrec.errors import UserError

DVC = (sys.executable, "-m", "dvc")
CODE = ("stages", "thinkrec", "dvc.yaml")
# What a finished run is in git: its commit, then refs/exps/<first two of the commit it started from>/<the rest>/<name>.
FINISHED = re.compile(
    r"(?P<commit>[0-9a-f]{40}) (?P<reference>refs/exps/(?P<first>[0-9a-f]{2})/(?P<rest>[0-9a-f]{38})/(?P<name>.+))"
)
RUN_FILES = Path(".dvc") / "tmp" / "exps" / "run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """An experiment in the queue; `state` is Queued, Running, Failed or Success."""

    id: str
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a finished experiment left.

    Attributes:
        id: its commit, shortened.
        commit: the commit it started from, shortened; `+` says that code in the workspace differed from that.
        table: what `tables.evaluate` made of it.
        metrics: the evaluation's metrics file.
        predictions, reasons: artifacts.PREDICTIONS and artifacts.REASONS.
    """

    id: str
    commit: str
    table: dict[str, Any]
    metrics: dict[str, Any]
    predictions: pd.DataFrame
    reasons: pd.DataFrame


def check() -> None:
    """Stop where DVC could not queue, or would leave code behind.

    Raises:
        UserError: not a git repository with a commit, or code that git does not track.
    """
    if _call(["git", "rev-parse", "--verify", "--quiet", "HEAD"]).returncode:
        raise UserError("no commit to start experiments from; run from the project's root and commit it: git commit")
    untracked = _git("ls-files", "--others", "--exclude-standard", "--", *CODE).split()
    if untracked:
        raise UserError(f"{untracked[0]}: not tracked by git, so queued runs would lack it; git add {untracked[0]}")


def put(name: str, overrides: Overrides) -> None:
    """Queue an experiment."""
    changes = [part for key, value in overrides.items() for part in ("-S", f"{key}={literal(value)}")]
    _dvc("exp", "run", "--queue", "--name", name, *changes)


def literal(value: Any) -> str:
    """A value as `dvc exp run -S` takes it: null, 3, ['user','item']; strings in quotes, by Hydra's grammar."""
    if isinstance(value, (list, tuple)):
        return f"[{','.join(literal(inner) for inner in value)}]"
    if isinstance(value, str):
        # A backslash counts as itself but before a quote, where it has to be doubled.
        return "'" + re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + found[2].replace("'", "\\'"), value) + "'"
    return json.dumps(value)


def start(jobs: int) -> None:
    """Have `jobs` workers on the queue; each stops by itself once nothing waits.

    Threads are dealt out among them: two runs with two threads each are slower on two cores than with one each.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    environment = {**_identity(), "OMP_NUM_THREADS": str(max(1, cpus // jobs))}
    # Workers inherit its output, and go on when it ends: to read it would be to wait for them.
    if _call([*DVC, "queue", "start", "--jobs", str(jobs)], environment, output=subprocess.DEVNULL).returncode:
        raise UserError("dvc queue start: no worker started; run it by hand to see why")


def status() -> tuple[dict[str, Task], int]:
    """The queue's tasks by name, and how many workers answer."""
    return parse_status(_dvc("queue", "status"))


def parse_status(text: str) -> tuple[dict[str, Task], int]:
    """What `dvc queue status` prints. Of tasks of one name, the liveliest counts: it lists those first."""
    tasks: dict[str, Task] = {}
    for line in text.splitlines():
        match line.split():
            case [task, name, *_, ("Queued" | "Running" | "Failed" | "Success") as state]:
                tasks.setdefault(name, Task(id=task, state=state))
    workers = re.search(r"Worker status: (\d+) active, (\d+) idle", text)
    return tasks, sum(map(int, workers.groups())) if workers else 0


def is_alive(task: Task) -> bool:
    """Whether the process of a running task still exists; after a crash, DVC goes on to call it running."""
    for path in RUN_FILES.glob(f"{task.id}*/*.json"):
        try:
            os.kill(json.loads(path.read_text(encoding="utf-8"))["pid"], 0)
        except (ProcessLookupError, json.JSONDecodeError):
            continue
        except PermissionError:
            pass  # it exists, and is someone else's
        return True
    return False


def has_log(task: Task) -> bool:
    """Whether a task came as far as running stages; without, it failed while DVC set it up, and left no word of why."""
    return any(RUN_FILES.glob(f"{task.id}*/*.out"))


def drop(task: Task) -> None:
    """Take a task that is not at work off the queue."""
    if task.state == "Running":
        _dvc("queue", "kill", task.id)  # of a dead one, DVC only notes that it failed
    _dvc("queue", "remove", task.id)


def finished() -> list[re.Match[str]]:
    """The finished experiments, newest first, as matches of FINISHED."""
    listed = _git("for-each-ref", "--sort=-committerdate", "--format=%(objectname) %(refname)", "refs/exps")
    return [found for line in listed.splitlines() if (found := FINISHED.fullmatch(line))]


def forget(name: str) -> None:
    """Remove all finished experiments of that name, so that it can be queued again."""
    for found in finished():
        if found["name"] == name:
            _git("update-ref", "-d", found["reference"])


def fetch(run: str) -> Run | None:
    """What the newest finished experiment of that name, or id, left; None if there is none, or its files are gone."""
    found = next((one for one in finished() if one["name"] == run or one["commit"].startswith(run)), None)
    if found is None:
        return None
    revision, start_commit = found["commit"], found["first"] + found["rest"]
    with tempfile.TemporaryDirectory() as folder, suppress(UserError):
        root, evaluated = Path(folder), artifacts.PREDICTIONS.parent
        (root / evaluated.parent).mkdir()
        _dvc("get", ".", evaluated.as_posix(), "--rev", revision, "--out", str(root / evaluated))
        changed = _call(["git", "diff", "--quiet", start_commit, revision, "--", *CODE]).returncode
        return Run(
            id=revision[:12],
            commit=start_commit[:7] + ("+" if changed else ""),
            table=artifacts.read_json(root / artifacts.TABLE),
            metrics=json.loads(_git("show", f"{revision}:{(artifacts.METRICS / 'evaluate.json').as_posix()}")),
            predictions=artifacts.read_table(artifacts.PREDICTIONS, root=root),
            reasons=artifacts.read_table(artifacts.REASONS, root=root),
        )
    return None


def _git(*arguments: str) -> str:
    done = _call(["git", *arguments])
    if done.returncode:
        raise UserError(f"git {arguments[0]}: {_complaint(done.stderr)}")
    return done.stdout


def _dvc(*arguments: str) -> str:
    done = _call([*DVC, *arguments], _identity())
    if done.returncode:
        raise UserError(f"dvc {' '.join(arguments[:2])}: {_complaint(done.stderr or done.stdout)}")
    return done.stdout


def _call(
    command: list[str], environment: Mapping[str, str] | None = None, *, output: int = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    """Run a command where this interpreter's own folder comes first on the path: stages call plain `python`."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    every = {**os.environ, "PATH": path, **(environment or {})}
    return subprocess.run(command, env=every, stdout=output, stderr=output, text=True)


@functools.cache
def _identity() -> dict[str, str]:
    """Who commits experiments where git knows nobody; DVC would guess, and not everywhere with success."""
    if _call(["git", "var", "GIT_COMMITTER_IDENT"]).returncode == 0:
        return {}
    who = {"NAME": "thinkrec", "EMAIL": "thinkrec@localhost"}
    return {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in who.items()}


def _complaint(text: str) -> str:
    """The first line that says ERROR, or the last one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines[-1:] or ["failed without a word"])[0]
