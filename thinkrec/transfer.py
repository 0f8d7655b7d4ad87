"""The global model of a finished project scores another project's valid and test rows, of which it has learned nothing.

Backbone, tokenizer, adapter, projector and prompts stay; interactions, texts and features are the other's. Experts are
left out: they serve groups of users that the other data does not have.

What stands in a slot is standardised by the other's train rows. Statistics then mean the same in both. Vectors do not:
another fit has another basis. So slots are filled part by part, and each step is scored; a part that is not filled
stands at its mean, as slot dropout puts it in training.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from rich.table import Table

from thinkrec import artifacts
from thinkrec.errors import UserError
from thinkrec.evaluation.intervals import bootstrap, interval
from thinkrec.evaluation.models import OURS, display_name
from thinkrec.evaluation.tables import EVALUATED
from thinkrec.experts.routing import open_experts
from thinkrec.features.artefact import load_features
from thinkrec.lm.loaded import LoadedModel
from thinkrec.lm.model import SlotProjector
from thinkrec.params import PARAMS_FILE, Params, Slot
from thinkrec.params import load as load_params
from thinkrec.provenance import check_dataset
from thinkrec.text.items import encode, item_texts

METRICS = ("auc", "uauc")
TEXT = "text alone"
NO_TRAINING = "running_rates"  # the baseline that learns from nothing but the rows before


def transfer(other: Path, params: Params) -> dict[str, Any]:
    """How well the model of the project in the working directory ranks the rows of the project at `other`.

    `from` and `to` name the datasets. Of each split: `rows`, `users`, and `models` by what is read: `transferred` (each
    step of filling slots) and `own` (of the other project: its model, its feature model, running rates), each with
    METRICS as `value`, `low` and `high` (95 %, bootstrap over users; None where a split has one class).

    Raises:
        UserError: an artefact of either is missing or of another dataset, or the other's features are not as wide, or
            have other statistics.
    """
    here, experts = open_experts(params)
    theirs = load_params(other / PARAMS_FILE)
    check_dataset(theirs.dataset, other)
    interactions, items, keywords, predictions = (
        artifacts.read_table(path, root=other)
        for path in (artifacts.INTERACTIONS, artifacts.ITEMS, artifacts.KEYWORDS, artifacts.PREDICTIONS)
    )
    features = load_features(other / artifacts.FEATURES)
    tokens = encode(here.tokenizer, item_texts(items, keywords, params.prompt.keywords))
    there = here.over(interactions, features, item_tokens=tokens)
    _require_same_slots(here, there, other)
    global_alone = np.eye(1, 1 + len(experts.folders), dtype=np.float32)[0]
    rows = predictions["row"].to_numpy()
    transferred = {
        name: step.probability(rows, global_alone, progress=f"scoring: {name}") for name, step in _steps(there)
    }
    own = {name: predictions[name].to_numpy() for name in dict.fromkeys((OURS, theirs.features.model, NO_TRAINING))}
    splits = {}
    for split in EVALUATED:
        of_split = (predictions["split"] == split).to_numpy()
        table = predictions[of_split]
        models = {
            kind: _figures(table, {name: score[of_split] for name, score in scores.items()}, seed=params.seed)
            for kind, scores in (("transferred", transferred), ("own", own))
        }
        splits[split] = {"rows": len(table), "users": table["user"].nunique(), "models": models}
    return artifacts.rounded({"from": params.dataset.name, "to": theirs.dataset.name, "splits": splits}, 6)


def _figures(
    table: pd.DataFrame, scores: dict[str, NDArray[np.float64]], *, seed: int
) -> dict[str, dict[str, dict[str, float]]]:
    """METRICS of each model's scores of the rows of `table`, with intervals; draws are the same in every call."""
    drawn = bootstrap(table["user"], table["label"], scores, metrics=METRICS, seed=seed)
    return {
        name: {metric: {"value": of.value[metric], **interval(of.draws[metric])} for metric in METRICS}
        for name, of in drawn.items()
    }


def figures_table(document: dict[str, Any]) -> Table:
    """The figures for people: a row for each model, a column for each split and metric."""
    splits = document["splits"]
    table = Table("model", *(f"{split} {metric.upper()}" for split in splits for metric in METRICS), box=None)
    for kind, models in splits[EVALUATED[0]]["models"].items():
        for name in models:
            figures = [of["models"][kind][name][metric] for of in splits.values() for metric in METRICS]
            table.add_row(f"{kind}: {display_name(name)}", *map(_cell, figures))
    return table


def _cell(figure: dict[str, float | None]) -> str:
    if figure["value"] is None:
        return "–"
    return "{value:.3f} ({low:.3f} to {high:.3f})".format_map(figure)


def _require_same_slots(here: LoadedModel, there: LoadedModel, other: Path) -> None:
    """Raise the one line that says why the other's features do not fit into this model's slots."""
    values, theirs = here.model.slot_values, there.model.slot_values
    names = (here.features.statistic_names, there.features.statistic_names)
    if values.widths != theirs.widths or ("statistics" in values.parts and names[0] != names[1]):
        raise UserError(
            f"{other}: its {', '.join(values.parts)} are {theirs.widths} wide, here {values.widths}, or its statistics "
            "are others; give both projects' feature models one dim, and run both with one version"
        )


def _steps(there: LoadedModel) -> Iterator[tuple[str, LoadedModel]]:
    """The model with more and more of its slots filled, each with a name."""
    projector, parts = there.model.projector, there.model.slot_values.parts
    if projector is None:
        yield TEXT, there
        return
    projector = deepcopy(projector)
    projector.fit_scale(there.model.slot_values(there.rows("train")))
    steps: list[tuple[Slot, ...]] = [(), tuple(part for part in parts if part == "statistics"), parts]
    for filled in dict.fromkeys(steps):
        model = there.model.with_inputs(there.model.slot_values, _reading(projector, parts, filled)).eval()
        yield " + ".join(filled and ("text", *filled)) or TEXT, replace(there, model=model)


def _reading(projector: SlotProjector, parts: tuple[Slot, ...], filled: tuple[Slot, ...]) -> SlotProjector:
    """A copy of the projector to which every part that is not `filled` stands at its mean."""
    copy = deepcopy(projector)
    for part, spread in zip(parts, copy.spread.split(copy.widths), strict=True):
        if part not in filled:
            spread.fill_(torch.inf)
    return copy
