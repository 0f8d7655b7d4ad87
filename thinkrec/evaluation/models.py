"""The compared models: the column of scores that each has, and the name that people read.

A new baseline needs its line in NAMES, and tables list baselines in the order of their lines.
"""

from __future__ import annotations

from typing import Literal

from thinkrec.history import ScoredModel

OURS = "thinkrec"
GLOBAL, CENTROID = f"{OURS}_global", f"{OURS}_centroid"  # the global adapter alone; the paper's rule
ORACLE = "expert_oracle"  # each user's best adapter, chosen by the labels that it is then measured on
BEST = "best"  # a world's true probabilities
HINDSIGHT = {ORACLE, BEST}  # they know what no model can: not competitors

NAMES = {
    OURS: "ThinkRec",
    GLOBAL: "ThinkRec, global adapter alone",
    CENTROID: "ThinkRec, routed by the paper's rule",
    ORACLE: "oracle expert (in hindsight)",
    "hybrid_sasrec": "SASRec + keywords",
    "hybrid_mf": "hybrid MF (LightFM)",
    "gsasrec": "gSASRec",
    "sasrec": "SASRec",
    "lightgcn": "LightGCN",
    "mf": "matrix factorisation",
    "logistic_slots": "logistic regression on all features",
    "logistic_kernels": "logistic regression on all statistics",
    "logistic_regression": "logistic regression",
    "boosted_trees": "boosted trees",
    "running_rates": "running rates",
    "item_like_rate": "item like-rate",
    BEST: "true probabilities",
}
BASELINES = [name for name in NAMES if name not in (OURS, GLOBAL, CENTROID, *HINDSIGHT)]


def display_name(column: str) -> str:
    """The name of the model whose scores are in this column, the protocol left out; a column's own if it has none."""
    return NAMES.get(ScoredModel.from_column(column).name, column)


def kind_of(column: str) -> Literal["online", "static", "hindsight"]:
    """The protocol of the model in this column; or `hindsight`, which has none."""
    model = ScoredModel.from_column(column)
    return "hindsight" if model.name in HINDSIGHT else model.protocol
