"""Fill the paper's tables of a dataset: find the rows that are not done, run them on DVC's queue, collect, render.

A row is done when its file says that it ran with the parameters that it would run with now. Code does not count, as
it changes daily: the file names its commit, and `again` brings a row up to date (what the change did not touch comes
from DVC's cache). Everything can be interrupted: what runs goes on in the background, and the next call collects it.

What two rows share is trained once only if they run one after the other: the base rows come first, and of the rest, no
two of a seed that share more stand side by side in the queue.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from thinkrec import artifacts
from thinkrec.campaign import experiments
from thinkrec.campaign.collect import joint_file, row_file
from thinkrec.campaign.experiments import Run, Task
from thinkrec.campaign.render import fill_markers, readme_block, render
from thinkrec.campaign.rows import (
    BASE,
    FOLDER,
    SEEDED,
    Row,
    campaign,
    changed_params,
    joint_path,
    read_joint,
    read_rows,
    read_seeds,
    row_path,
    seeds_called,
)
from thinkrec.campaign.spread import across, run_ids
from thinkrec.errors import UserError
from thinkrec.ingest.catalogue import find

README = Path("README.md")
PAUSE = 15.0  # seconds between two looks at the queue, each of which costs most of a second of one core
OVER = ("Failed", "Success")  # states of a task that no worker goes on with
RETRIES = 2  # of a run that DVC could not start

Collect = Callable[[Row, Run], str]  # writes what a run adds, and tells it in a few words


def fill(
    dataset: str,
    *,
    raw: Path | None = None,
    jobs: int = 1,
    names: Sequence[str] = (),
    seeds: Sequence[str] = (),
    again: bool = False,
    say: Callable[[str], None] = print,
    pause: float = PAUSE,
) -> str:
    """Run what is not done of the named rows and seeds (of all, if none is named), write the tables; returns a summary.

    The base rows, named or not, run before all others: a seed's others are compared with its base row, and take what
    they share from the cache. That of the default seed is always among them, as the tables begin with it. `again` runs
    the named rows whether they are done or not.

    Raises:
        UserError: something in the way of any run, rows that failed (after all others), or an interruption.
    """
    chosen = seeds_called(seeds)
    rows = campaign(dataset, raw=raw, names=names, seeds=chosen)
    if again:
        experiments.check()
        for row in rows.values():
            if row.seed in chosen and (not names or row.name in names):
                experiments.forget(row.experiment)
                row_path(dataset, row.name, row.seed).unlink(missing_ok=True)

    files = {title: artifacts.read_json(path) for title, row in rows.items() if (path := _path(dataset, row)).is_file()}
    changes = {title: changed_params(rows[title], file) for title, file in files.items()}
    ahead = {title: row for title, row in rows.items() if changes.get(title, ["new"])}
    for title in ahead:
        say(f"{title}: to run" + (f", as parameters changed: {'; '.join(changes[title])}" if title in changes else ""))

    failed: dict[str, str] = {}
    try:
        if ahead:
            experiments.check()
            failed = _run(dataset, ahead, rows, jobs=jobs, say=say, pause=pause)
        for name in SEEDED:
            _join(dataset, name, say=say)
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


def _path(dataset: str, row: Row) -> Path:
    return row_path(dataset, row.name, row.seed)


def _run(
    dataset: str,
    ahead: Mapping[str, Row],
    rows: Mapping[str, Row],
    *,
    jobs: int,
    say: Callable[[str], None],
    pause: float,
) -> dict[str, str]:
    """Run and collect the rows `ahead`, every seed's base row before all others; returns why some failed, by title.

    A base row is run again where its predictions are not at hand (another machine), as the seed's others need them.
    """
    bases: dict[int | None, Run] = {}  # by seed
    left = Counter(row.name for row in ahead.values())

    def collect(row: Row, run: Run) -> str:
        if row.name == BASE:
            bases[row.seed] = run
        said = _collect(dataset, row, run, base=bases[row.seed])
        left[row.name] -= 1
        if not left[row.name]:
            _join(dataset, row.name, say=say)
        return said

    first = {}
    for title, row in rows.items():
        if row.name == BASE and row.seed in {other.seed for other in ahead.values()}:
            run = None if title in ahead else experiments.fetch(artifacts.read_json(_path(dataset, row))["experiment"])
            if run is None:
                first[title] = row
            else:
                bases[row.seed] = run
    failed = settle(first, collect, jobs=jobs, say=say, pause=pause)
    others = {title: row for title, row in ahead.items() if row.name != BASE}
    ready = {title: row for title, row in others.items() if row.seed in bases}
    needed = {row.seed: title for title, row in first.items()}
    failed |= {title: f"needs {needed[row.seed]}" for title, row in others.items() if title not in ready}
    return failed | settle(ready, collect, jobs=jobs, say=say, pause=pause)


def settle(
    rows: Mapping[str, Row], collect: Collect, *, jobs: int, say: Callable[[str], None], pause: float = PAUSE
) -> dict[str, str]:
    """Have every row's experiment finished and collected; returns why some failed, by name.

    What an earlier call finished or queued is taken up; only the rest is queued. One that fails stops no other; one
    that failed before its first stage began (workers that start at once can trip over each other, DVC issue 10673) is
    queued again, RETRIES times at most.
    """
    waiting = {}
    for name, row in rows.items():
        if run := experiments.fetch(row.experiment):
            say(f"{name}: found finished; {collect(row, run)}")
        else:
            waiting[name] = row
    if not waiting:
        return {}

    tasks, workers, over = _look(waiting, pause)
    for name, row in waiting.items():
        if name in over:
            _queue(row, tasks)
    experiments.start(jobs)

    failed: dict[str, str] = {}
    began: dict[str, float] = {}
    tries: Counter[str] = Counter()
    while waiting:
        time.sleep(pause)
        tasks, workers, over = _look(waiting, pause)
        for name, row in list(waiting.items()):
            task = tasks.get(row.experiment)
            if task and task.state == "Running" and name not in began:
                began[name] = time.monotonic()
                say(f"{name}: running")
            if name not in over:
                continue
            run = experiments.fetch(row.experiment)
            if not run and task and not experiments.has_log(task) and tries[name] < RETRIES:
                tries[name] += 1
                began.pop(name, None)
                say(f"{name}: ended before it began; queued again")
                _queue(row, tasks)
                continue
            del waiting[name]
            if run:
                minutes = f" in {(time.monotonic() - began[name]) / 60:.1f} min" if name in began else ""
                say(f"{name}: done{minutes}; {collect(row, run)}")
            else:
                failed[name] = f"dvc queue logs {row.experiment}" if task else "someone took it off the queue"
                say(f"{name}: failed ({failed[name]})")
        states = [task.state for row in waiting.values() if (task := tasks.get(row.experiment))]
        if "Queued" in states and workers < jobs:  # one that found the queue empty, or itself unanswered, has left
            experiments.start(jobs)
    return failed


def _queue(row: Row, tasks: Mapping[str, Task]) -> None:
    """Put a row on the queue, in the place of what is over."""
    if task := tasks.get(row.experiment):
        experiments.drop(task)
    experiments.forget(row.experiment)  # one whose files are gone would be in the way
    experiments.put(row.experiment, row.overrides)


def _look(rows: Mapping[str, Row], pause: float) -> tuple[dict[str, Task], int, set[str]]:
    """The queue's tasks by experiment, how many workers answer, and the rows on which nothing works, nor will.

    A row that seems lost is looked at twice: one that a worker takes up while DVC lists first what runs and then what
    waits is in neither list, and a worker that sets one up may answer too late.
    """
    tasks, workers = experiments.status()
    lost = _lost(rows, tasks, workers)
    if lost:
        time.sleep(pause)
        tasks, workers = experiments.status()
        lost &= _lost(rows, tasks, workers)
    over = {name for name, row in rows.items() if (task := tasks.get(row.experiment)) and task.state in OVER}
    return tasks, workers, over | lost


def _lost(rows: Mapping[str, Row], tasks: Mapping[str, Task], workers: int) -> set[str]:
    """The rows that the queue does not know, or calls running though no process is left of them, as after a crash."""

    def is_lost(task: Task | None) -> bool:
        return not task or (task.state == "Running" and not workers and not experiments.is_alive(task))

    return {name for name, row in rows.items() if is_lost(tasks.get(row.experiment))}


def _collect(dataset: str, row: Row, run: Run, *, base: Run) -> str:
    """Write a finished row's file, and the tables with it as soon as there can be any."""
    file = row_file(row, run, base)
    artifacts.write_json(_path(dataset, row), file)
    if row_path(dataset, BASE).is_file():
        write_tables(dataset)
    test = file["lines"][row.name]["test"]
    return f"test AUC {test['auc']['value']:.4f}, UAUC {test['uauc']['value']:.4f}"


def _join(dataset: str, name: str, *, say: Callable[[str], None]) -> None:
    """Write the joint lead over a row of the seeds that it is done with, if they are several and not those written."""
    if name not in SEEDED:
        return
    by_seed = {seed: files for seed, files in read_seeds(dataset).items() if name in files}
    ids = run_ids(by_seed, name)
    if len(ids) < 2 or read_joint(dataset).get(name, {}).get("runs") == ids:
        return
    runs = {}
    for seed, (base_id, run_id) in ids.items():
        base = experiments.fetch(base_id)
        run = base if name == BASE else experiments.fetch(run_id)
        if base is None or run is None:
            say(f"{name}: no joint lead over {len(ids)} seeds, as predictions of seed {seed} are not at hand; --again")
            return
        runs[int(seed)] = (run, base)
    artifacts.write_json(joint_path(dataset, name), joint_file(name, runs, seed=next(iter(runs))))
    write_tables(dataset)
    say(f"{name}: joint lead over {len(runs)} seeds")


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
    spread = across(read_seeds(dataset), read_joint(dataset))
    _write(page_path(dataset), render(dataset, files, spread))
    if README.is_file():
        block = readme_block(dataset, files, spread)
        _write(README, fill_markers(README.read_text(encoding="utf-8"), dataset, block))


def _write(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        with artifacts.atomic(path) as partial:
            partial.write_text(text, encoding="utf-8")
