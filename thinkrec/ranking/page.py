"""What `rank.rank_catalogue` measured, as tables for a terminal of 80 columns and as a page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from thinkrec.artifacts import atomic
from thinkrec.evaluation import models
from thinkrec.evaluation.models import OURS
from thinkrec.evaluation.tables import ALPHA, figure_text
from thinkrec.ranking.expected import KS
from thinkrec.ranking.protocols import LEAK
from thinkrec.ranking.rank import LEADS, LISTED, STAGE
from thinkrec.ranking.retrievers import NAMES, WEIGHTED

METRIC_NAMES = {"hr": "HR", "recall": "Recall", "ndcg": "NDCG", "mrr": "MRR"}
STAGES = ["retriever", "shortlist", "recall", "its order", "ThinkRec's", "× popularity", "best possible"]
GAINS = {OURS: "ThinkRec gains", WEIGHTED: "× popularity gains"}
KNOWN = {
    "temporal": "what each user did before the first row of the split, and everybody else before that moment; to find: "
    "the items that the user liked in the split",
    "leave-last-out": "what each user did before the last like, which is to be found",
}


def display_name(model: str) -> str:
    """What people call a model."""
    return NAMES.get(model) or models.display_name(model)


def metric_name(metric: str) -> str:
    """What people call a metric: NDCG@10."""
    name, _, k = metric.partition("@")
    return f"{METRIC_NAMES[name]}@{k}"


def ranking_tables(document: dict[str, Any]) -> RenderableType:
    """The models, best first, and the two stages of ThinkRec's own retriever."""
    heads = ["model", *map(metric_name, LEADS)]
    shown = [[display_name(name), *_figures(document, name)] for name in _best_first(document)]
    stages = [row[1 : len(STAGES)] for row in _stage_rows(document, document["feature_model"])]
    title = f"{metric_name(STAGE)} of the shortlist by {display_name(document['feature_model'])}"
    return Group(
        _rich("The whole catalogue; *: differs from ThinkRec, after Holm", heads, shown),
        _rich(title, STAGES[1:], stages),
    )


def write_page(path: Path, document: dict[str, Any]) -> None:
    """Write everything as Markdown."""
    with atomic(path) as partial:
        partial.write_text("\n".join([*_introduction(document), *_sections(document), ""]), encoding="utf-8")


def _introduction(document: dict[str, Any]) -> Iterable[str]:
    ranked, items, to_find = (document[key] for key in ("users", "items", "to_find"))
    split = f" --split {document['split']}" if document["split"] else ""
    some = f" --users {ranked['ranked']}" if ranked["ranked"] < ranked["of"] else ""
    command = f"thinkrec rank --protocol {document['protocol']}{split} --shortlist {document['shortlist']}{some}"
    yield f"# Full ranking on {document['dataset']}\n"
    yield f"`{command}` writes this page; [Full ranking](../ranking.md) says how to read it. Seed {document['seed']}.\n"
    if document["protocol"] == "leave-last-out":
        yield f"**{LEAK}.**\n"
    yield (
        f"{ranked['ranked']:,} of {ranked['of']:,} users are asked about, {ranked['without_history']:,} without "
        f"history. Known is {KNOWN[document['protocol']]}: {to_find['items']:,} items in all, {to_find['new']:,} of "
        f"them new. Candidates are all {items['all']:,} items that the user has not rated; {items['new']:,} are new: "
        f"train never saw them. ThinkRec orders the first {document['shortlist']:,} of "
        f"{display_name(document['feature_model'])}, and × popularity those of popularity. In brackets: 95 % "
        "intervals, bootstrap over users. A star: the difference from ThinkRec is significant, paired, after Holm's "
        "correction."
    )


def _sections(document: dict[str, Any]) -> Iterable[str]:
    entries, leads, heads = document["models"], document["differences"], ["model", *map(metric_name, LEADS)]

    def section(title: str, head: Sequence[str], rows: Callable[[str], Iterable[str]]) -> Iterable[str]:
        cells = [[display_name(name), *rows(name)] for name in _best_first(document)]
        return _section(title, head, [row for row in cells if len(row) > 1])

    yield from section("Accuracy", heads, lambda name: _figures(document, name, edges=True))
    yield from section("ThinkRec's lead", heads, lambda name: map(_gain_text, leads.get(name, {}).values()))
    for short, metric in METRIC_NAMES.items():
        of_k = [f"{short}@{k}" for k in KS]
        yield from section(
            f"{metric} by length",
            ["model", *(f"@{k}" for k in KS)],
            lambda name: [figure_text(entries[name]["metrics"][key]) for key in of_k],  # noqa: B023
        )
    stages = [row for name in _best_first(document) for row in _stage_rows(document, name)]
    yield from _section(f"Two stages: {metric_name(STAGE)} of a shortlist", [*STAGES, *GAINS.values()], stages)
    yield from section(
        f"The first {LISTED} items, and where later items stand",
        ["model", "coverage", "Gini", "popularity", "novelty", "new items", "place of the liked", "of the disliked"],
        lambda name: map(_plain, [*entries[name]["lists"].values(), *entries[name]["place"].values()]),
    )


def _section(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    yield f"\n## {title}\n"
    yield from (f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def _rich(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    for number, name in enumerate(head):
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    for cells in rows:
        table.add_row(*cells)
    return table


def _best_first(document: dict[str, Any]) -> list[str]:
    return sorted(document["models"], key=lambda name: -document["models"][name]["metrics"][STAGE])


def _stage_rows(document: dict[str, Any], name: str) -> Iterable[list[str]]:
    """The columns of STAGES and GAINS for every shortlist of a retriever."""
    for size, entry in document["stages"].get(name, {}).items():
        figures = [figure_text(entry[key]) for key in ("recall", "retriever", OURS, WEIGHTED, "best")]
        yield [display_name(name), size, *figures, *(_gain_text(entry["gain"][order]) for order in GAINS)]


def _figures(document: dict[str, Any], name: str, *, edges: bool = False) -> Iterable[str]:
    """A model's LEADS, starred where they differ from ThinkRec's, with their intervals if `edges`."""
    entry, lead = document["models"][name], document["differences"].get(name, {})
    for metric in LEADS:
        star = "*" if lead.get(metric, {"p_holm": 1})["p_holm"] < ALPHA else ""
        yield figure_text(entry["metrics"][metric]) + star + (_edges(entry["interval"][metric]) if edges else "")


def _edges(entry: dict[str, float]) -> str:
    return f" [{', '.join(figure_text(entry[edge]).replace('-', '−') for edge in ('low', 'high'))}]"


def _gain_text(entry: dict[str, float]) -> str:
    """A difference with its interval: +.0123 [.0100, .0150]*."""
    sign, star = "+" if entry["difference"] > 0 else "", "*" if entry["p_holm"] < ALPHA else ""
    return f"{sign}{figure_text(entry['difference']).replace('-', '−')}{_edges(entry)}{star}"


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}" if value >= 10 else f"{value:.3f}"
