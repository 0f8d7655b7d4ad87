"""The evaluation's table (METHOD §6), its headlines, and the same as text for a terminal.

The input is `artifacts.PREDICTIONS`: one row per valid and test interaction (n), one column of probabilities per
model. Models are compared on identical rows, with identical tie-breaks and identical bootstrap draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from thinkrec.artifacts import SPLITS
from thinkrec.evaluation.intervals import DRAWS, HEADLINE, Bootstrap, bootstrap, holm, interval, p_value
from thinkrec.evaluation.models import BEST, OURS, display_name, kind_of
from thinkrec.experts.rule import CASES
from thinkrec.history import PROTOCOLS, ScoredModel
from thinkrec.metrics import Bools, score_table

EVALUATED = SPLITS[1:]
COUNT_BINS = {0: "0", 1: "1-9", 10: "10-49", 50: "50+"}  # by the least count of each
SLICE_METRICS = {"auc": "all", "uauc": "uauc", "ndcg@5": "@5", "map@5": "@5", "log_loss": "all"}  # and whom they cover
LEAST_USERS = 30  # a mean over fewer says nothing, and its interval little
NEW_ITEMS = "new_items"  # the one slice with intervals and leads: there ids know nothing, and text is all
NEW_ITEMS_METRICS = ("auc", "uauc")  # few of its users have enough rows for a ranking's first five
ALPHA = 0.05
KINDS = {  # of models, in the order of the text, with what stands above them
    "online": "",
    "static": "Static protocol: nothing after the split began is known",
    "hindsight": "With hindsight: they have seen the labels or the truth, and are no competitors",
}


def _bin_counts(counts: pd.Series[int]) -> pd.Categorical[Any]:
    return pd.cut(counts.to_numpy(), [*COUNT_BINS, np.inf], right=False, labels=list(COUNT_BINS.values()))


def _name_groups(group: pd.Series[int]) -> pd.Categorical[Any]:
    return pd.Categorical.from_codes(group + 1, pd.Index(["unseen", *map(str, range(1, group.max() + 2))]))


# Ways to cut the rows of PREDICTIONS: slice -> the bin of each row (n).
SLICES: dict[str, Callable[[pd.DataFrame], pd.Categorical[Any]]] = {
    "history": lambda rows: _bin_counts(rows["history"]),
    "popularity": lambda rows: _bin_counts(rows["popularity"]),
    "group": lambda rows: _name_groups(rows["group"]),
    "case": lambda rows: pd.Categorical.from_codes(rows["case"], pd.Index(CASES)),
}
SLICE_NAMES = {  # what people call them
    "history": "earlier interactions of the user",
    "popularity": "train interactions of the item",
    "group": "user group",
    "case": "by the paper's rule",
}
CASE_NAMES = dict(zip(CASES, ("the global adapter alone", "one expert alone", "several experts"), strict=True))


def evaluate(predictions: pd.DataFrame, models: Sequence[str], *, seed: int, draws: int = DRAWS) -> dict[str, Any]:
    """Every metric of every model on valid and test, with 95 % intervals and paired differences from ours.

    By split:

    - `models` -> model -> `all`/`warm`/`cold` -> metrics; `slices` -> slice -> bin -> SLICE_METRICS, without those that
      cover fewer than LEAST_USERS users; `interval`; `possible_lift` where the truth is known;
    - `slices` -> slice -> bin -> `rows` and `users`, which are the same for all models (rankings are of a user's rows
      within the bin, as they are within warm and cold);
    - `differences` -> other model -> metric -> `difference` (ours minus theirs), `low`, `high`, `p`, `p_holm`;
    - `new_items`: of the rows about items that train never saw, `rows` and `users`, and if `is_measurable` says so
      `models` (`all`, `interval`, `possible_lift`) and `differences` in NEW_ITEMS_METRICS.
    """
    by_split = {split: predictions[predictions["split"] == split] for split in EVALUATED}
    return {
        split: _evaluate_split(rows, models, seed=seed, draws=draws) for split, rows in by_split.items() if len(rows)
    }


def cut_slices(predictions: pd.DataFrame) -> dict[str, dict[str, Bools]]:
    """The SLICES of these rows: slice -> bin -> whether it holds each row (n).

    A bin without rows is left out, and so is a slice of one bin: without experts, all rows are of one group and case.
    """
    bins_of = {name: cut(predictions).remove_unused_categories() for name, cut in SLICES.items()}
    return {
        name: {bin_name: np.asarray(bins == bin_name) for bin_name in bins.categories}
        for name, bins in bins_of.items()
        if len(bins.categories) > 1
    }


def new_item_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Those of these rows (of PREDICTIONS) whose item train never saw."""
    return rows[rows["popularity"] == 0]


def is_measurable(rows: pd.DataFrame) -> bool:
    """Whether a slice of these rows has figures: both classes, and at least LEAST_USERS users."""
    return rows["label"].nunique() > 1 and rows["user"].nunique() >= LEAST_USERS


def _evaluate_split(rows: pd.DataFrame, models: Sequence[str], *, seed: int, draws: int) -> dict[str, Any]:
    warm = rows["warm"].to_numpy()
    table = _compare(rows, models, {"warm": warm, "cold": ~warm}, HEADLINE, seed=seed, draws=draws)
    cut = cut_slices(rows)
    sizes: dict[str, dict[str, Any]] = {}
    for model in models:
        figures = {name: _measure(rows, model, bins, seed=seed) for name, bins in cut.items()}
        table["models"][model]["slices"] = {
            name: {bin_name: _reliable(of_bin) for bin_name, of_bin in bins.items()} for name, bins in figures.items()
        }
        sizes = {
            name: {bin_name: {key: of_bin[key] for key in ("rows", "users")} for bin_name, of_bin in bins.items()}
            for name, bins in figures.items()
        }
    new = new_item_rows(rows)
    of_new: dict[str, Any] = {"rows": len(new), "users": new["user"].nunique()}
    if is_measurable(new):
        of_new |= _compare(new, models, {}, NEW_ITEMS_METRICS, seed=seed, draws=draws)
    return {**table, "slices": sizes, NEW_ITEMS: of_new}


def _compare(
    rows: pd.DataFrame,
    models: Sequence[str],
    parts: Mapping[str, Bools],
    metrics: Sequence[str],
    *,
    seed: int,
    draws: int,
) -> dict[str, Any]:
    """`models` over all rows and over `parts` of them, with intervals of `metrics`, and `differences` in these."""
    scores = {model: rows[model] for model in models}
    drawn = bootstrap(rows["user"], rows["label"], scores, metrics=metrics, draws=draws, seed=seed)
    bins = {"all": np.ones(len(rows), bool), **parts}
    table: dict[str, Any] = {
        model: _measure(rows, model, bins, seed=seed)
        | {"interval": {name: interval(drawn[model].draws[name]) for name in metrics}}
        for model in models
    }
    if BEST in models:
        for model in models:
            table[model]["possible_lift"] = possible_lift(drawn[model].value["auc"], drawn[BEST].value["auc"])
    return {"models": table, "differences": differences(drawn)}


def _measure(rows: pd.DataFrame, model: str, bins: Mapping[str, Bools], *, seed: int) -> dict[str, dict[str, Any]]:
    """A model's metrics over the rows of each bin."""
    return {
        name: score_table(*(rows[column][held] for column in ("user", "label", model)), seed=seed)
        for name, held in bins.items()
    }


def _reliable(figures: dict[str, Any]) -> dict[str, float]:
    """A bin's SLICE_METRICS, those that cover enough users."""
    return {name: figures[name] for name, cover in SLICE_METRICS.items() if figures["users"][cover] >= LEAST_USERS}


def possible_lift(auc: float, best: float) -> float:
    """The share of the achievable lift: a model's AUC above chance over that of the true probabilities."""
    return (auc - 0.5) / (best - 0.5) if best != 0.5 else float("nan")


def differences(drawn: dict[str, Bootstrap]) -> dict[str, dict[str, dict[str, float]]]:
    """Ours minus each other model under the same protocol, metric by metric; `drawn` is by column.

    What is chosen in hindsight is left out. Holm's family is all comparisons of a protocol.
    """
    table: dict[str, dict[str, dict[str, float]]] = {}
    for protocol in PROTOCOLS:
        if (ours := drawn.get(ScoredModel(OURS, protocol).column)) is None:
            continue
        rivals = {model: theirs for model, theirs in drawn.items() if theirs is not ours and kind_of(model) == protocol}
        pairs = [(model, name, ours.draws[name] - rivals[model].draws[name]) for model in rivals for name in ours.draws]
        plain = [p_value(difference) for _, _, difference in pairs]
        for (model, name, difference), p, adjusted in zip(pairs, plain, holm(plain), strict=True):
            value = ours.value[name] - rivals[model].value[name]
            entry = {"difference": value, **interval(difference), "p": p, "p_holm": adjusted}
            table.setdefault(model, {})[name] = entry
    return table


def headlines(table: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Our own headline figures by split: what `dvc exp show` has room for.

    `new_items` has `rows` beside its figures, and no figures where that slice was not measurable.
    """
    figures: dict[str, Any] = {}
    for split, of_split in table.items():
        ours, new = of_split["models"][OURS]["all"], of_split[NEW_ITEMS]
        of_new = new["models"][OURS]["all"] if "models" in new else {}
        figures[split] = {
            **{name: ours[name] for name in (*HEADLINE, "map@10", "log_loss")},
            NEW_ITEMS: {"rows": new["rows"], **{name: of_new[name] for name in NEW_ITEMS_METRICS if of_new}},
        }
    return figures


def to_text(table: dict[str, Any]) -> str:
    """The headline figures as aligned plain text: one block per split, one line per model, `*` where ours differs.

    A block lists the online models, then the static ones, then what hindsight knows. Reads both what `evaluate` returns
    and the metrics file written from it.
    """
    return "\n\n".join(_block(split, of_split) for split, of_split in table.items())


def _block(split: str, table: dict[str, Any]) -> str:
    models = table["models"]
    lift = ["of achievable"] if any("possible_lift" in model for model in models.values()) else []
    new = table.get(NEW_ITEMS, {})  # older files have none
    of_new = ["new AUC"] if "models" in new else []
    heads = ["model", *(name.upper() for name in HEADLINE), "log-loss", "ECE", "warm AUC", "cold AUC", *of_new, *lift]
    lines = [
        heads,
        *([display_name(name), *_cells(table, name)][: len(heads)] for name in models),
    ]  # the lift, if any, stands last
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    ]
    rows, users = (next(iter(models.values()))["all"][key] for key in ("rows", "users"))
    text = [
        f"{split}: {rows:,} rows, {users['all']:,} users; "
        f"UAUC over {users['uauc']:,}, @k over {users['@5']:,} of them; [95 % interval]"
        + (f"; new: {new['rows']:,} rows about items that train never saw" if new else ""),
        aligned[0],
    ]
    for kind, title in KINDS.items():
        of_kind = [line for name, line in zip(models, aligned[1:], strict=True) if kind_of(name) == kind]
        text += [f"-- {title}"] if of_kind and title else []
        text += of_kind
    if table["differences"]:
        text.append(f"* differs from ThinkRec under the same protocol: p < {ALPHA}, paired, after Holm's correction")
    return "\n".join(text)


def _cells(table: dict[str, Any], name: str) -> list[str]:
    """A model's figures. For want of room only the first two headline metrics have their intervals.

    A star marks a significant difference from ours; elsewhere a space keeps the columns aligned.
    """
    model, cells = table["models"][name], []
    for metric in HEADLINE:
        low, high = (figure_text(model["interval"][metric][edge]) for edge in ("low", "high"))
        edges = f" [{low} {high}]" if metric in HEADLINE[:2] else ""
        cells.append(f"{_starred(table, name, metric)}{edges}")
    cells += [figure_text(model["all"][key]) for key in ("log_loss", "calibration_error")]
    new = table.get(NEW_ITEMS, {})
    return [
        *cells,
        *(figure_text(model[part]["auc"]) for part in ("warm", "cold")),
        *([_starred(new, name, "auc")] if "models" in new else []),
        figure_text(model.get("possible_lift")),
    ]


def _starred(table: dict[str, Any], name: str, metric: str) -> str:
    """A model's figure, and a star if its difference from ours is significant."""
    p = table["differences"].get(name, {}).get(metric, {}).get("p_holm", 1.0)
    return f"{figure_text(table['models'][name]['all'][metric])}{'*' if p < ALPHA else ' '}"


def figure_text(value: float | None) -> str:
    """Three decimals would hide differences between models: four, without the leading zero; `-` for no value."""
    if value is None or value != value:
        return "-"
    return f"{value:.4f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.4f}"
