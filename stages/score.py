"""Pairs of users and items -> probabilities. Run: thinkrec-stage score pairs.csv scored.csv"""

from pathlib import Path
from typing import Annotated

import typer


def score(
    pairs: Annotated[Path, typer.Argument(help="CSV with the columns user_id and item_id, the dataset's own ids.")],
    out: Annotated[Path, typer.Argument(help="The CSV to write: the same rows and one column more, probability.")],
) -> str:
    """Score pairs of users and items.

    Scores are as of now, after every interaction in the table. Ids are those in out/ingest/users.parquet and
    items.parquet. Other columns of the file are kept.

    Example: thinkrec-stage score pairs.csv scored.csv
    """
    from thinkrec.recommender import Recommender
    from thinkrec.terminal import read_ids, write_scores

    asked = read_ids(pairs, ("user_id", "item_id"))
    probability = Recommender.load().score(asked, progress="scoring")
    write_scores(out, asked.assign(probability=probability))
    return f"{len(asked):,} pairs scored, in {out}"
