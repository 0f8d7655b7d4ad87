"""Fill the paper's tables of a dataset: find the rows that are not done, run them on DVC's queue, collect, render.

A row is done when its file says that it ran with the parameters that it would run with now. Code does not count, as
it changes daily: the file names its commit, and `again` brings a row up to date (what the change did not touch comes
from DVC's cache). Everything can be interrupted: what runs goes on in the background, and the next call collects it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from thinkrec import artifacts
from thinkrec.campaign import experiments
from thinkrec.campaign.collect import row_file
from thinkrec.campaign.experiments import Run, Task
from thinkrec.campaign.render import fill_markers, readme_block, render
from thinkrec.campaign.rows import BASE, FOLDER, Row, changed_params, plan, read_rows, row_path
from thinkrec.data.catalogue import find
from thinkrec.errors import UserError

README = Path("README.md")
PAUSE = 15.0  # seconds between two looks at the queue, each of which costs most of a second of one core

Collect = Callable[[Row, Run], str]  # writes what a run adds, and tells it in a few words


def fill(
    dataset: str,
    *,
    raw: Path | None = None,
    jobs: int = 1,
    names: Sequence[str] = (),
    again: bool = False,
    say: Callable[[str], None] = print,
    pause: float = PAUSE,
) -> str:
    """Run what is not done of the named rows (of all, if none is named) and write the tables; returns a summary.

    The base row, named or not, runs first and alone: the others are compared with it, and take what they share from
    the cache. `again` runs the named rows whether they are done or not.

    Raises:
        UserError: something in the way of any run, rows that failed (after all others), or an interruption.
    """
    rows = plan(dataset, raw=raw, names=[BASE, *names] if names else ())
    if again:
        experiments.check()
        for name in names or rows:
            experiments.forget(rows[name].experiment)
            row_path(dataset, name).unlink(missing_ok=True)

    files = read_rows(dataset)
    changes = {name: changed_params(row, files[name]) for name, row in rows.items() if name in files}
    ahead = {name: row for name, row in rows.items() if changes.get(name, ["new"])}
    for name in ahead:
        say(f"{name}: to run" + (f", as parameters changed: {'; '.join(changes[name])}" if name in changes else ""))

    failed: dict[str, str] = {}
    if ahead:
        experiments.check()
        try:
            failed = _run(dataset, ahead, rows[BASE], jobs=jobs, say=say, pause=pause)
        except KeyboardInterrupt:
            raise UserError(
                "interrupted; what is queued goes on in the background (dvc queue status), and the same command "
                "collects it; to end it: dvc queue stop --kill"
            ) from None
    if failed:
        said = "; ".join(f"{name} ({reason})" for name, reason in failed.items())
        raise UserError(f"{len(failed)} of {len(ahead)} rows not done: {said}")
    write_tables(dataset)
    return f"{len(ahead)} rows added, {len(rows) - len(ahead)} were done; {page_path(dataset)} written"


def _run(
    dataset: str, ahead: Mapping[str, Row], base: Row, *, jobs: int, say: Callable[[str], None], pause: float
) -> dict[str, str]:
    """Run and collect these rows, the base row before the others; returns why some failed, by name.

    The base row is run again where its predictions are not at hand (another machine), as the others need them.
    """
    baseline = None if BASE in ahead else experiments.fetch(base.experiment)
    if baseline is None:
        collected: list[Run] = []

        def keep(row: Row, run: Run) -> str:
            collected.append(run)
            return _collect(dataset, row, run, base=run)

        failed = settle({BASE: base}, keep, jobs=jobs, say=say, pause=pause)
        if failed:
            return failed | {name: f"needs {BASE}" for name in ahead if name != BASE}
        [baseline] = collected
    others = {name: row for name, row in ahead.items() if name != BASE}
    return settle(others, lambda row, run: _collect(dataset, row, run, base=baseline), jobs=jobs, say=say, pause=pause)


def settle(
    rows: Mapping[str, Row], collect: Collect, *, jobs: int, say: Callable[[str], None], pause: float = PAUSE
) -> dict[str, str]:
    """Have every row's experiment finished and collected; returns why some failed, by name.

    What an earlier call finished or queued is taken up; only the rest is queued. One that fails stops no other.
    """
    waiting = {}
    for name, row in rows.items():
        if run := experiments.fetch(row.experiment):
            say(f"{name}: found finished; {collect(row, run)}")
        else:
            waiting[name] = row
    if not waiting:
        return {}

    tasks, workers = experiments.status()
    for row in waiting.values():
        task = tasks.get(row.experiment)
        if task and _is_over(task, workers):
            experiments.drop(task)
        if not task or _is_over(task, workers):
            experiments.forget(row.experiment)  # one whose files are gone would be in the way
            experiments.put(row.experiment, row.overrides)
    experiments.start(jobs)

    failed: dict[str, str] = {}
    began: dict[str, float] = {}
    while waiting:
        time.sleep(pause)
        tasks, workers = experiments.status()
        for name, row in list(waiting.items()):
            task = tasks.get(row.experiment)
            if task and task.state == "Running" and name not in began:
                began[name] = time.monotonic()
                say(f"{name}: running")
            if task and not _is_over(task, workers):
                continue
            del waiting[name]
            if run := experiments.fetch(row.experiment):
                minutes = f" in {(time.monotonic() - began[name]) / 60:.1f} min" if name in began else ""
                say(f"{name}: done{minutes}; {collect(row, run)}")
            else:
                failed[name] = f"dvc queue logs {row.experiment}"
                say(f"{name}: failed; its log: {failed[name]}")
        states = [task.state for row in waiting.values() if (task := tasks.get(row.experiment))]
        if "Queued" in states and workers < jobs:  # one that found the queue empty, or itself unanswered, has left
            experiments.start(jobs)
    return failed


def _is_over(task: Task, workers: int) -> bool:
    """Whether nothing works on a task any more, nor will: a crash leaves it Running without a process."""
    if task.state == "Running":
        return not workers and not experiments.is_alive(task)
    return task.state != "Queued"


def _collect(dataset: str, row: Row, run: Run, *, base: Run) -> str:
    """Write a finished row's file, and the tables with it."""
    file = row_file(row, run, base)
    artifacts.write_json(row_path(dataset, row.name), file)
    write_tables(dataset)
    test = file["lines"][row.name]["test"]
    return f"test AUC {test['auc']['value']:.4f}, UAUC {test['uauc']['value']:.4f}"


def page_path(dataset: str) -> Path:
    return FOLDER / f"{dataset}.md"


def write_tables(dataset: str) -> None:
    """Write a dataset's page, and README's part of it, from its row files.

    Raises:
        UserError: no such dataset, or the base row has no file yet.
    """
    files = read_rows(find(dataset).name)
    if BASE not in files:
        raise UserError(f"{row_path(dataset, BASE)}: no such file; run its row first: make tables DATASET={dataset}")
    _write(page_path(dataset), render(dataset, files))
    if README.is_file():
        _write(README, fill_markers(README.read_text(encoding="utf-8"), dataset, readme_block(dataset, files)))


def _write(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        with artifacts.atomic(path) as partial:
            partial.write_text(text, encoding="utf-8")
