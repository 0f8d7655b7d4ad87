"""Predictions of every model on the same rows, and the reasons that ours gives for some of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thinkrec.artifacts import SPLITS
from thinkrec.data.histories import warm_rows
from thinkrec.evaluation.baselines import item_like_rate, running_rates
from thinkrec.evaluation.tables import BEST, EVALUATED, OURS
from thinkrec.gate.fit import Routing
from thinkrec.lm.generation import generate
from thinkrec.lm.mixture import Router
from thinkrec.lm.scoring import score
from thinkrec.lm.workbench import Workbench
from thinkrec.params import EvaluateParams


def predict(bench: Workbench, router: Router, routing: Routing, truth: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Probabilities of every model on all valid and test rows (schema PREDICTIONS), and the models' column names."""
    table = bench.interactions
    rows = np.flatnonzero(table["split"].isin(EVALUATED).to_numpy())
    logits = score(
        bench.model,
        bench.layout,
        rows,
        router=router,
        routing=routing.weights,
        route=routing.route,
        progress="scoring",
    )
    models = {
        OURS: _sigmoid(logits),
        "mf": _sigmoid(bench.features.score[rows]),
        "item_like_rate": item_like_rate(table)[rows],
        "running_rates": running_rates(table)[rows],
        "running_rates_frozen": running_rates(table, frozen=True)[rows],
    }
    if len(truth):
        models[BEST] = truth["probability"].to_numpy()[rows]
    columns = table.loc[rows, ["split", "user", "item", "label"]].reset_index(drop=True)
    predictions = columns.assign(row=rows, warm=warm_rows(table)[rows])
    for name, probability in models.items():
        predictions[name] = np.asarray(probability, np.float32)
    return predictions, list(models)


def write_reasons(
    bench: Workbench,
    router: Router,
    routing: Routing,
    predictions: pd.DataFrame,
    traces: pd.DataFrame,
    params: EvaluateParams,
    *,
    seed: int,
) -> pd.DataFrame:
    """Reasons for `params.reasons` test rows (schema REASONS): those with a held-out trace first, then random ones."""
    test = predictions[predictions["split"] == SPLITS[-1]].set_index("row")
    teacher = traces.set_index("row")["text"].reindex(test.index).fillna("")
    shuffled = np.random.default_rng(seed).permutation(len(test))
    first = np.argsort(teacher.to_numpy()[shuffled] == "", kind="stable")[: params.reasons]
    chosen = np.sort(shuffled[first])
    rows = test.index.to_numpy()[chosen]
    texts = (
        generate(
            bench.model,
            bench.tokenizer,
            bench.layout,
            rows,
            max_new_tokens=params.max_new_tokens,
            router=router,
            routing=routing.weights,
            route=routing.route,
            progress="reasons",
        )
        if len(rows)
        else []
    )
    return pd.DataFrame(
        {
            "row": rows,
            "label": test["label"].to_numpy()[chosen],
            "probability": test[OURS].to_numpy()[chosen],
            "reason": texts,
            "teacher": teacher.to_numpy()[chosen],
        }
    )


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-logits.astype(np.float64)))
