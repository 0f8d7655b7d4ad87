"""Runs of the pipeline -> the paper's tables, in docs/results/. Run: thinkrec-stage tables --dataset ml-1m"""

from pathlib import Path
from typing import Annotated

import typer


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
    names, numbers = (said.split(",") if said else () for said in (rows, seeds))
    return fill(dataset, raw=raw, jobs=jobs, names=names, seeds=numbers, again=again, say=typer.echo)
