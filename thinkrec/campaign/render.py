"""Row files -> the paper's tables as Markdown. Pure text from what `collect` wrote: nothing is measured here.

All figures are of the test split. A verdict against the paper compares our interval with its figure, whose own
uncertainty nobody knows; a verdict on ThinkRec's lead is paired, on the same interactions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from thinkrec.campaign import paper
from thinkrec.campaign.collect import METEOR, Line
from thinkrec.campaign.paper import Figures
from thinkrec.campaign.rows import BASE, ROWS
from thinkrec.errors import UserError
from thinkrec.evaluation.baselines import FROZEN
from thinkrec.evaluation.intervals import HEADLINE, holm
from thinkrec.evaluation.tables import BEST, ORACLE, OURS

Files = Mapping[str, Mapping[str, Any]]  # row -> its file
Lines = Mapping[str, Line]
SPLIT = "test"
HEADS = {"auc": "AUC", "uauc": "UAUC", "ndcg@5": "NDCG@5", "map@5": "MAP@5", "meteor": "METEOR"}
ALPHA = 0.05  # of Holm's correction
NOTHING = "–"

# The lines of each table, by name, in their order; a table shows those that are there.
ACCURACY = {
    OURS: "**ThinkRec**",
    "collm": "features in the slots, nothing else of ours (as CoLLM)",
    "tallrec": "text only (as TALLRec)",
    "soft_prompt": "text and learned vectors (as Prompt4NR)",
    "gsasrec": "gSASRec",
    "sasrec": "SASRec",
    "lightgcn": "LightGCN",
    "mf": "matrix factorisation",
    "logistic_slots": "logistic regression on what our slots are told",
    "logistic_kernels": "the same without the feature model's affinity",
    "logistic_regression": "logistic regression",
    "boosted_trees": "boosted trees",
    "running_rates": "running rates",
    "item_like_rate": "item like-rate",
    BEST: "*the best possible*",
}
ABLATION = {
    OURS: "**ThinkRec**",
    "no_thinking": "no thinking",
    "no_experts": "no experts",
    "neither": "neither",
    "no_keywords": "no keywords",
    "features_lightgcn": "LightGCN's features",
    "features_sasrec": "SASRec's features",
}
EXPERTS = {
    "no_experts": "none",
    "experts_1": "1",
    "experts_2": "2",
    OURS: "**{n}** (ThinkRec)",
    "experts_4": "4",
    "thinkrec_centroid": "{n}, routed by the paper's rule",
    "thinkrec_global": "{n}, but everyone on the global adapter",
    ORACLE: "*{n}, everyone on the adapter that turns out best*",
}
REASONS = ABLATION | {name: ACCURACY[name] for name in ("collm", "tallrec", "soft_prompt")}

LEGEND = (
    "In brackets: 95 % intervals, bootstrap over users. Ours is *above* the paper's figure if the whole interval is, "
    "*below* it if the whole interval is, else *within*. ThinkRec's lead over a line is paired, on the same "
    "interactions: it *holds* if its interval is above 0, *fails* if that is below 0, else it is *open*; a star where "
    "this stands after Holm's correction over the table, too."
)
ACCURACY_NOTE = (
    "In the paper, every language model is Llama3-8B. Ours are of one seed, and rows other than ThinkRec have its "
    "hyper-parameters; those of the ordinary recommenders were chosen on the embedded world's valid split. Rows that "
    "do not think have a backbone that never met a trace, hence fewer tokens of pretraining."
)
UNKNOWN_NOTE = "The paper does not have this dataset."
FROZEN_NOTE = (
    "The same models, told nothing of what happens from the start of the split on. The lead is that of ThinkRec told "
    "as little."
)
ABLATION_NOTE = (
    f"The paper ablates on its {paper.ABLATION_DATASET} dataset: of its leads only the sign can be held against ours. "
    "Without thinking, the backbone is pretrained without traces, too: a lead over such a row is of both."
)
EXPERTS_NOTE = (
    f"The paper counts experts on a new split of {paper.ABLATION_DATASET}: none, 2 and {paper.EXPERTS_OF_OURS}. Which "
    "adapter turns out best is told by the labels that it is measured on: hindsight, not a competitor."
)
REASONS_NOTE = (
    "METEOR, ROUGE-L and BLEU are against the teacher's reasons in the same run, ThinkRec's lead against those in "
    "ThinkRec's run, where both wrote one. Our METEOR matches words and stems, the paper's synonyms too; its "
    "references and language model are others: only the order of lines can be compared. Right: the verdict stated is "
    "the label; agrees: it is that of the score."
)
RUNS_NOTE = "By the commit that they started from; + where code was changed beyond it."


def render(dataset: str, files: Files) -> str:
    """The page of a dataset: accuracy, ablation, number of experts, reasons, the paper's claims, the runs."""
    lines, count = merged(files), files[BASE]["counts"][SPLIT]
    users = count["users"]
    missing = [name for name in ROWS if name not in files]
    sections = [
        ("## Accuracy", ACCURACY_NOTE if dataset in paper.DATASETS else UNKNOWN_NOTE, accuracy(dataset, lines)),
        ("### Frozen", FROZEN_NOTE, frozen(dataset, lines)),
        ("## Ablation", ABLATION_NOTE, ablation(lines)),
        ("## Number of experts", EXPERTS_NOTE, experts(files)),
        ("## Reasons", REASONS_NOTE, reasons(dataset, lines)),
        ("## The paper's claims", *claims(dataset, files)),
        ("## The runs", RUNS_NOTE, runs(files)),
    ]
    parts = [
        f"# The paper's tables on {dataset}",
        f"`make tables DATASET={dataset}` writes this page from `{dataset}/`. Test split: {count['rows']:,} "
        f"interactions of {users['all']:,} users; UAUC covers {users['uauc']:,} of them, @5 {users['@5']:,}.",
        LEGEND,
        *([f"Not run yet: {', '.join(missing)}."] if missing else []),
        *(part for section in sections if section[-1] for part in section),
    ]
    return "\n\n".join(parts) + "\n"


def merged(files: Files) -> dict[str, Line]:
    """The lines of all files, by name."""
    return {name: line for file in files.values() for name, line in file["lines"].items()}


def accuracy(dataset: str, lines: Lines) -> str:
    """Every model that is told what happened strictly earlier; one that no table knows comes last, by its bare name."""
    known = {*ACCURACY, *ABLATION, *EXPERTS}
    others = {name: name for name in lines if name not in known and not name.endswith(FROZEN)}
    return _table(lines, ACCURACY | others, leads=("auc", "uauc"), figures=_figures(dataset))


def frozen(dataset: str, lines: Lines) -> str:
    """The models that are told nothing of the split."""
    known = {f"{name}{FROZEN}": title for name, title in ACCURACY.items()}
    others = {name: name for name in lines if name.endswith(FROZEN) and name not in known}
    figures = {f"{name}{FROZEN}": row for name, row in _figures(dataset).items()}
    return _table(lines, known | others, leads=("auc", "uauc"), figures=figures)


def _figures(dataset: str) -> Figures:
    return paper.ACCURACY[paper.DATASETS[dataset]] if dataset in paper.DATASETS else {}


def ablation(lines: Lines) -> str:
    """ThinkRec without one of its ingredients, or with another one in its place; nothing if only ThinkRec is there."""
    return _table(lines, ABLATION, leads=("uauc", "ndcg@5", "map@5"), paper_leads=paper.leads(paper.ABLATION))


def experts(files: Files) -> str:
    """ThinkRec with other numbers of experts, and other ways to route to as many; nothing if only ThinkRec is there."""
    number = files[BASE]["params"]["experts"]["n"]
    titles = {name: title.format(n=number) for name, title in EXPERTS.items()}
    return _table(merged(files), titles, leads=("auc", "uauc"), paper_leads=_expert_leads(files))


def _expert_leads(files: Files) -> Figures:
    same = files[BASE]["params"]["experts"]["n"] == paper.EXPERTS_OF_OURS
    return paper.leads(paper.EXPERTS) if same else {}


def _table(
    lines: Lines,
    titles: Mapping[str, str],
    *,
    leads: Sequence[str],
    figures: Figures | None = None,
    paper_leads: Figures | None = None,
) -> str:
    """The lines that are there: every headline metric with its interval, ThinkRec's lead in some of them.

    Beside ours the paper's `figures` and `paper_leads`, where they have the line and the metric.
    """
    figures, paper_leads = figures or {}, paper_leads or {}
    shown = {name: lines[name] for name in titles if name in lines}
    if not set(shown) - {OURS}:
        return ""
    entries = {(name, metric): line[SPLIT][metric] for name, line in shown.items() for metric in HEADLINE}
    stars = _stars({key: entries[key].get("lead") for key in entries if key[1] in leads})
    lift = any("possible_lift" in line[SPLIT] for line in shown.values())
    heads = ["model", *(HEADS[metric] for metric in HEADLINE), *(f"lead in {HEADS[metric]}" for metric in leads)]
    body = []
    for name, line in shown.items():
        values = [_value(entries[name, metric], figures.get(name, {}).get(metric)) for metric in HEADLINE]
        ahead = [
            _lead(
                entries[name, metric].get("lead"), stars.get((name, metric), ""), paper_leads.get(name, {}).get(metric)
            )
            for metric in leads
        ]
        share = [_percent(line[SPLIT].get("possible_lift"))] if lift else []
        body.append([titles[name], *values, *ahead, *share])
    return _markdown([*heads, "of the possible lift"] if lift else heads, body)


def reasons(dataset: str, lines: Lines) -> str:
    """How good the reasons are that each run wrote; nothing where none were written."""
    theirs = paper.REASONS[paper.DATASETS[dataset]] if dataset in paper.DATASETS else {}
    shown = {name: lines[name]["reasons"] for name in REASONS if "reasons" in lines.get(name, {})}
    stars = _stars({name: line[METEOR].get("lead") for name, line in shown.items()})
    body = []
    for name, line in shown.items():
        cells = [REASONS[name], f"{line['with_teacher']:,}", _value(line[METEOR])]
        cells += [_figure(line[metric]) for metric in ("rouge_l", "bleu", "accuracy", "agreement")]
        cells += [_lead(line[METEOR].get("lead"), stars.get(name, ""))]
        if theirs:
            row = theirs.get(name)
            cells += [f"{_figure(row['meteor'])} / {_figure(row['bleurt'])}" if row else ""]
        body.append(cells)
    heads = ["model", "reasons", "METEOR", "ROUGE-L", "BLEU", "right", "agrees", "lead in METEOR"]
    return _markdown([*heads, "paper's METEOR / BLEURT"] if theirs else heads, body) if body else ""


def claims(dataset: str, files: Files) -> tuple[str, str]:
    """What the paper says ThinkRec is better than, in what and by how much, beside ours: a summary and a table."""
    lines, book = merged(files), paper.ABLATION_DATASET
    on, least = (paper.DATASETS[dataset], "") if dataset in paper.DATASETS else ("all of its datasets", "at least ")
    sources: list[tuple[Figures, Mapping[str, str], str]] = [
        (paper.accuracy_leads(dataset), ACCURACY, on),
        (paper.leads(paper.ABLATION), ABLATION, book),
        (_expert_leads(files), {"no_experts": "no experts", "experts_2": "2 experts"}, f"{book}, new split"),
        (paper.reason_leads(dataset), ACCURACY, on),
    ]
    said = [
        (titles[name], name, metric, f"{least if where == on else ''}{_signed(lead)} ({where})")
        for figures, titles, where in sources
        for name, row in figures.items()
        for metric, lead in row.items()
        if lead > 0
    ]
    found = [_measured_lead(lines.get(name), metric) for _, name, metric, _ in said]
    stars = _stars(dict(enumerate(found)))
    body = [
        [title, HEADS[metric], theirs, _lead(lead, stars.get(number, "")) if lead else "not run yet"]
        for number, ((title, _, metric, theirs), lead) in enumerate(zip(said, found, strict=True))
    ]
    verdicts = [verdict(lead) if lead else NOTHING for lead in found]
    holds, is_open, fails, not_run = (verdicts.count(word) for word in ("holds", "open", "fails", NOTHING))
    return (
        f"The paper says {len(said)} times that ThinkRec is better than a line of these tables. Here {holds} hold, "
        f"{is_open} are open, {fails} fail, {not_run} are not run yet.",
        _markdown(["ThinkRec is better than", "in", "the paper's lead", "our lead"], body),
    )


def _measured_lead(line: Line | None, metric: str) -> dict[str, Any] | None:
    if line is None:
        return None
    entry = line.get("reasons", {}).get(METEOR, {}) if metric == "meteor" else line[SPLIT][metric]
    return entry.get("lead")


def runs(files: Files) -> str:
    """Which code made which rows, and which were compared with a base run that has been replaced since."""
    by_commit: dict[str, list[str]] = {}
    for name, file in files.items():
        by_commit.setdefault(file["commit"], []).append(name)
    lines = [f"- `{commit}`: {', '.join(names)}" for commit, names in by_commit.items()]
    older = [name for name, file in files.items() if file["compared_with"] != files[BASE]["experiment"]]
    return "\n".join([*lines, *([f"- compared with an earlier run of {BASE}: {', '.join(older)}"] if older else [])])


def against(entry: Mapping[str, Any], figure: float) -> str:
    """Our interval against a figure of the paper's: above, within or below."""
    return "above" if entry["low"] > figure else "below" if entry["high"] < figure else "within"


def verdict(lead: Mapping[str, Any]) -> str:
    """Whether ThinkRec is better: holds, open or fails."""
    if lead["low"] is None:
        return "open"
    return "holds" if lead["low"] > 0 else "fails" if lead["high"] < 0 else "open"


def _stars(leads: Mapping[Any, Mapping[str, Any] | None]) -> dict[Any, str]:
    """A star for each lead whose p stays below ALPHA after Holm's correction over all of them."""
    p = {key: lead["p"] for key, lead in leads.items() if lead}
    return {key: "*" if adjusted < ALPHA else "" for key, adjusted in zip(p, holm(list(p.values())), strict=True)}


def _value(entry: Mapping[str, Any], figure: float | None = None) -> str:
    ours = f"{_figure(entry['value'])} [{_figure(entry['low'])}, {_figure(entry['high'])}]"
    return ours if figure is None else f"{ours}<br>paper {_figure(figure)}: {against(entry, figure)}"


def _lead(lead: Mapping[str, Any] | None, star: str, theirs: float | None = None) -> str:
    if not lead:
        return ""
    between = f"[{_figure(lead['low'])}, {_figure(lead['high'])}]"
    word = verdict(lead)
    ours = f"{_signed(lead['value'])} {between}: {word}{star if word != 'open' else ''}"
    return ours if theirs is None else f"{ours}<br>paper {_signed(theirs)}"


def _figure(value: float | None) -> str:
    """Four decimals, without the leading zero."""
    if value is None:
        return NOTHING
    return (
        f"{value:.4f}".replace("0.", ".", 1).replace("-", "−") if abs(value) < 1 else f"{value:.4f}".replace("-", "−")
    )


def _signed(value: float | None) -> str:
    return _figure(value) if value is None or value < 0 else f"+{_figure(value)}"


def _percent(value: float | None) -> str:
    return NOTHING if value is None else f"{100 * value:.1f} %".replace("-", "−")


def _markdown(heads: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    rows = [heads, ["---"] * len(heads), *body]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def fill_markers(text: str, dataset: str, block: str) -> str:
    """The text with what stands between a dataset's markers replaced; as it is where there are none.

    Raises:
        UserError: a marker opens that no marker closes.
    """
    opening, closing = f"<!-- tables:{dataset} -->", "<!-- /tables -->"
    before, found, rest = text.partition(opening)
    if not found:
        return text
    _, closed, after = rest.partition(closing)
    if not closed:
        raise UserError(f"README.md: {opening} is not followed by {closing}; add it where the table ends")
    return f"{before}{opening}\n{block}\n{closing}{after}"


def readme_block(dataset: str, files: Files) -> str:
    """What README shows between its markers: the table of accuracy, and how to read it."""
    return f"{accuracy(dataset, merged(files))}\n\n{LEGEND} [All tables](tables/{dataset}.md)."
