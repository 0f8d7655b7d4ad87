"""What `rank.rank_catalogue` measured, as tables for a terminal of 80 columns and as a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
from thinkrec.ranking.retrievers import NAMES

METRIC_NAMES = {"hr": "HR", "recall": "Recall", "ndcg": "NDCG", "mrr": "MRR"}
STAGES = {"retriever": "retriever", OURS: "ThinkRec", "fused": "both fused", "best": "best possible"}
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
    ranked = [
        [display_name(name), *(_starred(document, name, metric) for metric in LEADS)] for name in _best_first(document)
    ]
    stages = document["stages"][document["feature_model"]]
    retriever = display_name(document["feature_model"])
    return Group(
        _rich(["", *map(metric_name, LEADS)], ranked, "The whole catalogue; *: differs from ThinkRec, after Holm"),
        _rich(
            ["shortlist", "recall", *STAGES.values()],
            _stage_rows(stages),
            f"{metric_name(STAGE)} of {retriever}'s shortlist",
        ),
    )


def write_page(path: Path, document: dict[str, Any]) -> None:
    """Write everything as Markdown."""
    with atomic(path) as partial:
        partial.write_text("\n".join(_lines(document)), encoding="utf-8")


def _lines(document: dict[str, Any]) -> Iterable[str]:
    ranked, items, found = (document[key] for key in ("users", "items", "to_find"))
    split = f" --split {document['split']}" if document["split"] else ""
    some = f" --users {ranked['ranked']}" if ranked["ranked"] < ranked["of"] else ""
    command = f"thinkrec rank --protocol {document['protocol']}{split} --shortlist {document['shortlist']}{some}"
    yield f"# Full ranking on {document['dataset']}\n"
    yield f"`{command}` writes this page; [Full ranking](../ranking.md) says how to read it. Seed {document['seed']}.\n"
    if document["protocol"] == "leave-last-out":
        yield f"**{LEAK}.**\n"
    yield (
        f"{ranked['ranked']:,} of {ranked['of']:,} users are asked about, {ranked['without_history']:,} without "
        f"history. Known is {KNOWN[document['protocol']]}: {found['items']:,} items in all, {found['new']:,} of them "
        f"new. Candidates are all {items['all']:,} items that the user has not rated; {items['new']:,} are new: train "
        f"never saw them. ThinkRec orders the first {document['shortlist']:,} of "
        f"{display_name(document['feature_model'])}. In brackets: 95 % intervals, bootstrap over users. A star: the "
        "difference from ThinkRec is significant, paired, after Holm's correction."
    )
    names, entries = _best_first(document), document["models"]
    cells = [[display_name(name), *(_with_interval(document, name, metric) for metric in LEADS)] for name in names]
    yield from _section("Accuracy", ["model", *map(metric_name, LEADS)], cells)
    leads = [
        [display_name(name), *(_gain_text(document["differences"][name][metric]) for metric in LEADS)]
        for name in names
        if name != OURS
    ]
    yield from _section("ThinkRec's lead", ["over", *map(metric_name, LEADS)], leads)
    for short, name in METRIC_NAMES.items():
        rows = [[display_name(n), *(figure_text(entries[n]["metrics"][f"{short}@{k}"]) for k in KS)] for n in names]
        yield from _section(f"{name} by length", ["model", *(f"@{k}" for k in KS)], rows)
    for name in sorted(document["stages"], key=names.index):
        head = ["shortlist", "recall", *STAGES.values(), "ThinkRec gains", "fusing gains"]
        yield from _section(
            f"Two stages: {metric_name(STAGE)} of the shortlist by {display_name(name)}",
            head,
            [
                [*row, *(_gain_text(of_size["gain"][order]) for order in (OURS, "fused"))]
                for row, of_size in zip(
                    _stage_rows(document["stages"][name]), document["stages"][name].values(), strict=True
                )
            ],
        )
    lists = [
        [display_name(n), *map(_plain, [*entries[n]["lists"].values(), *entries[n]["place"].values()])] for n in names
    ]
    head = ["model", "coverage", "Gini", "popularity", "novelty", "new items", "place of the liked", "of the disliked"]
    yield from _section(f"The first {LISTED} items, and where later items stand", head, lists)


def _section(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    yield f"\n## {title}\n"
    yield from (f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def _rich(head: Sequence[str], rows: Iterable[Sequence[str]], title: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    for number, name in enumerate(head):
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    for cells in rows:
        table.add_row(*cells)
    return table


def _best_first(document: dict[str, Any]) -> list[str]:
    return sorted(document["models"], key=lambda name: -document["models"][name]["metrics"][STAGE])


def _stage_rows(stages: dict[str, Any]) -> list[list[str]]:
    return [[size, *(figure_text(entry[key]) for key in ("recall", *STAGES))] for size, entry in stages.items()]


def _starred(document: dict[str, Any], name: str, metric: str) -> str:
    p = document["differences"].get(name, {}).get(metric, {}).get("p_holm", 1.0)
    return figure_text(document["models"][name]["metrics"][metric]) + ("*" if p < ALPHA else " ")


def _with_interval(document: dict[str, Any], name: str, metric: str) -> str:
    edges = document["models"][name]["interval"][metric]
    return f"{_starred(document, name, metric).strip()} [{figure_text(edges['low'])}, {figure_text(edges['high'])}]"


def _gain_text(entry: dict[str, float]) -> str:
    """A difference with its interval: +.0123 [.0100, .0150], starred where it is significant."""
    value, low, high = (figure_text(entry[key]).replace("-", "−") for key in ("difference", "low", "high"))
    sign = "+" if entry["difference"] > 0 else ""
    return f"{sign}{value} [{low}, {high}]{'*' if entry['p_holm'] < ALPHA else ''}"


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}" if value >= 10 else f"{value:.3f}"
