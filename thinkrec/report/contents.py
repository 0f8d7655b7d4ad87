"""What the report shows of a finished project: its artefacts as one small JSON value.

The page is read from disk by people who have nothing but it, so it holds all that it shows.

Shapes: n test rows, e adapters (the global one, then N experts).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thinkrec.artifacts import rounded
from thinkrec.claims.checker import thesaurus_of
from thinkrec.claims.claims import Thesaurus
from thinkrec.evaluation import plots
from thinkrec.evaluation.intervals import HEADLINE
from thinkrec.evaluation.models import OURS, display_name, kind_of
from thinkrec.evaluation.tables import ALPHA, NEW_ITEMS
from thinkrec.experts.rule import CASES
from thinkrec.metrics import auc
from thinkrec.params import Params, PromptParams
from thinkrec.report.artefacts import Artefacts, read_artefacts
from thinkrec.report.users import USER_BYTES, write_users

CURVE_POINTS = 80
SHOWN_METRICS = (*HEADLINE, "log_loss", "calibration_error")


def contents_of_project(params: Params) -> dict[str, Any]:
    """Everything that the page shows of the finished project in the working directory.

    Raises:
        UserError: an artefact is missing, or does not belong to the others.
    """
    artefacts = read_artefacts(params)
    name, raw = params.dataset.name, params.dataset.raw
    settings = {  # nothing of where or when: a path's last part is a model's name, and that of data of one's own
        "dataset": raw.name if name == "own" and raw else name,
        "language model": params.backbone.name.rstrip("/").rsplit("/", 1)[-1],
        "recipe": params.sft.recipe,
        "features": params.features.model,
        "gate": params.gate.kind,
        "experts": str(artefacts.weights.shape[1] - 1),
        "seed": str(params.seed),
    }
    return contents(artefacts, settings, params.prompt, thesaurus_of(params.dataset.name))


def contents(
    artefacts: Artefacts,
    settings: dict[str, str],
    prompt: PromptParams,
    thesaurus: Thesaurus,
    *,
    limit: int = USER_BYTES,
) -> dict[str, Any]:
    """Everything that the page shows. `settings` says, for its head, what was run; `limit` bounds the users' bytes."""
    of_test = (artefacts.predictions["split"] == "test").to_numpy()
    test, weights_ne = artefacts.predictions[of_test].reset_index(drop=True), artefacts.weights[of_test]
    value = {
        "settings": settings,
        "ours": OURS,
        "names": {column: _name(column) for table in artefacts.table.values() for column in table["models"]},
        "alpha": ALPHA,
        "tables": {split: _table(table) | _new_items(table) for split, table in artefacts.table.items()},
        "roc": [_roc(test, model) for model in plots.shown(test.columns)],
        "calibration": [
            (point["predicted"], point["observed"], point["rows"]) for point in plots.calibration_points(test, [OURS])
        ],
        "gate": _gate(test, weights_ne),
        "thesaurus": thesaurus.name,
        "written": _written(artefacts.written),
        **write_users(artefacts, test, weights_ne, prompt, thesaurus, limit=limit),
    }
    return dict(rounded(value, 4))


def _name(column: str) -> str:
    """The display name of the model whose scores are in this column, and its protocol if that is the static one."""
    return display_name(column) + (", static" if kind_of(column) == "static" else "")


def _roc(test: pd.DataFrame, model: str) -> dict[str, Any]:
    points = plots.roc_points(test, [model], limit=CURVE_POINTS)
    return {
        "name": model,
        "auc": auc(test["label"], test[model]),
        "points": [(point["fpr"], point["tpr"]) for point in points],
    }


def _table(table: dict[str, Any]) -> dict[str, Any]:
    """The models of a split, or of its new items, with metrics and intervals, and ours minus each other model."""
    first = next(iter(table["models"].values()))
    totals = first["all"]
    return {
        "rows": totals["rows"],
        "users": totals["users"]["all"],
        "models": [
            {
                "name": name,
                "kind": kind_of(name),
                "values": {metric: model["all"].get(metric) for metric in SHOWN_METRICS},
                "interval": {metric: [edges["low"], edges["high"]] for metric, edges in model["interval"].items()},
                "lift": model.get("possible_lift"),
            }
            for name, model in table["models"].items()
        ],
        "headline": list(first["interval"]),
        "differences": {
            model: {
                metric: [entry[key] for key in ("difference", "low", "high", "p_holm")]
                for metric, entry in by_metric.items()
            }
            for model, by_metric in table["differences"].items()
        },
    }


def _new_items(table: dict[str, Any]) -> dict[str, Any]:
    """How many rows are about items that train never saw, and their `_table` if they were measurable."""
    new = table[NEW_ITEMS]
    return {"new_items": {"rows": new["rows"], "table": _table(new) if "models" in new else None}}


def _gate(test: pd.DataFrame, weights_ne: NDArray[np.float32]) -> dict[str, Any]:
    """Mean weights, rows, users and AUC by user group, and the share of each case of the paper's routing."""
    return {
        "adapters": ["global", *(f"expert {number}" for number in range(1, weights_ne.shape[1]))],
        "groups": [
            {
                "group": group,
                "users": rows["user"].nunique(),
                "rows": len(rows),
                "weights": weights_ne[rows.index].mean(axis=0).tolist(),
                "auc": auc(rows["label"], rows[OURS]),
            }
            for group, rows in test.groupby("group")
        ],
        "cases": {name: int((test["case"] == number).sum()) for number, name in enumerate(CASES)},
    }


def _written(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """The metrics of the reasons as tables {title, columns, rows}: one of single numbers, then one for each nested one.

    What is nested twice, such as the same figures of ours and the teacher's, has a column for each.
    """
    nested = {name: value for name, value in metrics.items() if isinstance(value, dict)}
    numbers = {name: value for name, value in metrics.items() if not isinstance(value, dict | str)}
    parts = {"": numbers, **nested}
    tables = []
    for title, part in parts.items():
        each = bool(part) and all(isinstance(inner, dict) for inner in part.values())
        columns = {name: dict(_flat(inner)) for name, inner in (part if each else {"value": part}).items()}
        names = list(dict.fromkeys(name for column in columns.values() for name in column))
        if names:
            rows = [[name, *(column.get(name) for column in columns.values())] for name in names]
            tables.append({"title": title, "columns": list(columns), "rows": rows})
    return tables


def _flat(metrics: dict[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """Nested metrics as (name, value) in their order, a nested one's name after its parent's, a list's by number."""
    pairs: list[tuple[str, Any]] = []
    for name, value in metrics.items():
        whole = f"{before}{name}".replace("_", " ")
        inner = {str(place): entry for place, entry in enumerate(value, start=1)} if isinstance(value, list) else value
        pairs += _flat(inner, f"{whole}, ") if isinstance(inner, dict) else [(whole, inner)]
    return pairs
