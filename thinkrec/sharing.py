"""The commands of `thinkrec` that hand a finished project to others, or to other data.

They import what they need when they run, so that `--help` answers at once.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from thinkrec.command import Reply
from thinkrec.errors import UserError


def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder, or an empty one.")],
    expert: Annotated[
        int | None,
        typer.Option(help="Merge this expert (from 1; 0: the global model) into one model; without, all adapters."),
    ] = None,
    traces: Annotated[
        Literal["answer", "reasoning"] | None,
        typer.Option(help="Instead: the traces as chats. answer: with the reason in it; reasoning: apart, before it."),
    ] = None,
) -> str:
    """Export the model for use elsewhere, or the traces.

    Without --expert: the global model and every expert's LoRA adapter, for servers that take adapters. With it: one
    model without adapters. DIR/manifest.json says what is there and how to prompt it. With --traces: chats, and pairs
    of a kept and a refused answer, as JSON lines and a dataset card.

    Example: thinkrec export served --expert 2
    """
    from thinkrec import export as exports
    from thinkrec.params import load

    if traces is not None:
        if expert is not None:
            raise UserError("--traces is of the teacher's answers; leave --expert out")
        rows = exports.export_traces(folder, load(), traces)
        return f"{folder}: {', '.join(f'{count:,} rows in {name}' for name, count in rows.items())}; see README.md"
    manifest = exports.export(folder, load(), expert=expert)
    adapters = ", ".join(adapter["name"] for adapter in manifest["adapters"])
    return f"{folder}: a model {f'and its adapters {adapters}' if adapters else 'without adapters'}; see manifest.json"


def serve(
    host: Annotated[
        str, typer.Option(help="Where to listen; other than on this machine alone, THINKREC_SERVE_TOKEN must be set.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    exported: Annotated[
        Path | None, typer.Option("--from", metavar="DIR", help="An exported folder, instead of the project here.")
    ] = None,
    waiting: Annotated[int, typer.Option(min=1, help="Questions that may wait; further ones get status 429.")] = 256,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that a request may take.")] = 30.0,
) -> str:
    """Answer over HTTP: score, recommend and explain, and a page to try them on.

    Questions that come together are answered together. SIGTERM or Ctrl-C stops it once what has begun is answered. See
    docs/serve.md.

    Example: thinkrec serve --port 8080
    """
    from importlib.util import find_spec

    if missing := [name for name in ("fastapi", "uvicorn") if find_spec(name) is None]:
        raise UserError(f"serve: needs {' and '.join(missing)}; install it with: pip install -e '.[serve]'")
    from thinkrec.recommender import Recommender
    from thinkrec.serve.server import check_host, run

    token = check_host(host)
    recommender = Recommender.load() if exported is None else Recommender.from_export(exported)
    answered = run(recommender, host, port, token=token, waiting=waiting, timeout=timeout)
    return f"stopped; {answered:,} requests answered"


def push(
    repo: Annotated[str, typer.Argument(metavar="REPO", help="On the hub, such as yourname/thinkrec-synthetic.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What `thinkrec export` wrote.")],
    public: Annotated[bool, typer.Option("--public", help="Let everybody read a new repository.")] = False,
) -> str:
    """Put an exported folder on the Hugging Face hub, in a private repository. HF_TOKEN must be set.

    The folder holds interactions. Ask first whether the data's licence lets you share them.

    Example: thinkrec push yourname/thinkrec-synthetic served
    """
    import os

    token = os.environ.get("HF_TOKEN")
    if not token:
        raise UserError("push: no HF_TOKEN in the environment; set it to a token that may write to the hub")
    kind = "dataset" if any(folder.glob("traces/*.jsonl")) else "model"
    if kind == "model" and not (folder / "manifest.json").exists():
        raise UserError(f"{folder}: not an exported folder, it has no manifest.json; run: thinkrec export {folder}")
    import httpx2
    from huggingface_hub import HfApi

    hub = HfApi(token=token)  # of HF_ENDPOINT, where that is set
    try:
        address = hub.create_repo(repo, repo_type=kind, private=not public, exist_ok=True)
        if not public and not hub.repo_info(address.repo_id, repo_type=kind).private:
            raise UserError(f"{repo}: is public already; add --public if all may read what you put there")
        hub.upload_folder(repo_id=address.repo_id, repo_type=kind, folder_path=folder, commit_message="thinkrec push")
    except (httpx2.HTTPError, ValueError, OSError) as error:
        message = " ".join(str(error).split()).replace(token, "***")
        raise UserError(f"{repo}: the hub at {hub.endpoint} did not take it ({message[:300]})") from None
    return f"{folder} is at {address}"


def transfer(
    other: Annotated[Path, typer.Argument(metavar="OTHER", help="Another finished project's folder.")],
) -> Reply:
    """Measure how well the global model ranks another project's valid and test rows, without training on them.

    Its texts are read with this project's tokenizer and prompt. Features fill the slots step by step: none, statistics,
    vectors. The other project's own models stand below.

    Example: thinkrec transfer ../movielens
    """
    from thinkrec import transfer as transfers
    from thinkrec.params import load

    document = transfers.transfer(other, load())
    counts = ", ".join(f"{of['rows']:,} {split} rows" for split, of in document["splits"].items())
    return Reply(
        summary=f"{document['from']} to {document['to']}, {counts}",
        document=document,
        table=transfers.figures_table(document),
    )
