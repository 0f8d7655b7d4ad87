"""A finished run -> the file of its row: the lines that it adds to the tables.

A file holds `row`, `experiment`, `commit`, `compared_with` (the base row's experiment), `params`, `counts` (split ->
rows and users) and `lines`: name -> `valid` and `test` -> metric -> `value`, `low`, `high` (95 %) and `lead`, which is
ThinkRec minus this line on the same rows: `value`, `low`, `high`, `p` (a static line is left behind by static ThinkRec:
like with like). A world's lines have their `possible_lift` per split.
The line of a run that wrote reasons has `reasons`: those of the evaluation's metrics file, and METEOR as above.

Over several seeds, a row has a file of *joint* leads besides (`joint_file`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from thinkrec.artifacts import rounded
from thinkrec.campaign.experiments import Run
from thinkrec.campaign.rows import BASE, Row
from thinkrec.errors import UserError
from thinkrec.evaluation.intervals import DRAWS, HEADLINE, bootstrap, interval, p_value, resampled
from thinkrec.evaluation.reasons import meteor_exact_stem
from thinkrec.evaluation.tables import EVALUATED, OURS, differences, kind_of
from thinkrec.metrics import Floats

METEOR = "meteor_exact_stem"
DIGITS = 4
Line = dict[str, Any]


def row_file(row: Row, run: Run, base: Run, *, draws: int = DRAWS) -> dict[str, Any]:
    """The file of a row whose run is finished; `base` is the base row's run, which may be the same.

    Raises:
        UserError: the two runs' predictions are not of the same interactions.
    """
    seed = row.params["seed"]
    splits = [split for split in EVALUATED if split in run.table]
    if row.name == BASE:
        names = {model: model for model in run.table[splits[0]]["models"]}
        leads = {split: run.table[split]["differences"] for split in splits}
    else:
        names = {OURS: row.name}
        leads = _leads_over(row.name, run, base, draws=draws, seed=seed)
    lines = {
        name: {split: _line(run.table[split]["models"][model], leads[split].get(name, {})) for split in splits}
        for model, name in names.items()
    }
    if len(run.reasons):
        lines[row.name]["reasons"] = _reasons(run, base, draws=draws, seed=seed)
    counts = {
        split: {key: run.table[split]["models"][OURS]["all"][key] for key in ("rows", "users")} for split in splits
    }
    return rounded(
        {
            "row": row.name,
            "experiment": run.id,
            "commit": run.commit,
            "compared_with": base.id,
            "params": row.params,
            "counts": counts,
            "lines": lines,
        },
        DIGITS,
    )


def _line(model: dict[str, Any], leads: dict[str, dict[str, float]]) -> Line:
    """One model's entry in a run's table and ThinkRec's lead over it -> metric -> value, interval, lead."""
    line: Line = {}
    for metric in HEADLINE:
        if metric not in model["interval"]:
            continue  # a run of an earlier code
        line[metric] = {"value": model["all"][metric], **model["interval"][metric]}
        if metric in leads:
            lead = leads[metric]
            line[metric]["lead"] = {"value": lead["difference"], **{key: lead[key] for key in ("low", "high", "p")}}
    if "possible_lift" in model:
        line["possible_lift"] = model["possible_lift"]
    return line


def _leads_over(name: str, run: Run, base: Run, *, draws: int, seed: int) -> dict[str, Any]:
    """Split -> `name` -> `tables.differences`: the base run's ThinkRec minus this run's."""
    _same_interactions(name, run, base)
    together = base.predictions.assign(**{name: run.predictions[OURS]})
    by_split = {}
    for split, rows in together.groupby("split", observed=True):
        scores = {model: rows[model].to_numpy(np.float64) for model in (OURS, name)}
        by_split[str(split)] = differences(bootstrap(rows["user"], rows["label"], scores, draws=draws, seed=seed))
    return by_split


def _same_interactions(name: str, run: Run, base: Run) -> None:
    if not np.array_equal(run.predictions["row"], base.predictions["row"]):
        raise UserError(
            f"{name}: its predictions are of other interactions than those of {BASE}; run both with --again"
        )


def joint_file(name: str, runs: Mapping[int, tuple[Run, Run]], *, draws: int = DRAWS, seed: int) -> dict[str, Any]:
    """ThinkRec's joint lead over the lines of a row, from all its `runs`: seed -> the row's run and the base row's.

    It holds `row`, `runs`, seed -> the identifiers of the base row's run and of the row's, and `leads`: line -> metric
    -> `value`, `low`, `high` and `p` of the mean over seeds of ThinkRec minus the line of the same seed, on the test
    split. A draw of users is one and the same for all seeds, so the interval is of users; seeds are not drawn. The base
    row's lines are the models beside ThinkRec, fitted with that seed: not the static ones, nor what hindsight knows,
    nor what the run of some seed (by an earlier code) does not have.

    Raises:
        UserError: the runs' predictions are not of the same interactions.
    """
    first = next(iter(runs.values()))[1]
    scores: dict[str, Floats] = {}
    lines = {name}
    if name == BASE:
        models = set[str].intersection(*(set(run.table[EVALUATED[-1]]["models"]) for run, _ in runs.values()))
        lines = {model for model in models if model != OURS and kind_of(model) == "online"}
    for number, (run, base) in runs.items():
        test = run.predictions["split"] == EVALUATED[-1]
        for other in (run, base):
            _same_interactions(f"{name} of seed {number}", other, first)
        scores[f"{number} {OURS}"] = base.predictions.loc[test, OURS].to_numpy(np.float64)
        for line in lines:
            column = line if name == BASE else OURS
            scores[f"{number} {line}"] = run.predictions.loc[test, column].to_numpy(np.float64)
    test = first.predictions["split"] == EVALUATED[-1]
    user, label = (first.predictions.loc[test, column] for column in ("user", "label"))
    drawn = bootstrap(user, label, scores, draws=draws, seed=seed)
    leads: dict[str, Any] = {}
    for line in sorted(lines):
        pairs = [(drawn[f"{number} {OURS}"], drawn[f"{number} {line}"]) for number in runs]
        leads[line] = {}
        for metric in HEADLINE:
            value = float(np.mean([ours.value[metric] - theirs.value[metric] for ours, theirs in pairs]))
            mean = np.mean([ours.draws[metric] - theirs.draws[metric] for ours, theirs in pairs], axis=0)
            leads[line][metric] = {"value": value, **_edges(mean), "p": p_value(mean)}
    ids = {number: [base.id, run.id] for number, (run, base) in runs.items()}
    return rounded({"row": name, "runs": ids, "leads": leads}, DIGITS)


def _reasons(run: Run, base: Run, *, draws: int, seed: int) -> Line:
    """The run's reason metrics; METEOR with its interval, and with the base run's lead over it.

    A run's own METEOR is against its own references. The lead is over the rows for which both runs wrote a reason,
    and against the base run's references: with other keywords the teacher says other things.
    """
    line: Line = dict(run.metrics["reasons"])
    user = base.predictions.set_index("row")["user"]
    meteor = _meteor(run.reasons, run.reasons)
    line[METEOR] = {"value": line[METEOR], **_edges(_mean_draws(user[meteor.index], meteor, draws=draws, seed=seed))}
    if run.id != base.id:
        pair = pd.DataFrame({"base": _meteor(base.reasons, base.reasons), "row": _meteor(run.reasons, base.reasons)})
        pair = pair.dropna()
        lead = pair["base"] - pair["row"]
        drawn = _mean_draws(user[lead.index], lead, draws=draws, seed=seed)
        value = float(lead.mean()) if len(lead) else float("nan")
        line[METEOR]["lead"] = {"value": value, **_edges(drawn), "p": p_value(drawn), "rows": len(lead)}
    return line


def _meteor(reasons: pd.DataFrame, references: pd.DataFrame) -> pd.Series[float]:
    """Each reason's METEOR against the reference for the same interaction, by row number; only where there is one."""
    teacher = references.set_index("row")["teacher"].fillna("").str.strip()
    teacher = teacher[teacher != ""]
    reason = reasons.set_index("row")["reason"].fillna("").str.strip()
    rows = [row for row in reason.index if row in teacher.index]
    return pd.Series([meteor_exact_stem(reason[row], teacher[row]) for row in rows], index=rows, dtype=np.float64)


def _mean_draws(user: pd.Series[int], value: pd.Series[float], *, draws: int, seed: int) -> Floats:
    """What each draw of users makes of the mean over rows (d); NaN throughout where there are none."""
    drawn: Floats = np.full(draws, np.nan)
    if len(value):
        users, segment_n = np.unique(user.to_numpy(), return_inverse=True)
        sum_u, rows_u = np.bincount(segment_n, weights=value.to_numpy()), np.bincount(segment_n)
        for start, weight_du in resampled(len(users), rows=len(value), draws=draws, seed=seed):
            drawn[start : start + len(weight_du)] = (weight_du @ sum_u) / (weight_du @ rows_u)
    return drawn


def _edges(drawn: Floats) -> dict[str, float]:
    return dict(zip(("low", "high"), interval(drawn), strict=True))
