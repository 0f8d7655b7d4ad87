"""The whole evaluation of a finished project: every model's predictions, our reasons, and all that is measured of both.

Shapes: u users with a vector, e adapters (the global one, then N experts), d dimensions of a vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thinkrec import artifacts
from thinkrec.claims.checker import open_checker
from thinkrec.evaluation import plots, reason_first, tables
from thinkrec.evaluation.faithfulness import interventions
from thinkrec.evaluation.learned import score_likeness
from thinkrec.evaluation.models import OURS
from thinkrec.evaluation.predict import predict, write_reasons
from thinkrec.evaluation.reasons import score_claims, score_reasons, score_truth
from thinkrec.experts.routing import open_finished
from thinkrec.params import Params


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What `evaluate_project` measured."""

    predictions: pd.DataFrame  # schema PREDICTIONS
    reasons: pd.DataFrame  # schema REASONS
    table: dict[str, Any]  # of every model, as `tables.evaluate` returns it
    metrics: dict[str, Any]  # our headline figures by split, and `reasons`: all that is measured of the reasons
    text: str  # the table, and what thinking first changes, for a terminal
    vectors_ud: NDArray[np.float32]
    weights_ue: NDArray[np.float32]
    group_u: NDArray[np.integer]

    @property
    def test(self) -> pd.DataFrame:
        """The predictions of test rows."""
        return self.predictions[self.predictions["split"] == "test"]

    def curves(self) -> dict[str, list[dict[str, Any]]]:
        """Points of our own test curves: `dvc plots diff` lays those of several revisions over each other."""
        return {"roc": plots.roc_points(self.test, [OURS]), "calibration": plots.calibration_points(self.test, [OURS])}

    def draw(self, folder: Path) -> None:
        """Draw every picture of the evaluation into a folder."""
        plots.draw_roc(folder / "roc.png", self.test, plots.shown(self.test.columns))
        plots.draw_calibration(folder / "calibration.png", self.test)
        plots.draw_gate(folder / "gate.png", self.weights_ue, self.group_u)
        plots.draw_groups(folder / "groups.png", self.vectors_ud, self.group_u)


def evaluate_project(params: Params) -> Evaluation:
    """Score valid and test rows, write reasons, and compare with the baselines.

    Raises:
        UserError: an artefact is missing or does not belong to the others, or see `predict` and `score_likeness`.
    """
    loaded, routing = open_finished(params)
    truth, traces, baselines = (
        artifacts.read_table(table) for table in (artifacts.TRUTH, artifacts.TRACES, artifacts.BASELINES)
    )
    with loaded.model.sharing_layers():
        predictions, models = predict(loaded, routing, baselines, truth)
    table = tables.evaluate(predictions, models, seed=params.seed)

    checker = open_checker(params, loaded.interactions)
    reasons = write_reasons(loaded, predictions, traces, checker.badness, params.evaluate, seed=params.seed)
    directories = {"bertscore": params.evaluate.bertscore, "bleurt": params.evaluate.bleurt}
    thinking = reason_first.measure(
        loaded,
        rows=params.evaluate.reason_first,
        max_new_tokens=params.evaluate.max_new_tokens,
        seed=params.seed,
    )
    measured = {
        **score_reasons(reasons),
        **score_likeness(reasons["reason"].tolist(), reasons["teacher"].tolist(), directories),
        "thesaurus": checker.thesaurus.name,
        "claims": score_claims(reasons, checker),
        "truth": score_truth(reasons, truth["reason"].tolist(), checker, loaded.user, seed=params.seed),
        "interventions": interventions(loaded, reasons, checker, seed=params.seed),
        "reason_first": thinking,
    }
    texts = [tables.to_text(table), *([reason_first.to_text(thinking)] if thinking else [])]
    users = np.flatnonzero(loaded.features.user_vectors[: len(routing.groups.group)].any(axis=1))
    return Evaluation(
        predictions=predictions,
        reasons=reasons,
        table=table,
        metrics={**tables.headlines(table), "reasons": measured},
        text="\n\n".join(texts),
        vectors_ud=loaded.features.user_vectors[users],
        weights_ue=routing.weights[users],
        group_u=routing.groups.group[users].clip(min=0),  # without experts everybody is of one group
    )
