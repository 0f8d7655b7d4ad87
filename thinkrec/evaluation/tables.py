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
from thinkrec.gate.routing import CASES
from thinkrec.metrics import Bools, Floats, score_table

OURS = "thinkrec"
ORACLE = "expert_oracle"  # each user's best adapter, chosen by the labels that it is then measured on
BEST = "best"  # a world's true probabilities
BOUNDS = {ORACLE, BEST}  # what could be reached at most: not competitors
FROZEN = "_frozen"  # ends the name of a model that is told nothing of the split that it is measured on
EVALUATED = SPLITS[1:]

COUNT_BINS = {0: "0", 1: "1-9", 10: "10-49", 50: "50+"}  # by the least count of each
SLICE_METRICS = ("auc", "uauc", "ndcg@5", "map@5", "log_loss")


def evaluate(
    predictions: pd.DataFrame, models: Sequence[str], *, seed: int, draws: int = DRAWS, ours: str = OURS
) -> dict[str, Any]:
    """Every metric of every model on valid and test, with 95 % intervals and paired differences from `ours`.

    By split:

    - `models` -> model -> `all`/`warm`/`cold` -> metrics; `slices` -> slice -> bin -> SLICE_METRICS; `interval`;
      `possible_lift` where the truth is known;
    - `slices` -> slice -> bin -> `rows` and `users`, which are the same for all models (rankings are of a user's rows
      within the bin, as they are within warm and cold);
    - `differences` -> other model -> metric -> `difference` (ours minus theirs), `low`, `high`, `p`, `p_holm`.
    """
    tables = {}
    for split in EVALUATED:
        rows = predictions[predictions["split"] == split]
        if len(rows):
            tables[split] = _split_table(rows, models, seed=seed, draws=draws, ours=ours)
    return tables


def slices(predictions: pd.DataFrame) -> dict[str, dict[str, Bools]]:
    """Ways to cut the rows into bins: slice -> bin -> whether it holds each row (n).

    `history` and `popularity` by counts (COUNT_BINS), `group` by the user's group, `case` by the paper's routing, all
    as `artifacts.PREDICTIONS` says. A bin without rows is left out, and so is a slice of one bin: without experts, all
    rows are of one group and one case.
    """
    history, popularity, group, case = (
        predictions[name].to_numpy() for name in ("history", "popularity", "group", "case")
    )
    least = list(COUNT_BINS)
    numbered = {
        "history": (np.searchsorted(least, history, side="right") - 1, COUNT_BINS.values()),
        "popularity": (np.searchsorted(least, popularity, side="right") - 1, COUNT_BINS.values()),
        "group": (group + 1, ("unseen", *map(str, range(1, group.max(initial=-1) + 2)))),
        "case": (case, CASES),
    }
    cut = {
        name: {bin_name: bin_n == number for number, bin_name in enumerate(names) if (bin_n == number).any()}
        for name, (bin_n, names) in numbered.items()
    }
    return {name: bins for name, bins in cut.items() if len(bins) > 1}


def _split_table(rows: pd.DataFrame, models: Sequence[str], *, seed: int, draws: int, ours: str) -> dict[str, Any]:
    user, label, warm = (rows[name].to_numpy() for name in ("user", "label", "warm"))
    scores = {model: rows[model].to_numpy(dtype=np.float64) for model in models}
    drawn = bootstrap(user, label, scores, draws=draws, seed=seed)
    parts = {"all": np.ones(len(rows), bool), "warm": warm, "cold": ~warm}
    cut = slices(rows)

    def measured(score: Floats, bins: dict[str, Bools]) -> dict[str, dict[str, Any]]:
        return {name: score_table(user[held], label[held], score[held], seed=seed) for name, held in bins.items()}

    table: dict[str, Any] = {}
    sizes: dict[str, Any] = {}
    for model, score in scores.items():
        by_slice = {name: measured(score, bins) for name, bins in cut.items()}
        sizes = _only(by_slice, ("rows", "users"))  # the same for every model
        table[model] = measured(score, parts)
        table[model]["slices"] = _only(by_slice, SLICE_METRICS)
        table[model]["interval"] = {
            name: dict(zip(("low", "high"), interval(drawn[model].draws[name]), strict=True)) for name in HEADLINE
        }
        if BEST in scores:
            table[model]["possible_lift"] = possible_lift(drawn[model].value["auc"], drawn[BEST].value["auc"])
    return {"models": table, "slices": sizes, "differences": differences(drawn, ours=ours)}


def _only(by_slice: dict[str, dict[str, dict[str, Any]]], names: Sequence[str]) -> dict[str, Any]:
    """Every bin's table, these entries of it only."""
    return {
        name: {bin_name: {kept: table[kept] for kept in names} for bin_name, table in bins.items()}
        for name, bins in by_slice.items()
    }


def possible_lift(auc: float, best: float) -> float:
    """The share of what can be known that a model knows: its AUC above chance over the best possible one's."""
    return (auc - 0.5) / (best - 0.5) if best != 0.5 else float("nan")


def differences(drawn: dict[str, Bootstrap], *, ours: str = OURS) -> dict[str, dict[str, dict[str, float]]]:
    """`ours` minus each other model but the bounds, metric by metric; Holm's family is the whole table."""
    if ours not in drawn:
        return {}
    mine = drawn[ours]
    pairs = [(model, name) for model in drawn if model not in {ours, *BOUNDS} for name in mine.draws]
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

    A block lists the online models, then the frozen ones, then the bounds. Reads both what `evaluate` returns and the
    metrics file written from it.
    """
    return "\n\n".join(_block(split, table) for split, table in metrics.items())


def _block(split: str, table: dict[str, Any]) -> str:
    models = table["models"]
    first = next(iter(models.values()))["all"]
    users = first["users"]
    lift = any("possible_lift" in model for model in models.values())
    heads = ["model", *(name.upper() for name in HEADLINE), "log-loss", "ECE", "warm AUC", "cold AUC"]
    cells = {name: _cells(table, name, lift=lift) for name in models}
    lines = [[*heads, "of possible"] if lift else heads, *cells.values()]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads) + lift)]

    def aligned(line: list[str]) -> str:
        return "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()

    text = [
        f"{split}: {first['rows']:,} rows, {users['all']:,} users; "
        f"UAUC over {users['uauc']:,}, @k over {users['@5']:,} of them; [95 % interval]",
        aligned(lines[0]),
    ]
    frozen = [name for name in models if name.endswith(FROZEN)]
    bounds = [name for name in models if name in BOUNDS]
    text += [aligned(cells[name]) for name in models if name not in {*frozen, *bounds}]
    for title, names in {"-- frozen at the start of the split": frozen, "-- bounds, not competitors": bounds}.items():
        text += [title, *(aligned(cells[name]) for name in names)] if names else []
    if table["differences"]:
        text.append("* the paired difference from ours excludes 0")
    return "\n".join(text)


def _cells(table: dict[str, Any], name: str, *, lift: bool) -> list[str]:
    """A model's line: intervals for the first two headline metrics only, for want of room."""
    model = table["models"][name]
    cells = [name]
    for metric in HEADLINE:
        edges = model["interval"][metric]
        between = f" [{_figure(edges['low'])} {_figure(edges['high'])}]" if metric in HEADLINE[:2] else ""
        cells.append(f"{_figure(model['all'][metric])}{_star(table, name, metric)}{between}")
    cells += [_figure(model["all"][key]) for key in ("log_loss", "calibration_error")]
    cells += [_figure(model[part]["auc"]) for part in ("warm", "cold")]
    return [*cells, _figure(model.get("possible_lift"))] if lift else cells


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
