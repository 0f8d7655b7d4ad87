"""What the report shows of a finished project: sections that are text already, and a small JSON value for its script.

The page is read from disk by people who have nothing but it, so it holds all that it shows.
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
from thinkrec.evaluation.models import OURS, display_name
from thinkrec.evaluation.tables import CASE_NAMES
from thinkrec.experts.rule import CASES
from thinkrec.metrics import auc
from thinkrec.params import Params, PromptParams
from thinkrec.report.accuracy import headline
from thinkrec.report.artefacts import Artefacts, read_artefacts
from thinkrec.report.background import learning, provenance
from thinkrec.report.measures import reason_measures
from thinkrec.report.users import USER_BYTES, Lists, write_users

CURVE_POINTS = 80


def contents_of_project(params: Params, lists: Lists | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the page's script shows of the finished project in the working directory, and the page's sections.

    `lists` are of the whole catalogue, by user; the stage has none, `thinkrec rank` has.

    Raises:
        UserError: an artefact is missing, or does not belong to the others.
    """
    artefacts = read_artefacts(params)
    name, raw = params.dataset.name, params.dataset.raw
    settings = {  # nothing of where: a path's last part is a model's name, and that of data of one's own
        "dataset": raw.name if name == "own" and raw else name,
        "language model": params.backbone.name.rstrip("/").rsplit("/", 1)[-1],
        "recipe": params.sft.recipe,
        "features": display_name(params.features.model),
        "gate": params.gate.kind,
        "experts": str(artefacts.weights.shape[1] - 1),
        "seed": str(params.seed),
    }
    data = contents(artefacts, params.prompt, thesaurus_of(params.dataset.name), lists=lists)
    return data, sections(artefacts, settings)


def sections(artefacts: Artefacts, settings: dict[str, str]) -> dict[str, Any]:
    """What `page.html` shows without a script; `settings` says what was run."""
    measured = artefacts.measured
    return {
        "title": f"ThinkRec on {settings['dataset']}",
        "headline": headline(artefacts.table.get("test")),
        "tables": artefacts.table,
        "reasons": reason_measures(measured["evaluate"]["reasons"]),
        "ingest": measured["ingest"],
        "curves": learning(measured["sft"], measured["gate"]),
        "run": provenance(settings),
    }


def contents(
    artefacts: Artefacts,
    prompt: PromptParams,
    thesaurus: Thesaurus,
    *,
    lists: Lists | None = None,
    limit: int = USER_BYTES,
) -> dict[str, Any]:
    """Everything that the page's script shows; `limit` bounds the users' bytes."""
    test = artefacts.predictions[artefacts.predictions["split"] == "test"]
    value = {
        "roc": [_roc(test, model) for model in plots.shown(test.columns)],
        "calibration": [
            (point["predicted"], point["observed"], point["rows"]) for point in plots.calibration_points(test, [OURS])
        ],
        "gate": _gate(test, artefacts.weights),
        "thesaurus": thesaurus.name,
        **write_users(artefacts, test, prompt, thesaurus, lists=lists or {}, limit=limit),
    }
    return dict(rounded(value, 4))


def _roc(test: pd.DataFrame, model: str) -> dict[str, Any]:
    points = plots.roc_points(test, [model], limit=CURVE_POINTS)
    return {
        "name": display_name(model),
        "auc": auc(test["label"], test[model]),
        "points": [(point["fpr"], point["tpr"]) for point in points],
    }


def _gate(test: pd.DataFrame, weights: NDArray[np.float32]) -> dict[str, Any]:
    """Mean weights, rows, users and AUC by user group, and the share of each case of the paper's routing.

    `weights` (n, e) are of all predictions.
    """
    return {
        "adapters": ["global", *(f"expert {number}" for number in range(1, weights.shape[1]))],
        "groups": [
            {
                "group": group,
                "users": rows["user"].nunique(),
                "rows": len(rows),
                "weights": weights[rows.index].mean(axis=0).tolist(),
                "auc": auc(rows["label"], rows[OURS]),
            }
            for group, rows in test.groupby("group")
        ],
        "cases": {CASE_NAMES[name]: int((test["case"] == number).sum()) for number, name in enumerate(CASES)},
    }
