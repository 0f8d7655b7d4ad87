"""What `rank.rank_catalogue` measured: tables for a terminal of 80 columns, Markdown, and the report with lists."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from thinkrec import artifacts
from thinkrec.campaign.render import PAGES
from thinkrec.campaign.rows import FOLDER
from thinkrec.campaign.words import figure_cell, interval_cell, markdown_table, signed_cell
from thinkrec.errors import UserError
from thinkrec.evaluation import models
from thinkrec.evaluation.models import OURS
from thinkrec.evaluation.tables import ALPHA
from thinkrec.params import Params
from thinkrec.ranking.expected import KS
from thinkrec.ranking.protocols import LEAK
from thinkrec.ranking.rank import LEADS, LISTED, STAGE
from thinkrec.ranking.retrievers import NAMES, POPULAR, WEIGHTED
from thinkrec.report.contents import contents_of_project
from thinkrec.report.page import page
from thinkrec.report.users import Lists

METRIC_NAMES = {"hr": "HR", "recall": "Recall", "ndcg": "NDCG", "mrr": "MRR"}
STAGES = ["retriever", "shortlist", "recall", "its order", "ThinkRec's", "× popularity", "best possible"]
GAINS = {OURS: "ThinkRec gains", WEIGHTED: "× popularity gains"}
HEADS = ("model", "NDCG@10", "HR@10", "coverage")  # of the headline
MEANING = (
    "NDCG@10: how much of what is to be found stands among the first ten, and how high; 1 is the best order. HR@10: "
    "the share of users with something of it among the first ten. Coverage: the share of the catalogue that stands "
    "among somebody's first ten."
)
DOCUMENT = "ranking.json"  # of a dataset's folder in tables/
CATALOGUE = PAGES / "catalogue.md"
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


def write_page(path: Path, document: dict[str, Any], lists: Lists, params: Params) -> None:
    """Write the report with a headline and the users' lists if `path` is HTML, else everything as Markdown.

    Raises:
        UserError: an artefact of the report is missing, or does not belong to the others.
    """
    if path.suffix != ".html":
        return artifacts.write_text(path, render([document]))
    shown = [name for name, _ in _headline(document)]
    named = {user: {display_name(name): of_user[name] for name in shown} for user, of_user in lists.items()}
    contents, sections = contents_of_project(params, named)
    about = f"{_about(document)} {MEANING}"
    ranking = {"about": about, "heads": HEADS, "rows": [cells for _, cells in _headline(document)]}
    artifacts.write_text(path, page(contents, sections | {"ranking": ranking}))


def write_catalogue() -> None:
    """Write the page of full rankings from the files of the datasets that have one; without any, leave it alone.

    Raises:
        UserError: a file holds no full ranking of its dataset.
    """
    paths = [folder / DOCUMENT for folder in sorted(FOLDER.glob("*/"))]
    documents = {path: artifacts.read_json(path) for path in paths if path.is_file()}
    for path, document in documents.items():
        if not isinstance(document, dict) or document.get("dataset") != path.parent.name:
            raise UserError(f"{path}: no full ranking of {path.parent.name}; see `thinkrec rank --json`")
        try:
            render([document])
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path}: no full ranking of {path.parent.name}, {error!r}; see `thinkrec rank --json`"
            ) from None
    if documents:
        missing = [path.parent.name for path in paths if path not in documents]
        artifacts.write_text(CATALOGUE, render([*documents.values()], missing))


def render(documents: Sequence[dict[str, Any]], missing: Sequence[str] = ()) -> str:
    """Full rankings of some datasets as Markdown; `missing` are those that have none yet."""
    rows = [[document["dataset"], *cells] for document in documents for _, cells in _headline(document)]
    parts = [
        "# Full ranking",
        "All items are candidates; [Full ranking](../ranking.md) says how to read this. " + MEANING,
        _table(["dataset", *HEADS], rows),
        *([f"Not run yet: {', '.join(missing)}."] if missing else []),
        *(part for document in documents for part in [*_introduction(document), *_sections(document)]),
    ]
    return "\n\n".join(parts) + "\n"


def _headline(document: dict[str, Any]) -> Iterable[tuple[str, list[str]]]:
    """ThinkRec, alone and times popularity, its retriever and popularity, each with the cells under HEADS."""
    for name in (OURS, WEIGHTED, document["feature_model"], POPULAR):
        entry = document["models"][name]
        figures = [
            f"{figure_cell(entry['metrics'][key])} {interval_cell(entry['interval'][key])}"
            for key in ("ndcg@10", "hr@10")
        ]
        yield name, [display_name(name), *figures, _plain(entry["lists"]["coverage"])]


def _introduction(document: dict[str, Any]) -> Iterable[str]:
    ranked = document["users"]
    split = f" --split {document['split']}" if document["split"] else ""
    some = f" --users {ranked['ranked']}" if ranked["ranked"] < ranked["of"] else ""
    command = f"thinkrec rank --protocol {document['protocol']}{split} --shortlist {document['shortlist']}{some}"
    yield f"## On {document['dataset']}"
    yield f"`{command}` measured this. Seed {document['seed']}; code: {document['code'] or 'not in git'}."
    yield (
        f"{_about(document)} In brackets: 95 % intervals, bootstrap over users. A star: the difference from ThinkRec "
        "is significant, paired, after Holm's correction."
    )


def _about(document: dict[str, Any]) -> str:
    """Whom was asked about what."""
    ranked, items, to_find = (document[key] for key in ("users", "items", "to_find"))
    warning, split = (f"{LEAK}. ", "") if document["split"] is None else ("", f" of {document['split']}")
    return (
        f"{warning}{ranked['ranked']:,} of {ranked['of']:,} users{split} are asked about, "
        f"{ranked['without_history']:,} without history. Known is {KNOWN[document['protocol']]}: "
        f"{to_find['items']:,} items in all, {to_find['new']:,} of them new. Candidates are all {items['all']:,} items "
        f"that the user has not rated; {items['new']:,} are new: train never saw them. ThinkRec orders the first "
        f"{document['shortlist']:,} of {display_name(document['feature_model'])}, and × popularity those of popularity."
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
            lambda name: [figure_cell(entries[name]["metrics"][key]) for key in of_k],  # noqa: B023
        )
    stages = [row for name in _best_first(document) for row in _stage_rows(document, name)]
    yield from _section(f"Two stages: {metric_name(STAGE)} of a shortlist", [*STAGES, *GAINS.values()], stages)
    yield from section(
        f"The first {LISTED} items, and where later items stand",
        ["model", "coverage", "Gini", "popularity", "novelty", "new items", "place of the liked", "of the disliked"],
        lambda name: map(_plain, [*entries[name]["lists"].values(), *entries[name]["place"].values()]),
    )


def _section(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterable[str]:
    yield f"### {title}"
    yield _table(head, rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return markdown_table(dict(zip(head, zip(*rows, strict=True), strict=True)))


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
        figures = [figure_cell(entry[key]) for key in ("recall", "retriever", OURS, WEIGHTED, "best")]
        yield [display_name(name), size, *figures, *(_gain_text(entry["gain"][order]) for order in GAINS)]


def _figures(document: dict[str, Any], name: str, *, edges: bool = False) -> Iterable[str]:
    """A model's LEADS, starred where they differ from ThinkRec's, with their intervals if `edges`."""
    entry, lead = document["models"][name], document["differences"].get(name, {})
    for metric in LEADS:
        star = "*" if lead.get(metric, {"p_holm": 1})["p_holm"] < ALPHA else ""
        interval = f" {interval_cell(entry['interval'][metric])}" if edges else ""
        yield figure_cell(entry["metrics"][metric]) + star + interval


def _gain_text(entry: dict[str, float]) -> str:
    """A difference with its interval: +.0123 [.0100, .0150]*."""
    return f"{signed_cell(entry['difference'])} {interval_cell(entry)}{'*' if entry['p_holm'] < ALPHA else ''}"


def _plain(value: float | None) -> str:
    return f"{value:.1f}" if value is not None and value >= 10 else figure_cell(value)
