"""Row files -> the page of the paper's tables, as Markdown: the words are in `page.md`. Nothing is measured here.

All figures are of the test split. What an older file lacks is shown as not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from thinkrec import artifacts
from thinkrec.campaign import paper
from thinkrec.campaign.collect import METEOR
from thinkrec.campaign.paper import Figures
from thinkrec.campaign.rows import BASE, JOINT, ROWS, SEEDED, read_rows, read_seeds, row_path
from thinkrec.campaign.spread import LIFT, SPLIT, Files, Spread, spread_over_seeds
from thinkrec.campaign.words import (
    ABLATIONS,
    CLAIMED,
    HEADS,
    LANGUAGE_MODELS,
    LEARNED,
    NOTHING,
    figure_cell,
    lead_cell,
    lead_cells,
    line_title,
    markdown_table,
    percent_cell,
    signed_cell,
    significance,
    value_cell,
)
from thinkrec.errors import UserError
from thinkrec.evaluation.intervals import HEADLINE
from thinkrec.evaluation.models import BASELINES, BEST, CENTROID, GLOBAL, ORACLE, OURS
from thinkrec.evaluation.tables import NEW_ITEMS, NEW_ITEMS_METRICS
from thinkrec.history import ScoredModel
from thinkrec.ingest.catalogue import find_dataset

PAGES = Path("docs") / "results"
COLUMNS = ("auc", "uauc", "ndcg@5", "map@5")  # of the wide tables; those over seeds have all of HEADLINE
# The lines of each table, in their order; a table shows those that are there.
ACCURACY = (OURS, *LANGUAGE_MODELS, *BASELINES, BEST)
ABLATION = (OURS, *ABLATIONS)
EXPERTS = ("no_experts", "experts_1", "experts_2", OURS, "experts_4", CENTROID, GLOBAL, ORACLE)
SEEDS = (*SEEDED, *ACCURACY[1:])
REASONS = (*ABLATION, *LANGUAGE_MODELS)
ON_NEW_ITEMS = (OURS, *ABLATIONS, *ACCURACY[1:])
Lines = Mapping[str, Mapping[str, Any]]  # line -> metric -> its entry, or another measure


def page_path(dataset: str) -> Path:
    return PAGES / f"{dataset}.md"


def write_page(dataset: str) -> None:
    """Write a dataset's page from its row files.

    Raises:
        UserError: no such dataset, or the base row has no file yet.
    """
    files = read_rows(find_dataset(dataset).name)
    if BASE not in files:
        raise UserError(f"{row_path(dataset, BASE)}: no such file; run its row first: make tables DATASET={dataset}")
    spread = spread_over_seeds(read_seeds(dataset), read_rows(dataset, JOINT))
    artifacts.write_text(page_path(dataset), render(dataset, files, spread))


def render(dataset: str, files: Files, spread: Spread) -> str:
    """The page of a dataset, a section for each of what the paper's tables show, and one for new items."""
    lines = {name: line for file in files.values() for name, line in file["lines"].items()}
    test = {name: line[SPLIT] for name, line in lines.items()}
    on_new_items = {name: line.get(NEW_ITEMS, {}) for name, line in test.items()}
    written = {name: lines[name]["reasons"] for name in REASONS if "reasons" in lines.get(name, {})}
    spread_on_new_items = {name: line | line[NEW_ITEMS] for name, line in spread.items() if NEW_ITEMS in line}
    experts_n = files[BASE]["params"]["experts"]["n"]
    expert_leads = paper.leads(paper.EXPERTS) if experts_n == paper.EXPERTS_OF_OURS else {}
    online, static = by_protocol(test)
    over_seeds, joint_leads = spread_tables(spread)
    figures = paper.figures_on(dataset, paper.ACCURACY)
    of_static = {(ScoredModel(name, "static").column, metric): figure for (name, metric), figure in figures.items()}
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": figure_cell, "percent": percent_cell, "lead": lead_cell, "name": line_title}
    text = environment.get_template("page.md").render(
        paper=paper,
        dataset=dataset,
        count={NEW_ITEMS: None} | files[BASE]["counts"][SPLIT],
        missing=[name for name in ROWS if name not in files],
        accuracy=figures_table(test, online, leads=("auc", "uauc"), figures=figures),
        test=test,
        spread=spread,
        best=best_baseline(test, "ndcg@10"),
        static=figures_table(test, static, leads=("auc", "uauc"), figures=of_static),
        ablation=figures_table(
            test, ABLATION, leads=("uauc", "ndcg@5", "map@5"), paper_leads=paper.leads(paper.ABLATION)
        ),
        over_seeds=over_seeds,
        joint_leads=joint_leads,
        new_items=any(on_new_items.values())
        and figures_table(on_new_items, ON_NEW_ITEMS, columns=NEW_ITEMS_METRICS, leads=NEW_ITEMS_METRICS),
        spread_on_new_items=spread_tables(spread_on_new_items, NEW_ITEMS_METRICS),
        experts_n=experts_n,
        experts=figures_table(test, EXPERTS, leads=("auc", "uauc"), paper_leads=expert_leads),
        reasons=reasons_table(written, paper.figures_on(dataset, paper.REASONS)),
        checks=checks_table(files, written),
        claims=claims(dataset, test, written, spread, expert_leads),
        runs=runs(files, spread),
        older=[name for name, file in files.items() if file["compared_with"] != files[BASE]["experiment"]],
    )
    return text.rstrip() + "\n"


def by_protocol(lines: Iterable[str]) -> tuple[list[str], list[str]]:
    """The lines of the table of accuracy, and those under the static protocol; one that no table knows comes last."""
    elsewhere = {*ABLATION, *EXPERTS} - {OURS}
    models = [(line, ScoredModel.from_column(line)) for line in lines if line not in elsewhere]
    models.sort(key=lambda pair: ACCURACY.index(pair[1].name) if pair[1].name in ACCURACY else len(ACCURACY))
    online, static = (
        [line for line, model in models if model.protocol == protocol] for protocol in ("online", "static")
    )
    return online, static


def figures_table(
    lines: Lines,
    names: Iterable[str],
    *,
    columns: Sequence[str] = COLUMNS,
    leads: Sequence[str],
    figures: Figures | None = None,
    paper_leads: Figures | None = None,
) -> str:
    """The lines that are there: the metrics of `columns` with their intervals, ThinkRec's lead in some of them.

    Beside ours the paper's `figures` and `paper_leads`, where they have the line and the metric. Nothing if there is no
    line but ThinkRec's.
    """
    shown = {name: lines[name] for name in names if name in lines}
    if not shown.keys() - {OURS}:
        return ""
    figures, paper_leads = figures or {}, paper_leads or {}
    cells = lead_cells({(name, key): shown[name].get(key, {}).get("lead") for name in shown for key in leads})
    cells |= {at: f"{cells[at]}<br>paper {signed_cell(lead)}" for at, lead in paper_leads.items() if cells.get(at)}
    table = {"model": [line_title(name) for name in shown]}
    for key in columns:
        table[HEADS[key]] = [value_cell(line.get(key), figures.get((name, key))) for name, line in shown.items()]
    for key in leads:
        table[f"lead in {HEADS[key]}"] = [cells[name, key] for name in shown]
    if any(LIFT in line for line in shown.values()):
        table[HEADS[LIFT]] = [percent_cell(line.get(LIFT)) for line in shown.values()]
    return markdown_table(table)


def best_baseline(lines: Lines, metric: str) -> str | None:
    """The line of the best baseline by a metric; None where ThinkRec was not measured, or no other."""
    entries = {name: lines[name].get(metric) or {} for name in (OURS, *ACCURACY[1:-1]) if name in lines}
    values = {name: entry["value"] for name, entry in entries.items() if entry.get("value") is not None}
    if values.pop(OURS, None) is None:
        return None
    return max(values, key=lambda name: values[name], default=None)


def spread_tables(spread: Spread, metrics: Sequence[str] = HEADLINE) -> tuple[str, str]:
    """What each line has over its seeds, mean ± deviation, and ThinkRec's joint lead over each line that has one.

    `metrics` are those of the leads. Nothing where there is one seed.
    """

    def start(head: str, names: Iterable[str]) -> dict[str, list[str]]:
        seeds = {name: str(len(spread[name]["commit"])) for name in names}
        return {head: [line_title(name) for name in seeds], "seeds": list(seeds.values())}

    means, leads = (
        {name: spread[name][part] for name in SEEDS if spread.get(name, {}).get(part)} for part in ("metrics", "lead")
    )
    table = start("model", means)
    for key in (*HEADLINE, LIFT):
        if any(key in line for line in means.values()):
            cell = percent_cell if key == LIFT else figure_cell
            entries = [line.get(key) for line in means.values()]
            table[HEADS[key]] = [f"{cell(each['mean'])} ± {cell(each['std'])}" if each else NOTHING for each in entries]
    cells = lead_cells({(name, key): lead.get(key) for name, lead in leads.items() for key in metrics})
    joint = {HEADS[key]: [cells[name, key] for name in leads] for key in metrics}
    return markdown_table(table), markdown_table(start("ThinkRec over", leads) | joint)


def reasons_table(written: Lines, figures: Figures) -> str:
    """How good the reasons are that each run wrote; nothing where none were written."""

    def cells(measure: str, of_paper: str = "") -> list[str]:
        beside = {
            name: f"<br>paper {figure_cell(figure)}" for (name, key), figure in figures.items() if key == of_paper
        }
        entries = {name: line.get(measure) for name, line in written.items()}
        return [
            (value_cell(entry) if isinstance(entry, Mapping) else figure_cell(entry)) + beside.get(name, "")
            for name, entry in entries.items()
        ]

    table = {
        "model": [line_title(name) for name in written],
        "reasons": [f"{line['with_teacher']:,}" for line in written.values()],
        "METEOR": cells(METEOR, "meteor"),
        "ROUGE-L": cells("rouge_l"),
        "BLEU": cells("bleu"),
    }
    for measure, head in LEARNED.items():
        if any(line.get(measure) is not None for line in written.values()) or (figures and measure == "bleurt"):
            table[head] = cells(measure, measure)
    leads = lead_cells({name: line[METEOR].get("lead") for name, line in written.items()})
    table |= {"right": cells("accuracy"), "agrees": cells("agreement"), "lead in METEOR": list(leads.values())}
    return markdown_table(table)


def checks_table(files: Files, written: Lines) -> str:
    """What each run's reasons claim and cite, checked; first the teacher's, of ThinkRec's run."""
    checked = {name: line for name, line in written.items() if "claims" in line}
    texts = [(OURS, "teacher")] * (OURS in checked) + [(name, "ours") for name in checked]
    claims = [checked[name]["claims"][author] for name, author in texts]
    # Files from before there were candidates name none.
    versions = {name: str(files[name]["params"]["evaluate"].get("candidates", 1)) for name in checked}
    table = {
        "model": [line_title(name) if author == "ours" else "*the teacher*" for name, author in texts],
        "versions": [versions[name] if author == "ours" else "" for name, author in texts],
        "claims a reason": [
            f"{each['claims'] / each['reasons']:.1f}" if each["reasons"] else NOTHING for each in claims
        ],
    }
    for share, head in CLAIMED.items():
        table[head] = [_share_cell(each.get(share)) for each in claims]
    table["own conclusion"] = [figure_cell(each.get("own_conclusion_share")) for each in claims]
    table["true reason named"] = [_named_cell(checked[name]["truth"].get(author)) for name, author in texts]
    for change in next(iter(checked.values()))["interventions"] if checked else ():
        moved = {name: _intervention_cell(line["interventions"][change]) for name, line in checked.items()}
        table[f"{change}: cited, other"] = [moved[name] if author == "ours" else "" for name, author in texts]
    return markdown_table(table)


def _share_cell(share: Mapping[str, Any] | None) -> str:
    """A share that is true literally, and by meaning; older files have none."""
    return f"{figure_cell(share['literally'])}, {figure_cell(share['by_meaning'])}" if share else NOTHING


def _named_cell(named: Mapping[str, Any] | None) -> str:
    if not named:
        return NOTHING
    chance = f"by chance {figure_cell(named['by_chance'])}, of traits {figure_cell(named['by_chance_of_traits'])}"
    return f"{figure_cell(named['named_share'])}<br>{chance}<br>{lead_cell(named['lead'])}"


def _intervention_cell(entry: Mapping[str, Any]) -> str:
    difference = lead_cell({**entry, "value": entry["difference"]})
    return f"{figure_cell(entry['cited'])}, {figure_cell(entry['control'])}<br>{difference}"


def claims(dataset: str, lines: Lines, written: Lines, spread: Spread, expert_leads: Figures) -> dict[str, Any]:
    """What the paper says ThinkRec is better than, in what and by how much, beside ours.

    `table`, and `significance` of our lead for each: None where it was not run. Ours is the joint lead over seeds where
    there is one.
    """
    on, least = (paper.DATASETS[dataset], "") if dataset in paper.DATASETS else ("all of its datasets", "at least ")
    sources = [
        (paper.leads(paper.ACCURACY, dataset), on, least),
        (paper.leads(paper.ABLATION), paper.ABLATION_DATASET, ""),
        (expert_leads, f"{paper.ABLATION_DATASET}, new split", ""),
        (paper.leads(paper.REASONS, dataset), on, least),
    ]
    claimed = [
        (name, metric, f"{least}{signed_cell(lead)} ({where})")
        for figures, where, least in sources
        for (name, metric), lead in figures.items()
        if lead > 0 and metric != "bleurt"  # which is not computed here
    ]
    ours: list[Mapping[str, Any] | None] = []
    seeds: list[str] = []
    for name, metric, _ in claimed:
        joint = spread.get(name, {"lead": {}})["lead"].get(metric)
        entry = written.get(name, {}).get(METEOR) if metric == "meteor" else lines.get(name, {}).get(metric)
        ours.append(joint or (entry or {}).get("lead"))
        seeds.append(str(len(spread[name]["commit"])) if joint else "1" if ours[-1] else "")
    cells = lead_cells(dict(enumerate(ours)))
    table = {
        "ThinkRec is better than": [line_title(name) for name, _, _ in claimed],
        "in": [HEADS[metric] for _, metric, _ in claimed],
        "the paper's lead": [lead for _, _, lead in claimed],
        "our lead": [cell or "not run yet" for cell in cells.values()],
        "seeds": seeds,
    }
    return {"table": markdown_table(table), "significance": [significance(lead) if lead else None for lead in ours]}


def runs(files: Files, spread: Spread) -> dict[str, list[str]]:
    """Which code made which rows: by commit, the rows and their seeds."""
    by_commit: dict[str, list[str]] = {}
    for name, file in files.items():
        seeds = spread[name]["commit"] if name in spread else {}
        for commit in dict.fromkeys([file["commit"], *seeds.values()]):
            numbers = ", ".join(str(seed) for seed, other in seeds.items() if other == commit)
            by_commit.setdefault(commit, []).append(f"{name} (seeds {numbers})" if numbers else name)
    return by_commit
