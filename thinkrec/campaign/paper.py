"""The paper's figures (arXiv 2505.15091; test split, Llama3-8B with LoRA under every LLM row), as data.

Models have the names of our own lines, metrics those of our metrics files. A lead is ThinkRec's figure minus the
other model's.
"""

from __future__ import annotations

from collections.abc import Mapping

from thinkrec.evaluation.models import OURS

Figures = dict[str, dict[str, float]]  # model -> metric -> figure

# Our `dataset.name` -> the paper's dataset. The synthetic worlds are not in the paper.
DATASETS = {"ml-1m": "ML1M"}
ALL_DATASETS = ("ML1M", "Yelp", "Book")

# AUC and UAUC on each of ALL_DATASETS.
_ACCURACY = {
    "mf": ((0.6401, 0.6079), (0.5838, 0.5389), (0.6592, 0.5527)),
    "lightgcn": ((0.6140, 0.6230), (0.5360, 0.5179), (0.5622, 0.4985)),
    "sasrec": ((0.6956, 0.6687), (0.6184, 0.6096), (0.5411, 0.5197)),
    "gsasrec": ((0.7043, 0.6690), (0.6200, 0.6051), (0.6187, 0.5546)),
    "soft_prompt": ((0.6936, 0.6433), (0.6272, 0.6034), (0.6764, 0.5699)),
    "tallrec": ((0.6872, 0.6553), (0.5334, 0.5206), (0.6632, 0.5568)),
    "collm": ((0.7141, 0.6672), (0.6373, 0.5961), (0.7830, 0.5672)),
    OURS: ((0.7764, 0.6775), (0.6955, 0.6065), (0.8302, 0.5705)),
}
# METEOR (with synonyms) and BLEURT against the paper's own references, likewise.
_REASONS = {
    OURS: ((0.0333, 0.3104), (0.0616, 0.2683), (0.0546, 0.2828)),
    "tallrec": ((0.0275, 0.2607), (0.0379, 0.2420), (0.0301, 0.1931)),
}


def _by_dataset(rows: Mapping[str, tuple[tuple[float, float], ...]], metrics: tuple[str, str]) -> dict[str, Figures]:
    return {
        dataset: {model: dict(zip(metrics, row[at], strict=True)) for model, row in rows.items()}
        for at, dataset in enumerate(ALL_DATASETS)
    }


ACCURACY = _by_dataset(_ACCURACY, ("auc", "uauc"))
REASONS = _by_dataset(_REASONS, ("meteor", "bleurt"))

# ThinkRec's NDCG@10 over the best baseline's, on average, as a summary of the paper has it; no table of it shows that.
NDCG_10_OVER_BEST = 0.127

# The paper ablates on Book alone, and counts experts on a new split of it: the global model, two experts, three.
ABLATION_DATASET = "Book"
ABLATION: Figures = {
    OURS: {"uauc": 0.5705, "ndcg@5": 0.6858, "map@5": 0.2977},
    "no_experts": {"uauc": 0.5631, "ndcg@5": 0.6801, "map@5": 0.2939},
    "no_thinking": {"uauc": 0.4692, "ndcg@5": 0.6284, "map@5": 0.2548},
    "neither": {"uauc": 0.5017, "ndcg@5": 0.6381, "map@5": 0.2613},
}
EXPERTS: Figures = {
    "no_experts": {"uauc": 0.5098},
    "experts_2": {"uauc": 0.5380},
    OURS: {"uauc": 0.5669},
}
EXPERTS_OF_OURS = 3  # the number of experts that EXPERTS calls ours: its leads mean nothing for another one


def leads(figures: Figures) -> Figures:
    """ThinkRec's lead over every other model of a table."""
    ours = figures[OURS]
    return {
        model: {metric: ours[metric] - figure for metric, figure in row.items()}
        for model, row in figures.items()
        if model != OURS
    }


def leads_on(dataset: str, tables: dict[str, Figures]) -> Figures:
    """The leads on our dataset of that name; on one that the paper lacks, the smallest of its leads.

    The smallest is at or below 0 where ThinkRec does not lead everywhere: the paper claims nothing there.
    """
    if dataset in DATASETS:
        return leads(tables[DATASETS[dataset]])
    every = [leads(figures) for figures in tables.values()]
    return {
        model: {metric: min(lead[model][metric] for lead in every) for metric in row} for model, row in every[0].items()
    }
