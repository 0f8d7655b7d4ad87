"""The cells of the paper's tables: figures, intervals and leads as text, and rows as Markdown.

An *entry* holds `value`, `low` and `high`; a *lead* has `p` besides. Both as `collect` writes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from thinkrec.evaluation.intervals import holm
from thinkrec.evaluation.tables import ALPHA, figure_text

NOTHING = "–"


def figure_cell(value: float | None) -> str:
    return NOTHING if value is None else figure_text(value).replace("-", "−")


def signed_cell(value: float | None) -> str:
    return figure_cell(value) if value is None or value < 0 else f"+{figure_cell(abs(value))}"  # abs: of -0.0, too


def percent_cell(value: float | None, *, signed: bool = False) -> str:
    return NOTHING if value is None else f"{100 * value:{'+' if signed else ''}.1f} %".replace("-", "−")


def value_cell(entry: Mapping[str, Any] | None, paper_figure: float | None = None) -> str:
    """A value with its interval, and where that is of the paper's figure: above it, below it, or around it."""
    if not entry:
        return NOTHING
    text = f"{figure_cell(entry['value'])} [{figure_cell(entry['low'])}, {figure_cell(entry['high'])}]"
    if paper_figure is None:
        return text
    place = "above" if entry["low"] > paper_figure else "below" if entry["high"] < paper_figure else "within"
    return f"{text}<br>paper {figure_cell(paper_figure)}: {place}"


def lead_cell(lead: Mapping[str, Any] | None, star: str = "", paper_lead: float | None = None) -> str:
    """A lead with its interval, the word for it if it is significant, and the paper's lead."""
    if not lead:
        return ""
    text = f"{signed_cell(lead['value'])} [{figure_cell(lead['low'])}, {figure_cell(lead['high'])}]"
    word = significance(lead)
    text += f": {word}{star}" if word else ""
    return text if paper_lead is None else f"{text}<br>paper {signed_cell(paper_lead)}"


def significance(lead: Mapping[str, Any]) -> str:
    """`ahead` or `behind` where the interval excludes 0, else nothing."""
    if lead["low"] is None:
        return ""
    return "ahead" if lead["low"] > 0 else "behind" if lead["high"] < 0 else ""


def stars(leads: Mapping[Any, Mapping[str, Any] | None]) -> dict[Any, str]:
    """A star for each lead whose p stays below ALPHA after Holm's correction over all of them."""
    p = {key: lead["p"] for key, lead in leads.items() if lead}
    return {key: "*" if adjusted < ALPHA else "" for key, adjusted in zip(p, holm(list(p.values())), strict=True)}


def markdown_table(heads: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    rows = [heads, ["---"] * len(heads), *body]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
