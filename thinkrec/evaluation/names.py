"""What people read for a model: one display name for each column of scores, in tables and in the report."""

from __future__ import annotations

from thinkrec.history import ScoredModel

NAMES = {
    "thinkrec": "ThinkRec",
    "thinkrec_global": "ThinkRec, everyone on the global adapter",
    "thinkrec_centroid": "ThinkRec, routed by the paper's rule",
    "expert_oracle": "oracle expert (the best adapter in hindsight)",
    "item_like_rate": "item like-rate",
    "running_rates": "running rates",
    "logistic_regression": "logistic regression",
    "boosted_trees": "boosted trees",
    "logistic_kernels": "logistic regression on all statistics",
    "logistic_slots": "logistic regression on all statistics and affinity",
    "mf": "matrix factorisation",
    "lightgcn": "LightGCN",
    "sasrec": "SASRec",
    "gsasrec": "gSASRec",
    "best": "true probabilities",
}


def display_name(column: str) -> str:
    """The name of the model whose scores are in this column, the protocol left out; a column's own if it has none."""
    return NAMES.get(ScoredModel.from_column(column).name, column)
