"""What every command shares: errors in one line, answers, a closing line, and a log of what ran how long.

A command that answers puts its answer on stdout, a table or, with --json, one JSON document, and all else on stderr.

Times go to `.cache/runs.jsonl`, outside DVC: an out must not depend on when or where it was made.
"""

from __future__ import annotations

import atexit
import fcntl
import functools
import gc
import inspect
import io
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stdout, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from runpy import run_module
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

RUN_LOG = Path(".cache") / "runs.jsonl"

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error in the input, too.")]

Json = Annotated[bool, typer.Option("--json", help="Answer with one JSON document on stdout; all else is on stderr.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a command answers: its closing line, the same for programs, and a table for people, if there is one."""

    summary: str
    document: Any  # what JSON can say
    table: RenderableType | None = None


_noted: dict[str, object] = {}


def note(**facts: object) -> None:
    """Add to what the run log will say of the stage that runs; it does even where the stage stops."""
    _noted.update(facts)


def _log(line: dict[str, object]) -> None:
    try:
        RUN_LOG.parent.mkdir(exist_ok=True)
        with RUN_LOG.open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
    except OSError as error:  # the work is done all the same
        typer.echo(f"{RUN_LOG}: cannot write it ({error.strerror}); this run is not in it", err=True)


@contextmanager
def _alone(stage: str) -> Iterator[None]:
    """A block that no other process runs for this stage of this project at the same time: both would write its outs."""
    from thinkrec.errors import UserError

    with ExitStack() as stack:
        with suppress(OSError):  # where no lock can be had, nobody is kept out
            RUN_LOG.parent.mkdir(exist_ok=True)
            lock = stack.enter_context((RUN_LOG.parent / f"{stage}.lock").open("w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError("another process runs this stage here; wait for it, or end it") from None
        yield


def _check_folders(stage: str) -> None:
    """Stop a stage before its work if what it makes could not be written."""
    from thinkrec import artifacts
    from thinkrec.errors import UserError

    for folder in (artifacts.ROOT / stage, artifacts.ROOT, artifacts.METRICS, artifacts.PLOTS):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if not os.access(there, os.W_OK | os.X_OK):
            raise UserError(f"{there}: no right to write there, or a disk that is read-only; {stage} did nothing")


def _fault(error: Exception) -> str | None:
    """What a disk, a path or a network is at fault for, in a line; None where the program is."""
    if isinstance(error, OSError):
        return f"{error.filename or type(error).__name__}: {error.strerror or error}"
    # What libraries in other languages make of the same.
    words = (
        r"No space left|Permission denied|Read-only file system|disk is full|disk I/O error|I/O error: [\w -]+\w"
        r"|PytorchStreamWriter failed"
    )
    match = re.search(words, str(error))
    return match and f"{match[0]} ({type(error).__name__})"


def print_table(table: RenderableType) -> None:
    """Print a table: within a terminal's width or, where stdout is a file or a pipe, as wide as it is."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        width = max(console.measure(table, options=console.options.update(width=10**6)).maximum, 1)
        console = Console(width=width)
    console.print(table)


def _speak(answer: str | Reply, name: str, seconds: float, *, as_json: bool) -> None:
    """Print an answer; the closing line is on stderr wherever stdout has something else to say."""
    reply = Reply(summary=answer, document=None) if isinstance(answer, str) else answer
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for titles that its encoding does not have
    if as_json:
        typer.echo(json.dumps(reply.document, allow_nan=False))
    elif reply.table is not None:
        print_table(reply.table)
    line = f"{name}: {reply.summary} ({seconds} s)"
    typer.echo(line, err=as_json or reply.table is not None)


def _hint(line: str) -> str:
    """What explains a file that is not there, where DVC runs an experiment in a clone of its own."""
    outside = "no such file" in line and "/.dvc/tmp/" in f"{Path.cwd().as_posix()}/"
    return (
        " (outside the workspace there is what git tracks alone: track it, or name its whole path)" if outside else ""
    )


def _start_processes(stage: str, debug: bool) -> None:
    """Start the stage again as `run.processes` processes (torchrun) in the place of this one, if that is several."""
    from thinkrec.params import load

    count = load().run.processes
    if count > 1:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        os.execv(sys.executable, [*torchrun, "-m", "stages", stage, *(["--debug"] if debug else [])])


def _spare_the_collector() -> None:
    """Let a process import its libraries and end without searching them for garbage: a quarter of its start-up.

    They are a million objects that live as long as the process. What a loop leaves is still found, less often.
    """
    gc.set_threshold(100_000)
    atexit.register(gc.freeze)  # or the interpreter's last collection goes through all of them


def command(work: Callable[..., str | Reply], *, stage: bool = False, shared: bool = False) -> Callable[..., None]:
    """A Typer command of a function that does the work and returns its closing line, or a `Reply` (adds --json).

    A `stage` runs once at a time in a project. The work of a `shared` one may be done by several processes.
    """
    signature = inspect.signature(work, eval_str=True)
    replies = signature.return_annotation is Reply

    @functools.wraps(work)
    def run(*args: object, debug: bool = False, as_json: bool = False, **options: object) -> None:
        from thinkrec import artifacts
        from thinkrec.errors import UserError

        _spare_the_collector()
        main = os.environ.get("RANK", "0") == "0"
        began = time.monotonic()
        answer: str | Reply | None = None
        _noted.clear()
        try:
            if shared and "WORLD_SIZE" not in os.environ:
                _start_processes(work.__name__, debug)
            # Of several processes (torchrun) one speaks, and an answer has stdout for itself.
            elsewhere = sys.stderr if main else io.StringIO()
            quiet = redirect_stdout(elsewhere) if replies or not main else nullcontext()
            with quiet, _alone(work.__name__) if stage and main else nullcontext():
                if main and stage:
                    _check_folders(work.__name__)
                if main:
                    artifacts.recover(artifacts.ROOT)
                answer = work(*args, **options)
        except Exception as error:
            line = str(error) + _hint(str(error)) if isinstance(error, UserError) else _fault(error)
            if debug or line is None:
                raise
            if main:
                typer.echo(f"{work.__name__}: {line}", err=True)
            raise typer.Exit(1) from None
        finally:
            seconds = round(time.monotonic() - began, 1)
            done = answer is not None
            if main and (done or _noted):  # what was spent before it stopped is spent
                _log({"stage": work.__name__, "seconds": seconds, "cpus": os.cpu_count(), "done": done, **_noted})
        if main and answer is not None:
            _speak(answer, work.__name__, seconds, as_json=as_json)

    kinds = {"debug": Debug} | ({"as_json": Json} if replies else {})
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
        for name, kind in kinds.items()
    ]
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), *options], return_annotation=None
    )
    return run


def run_stages() -> None:
    """`thinkrec-stage`: `python -m stages`, of the project in the current folder, else of the one installed from."""
    sys.path.insert(0, str(Path.cwd()))
    if find_spec("stages") is None:
        typer.echo(
            "thinkrec-stage: no stages here; the pipeline is the repository: clone it and run from there", err=True
        )
        raise SystemExit(1)
    sys.argv[0] = "thinkrec-stage"
    run_module("stages", run_name="__main__")
