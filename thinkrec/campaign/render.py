"""Row files -> the paper's tables as Markdown. Pure text from what `collect` wrote: nothing is measured here.

All figures are of the test split. A verdict against the paper compares our interval with its figure, whose own
uncertainty nobody knows; a verdict on ThinkRec's lead is paired, on the same interactions. Figures that an older file
lacks are shown as not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from thinkrec.campaign import paper
from thinkrec.campaign.collect import METEOR, Line
from thinkrec.campaign.paper import Figures
from thinkrec.campaign.rows import BASE, ROWS
from thinkrec.campaign.spread import LIFT, SPLIT, Spread
from thinkrec.evaluation.intervals import HEADLINE, holm
from thinkrec.evaluation.tables import ALPHA, BEST, HINDSIGHT, ORACLE, OURS
from thinkrec.history import ScoredModel

Files = Mapping[str, Mapping[str, Any]]  # row -> its file
Lines = Mapping[str, Line]
COLUMNS = ("auc", "uauc", "ndcg@5", "map@5")  # of the wide tables; those over seeds have all of HEADLINE
HEADS = {
    "auc": "AUC",
    "uauc": "UAUC",
    "ndcg@5": "NDCG@5",
    "ndcg@10": "NDCG@10",
    "map@5": "MAP@5",
    LIFT: "of the possible lift",
    "meteor": "METEOR",
}
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
SEEDS = {
    OURS: "**ThinkRec**",
    **{name: ABLATION[name] for name in ("no_thinking", "no_experts", "neither")},
    **{name: title for name, title in ACCURACY.items() if name != OURS},
}
README_SEEDS = (OURS, "no_thinking", "no_experts", "neither")
REASONS = ABLATION | {name: ACCURACY[name] for name in ("collm", "tallrec", "soft_prompt")}

LEARNED = {"meteor_wordnet": "METEOR with synonyms", "bertscore": "BERTScore", "bleurt": "BLEURT"}
CLAIMED = {
    "grounded_share": "grounded",
    "consistent_share": "as shown",
    "of_target_share": "of the target, so",
    "of_history_share": "of the history, so",
    "own_conclusion_share": "own conclusion",
}

LEGEND = (
    "In brackets: 95 % intervals, bootstrap over users. Ours is *above* the paper's figure if the whole interval is, "
    "*below* it if the whole interval is, else *within*. ThinkRec's lead over a line is paired, on the same "
    "interactions: it *holds* if its interval is above 0, *fails* if that is below 0, else it is *open*; a star where "
    "this stands after Holm's correction over the table, too."
)
ACCURACY_NOTE = (
    "In the paper, every language model is Llama3-8B. Ours are of one seed, those over seeds stand below. Rows "
    "other than ThinkRec have its hyper-parameters; those of the ordinary recommenders were chosen on the synthetic "
    "world's valid split. All rows have one pretrained backbone, but those without keywords one that never met any."
)
UNKNOWN_NOTE = "The paper does not have this dataset."
STATIC_NOTE = (
    "The same models where nothing after the split began is known. The lead is that of ThinkRec under the same "
    "protocol."
)
ABLATION_NOTE = (
    f"The paper ablates on its {paper.ABLATION_DATASET} dataset: of its leads only the sign can be held against ours. "
    "Without thinking, fine-tuning meets no trace; the backbone was pretrained on them, as in all rows. Without "
    "keywords, the backbone never met keywords either: a lead over such a row is of both."
)
SEEDS_NOTE = (
    "Mean ± standard deviation over seeds, all other parameters being the same; an ordinary recommender is fitted with "
    "each seed, too."
)
JOINT_NOTE = (
    "ThinkRec's joint lead: the mean over seeds of ThinkRec minus the line of the same seed, with its interval over "
    "draws of users, each draw the same for all seeds; ties are in the order of the default seed's. A star counts all "
    "lines and metrics over seeds, those not shown included. What other seeds would change is told by the "
    "deviations above, not by the interval."
)
EXPERTS_NOTE = (
    f"The paper counts experts on a new split of {paper.ABLATION_DATASET}: none, 2 and {paper.EXPERTS_OF_OURS}. Which "
    "adapter turns out best is told by the labels that it is measured on: hindsight, not a competitor."
)
REASONS_NOTE = (
    "METEOR, ROUGE-L and BLEU are against the teacher's reasons in the same run, ThinkRec's lead against those in "
    "ThinkRec's run, where both wrote one. Our METEOR matches words and stems, the paper's synonyms too; its "
    "references and language model are others: only the order of lines can be compared. Right: the verdict stated is "
    f"the label; agrees: it is that of the score. {NOTHING}: not computed."
)
CHECKS_NOTE = (
    "What the reasons claim, checked. Versions: of so many of each sentence the least untrue one stayed while a reason "
    "was written, so 1 is what the model writes by itself. Then the share of claims that are about something shown "
    "(grounded), of those the share that are as it was shown; of what is said of the target, and of the history, the "
    "share that is so; the share of conclusions that are the text's own verdict."
)
NAMED_NOTE = (
    "True reason named: by the share of texts, beside what as many of the target's keywords drawn at random would "
    "name, and as many of those that are words of a trait, as every true reason is; the lead is over those."
)
MOVED_NOTE = (
    "Last: how far the score's logit moves if what the reason cites of the history is flipped or dropped, or what it "
    "cites of the target's keywords is masked, and how far if as much is that it does not cite; below, the difference."
)
RUNS_NOTE = "By the commit that they started from; + where code was changed beyond it."


def render(dataset: str, files: Files, spread: Spread) -> str:
    """The page of a dataset: accuracy, ablation, seeds, number of experts, reasons, the paper's claims, the runs."""
    lines, count = merged(files), files[BASE]["counts"][SPLIT]
    users = count["users"]
    missing = [name for name in ROWS if name not in files]
    sections = [
        ("## Accuracy", ACCURACY_NOTE if dataset in paper.DATASETS else UNKNOWN_NOTE, accuracy(dataset, lines)),
        (ndcg_10(lines, spread),),
        ("### Static protocol", STATIC_NOTE, static(dataset, lines)),
        ("## Ablation", ABLATION_NOTE, ablation(lines)),
        ("## Over seeds", SEEDS_NOTE, over_seeds(spread)),
        (JOINT_NOTE, joint_leads(spread)),
        ("## Number of experts", EXPERTS_NOTE, experts(files)),
        ("## Reasons", REASONS_NOTE, reasons(dataset, lines)),
        (checks_note(lines), checks(files)),
        ("## The paper's claims", *claims(dataset, files, spread)),
        ("## The runs", RUNS_NOTE, runs(files, spread)),
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
    others = {name: name for name in lines if name not in known and not is_static(name)}
    return _table(lines, ACCURACY | others, leads=("auc", "uauc"), figures=_figures(dataset))


def static(dataset: str, lines: Lines) -> str:
    """The models that are told nothing of the split."""
    known = {ScoredModel(name, "static").column: title for name, title in ACCURACY.items()}
    others = {name: name for name in lines if is_static(name) and name not in known}
    figures = {ScoredModel(name, "static").column: row for name, row in _figures(dataset).items()}
    return _table(lines, known | others, leads=("auc", "uauc"), figures=figures)


def is_static(line: str) -> bool:
    """Whether a line is of a model under the static protocol."""
    return ScoredModel.from_column(line).protocol == "static"


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
    entries = {(name, metric): line[SPLIT][metric] for name, line in shown.items() for metric in COLUMNS}
    stars = _stars({key: entries[key].get("lead") for key in entries if key[1] in leads})
    lift = any(LIFT in line[SPLIT] for line in shown.values())
    heads = ["model", *(HEADS[metric] for metric in COLUMNS), *(f"lead in {HEADS[metric]}" for metric in leads)]
    body = []
    for name, line in shown.items():
        values = [_value(entries[name, metric], figures.get(name, {}).get(metric)) for metric in COLUMNS]
        ahead = [
            _lead(
                entries[name, metric].get("lead"), stars.get((name, metric), ""), paper_leads.get(name, {}).get(metric)
            )
            for metric in leads
        ]
        share = [_percent(line[SPLIT].get(LIFT))] if lift else []
        body.append([titles[name], *values, *ahead, *share])
    return _markdown([*heads, HEADS[LIFT]] if lift else heads, body)


def ndcg_10(lines: Lines, spread: Spread) -> str:
    """ThinkRec's NDCG@10 beside the best baseline's, in a sentence; nothing where it was not measured."""
    metric = "ndcg@10"
    rivals = {name: lines[name][SPLIT] for name in ACCURACY if name in lines and name not in {OURS, *HINDSIGHT}}
    found = {name: entries.get(metric, {}).get("value") for name, entries in rivals.items()}
    measured = {name: value for name, value in found.items() if value is not None}
    if metric not in lines[OURS][SPLIT] or not measured:
        return ""
    best = max(measured, key=lambda name: measured[name])
    ours, entry = lines[OURS][SPLIT][metric]["value"], rivals[best][metric]
    said = (
        f"NDCG@10: ThinkRec {_figure(ours)}, the best baseline ({ACCURACY[best]}) {_figure(entry['value'])}: "
        f"{_signed_percent(ours / entry['value'] - 1)}, lead {_lead(entry.get('lead'), '')}"
    )
    if metric in spread.get(best, {}).get("lead", {}):
        mean, lead = spread[best]["metrics"][metric]["mean"], spread[best]["lead"][metric]
        share = _signed_percent(lead["value"] / mean)
        said += f"; over {len(spread[best]['seeds'])} seeds {share}, joint lead {_lead(lead, '')}"
    return f"{said}. A summary of the paper claims {_signed_percent(paper.NDCG_10_OVER_BEST)} on average."


def over_seeds(spread: Spread, names: Sequence[str] = tuple(SEEDS)) -> str:
    """What each line has over its seeds: mean ± deviation; nothing where there is one seed."""
    shown = {name: spread[name] for name in names if name in spread}
    metrics = [metric for metric in (*HEADLINE, LIFT) if any(metric in line["metrics"] for line in shown.values())]
    body = [
        [SEEDS[name], str(len(line["seeds"])), *(_spread(metric, line["metrics"].get(metric)) for metric in metrics)]
        for name, line in shown.items()
    ]
    return _markdown(["model", "seeds", *(HEADS[metric] for metric in metrics)], body) if body else ""


def joint_leads(spread: Spread, names: Sequence[str] = tuple(SEEDS), metrics: Sequence[str] = HEADLINE) -> str:
    """ThinkRec's joint lead over each line that has one; stars are of all lines and metrics, shown or not."""
    every = {name: spread[name] for name in SEEDS if spread.get(name, {}).get("lead")}
    stars = _stars({(name, metric): every[name]["lead"].get(metric) for name in every for metric in HEADLINE})
    shown = {name: every[name] for name in names if name in every}
    body = [
        [
            SEEDS[name],
            str(len(line["seeds"])),
            *(_lead(line["lead"].get(metric), stars.get((name, metric), "")) for metric in metrics),
        ]
        for name, line in shown.items()
    ]
    return _markdown(["ThinkRec over", "seeds", *(HEADS[metric] for metric in metrics)], body) if body else ""


def _spread(metric: str, entry: Mapping[str, float] | None) -> str:
    if entry is None:
        return NOTHING
    shown = _percent if metric == LIFT else _figure
    return f"{shown(entry['mean'])} ± {shown(entry['deviation'])}"


def reasons(dataset: str, lines: Lines) -> str:
    """How good the reasons are that each run wrote; nothing where none were written."""
    theirs = paper.REASONS[paper.DATASETS[dataset]] if dataset in paper.DATASETS else {}
    shown = {name: lines[name]["reasons"] for name in REASONS if "reasons" in lines.get(name, {})}
    stars = _stars({name: line[METEOR].get("lead") for name, line in shown.items()})
    body = []
    learned = {
        name: head for name, head in LEARNED.items() if any(line.get(name) is not None for line in shown.values())
    }
    if theirs:
        learned |= {"bleurt": LEARNED["bleurt"]}
    for name, line in shown.items():
        row = theirs.get(name, {})
        said = {metric: f"<br>paper {_figure(figure)}" for metric, figure in row.items()}
        cells = [REASONS[name], f"{line['with_teacher']:,}", _value(line[METEOR]) + said.get("meteor", "")]
        cells += [_figure(line[metric]) for metric in ("rouge_l", "bleu")]
        cells += [_figure(line.get(metric)) + said.get(metric, "") for metric in learned]
        cells += [_figure(line[metric]) for metric in ("accuracy", "agreement")]
        body.append([*cells, _lead(line[METEOR].get("lead"), stars.get(name, ""))])
    heads = ["model", "reasons", "METEOR", "ROUGE-L", "BLEU", *learned.values(), "right", "agrees", "lead in METEOR"]
    return _markdown(heads, body) if body else ""


def checks(files: Files) -> str:
    """What each run's reasons claim and cite, checked; first the teacher's, of ThinkRec's run."""
    lines = merged(files)
    written = {name: lines[name]["reasons"] for name in REASONS if "claims" in lines.get(name, {}).get("reasons", {})}
    if not written:
        return ""
    truth = any(line["truth"] for line in written.values())
    moved = list(next(iter(written.values()))["interventions"])
    # Files from before there were candidates name none.
    versions = {name: str(files[name]["params"]["evaluate"].get("candidates", 1)) for name in written}
    rows = [(REASONS[name], versions[name], line, "ours") for name, line in written.items()]
    if OURS in written:
        rows.insert(0, ("*the teacher*", "", {**written[OURS], "interventions": {}}, "teacher"))
    body = []
    for title, candidates, line, author in rows:
        claimed, named = line["claims"][author], line["truth"].get(author)
        each = claimed["claims"] / claimed["reasons"] if claimed["reasons"] else None
        cells = [
            title,
            candidates,
            NOTHING if each is None else f"{each:.1f}",
            *(_figure(claimed.get(share)) for share in CLAIMED),
        ]
        if truth:
            cells += [_chance(named) if named else ""]
        body.append([*cells, *(_movement(line["interventions"].get(name)) for name in moved)])
    heads = ["model", "versions", "claims a reason", *CLAIMED.values(), *(["true reason named"] if truth else [])]
    return _markdown([*heads, *(f"{name}: cited, other" for name in moved)], body)


def _chance(named: Mapping[str, Any]) -> str:
    chances = f"by chance {_figure(named['by_chance'])}, of traits {_figure(named['by_chance_of_traits'])}"
    lead = f"<br>{_lead(named['lead'], '')}" if "lead" in named else ""  # older files have none
    return f"{_figure(named['named_share'])}<br>{chances}{lead}"


def _movement(entry: Mapping[str, Any] | None) -> str:
    if not entry:
        return ""
    sides = f"{_figure(entry['cited'])}, {_figure(entry['control'])}"
    return f"{sides}<br>{_lead({**entry, 'value': entry['difference']}, '')}"


def checks_note(lines: Lines) -> str:
    """What the columns of `checks` are."""
    named = any(line.get("reasons", {}).get("truth") for line in lines.values())
    return " ".join([CHECKS_NOTE, *([NAMED_NOTE] if named else []), MOVED_NOTE])


def claims(dataset: str, files: Files, spread: Spread) -> tuple[str, str]:
    """What the paper says ThinkRec is better than, in what and by how much, beside ours: a summary and a table.

    Ours is the joint lead over seeds where there is one.
    """
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
    joint = [spread.get(name, {}).get("lead", {}).get(metric) for _, name, metric, _ in said]
    single = [_measured_lead(lines.get(name), metric) for _, name, metric, _ in said]
    found = [both or one for both, one in zip(joint, single, strict=True)]
    seeds = [str(len(spread[name]["seeds"]) if both else 1) for (_, name, _, _), both in zip(said, joint, strict=True)]
    stars = _stars(dict(enumerate(found)))
    body = [
        [title, HEADS[metric], theirs, *([_lead(lead, stars.get(at, "")), seeds[at]] if lead else ["not run yet", ""])]
        for at, ((title, _, metric, theirs), lead) in enumerate(zip(said, found, strict=True))
    ]
    verdicts = [verdict(lead) if lead else NOTHING for lead in found]
    holds, is_open, fails, not_run = (verdicts.count(word) for word in ("holds", "open", "fails", NOTHING))
    return (
        f"The paper says {len(said)} times that ThinkRec is better than a line of these tables. Here {holds} hold, "
        f"{is_open} are open, {fails} fail, {not_run} are not run yet.",
        _markdown(["ThinkRec is better than", "in", "the paper's lead", "our lead", "seeds"], body),
    )


def _measured_lead(line: Line | None, metric: str) -> dict[str, Any] | None:
    if line is None:
        return None
    entry = line.get("reasons", {}).get(METEOR, {}) if metric == "meteor" else line[SPLIT][metric]
    return entry.get("lead")


def runs(files: Files, spread: Spread) -> str:
    """Which code made which rows, and which rows were compared with an older base."""
    by_commit: dict[str, list[str]] = {}
    for name, file in files.items():
        seeds = spread[name]["commit"] if name in spread else {}
        for commit in dict.fromkeys([file["commit"], *seeds.values()]):
            those = ", ".join(str(seed) for seed, one in seeds.items() if one == commit)
            by_commit.setdefault(commit, []).append(f"{name} (seeds {those})" if those else name)
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
    return _figure(value) if value is None or value < 0 else f"+{_figure(abs(value))}"  # abs: of -0.0, too


def _signed_percent(value: float) -> str:
    return f"{100 * value:+.1f} %".replace("-", "−")


def _percent(value: float | None) -> str:
    return NOTHING if value is None else f"{100 * value:.1f} %".replace("-", "−")


def _markdown(heads: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    rows = [heads, ["---"] * len(heads), *body]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
