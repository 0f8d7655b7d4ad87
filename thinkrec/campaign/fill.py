"""Fill the paper's tables of a dataset: find the rows that are not done, run them, write their files and the page.

A row is done when its file says that it ran with the parameters that it would run with now. Code does not count, as
it changes daily: the file names its commit, and `again` brings a row up to date. Interrupted, the same command goes on:
it collects what has finished, and stages that have finished come from DVC's cache.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from pathlib import Path

from thinkrec import artifacts
from thinkrec.campaign.collect import joint_file, row_file
from thinkrec.campaign.experiments import Run, check_repository, fetch_run, run_experiments
from thinkrec.campaign.render import page_path, write_page
from thinkrec.campaign.rows import BASE, JOINT, SEEDED, Row, changed_params, plan, read_rows, read_seeds, row_path
from thinkrec.campaign.spread import run_ids
from thinkrec.errors import UserError

Say = Callable[[str], None]


def fill(
    dataset: str,
    *,
    raw: Path | None = None,
    jobs: int = 1,
    names: Sequence[str] = (),
    seeds: Sequence[str] = (),
    again: bool = False,
    say: Say = print,
) -> str:
    """Run what is not done of the named rows and seeds (of all, if none is named), write the page; returns a summary.

    The base rows, named or not, run before all others: a seed's others are compared with its base row. That of the
    default seed is always among them, as the tables begin with it. `again` runs the named rows though they are done.

    Raises:
        UserError: something is in the way of any run; rows failed, after all others ran; or an interruption.
    """
    rows = plan(dataset, raw=raw, names=names, seeds=seeds)
    pending: list[Row] = []
    for row in rows.values():
        changes = changed_params(row, artifacts.read_json(row.path)) if row.path.is_file() else []
        if changes or not row.path.is_file() or (again and row.asked):
            pending.append(row)
            say(f"{row.title}: to run" + (f", as parameters changed: {'; '.join(changes)}" if changes else ""))
    failed: dict[str, str] = {}
    try:
        if pending:
            check_repository()
            failed = _run_rows(rows.values(), pending, again=again, jobs=jobs, say=say)
        for name in SEEDED:
            _write_joint(dataset, name, say=say)
    except KeyboardInterrupt:
        raise UserError("interrupted; the same command goes on where it stopped") from None
    if failed:
        reasons = "; ".join(f"{title} ({reason})" for title, reason in failed.items())
        raise UserError(f"{len(failed)} rows not done: {reasons}")
    write_page(dataset)
    return f"{len(pending)} rows added, {len(rows) - len(pending)} were done; {page_path(dataset)} written"


def _run_rows(rows: Collection[Row], pending: Collection[Row], *, again: bool, jobs: int, say: Say) -> dict[str, str]:
    """Run the `pending` ones of the rows, every seed's base row before its others; returns why some failed, by title.

    A base row that is done is run again where its predictions are not at hand (another machine), as the seed's others
    are compared with them.
    """
    bases: dict[int | None, Run] = {}  # by seed
    failed: dict[str, str] = {}

    def write(row: Row, run: Run) -> None:
        if row.name == BASE:
            bases[row.seed] = run
        file = row_file(row, run, bases[row.seed])
        artifacts.write_json(row.path, file)
        test = file["lines"][row.name]["test"]
        say(f"{row.title}: test AUC {test['auc']['value']:.4f}, UAUC {test['uauc']['value']:.4f}")

    def settle(some: Collection[Row]) -> None:
        """Write the rows that an earlier call finished, run the others and write them as they end."""
        waiting = {row.experiment: row for row in some}
        for name, row in list(waiting.items()):
            if not (again and row.asked) and (run := fetch_run(name)):
                write(waiting.pop(name), run)
        overrides = {name: row.overrides for name, row in waiting.items()}
        with closing(run_experiments(overrides, jobs=jobs)) as ended:
            for name, last_lines in ended:
                row, run = waiting[name], None if last_lines else fetch_run(name)
                if run:
                    write(row, run)
                else:
                    failed[row.title] = "failed, see above"
                    say(f"{row.title}: failed\n{last_lines}")

    seeds = {row.seed for row in pending}
    base_rows = [row for row in rows if row.name == BASE and row.seed in seeds]
    for row in base_rows:
        if row not in pending and (run := fetch_run(artifacts.read_json(row.path)["experiment"])):
            bases[row.seed] = run
    settle([row for row in base_rows if row.seed not in bases])
    others = [row for row in pending if row.name != BASE]
    settle([row for row in others if row.seed in bases])
    titles = {row.seed: row.title for row in base_rows}
    return failed | {row.title: f"needs {titles[row.seed]}" for row in others if row.seed not in bases}


def _write_joint(dataset: str, name: str, *, say: Say) -> None:
    """Write the joint lead over a row of the seeds that it is done with, if they are several and not those written."""
    ids = run_ids(read_seeds(dataset), name)
    if len(ids) < 2 or read_rows(dataset, JOINT).get(name, {}).get("runs") == ids:
        return
    runs = {}
    for seed, (base_id, run_id) in ids.items():
        base, run = fetch_run(base_id), fetch_run(run_id)
        if base is None or run is None:
            say(f"{name}: no joint lead over {len(ids)} seeds, as predictions of seed {seed} are not at hand; --again")
            return
        runs[int(seed)] = (run, base)
    artifacts.write_json(row_path(dataset, name, JOINT), joint_file(name, runs, seed=next(iter(runs))))
    say(f"{name}: joint lead over {len(runs)} seeds")
