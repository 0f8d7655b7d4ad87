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
from thinkrec.experts.rule import CASES
from thinkrec.history import PROTOCOLS, ScoredModel
from thinkrec.metrics import Bools, Floats, score_table

OURS = "thinkrec"
ORACLE = "expert_oracle"  # each user's best adapter, chosen by the labels that it is then measured on
BEST = "best"  # a world's true probabilities
HINDSIGHT = {ORACLE, BEST}  # they know what no model can: not competitors
EVALUATED = SPLITS[1:]

COUNT_BINS = {0: "0", 1: "1-9", 10: "10-49", 50: "50+"}  # by the least count of each
SLICE_METRICS = {"auc": "all", "uauc": "uauc", "ndcg@5": "@5", "map@5": "@5", "log_loss": "all"}  # and whom they cover
LEAST_USERS = 30  # a mean over fewer says nothing, and slices have no intervals to say so
ALPHA = 0.05
KINDS = {  # of models, in the order of the text, with what stands above them
    "online": "",
    "static": "-- static: nothing after the split began is known",
    "hindsight": "-- with hindsight, not competitors",
}


def evaluate(predictions: pd.DataFrame, models: Sequence[str], *, seed: int, draws: int = DRAWS) -> dict[str, Any]:
    """Every metric of every model on valid and test, with 95 % intervals and paired differences from ours.

    By split:

    - `models` -> model -> `all`/`warm`/`cold` -> metrics; `slices` -> slice -> bin -> SLICE_METRICS, without those that
      cover fewer than LEAST_USERS users; `interval`; `possible_lift` where the truth is known;
    - `slices` -> slice -> bin -> `rows` and `users`, which are the same for all models (rankings are of a user's rows
      within the bin, as they are within warm and cold);
    - `differences` -> other model -> metric -> `difference` (ours minus theirs), `low`, `high`, `p`, `p_holm`.
    """
    tables = {}
    for split in EVALUATED:
        rows = predictions[predictions["split"] == split]
        if len(rows):
            tables[split] = _split_table(rows, models, seed=seed, draws=draws)
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


def _split_table(rows: pd.DataFrame, models: Sequence[str], *, seed: int, draws: int) -> dict[str, Any]:
    user, label, warm = (rows[name].to_numpy() for name in ("user", "label", "warm"))
    scores = {model: rows[model].to_numpy(dtype=np.float64) for model in models}
    drawn = bootstrap(user, label, scores, draws=draws, seed=seed)
    parts = {"all": np.ones(len(rows), bool), "warm": warm, "cold": ~warm}
    cut = slices(rows)

    def measured(score: Floats, bins: dict[str, Bools]) -> dict[str, dict[str, Any]]:
        return {name: score_table(user[held], label[held], score[held], seed=seed) for name, held in bins.items()}

    table: dict[str, Any] = {}
    sizes: dict[str, Any] = {}  # the same for every model
    for model, score in scores.items():
        table[model], reliable = measured(score, parts), {}
        for name, bins in cut.items():
            figures = measured(score, bins)
            sizes[name] = {part: {key: of_bin[key] for key in ("rows", "users")} for part, of_bin in figures.items()}
            reliable[name] = {part: _reliable(of_bin) for part, of_bin in figures.items()}
        table[model]["slices"] = reliable
        table[model]["interval"] = {
            name: dict(zip(("low", "high"), interval(drawn[model].draws[name]), strict=True)) for name in HEADLINE
        }
        if BEST in scores:
            table[model]["possible_lift"] = possible_lift(drawn[model].value["auc"], drawn[BEST].value["auc"])
    return {"models": table, "slices": sizes, "differences": differences(drawn)}


def _reliable(bin_table: dict[str, Any]) -> dict[str, float]:
    """A bin's SLICE_METRICS, those that cover enough users."""
    return {
        metric: bin_table[metric] for metric, cover in SLICE_METRICS.items() if bin_table["users"][cover] >= LEAST_USERS
    }


def possible_lift(auc: float, best: float) -> float:
    """The share of what can be known that a model knows: its AUC above chance over the best possible one's."""
    return (auc - 0.5) / (best - 0.5) if best != 0.5 else float("nan")


def differences(drawn: dict[str, Bootstrap]) -> dict[str, dict[str, dict[str, float]]]:
    """Ours minus each other model under the same protocol, metric by metric; `drawn` is by column.

    What is chosen in hindsight is left out. Holm's family is all comparisons of a protocol.
    """
    table: dict[str, dict[str, dict[str, float]]] = {}
    for protocol in PROTOCOLS:
        ours = ScoredModel(OURS, protocol).column
        if ours not in drawn:
            continue
        rivals = [column for column in drawn if column != ours and kind_of(column) == protocol]
        pairs = [(model, name) for model in rivals for name in drawn[ours].draws]
        paired = [drawn[ours].draws[name] - drawn[model].draws[name] for model, name in pairs]
        plain = [p_value(difference) for difference in paired]
        for (model, name), difference, p, adjusted in zip(pairs, paired, plain, holm(plain), strict=True):
            low, high = interval(difference)
            value = drawn[ours].value[name] - drawn[model].value[name]
            entry = {"difference": value, "low": low, "high": high, "p": p, "p_holm": adjusted}
            table.setdefault(model, {})[name] = entry
    return table


def headlines(metrics: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Our own headline figures by split: what `dvc exp show` has room for."""
    return {
        split: {name: table["models"][OURS]["all"][name] for name in (*HEADLINE, "map@10", "log_loss")}
        for split, table in metrics.items()
    }


def to_text(metrics: dict[str, Any]) -> str:
    """The headline figures as aligned plain text: one block per split, one line per model, `*` where ours differs.

    A block lists the online models, then the static ones, then what hindsight knows. Reads both what `evaluate` returns
    and the metrics file written from it.
    """
    return "\n\n".join(_block(split, table) for split, table in metrics.items())


def kind_of(column: str) -> str:
    """`online` or `static`, by the protocol of the model in this column, or `hindsight`."""
    model = ScoredModel.from_column(column)
    return "hindsight" if model.name in HINDSIGHT else model.protocol


def _block(split: str, table: dict[str, Any]) -> str:
    models = table["models"]
    with_lift = any("possible_lift" in model for model in models.values())
    heads = ["model", *(name.upper() for name in HEADLINE), "log-loss", "ECE", "warm AUC", "cold AUC"]
    lines = {"": [*heads, "of possible"] if with_lift else heads}
    lines |= {name: _cells(table, name, with_lift=with_lift) for name in models}
    widths = [max(map(len, column)) for column in zip(*lines.values(), strict=True)]
    aligned = {
        name: "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for name, line in lines.items()
    }
    first = next(iter(models.values()))["all"]
    users = first["users"]
    text = [
        f"{split}: {first['rows']:,} rows, {users['all']:,} users; "
        f"UAUC over {users['uauc']:,}, @k over {users['@5']:,} of them; [95 % interval]",
        aligned[""],
    ]
    for kind, title in KINDS.items():
        names = [name for name in models if kind_of(name) == kind]
        text += [title] if names and title else []
        text += [aligned[name] for name in names]
    if table["differences"]:
        text.append(
            f"* the paired difference from ours under the same protocol stands at {ALPHA} after Holm's correction"
        )
    return "\n".join(text)


def _cells(table: dict[str, Any], name: str, *, with_lift: bool) -> list[str]:
    """A model's line. For want of room only the first two headline metrics have their intervals.

    A star marks a significant difference from ours; elsewhere a space keeps the columns aligned.
    """
    model, cells = table["models"][name], [name]
    for metric in HEADLINE:
        low, high = (_figure(model["interval"][metric][edge]) for edge in ("low", "high"))
        p = table["differences"].get(name, {}).get(metric, {}).get("p_holm", 1.0)
        star = "*" if p < ALPHA else " "
        cells.append(f"{_figure(model['all'][metric])}{star}" + (f" [{low} {high}]" if metric in HEADLINE[:2] else ""))
    cells += [_figure(model["all"][key]) for key in ("log_loss", "calibration_error")]
    cells += [_figure(model[part]["auc"]) for part in ("warm", "cold")]
    return [*cells, _figure(model.get("possible_lift"))] if with_lift else cells


def _figure(value: float | None) -> str:
    """Three decimals would hide differences between models: four, without the leading zero; `-` for no value."""
    if value is None or value != value:
        return "-"
    return f"{value:.4f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.4f}"
