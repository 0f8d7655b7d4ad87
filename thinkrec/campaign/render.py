"""Row files -> the page of the paper's tables, as Markdown. Nothing is measured here.

All figures are of the test split. What an older file lacks is shown as not there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from thinkrec.campaign import paper, words
from thinkrec.campaign.cells import (
    NOTHING,
    figure_cell,
    lead_cell,
    markdown_table,
    percent_cell,
    signed_cell,
    significance,
    stars,
    value_cell,
)
from thinkrec.campaign.collect import METEOR, Line
from thinkrec.campaign.paper import Figures
from thinkrec.campaign.rows import BASE, ROWS, SEEDED
from thinkrec.campaign.spread import LIFT, SPLIT, Spread
from thinkrec.campaign.words import ABLATIONS, CLAIMED, HEADS, LANGUAGE_MODELS, LEARNED, line_title
from thinkrec.evaluation.intervals import HEADLINE
from thinkrec.evaluation.models import BASELINES, BEST, CENTROID, GLOBAL, ORACLE, OURS
from thinkrec.evaluation.tables import NEW_ITEMS, NEW_ITEMS_METRICS
from thinkrec.history import ScoredModel

Files = Mapping[str, Mapping[str, Any]]  # row -> its file
Lines = Mapping[str, Line]
COLUMNS = ("auc", "uauc", "ndcg@5", "map@5")  # of the wide tables; those over seeds have all of HEADLINE
# The lines of each table, in their order; a table shows those that are there.
ACCURACY = (OURS, *LANGUAGE_MODELS, *BASELINES, BEST)
ABLATION = (OURS, *ABLATIONS)
EXPERTS = ("no_experts", "experts_1", "experts_2", OURS, "experts_4", CENTROID, GLOBAL, ORACLE)
SEEDS = (*SEEDED, *ACCURACY[1:])
REASONS = (*ABLATION, *LANGUAGE_MODELS)
ON_NEW_ITEMS = (OURS, *ABLATIONS, *ACCURACY[1:])


def render(dataset: str, files: Files, spread: Spread) -> str:
    """The page of a dataset, a section for each of what the paper's tables show, and one for new items."""
    lines, count = merge_lines(files), files[BASE]["counts"][SPLIT]
    users, new = count["users"], count.get(NEW_ITEMS)
    spread_on_new = {name: line | line[NEW_ITEMS] for name, line in spread.items() if NEW_ITEMS in line}
    missing = [name for name in ROWS if name not in files]
    experts_note = words.EXPERTS_NOTE.format(n=files[BASE]["params"]["experts"]["n"])
    accuracy_note = words.ACCURACY_NOTE if dataset in paper.DATASETS else words.UNKNOWN_NOTE
    experts = _table(lines, EXPERTS, leads=("auc", "uauc"), paper_leads=_expert_leads(files))
    sections = [  # text, and the table or sentence that it is about: without that, nothing stands there
        ("## Accuracy", accuracy_note, accuracy(dataset, lines)),
        (ndcg_10(lines, spread),),
        ("### Static protocol", words.STATIC_NOTE, static(dataset, lines)),
        ("## Ablation", words.ABLATION_NOTE, ablation(lines)),
        ("## Over seeds", words.SEEDS_NOTE, over_seeds(spread)),
        (words.JOINT_NOTE, joint_leads(spread)),
        ("## New items", words.NEW_ITEMS_NOTE.format(**new) if new else "", new_items(lines) if new else ""),
        (over_seeds(spread_on_new),),
        (joint_leads(spread_on_new, NEW_ITEMS_METRICS),),
        ("## Number of experts", experts_note, experts),
        ("## Reasons", words.REASONS_NOTE, reasons(dataset, lines)),
        (f"{words.CHECKS_NOTE} {words.NAMED_NOTE} {words.MOVED_NOTE}", checks(files)),
        ("## The paper's claims", *claims(dataset, files, spread)),
        ("## The runs", words.RUNS_NOTE, runs(files, spread)),
    ]
    parts = [
        f"# The paper's tables on {dataset}",
        f"`make tables DATASET={dataset}` writes this page from `tables/{dataset}/`. Test split: {count['rows']:,} "
        f"interactions of {users['all']:,} users; UAUC covers {users['uauc']:,} of them, @5 {users['@5']:,}.",
        words.LEGEND,
        *([f"Not run yet: {', '.join(missing)}."] if missing else []),
        *(part for section in sections if section[-1] for part in section),
    ]
    return "\n\n".join(parts) + "\n"


def merge_lines(files: Files) -> dict[str, Line]:
    """The lines of all files, by name."""
    return {name: line for file in files.values() for name, line in file["lines"].items()}


def accuracy(dataset: str, lines: Lines) -> str:
    """Every model under the online protocol; one that no table knows comes last."""
    named = {*ACCURACY, *ABLATION, *EXPERTS}
    others = [name for name in lines if name not in named and not _is_static(name)]
    return _table(lines, [*ACCURACY, *others], leads=("auc", "uauc"), figures=_of_paper(paper.ACCURACY, dataset))


def static(dataset: str, lines: Lines) -> str:
    """The models under the static protocol."""
    columns = {ScoredModel(name, "static").column: name for name in ACCURACY}
    others = [name for name in lines if _is_static(name) and name not in columns]
    by_model = _of_paper(paper.ACCURACY, dataset)
    figures = {column: by_model.get(name, {}) for column, name in columns.items()}
    return _table(lines, [*columns, *others], leads=("auc", "uauc"), figures=figures)


def _is_static(line: str) -> bool:
    return ScoredModel.from_column(line).protocol == "static"


def _of_paper(tables: Mapping[str, Figures], dataset: str) -> Figures:
    """The paper's figures on our dataset of that name; none on one that it lacks."""
    return tables[paper.DATASETS[dataset]] if dataset in paper.DATASETS else {}


def ablation(lines: Lines) -> str:
    """ThinkRec without one of its ingredients, or with another one in its place."""
    return _table(lines, ABLATION, leads=("uauc", "ndcg@5", "map@5"), paper_leads=paper.leads(paper.ABLATION))


def new_items(lines: Lines) -> str:
    """Every model on test rows about items that train never saw; a sentence where these were not measurable."""
    of_new = {name: {SPLIT: line[SPLIT].get(NEW_ITEMS, {})} for name, line in lines.items()}
    if not any(line[SPLIT] for line in of_new.values()):
        return words.NOT_MEASURED
    return _table(of_new, ON_NEW_ITEMS, columns=NEW_ITEMS_METRICS, leads=NEW_ITEMS_METRICS)


def _expert_leads(files: Files) -> Figures:
    same = files[BASE]["params"]["experts"]["n"] == paper.EXPERTS_OF_OURS
    return paper.leads(paper.EXPERTS) if same else {}


def _table(
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
    figures, paper_leads = figures or {}, paper_leads or {}
    shown = {name: lines[name][SPLIT] for name in names if name in lines}
    if not shown.keys() - {OURS}:
        return ""
    lift = [HEADS[LIFT]] if any(LIFT in line for line in shown.values()) else []
    star = stars({(name, metric): _lead(line, metric) for name, line in shown.items() for metric in leads})
    heads = ["model", *(HEADS[metric] for metric in columns), *(f"lead in {HEADS[metric]}" for metric in leads)]
    body = []
    for name, line in shown.items():
        values = [value_cell(line.get(metric), figures.get(name, {}).get(metric)) for metric in columns]
        theirs = paper_leads.get(name, {})
        ahead = [lead_cell(_lead(line, key), star.get((name, key), ""), theirs.get(key)) for key in leads]
        body.append([line_title(name), *values, *ahead, *(percent_cell(line.get(LIFT)) for _ in lift)])
    return markdown_table([*heads, *lift], body)


def _lead(line: Mapping[str, Any], metric: str) -> Mapping[str, Any] | None:
    return line.get(metric, {}).get("lead")


def ndcg_10(lines: Lines, spread: Spread) -> str:
    """ThinkRec's NDCG@10 beside the best baseline's, in a sentence; nothing where it was not measured."""
    metric = "ndcg@10"
    entries = {name: lines[name][SPLIT].get(metric) for name in (OURS, *ACCURACY[1:-1]) if name in lines}
    measured = {name: entry for name, entry in entries.items() if entry and entry["value"] is not None}
    ours = measured.pop(OURS, None)
    if not ours or not measured:
        return ""
    best = max(measured, key=lambda name: float(measured[name]["value"]))
    theirs = measured[best]
    text = (
        f"NDCG@10: ThinkRec {figure_cell(ours['value'])}, the best baseline ({line_title(best)}) "
        f"{figure_cell(theirs['value'])}: {percent_cell(ours['value'] / theirs['value'] - 1, signed=True)}, "
        f"lead {lead_cell(theirs.get('lead'))}"
    )
    if lead := spread.get(best, {}).get("lead", {}).get(metric):
        share = percent_cell(lead["value"] / spread[best]["metrics"][metric]["mean"], signed=True)
        text += f"; over {len(spread[best]['commit'])} seeds {share}, joint lead {lead_cell(lead)}"
    claim = percent_cell(paper.NDCG_10_OVER_BEST, signed=True)
    return f"{text}. A summary of the paper claims {claim} on average."


def over_seeds(spread: Spread) -> str:
    """What each line has over its seeds: mean ± deviation; nothing where there is one seed."""
    shown = {name: spread[name] for name in SEEDS if spread.get(name, {}).get("metrics")}
    metrics = [metric for metric in (*HEADLINE, LIFT) if any(metric in line["metrics"] for line in shown.values())]

    def cell(metric: str, entry: Mapping[str, float] | None) -> str:
        show = percent_cell if metric == LIFT else figure_cell
        return f"{show(entry['mean'])} ± {show(entry['deviation'])}" if entry else NOTHING

    return _seed_table("model", metrics, shown, lambda name, metric: cell(metric, shown[name]["metrics"].get(metric)))


def joint_leads(spread: Spread, metrics: Sequence[str] = HEADLINE) -> str:
    """ThinkRec's joint lead over each line that has one."""
    shown = {name: spread[name] for name in SEEDS if spread.get(name, {}).get("lead")}
    leads = {(name, metric): line["lead"].get(metric) for name, line in shown.items() for metric in metrics}
    star = stars(leads)
    return _seed_table("ThinkRec over", metrics, shown, lambda *at: lead_cell(leads[at], star.get(at, "")))


def _seed_table(head: str, metrics: Sequence[str], shown: Spread, cell: Callable[[str, str], str]) -> str:
    """A cell for every line and metric, and the number of the line's seeds; nothing without lines."""
    body = [
        [line_title(name), str(len(line["commit"])), *(cell(name, metric) for metric in metrics)]
        for name, line in shown.items()
    ]
    return markdown_table([head, "seeds", *(HEADS[metric] for metric in metrics)], body) if body else ""


def reasons(dataset: str, lines: Lines) -> str:
    """How good the reasons are that each run wrote; nothing where none were written."""
    figures = _of_paper(paper.REASONS, dataset)
    shown = {name: lines[name]["reasons"] for name in REASONS if "reasons" in lines.get(name, {})}
    star = stars({name: line[METEOR].get("lead") for name, line in shown.items()})
    learned = {
        metric: head
        for metric, head in LEARNED.items()
        if (figures and metric == "bleurt") or any(line.get(metric) is not None for line in shown.values())
    }
    body = []
    for name, line in shown.items():
        theirs = {key: f"<br>paper {figure_cell(figure)}" for key, figure in figures.get(name, {}).items()}
        body.append(
            [
                *(line_title(name), f"{line['with_teacher']:,}", value_cell(line[METEOR]) + theirs.get("meteor", "")),
                *(figure_cell(line[metric]) for metric in ("rouge_l", "bleu")),
                *(figure_cell(line.get(metric)) + theirs.get(metric, "") for metric in learned),
                *(figure_cell(line[metric]) for metric in ("accuracy", "agreement")),
                lead_cell(line[METEOR].get("lead"), star.get(name, "")),
            ]
        )
    heads = ["model", "reasons", "METEOR", "ROUGE-L", "BLEU", *learned.values(), "right", "agrees", "lead in METEOR"]
    return markdown_table(heads, body) if body else ""


def checks(files: Files) -> str:
    """What each run's reasons claim and cite, checked; first the teacher's, of ThinkRec's run."""
    lines = merge_lines(files)
    written = {name: lines[name]["reasons"] for name in REASONS if "claims" in lines.get(name, {}).get("reasons", {})}
    if not written:
        return ""
    interventions = list(next(iter(written.values()))["interventions"])

    def row(title: str, versions: str, line: Mapping[str, Any], author: str) -> list[str]:
        claimed, named = line["claims"][author], line["truth"].get(author)
        each = f"{claimed['claims'] / claimed['reasons']:.1f}" if claimed["reasons"] else NOTHING
        shares = [_true_share(claimed.get(share, {})) for share in CLAIMED]
        shares.append(figure_cell(claimed.get("own_conclusion_share")))
        moves = [_intervention(line["interventions"][name]) if author == "ours" else "" for name in interventions]
        return [title, versions, each, *shares, _named(named) if named else NOTHING, *moves]

    # Files from before there were candidates name none.
    versions = {name: str(files[name]["params"]["evaluate"].get("candidates", 1)) for name in written}
    body = [row("*the teacher*", "", written[OURS], "teacher")] if OURS in written else []
    body += [row(line_title(name), versions[name], line, "ours") for name, line in written.items()]
    heads = ["model", "versions", "claims a reason", *CLAIMED.values(), "own conclusion", "true reason named"]
    return markdown_table([*heads, *(f"{name}: cited, other" for name in interventions)], body)


def _true_share(share: Mapping[str, Any]) -> str:
    """A share that is true literally, and by meaning; older files have none."""
    return f"{figure_cell(share['literally'])}, {figure_cell(share['by_meaning'])}" if share else NOTHING


def _named(named: Mapping[str, Any]) -> str:
    chance = f"by chance {figure_cell(named['by_chance'])}, of traits {figure_cell(named['by_chance_of_traits'])}"
    lead = f"<br>{lead_cell(named['lead'])}" if "lead" in named else ""  # older files have none
    return f"{figure_cell(named['named_share'])}<br>{chance}{lead}"


def _intervention(entry: Mapping[str, Any]) -> str:
    difference = lead_cell({**entry, "value": entry["difference"]})
    return f"{figure_cell(entry['cited'])}, {figure_cell(entry['control'])}<br>{difference}"


def claims(dataset: str, files: Files, spread: Spread) -> tuple[str, str]:
    """What the paper says ThinkRec is better than, in what and by how much, beside ours: a summary and a table.

    Ours is the joint lead over seeds where there is one.
    """
    lines, book = merge_lines(files), paper.ABLATION_DATASET
    on, least = (paper.DATASETS[dataset], "") if dataset in paper.DATASETS else ("all of its datasets", "at least ")
    in_meteor = {name: {"meteor": row["meteor"]} for name, row in paper.leads_on(dataset, paper.REASONS).items()}
    sources = [
        (paper.leads_on(dataset, paper.ACCURACY), on, least),
        (paper.leads(paper.ABLATION), book, ""),
        (_expert_leads(files), f"{book}, new split", ""),
        (in_meteor, on, least),  # BLEURT is not computed here
    ]
    claimed = [
        (name, metric, f"{least}{signed_cell(lead)} ({where})")
        for figures, where, least in sources
        for name, row in figures.items()
        for metric, lead in row.items()
        if lead > 0
    ]
    measured = [_find_lead(name, metric, lines, spread) for name, metric, _ in claimed]
    star = stars(dict(enumerate(lead for lead, _ in measured)))
    body = [
        [line_title(name), HEADS[metric], text, *([lead_cell(lead, star[at]), seeds] if lead else ["not run yet", ""])]
        for at, ((name, metric, text), (lead, seeds)) in enumerate(zip(claimed, measured, strict=True))
    ]
    verdicts = [significance(lead) if lead else NOTHING for lead, _ in measured]
    ahead, behind, between, not_run = (verdicts.count(word) for word in ("ahead", "behind", "", NOTHING))
    return (
        f"The paper says {len(claimed)} times that ThinkRec is better than a line of these tables. Here it has a "
        f"significant lead (95 % CI) in {ahead} of these and is significantly behind in {behind}; in {between} the "
        f"interval includes 0, and {not_run} are not run yet.",
        markdown_table(["ThinkRec is better than", "in", "the paper's lead", "our lead", "seeds"], body),
    )


def _find_lead(name: str, metric: str, lines: Lines, spread: Spread) -> tuple[Mapping[str, Any] | None, str]:
    """ThinkRec's joint lead over a line, or that of one seed, and the number of seeds; None if it was not run."""
    if joint := spread.get(name, {}).get("lead", {}).get(metric):
        return joint, str(len(spread[name]["commit"]))
    line = lines.get(name, {})
    entry = line.get("reasons", {}).get(METEOR, {}) if metric == "meteor" else line.get(SPLIT, {}).get(metric, {})
    return entry.get("lead"), "1"


def runs(files: Files, spread: Spread) -> str:
    """Which code made which rows, and which rows were compared with an older base."""
    by_commit: dict[str, list[str]] = {}
    for name, file in files.items():
        seeds = spread[name]["commit"] if name in spread else {}
        for commit in dict.fromkeys([file["commit"], *seeds.values()]):
            numbers = ", ".join(str(seed) for seed, other in seeds.items() if other == commit)
            by_commit.setdefault(commit, []).append(f"{name} (seeds {numbers})" if numbers else name)
    lines = [f"- `{commit}`: {', '.join(names)}" for commit, names in by_commit.items()]
    older = [name for name, file in files.items() if file["compared_with"] != files[BASE]["experiment"]]
    return "\n".join([*lines, *([f"- compared with an earlier run of {BASE}: {', '.join(older)}"] if older else [])])
