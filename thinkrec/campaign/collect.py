"""A finished run -> the file of its row: the lines that it adds to the tables.

A file holds `row`, `experiment`, `commit`, `compared_with` (the base row's experiment), `params`, `counts` (split ->
rows and users) and `lines`: name -> `valid` and `test` -> metric -> `value`, `low`, `high` (95 %) and `lead`, which is
ThinkRec minus this line on the same rows: `value`, `low`, `high`, `p` (a static line is compared with static ThinkRec).
A world's lines have their `possible_lift` per split. `new_items` holds the same of rows about items that train never
saw, where these are enough to be measured; `counts` says how many they are. The line of a run that wrote reasons has
`reasons`: those of the evaluation's metrics file, METEOR with interval and lead.

Over several seeds, a row has a file of *joint* leads besides (`joint_file`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from thinkrec.artifacts import rounded
from thinkrec.campaign.experiments import Run
from thinkrec.campaign.rows import BASE, Row
from thinkrec.errors import UserError
from thinkrec.evaluation.intervals import DRAWS, HEADLINE, bootstrap, interval, mean_draws, p_value
from thinkrec.evaluation.models import BEST, OURS, kind_of
from thinkrec.evaluation.reasons import meteor_exact_stem
from thinkrec.evaluation.tables import EVALUATED, NEW_ITEMS, NEW_ITEMS_METRICS, evaluate, is_measurable, new_item_rows
from thinkrec.metrics import Floats

METEOR = "meteor_exact_stem"
DIGITS = 4
TEST = EVALUATED[-1]
Line = dict[str, Any]


def row_file(row: Row, run: Run, base: Run, *, draws: int = DRAWS) -> dict[str, Any]:
    """The file of a row whose run is finished; `base` is the base row's run, which may be the same.

    Raises:
        UserError: the two runs' predictions are not of the same interactions.
    """
    drawing = {"draws": draws, "seed": row.params["seed"]}
    table, names = run.table, list(run.table[TEST]["models"])
    if row.name != BASE:
        _check_same_interactions(row.name, run, base)
        both = base.predictions.assign(**{row.name: run.predictions[OURS]})
        names = [row.name]
        table = evaluate(both, [OURS, row.name, *({BEST} & set(both.columns))], **drawing)
    lines = {name: {split: _line(of_split, name) for split, of_split in table.items()} for name in names}
    if len(run.reasons):
        lines[row.name]["reasons"] = _reasons(run, base, **drawing)
    sizes = {split: (of_split["models"][OURS]["all"], of_split[NEW_ITEMS]) for split, of_split in table.items()}
    file = {
        "row": row.name,
        "experiment": run.id,
        "commit": run.commit,
        "compared_with": base.id,
        "params": row.params,
        "counts": {split: _counts(every) | {NEW_ITEMS: _counts(new)} for split, (every, new) in sizes.items()},
        "lines": lines,
    }
    return rounded(file, DIGITS)


def _counts(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {key: figures[key] for key in ("rows", "users")}


def _line(table: Mapping[str, Any], name: str) -> Line:
    """A model's entry in a split's table and ThinkRec's lead over it -> metric -> value, interval, lead."""
    model, leads, new = table["models"][name], table["differences"].get(name, {}), table.get(NEW_ITEMS, {})
    line: Line = {metric: {"value": model["all"][metric], **edges} for metric, edges in model["interval"].items()}
    for metric in line.keys() & leads.keys():
        lead = leads[metric]
        line[metric]["lead"] = {"value": lead["difference"], **{key: lead[key] for key in ("low", "high", "p")}}
    if "possible_lift" in model:
        line["possible_lift"] = model["possible_lift"]
    if "models" in new:
        line[NEW_ITEMS] = _line(new, name)
    return line


def _check_same_interactions(name: str, run: Run, base: Run) -> None:
    if not np.array_equal(run.predictions["row"], base.predictions["row"]):
        raise UserError(
            f"{name}: its predictions are of other interactions than those of {BASE}; run both with --again"
        )


def _lead(value: float, drawn: Floats) -> dict[str, float]:
    return {"value": value, **interval(drawn), "p": p_value(drawn)}


def joint_file(name: str, runs: Mapping[int, tuple[Run, Run]], *, draws: int = DRAWS, seed: int) -> dict[str, Any]:
    """ThinkRec's joint lead over the lines of a row, from all its `runs`: seed -> the row's run and the base row's.

    It holds `row`, `runs`, seed -> the identifiers of the base row's run and of the row's, and `leads`: line -> metric
    -> `value`, `low`, `high` and `p` of the mean over seeds of ThinkRec minus the line of the same seed, on the test
    split. A draw of users is one and the same for all seeds, so the interval is of users; seeds are not drawn. The base
    row's lines are the baselines that every seed has, under the online protocol. `new_items` holds such leads over test
    rows about items that train never saw, if these are enough to be measured.

    Raises:
        UserError: the runs' predictions are not of the same interactions.
    """
    (_, first), *_ = runs.values()
    column_of = {name: OURS}  # line -> its column in the predictions of the row's runs
    if name == BASE:
        models = set[str].intersection(*(set(run.table[TEST]["models"]) for run, _ in runs.values()))
        column_of = {model: model for model in sorted(models) if model != OURS and kind_of(model) == "online"}
    scores = {}
    for number, (run, base) in runs.items():
        for other in (run, base):
            _check_same_interactions(f"{name} of seed {number}", other, first)
        scores[number, OURS] = base.predictions[OURS]
        scores |= {(number, line): run.predictions[column] for line, column in column_of.items()}

    def joint_leads(rows: pd.DataFrame, metrics: Sequence[str]) -> dict[str, dict[str, dict[str, float]]]:
        """Line -> metric -> joint lead over some rows of the predictions."""
        of_rows = {f"{number} {line}": score[rows.index] for (number, line), score in scores.items()}
        drawn = bootstrap(rows["user"], rows["label"], of_rows, metrics=metrics, draws=draws, seed=seed)
        pairs = {
            line: [(drawn[f"{number} {OURS}"], drawn[f"{number} {line}"]) for number in runs] for line in column_of
        }
        return {
            line: {
                metric: _lead(
                    float(np.mean([ours.value[metric] - theirs.value[metric] for ours, theirs in of_line])),
                    np.mean([ours.draws[metric] - theirs.draws[metric] for ours, theirs in of_line], axis=0),
                )
                for metric in metrics
            }
            for line, of_line in pairs.items()
        }

    test = first.predictions[first.predictions["split"] == TEST]
    new = new_item_rows(test)
    file = {
        "row": name,
        "runs": {number: [base.id, run.id] for number, (run, base) in runs.items()},
        "leads": joint_leads(test, HEADLINE),
        NEW_ITEMS: joint_leads(new, NEW_ITEMS_METRICS) if is_measurable(new) else {},
    }
    return rounded(file, DIGITS)


def _reasons(run: Run, base: Run, *, draws: int, seed: int) -> Line:
    """The run's reason metrics; METEOR with its interval, and with the base run's lead over it.

    A run's own METEOR is against its own references. The lead is over the rows for which both runs wrote a reason,
    and against the base run's references: with other keywords the teacher says other things.
    """
    user = base.predictions.set_index("row")["user"]

    def draw(value: pd.Series[float]) -> Floats:
        return mean_draws(user[value.index], value, draws=draws, seed=seed)

    line: Line = dict(run.metrics["reasons"])
    line[METEOR] = {"value": line[METEOR], **interval(draw(_meteor(run.reasons, run.reasons)))}
    if run.id != base.id:
        lead = (_meteor(base.reasons, base.reasons) - _meteor(run.reasons, base.reasons)).dropna()
        line[METEOR]["lead"] = {**_lead(float(lead.mean()), draw(lead)), "rows": len(lead)}
    return line


def _meteor(reasons: pd.DataFrame, references: pd.DataFrame) -> pd.Series[float]:
    """Each reason's METEOR against the reference for the same interaction, by row number; only where there is one."""
    texts = reasons.set_index("row")["reason"].to_frame().join(references.set_index("row")["teacher"])
    texts = texts.fillna("").apply(lambda column: column.str.strip())
    texts = texts[texts["teacher"] != ""]
    return pd.Series(map(meteor_exact_stem, texts["reason"], texts["teacher"]), index=texts.index, dtype=np.float64)
