"""The evaluation's table (METHOD §6), its headlines, and the same as text for a terminal.

The input is `artifacts.PREDICTIONS`: one row per valid and test interaction (n), one column of probabilities per
model. Models are compared on identical rows, with identical tie-breaks and identical bootstrap draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from thinkrec.artifacts import SPLITS
from thinkrec.evaluation.intervals import DRAWS, HEADLINE, Bootstrap, bootstrap, holm, interval, p_value
from thinkrec.metrics import score_table

OURS = "thinkrec"
BEST = "best"  # a world's true probabilities: a bound, not a competitor
EVALUATED = SPLITS[1:]


def evaluate(
    predictions: pd.DataFrame, models: Sequence[str], *, seed: int, draws: int = DRAWS, ours: str = OURS
) -> dict[str, Any]:
    """Every metric of every model on valid and test, with 95 % intervals and paired differences from `ours`.

    By split: `models` -> model -> `all`/`warm`/`cold` metrics, `interval`, and `possible_lift` where the truth is
    known; `differences` -> other model -> metric -> `difference` (ours minus theirs), `low`, `high`, `p`, `p_holm`.
    """
    tables = {}
    for split in EVALUATED:
        rows = predictions[predictions["split"] == split]
        if len(rows):
            tables[split] = _split_table(rows, models, seed=seed, draws=draws, ours=ours)
    return tables


def _split_table(rows: pd.DataFrame, models: Sequence[str], *, seed: int, draws: int, ours: str) -> dict[str, Any]:
    user, label, warm = (rows[name].to_numpy() for name in ("user", "label", "warm"))
    scores = {model: rows[model].to_numpy(dtype=np.float64) for model in models}
    drawn = bootstrap(user, label, scores, draws=draws, seed=seed)
    table: dict[str, Any] = {}
    for model, score in scores.items():
        table[model] = score_table(user, label, score, warm, seed=seed)
        table[model]["interval"] = {
            name: dict(zip(("low", "high"), interval(drawn[model].draws[name]), strict=True)) for name in HEADLINE
        }
        if BEST in scores:
            table[model]["possible_lift"] = possible_lift(drawn[model].value["auc"], drawn[BEST].value["auc"])
    return {"models": table, "differences": differences(drawn, ours=ours)}


def possible_lift(auc: float, best: float) -> float:
    """The share of what can be known that a model knows: its AUC above chance over the best possible one's."""
    return (auc - 0.5) / (best - 0.5) if best != 0.5 else float("nan")


def differences(drawn: dict[str, Bootstrap], *, ours: str = OURS) -> dict[str, dict[str, dict[str, float]]]:
    """`ours` minus each other model but the bound, metric by metric; Holm's family is the whole table."""
    if ours not in drawn:
        return {}
    mine = drawn[ours]
    pairs = [(model, name) for model in drawn if model not in (ours, BEST) for name in mine.draws]
    paired = [mine.draws[name] - drawn[model].draws[name] for model, name in pairs]
    plain = [p_value(difference) for difference in paired]
    table: dict[str, dict[str, dict[str, float]]] = {}
    for (model, name), difference, p, adjusted in zip(pairs, paired, plain, holm(plain), strict=True):
        low, high = interval(difference)
        value = mine.value[name] - drawn[model].value[name]
        table.setdefault(model, {})[name] = {"difference": value, "low": low, "high": high, "p": p, "p_holm": adjusted}
    return table


def headlines(metrics: dict[str, Any], *, ours: str = OURS) -> dict[str, dict[str, float]]:
    """Our own headline figures by split: what `dvc exp show` has room for."""
    return {
        split: {name: table["models"][ours]["all"][name] for name in (*HEADLINE, "ndcg@10", "map@10", "log_loss")}
        for split, table in metrics.items()
    }


def to_text(metrics: dict[str, Any]) -> str:
    """The headline figures as aligned plain text: one block per split, one line per model, `*` where ours differs.

    Reads both what `evaluate` returns and the metrics file written from it.
    """
    return "\n\n".join(_block(split, table) for split, table in metrics.items())


def _block(split: str, table: dict[str, Any]) -> str:
    models = table["models"]
    first = next(iter(models.values()))["all"]
    users = first["users"]
    lift = any("possible_lift" in model for model in models.values())
    heads = ["model", *(name.upper() for name in HEADLINE), "HR@5", "log-loss", "ECE", "warm AUC", "cold AUC"]
    lines = [[*heads, "of possible"] if lift else heads]
    for name, model in models.items():
        cells = [name]
        for metric in HEADLINE:
            value, edges = model["all"][metric], model["interval"][metric]
            cells.append(
                f"{_figure(value)}{_star(table, name, metric)} [{_figure(edges['low'])} {_figure(edges['high'])}]"
            )
        cells += [_figure(model["all"][key]) for key in ("hr@5", "log_loss", "calibration_error")]
        cells += [_figure(model[part]["auc"]) for part in ("warm", "cold")]
        cells += [_figure(model.get("possible_lift"))] if lift else []
        lines.append(cells)
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = [
        f"{split}: {first['rows']:,} rows, {users['all']:,} users; "
        f"UAUC over {users['uauc']:,}, @k over {users['@5']:,} of them; [95 % interval]",
        *("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines),
    ]
    if table["differences"]:
        text.append("* the paired difference from ours excludes 0")
    return "\n".join(text)


def _star(table: dict[str, Any], model: str, metric: str) -> str:
    """A mark where the paired interval lies on one side of 0; a space keeps the columns aligned."""
    edges = table["differences"].get(model, {}).get(metric)
    if not edges or edges["low"] is None or edges["low"] != edges["low"]:
        return " "
    return "*" if edges["low"] > 0 or edges["high"] < 0 else " "


def _figure(value: float | None) -> str:
    """Three decimals would hide differences between models: four, without the leading zero; `-` for no value."""
    if value is None or value != value:
        return "-"
    return f"{value:.4f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.4f}"
