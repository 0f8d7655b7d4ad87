"""How the paper's tables name rows, metrics and measures, and write figures and leads.

An *entry* holds `value`, `low` and `high`; a *lead* has `p` besides. Both as `collect` writes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from thinkrec.campaign.spread import LIFT
from thinkrec.evaluation.intervals import holm
from thinkrec.evaluation.models import HINDSIGHT, OURS, display_name
from thinkrec.evaluation.tables import ALPHA, figure_text

NOTHING = "–"
HEADS = {
    "auc": "AUC",
    "uauc": "UAUC",
    "ndcg@5": "NDCG@5",
    "ndcg@10": "NDCG@10",
    "map@5": "MAP@5",
    LIFT: "share of the achievable lift",
    "meteor": "METEOR",
}
# Rows that are no model of the base run, by the tables that show them: a new row stands there by its line here.
LANGUAGE_MODELS = {
    "collm": "as CoLLM: features in the slots",
    "tallrec": "as TALLRec: text only",
    "soft_prompt": "as Prompt4NR: text and learned vectors",
}
ABLATIONS = {
    "no_thinking": "no thinking",
    "no_experts": "no experts",
    "neither": "neither thinking nor experts",
    "no_features": "no features: text alone, matched with the history",
    "no_keywords": "no keywords",
    "features_lightgcn": "LightGCN's features",
    "features_sasrec": "SASRec's features",
    "features_mf": "MF's features",
    "features_hybrid_sasrec": "features of SASRec + keywords",
}
EXPERT_COUNTS = {"experts_1": "1 expert", "experts_2": "2 experts", "experts_4": "4 experts"}
ROW_NAMES = LANGUAGE_MODELS | ABLATIONS | EXPERT_COUNTS
LEARNED = {"meteor_wordnet": "METEOR with synonyms", "bertscore": "BERTScore", "bleurt": "BLEURT"}
CLAIMED = {
    "wholly_true_share": "wholly true",
    "claims_true_share": "claims true",
    "target_true_share": "of the target",
    "history_true_share": "of the history",
}
Key = TypeVar("Key")


def line_title(name: str) -> str:
    """The name that a line has in every table: ThinkRec bold, what knows the labels in italics."""
    title = ROW_NAMES.get(name) or display_name(name)
    return f"**{title}**" if name == OURS else f"*{title}*" if name in HINDSIGHT else title


def figure_cell(value: float | None) -> str:
    return NOTHING if value is None else figure_text(value).replace("-", "−")


def signed_cell(value: float | None) -> str:
    return figure_cell(value) if value is None or value < 0 else f"+{figure_cell(abs(value))}"  # abs: of -0.0, too


def percent_cell(value: float | None, sign: str = "") -> str:
    return NOTHING if value is None else f"{100 * value:{sign}.1f} %".replace("-", "−")


def interval_cell(entry: Mapping[str, Any]) -> str:
    return f"[{figure_cell(entry['low'])}, {figure_cell(entry['high'])}]"


def value_cell(entry: Mapping[str, Any] | None, paper_figure: float | None = None) -> str:
    """A value with its interval, and where that is of the paper's figure: above it, below it, or around it."""
    if not entry:
        return NOTHING
    text = f"{figure_cell(entry['value'])} {interval_cell(entry)}"
    if paper_figure is None:
        return text
    place = "above" if entry["low"] > paper_figure else "below" if entry["high"] < paper_figure else "within"
    return f"{text}<br>paper {figure_cell(paper_figure)}: {place}"


def significance(lead: Mapping[str, Any]) -> str:
    """`ahead` or `behind` where the interval excludes 0, else nothing."""
    if lead["low"] is None:
        return ""
    return "ahead" if lead["low"] > 0 else "behind" if lead["high"] < 0 else ""


def lead_cell(lead: Mapping[str, Any], star: str = "") -> str:
    """A lead with its interval, and the word for it if it is significant."""
    word = significance(lead)
    return f"{signed_cell(lead['value'])} {interval_cell(lead)}" + (f": {word}{star}" if word else "")


def lead_cells(leads: Mapping[Key, Mapping[str, Any] | None]) -> dict[Key, str]:
    """The leads of a table; nothing for a missing one.

    A significant one has a star where its p stays below ALPHA after Holm's correction over the table.
    """
    there = {key: lead for key, lead in leads.items() if lead}
    adjusted = dict(zip(there, holm([lead["p"] for lead in there.values()]), strict=True))
    cells = {key: lead_cell(lead, "*" if adjusted[key] < ALPHA else "") for key, lead in there.items()}
    return {key: cells.get(key, "") for key in leads}


def markdown_table(columns: Mapping[str, Sequence[str]]) -> str:
    """The cells by head; nothing without rows."""
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [list(columns), ["---"] * len(columns), *rows]) if rows else ""
