"""Finished runs made up for tests of the campaign."""

from __future__ import annotations

from typing import Any

import pandas as pd

from thinkrec.campaign.experiments import Run
from thinkrec.evaluation.reasons import score_reasons
from thinkrec.evaluation.tables import evaluate


def make_reasons(texts: dict[int, str], teacher: dict[int, str]) -> pd.DataFrame:
    """Reasons (`artifacts.REASONS`) by row, with the teacher's texts where there are some."""
    return pd.DataFrame(
        {
            "row": list(texts),
            "label": 1,
            "probability": 0.9,
            "reason": list(texts.values()),
            "teacher": [teacher.get(row, "") for row in texts],
        }
    )


def make_run(name: str, predictions: pd.DataFrame, reasons: pd.DataFrame, *models: str, **options: Any) -> Run:
    """A run that left these predictions of `models`, and these reasons."""
    table = evaluate(predictions, models, **options)
    metrics = {"reasons": score_reasons(reasons)}
    return Run(id=name, commit="abc1234", table=table, metrics=metrics, predictions=predictions, reasons=reasons)
