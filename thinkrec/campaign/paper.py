"""The paper's figures (arXiv 2505.15091; test split, Llama3-8B with LoRA under every LLM row), as data.

Models have the names of our own lines, metrics those of our metrics files. A lead is ThinkRec's figure minus the
other model's.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from thinkrec.evaluation.models import OURS

Figures = dict[tuple[str, str], float]  # model and metric -> figure, or lead

# Our `dataset.name` -> the paper's dataset. The synthetic worlds are not in the paper.
DATASETS = {"ml-1m": "ML1M"}


def _on_every_dataset(metrics: tuple[str, str], rows: dict[str, tuple[float, ...]]) -> pd.DataFrame:
    """A row a model, and a column for each dataset and metric."""
    columns = pd.MultiIndex.from_product([("ML1M", "Yelp", "Book"), metrics], names=("dataset", "metric"))
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


ACCURACY = _on_every_dataset(
    ("auc", "uauc"),
    {
        "mf": (0.6401, 0.6079, 0.5838, 0.5389, 0.6592, 0.5527),
        "lightgcn": (0.6140, 0.6230, 0.5360, 0.5179, 0.5622, 0.4985),
        "sasrec": (0.6956, 0.6687, 0.6184, 0.6096, 0.5411, 0.5197),
        "gsasrec": (0.7043, 0.6690, 0.6200, 0.6051, 0.6187, 0.5546),
        "soft_prompt": (0.6936, 0.6433, 0.6272, 0.6034, 0.6764, 0.5699),
        "tallrec": (0.6872, 0.6553, 0.5334, 0.5206, 0.6632, 0.5568),
        "collm": (0.7141, 0.6672, 0.6373, 0.5961, 0.7830, 0.5672),
        OURS: (0.7764, 0.6775, 0.6955, 0.6065, 0.8302, 0.5705),
    },
)
# METEOR is the one with synonyms; against the paper's own references.
REASONS = _on_every_dataset(
    ("meteor", "bleurt"),
    {
        OURS: (0.0333, 0.3104, 0.0616, 0.2683, 0.0546, 0.2828),
        "tallrec": (0.0275, 0.2607, 0.0379, 0.2420, 0.0301, 0.1931),
    },
)
# ThinkRec's NDCG@10 over the best baseline's, on average, as a summary of the paper has it; no table of it shows that.
NDCG_10_OVER_BEST = 0.127

# The paper ablates on Book alone, and counts experts on a new split of it: the global model, two experts, three.
ABLATION_DATASET = "Book"
ABLATION = pd.DataFrame.from_dict(
    {
        OURS: (0.5705, 0.6858, 0.2977),
        "no_experts": (0.5631, 0.6801, 0.2939),
        "no_thinking": (0.4692, 0.6284, 0.2548),
        "neither": (0.5017, 0.6381, 0.2613),
    },
    orient="index",
    columns=["uauc", "ndcg@5", "map@5"],
)
EXPERTS = pd.DataFrame({"uauc": {"no_experts": 0.5098, "experts_2": 0.5380, OURS: 0.5669}})
EXPERTS_OF_OURS = 3  # the number of experts that EXPERTS calls ours: its leads mean nothing for another one


def figures_on(dataset: str, table: pd.DataFrame) -> Figures:
    """The figures on our dataset of that name; none on one that the paper lacks."""
    return _by_cell(table[DATASETS[dataset]]) if dataset in DATASETS else {}


def leads(table: pd.DataFrame, dataset: str | None = None) -> Figures:
    """ThinkRec's lead over every other model of a table; of one for every dataset, those on our `dataset`.

    On one that the paper lacks, it is the smallest of its leads. That is at or below 0 where ThinkRec does not lead
    everywhere: the paper claims nothing there.
    """
    lead: Any = table.loc[OURS] - table.drop(index=OURS)
    if dataset in DATASETS:
        lead = lead[DATASETS[dataset]]
    elif dataset is not None:
        lead = lead.T.groupby(level="metric", sort=False).min().T
    return _by_cell(lead)


def _by_cell(table: Any) -> Figures:
    return {(model, metric): figure for model, row in table.to_dict("index").items() for metric, figure in row.items()}
