"""A user, or a history -> the best items. Run: thinkrec-stage recommend --user 42"""

from pathlib import Path
from typing import Annotated

import typer


def recommend(
    user: Annotated[str | None, typer.Option(help="A user of the dataset, by the dataset's own id.")] = None,
    history: Annotated[
        Path | None,
        typer.Option(help="Instead of a user: CSV with the columns item_id and liked (yes or no), oldest first."),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many items.")] = 10,
    shortlist: Annotated[
        int, typer.Option(min=1, help="How many items the feature model picks for the language model to rank.")
    ] = 200,
) -> str:
    """Recommend items to a user, or to somebody never seen.

    Items already rated are left out. Nothing is trained: of somebody never seen, the history is enough, however short.

    Example: thinkrec-stage recommend --history mine.csv -k 5
    """
    from rich.console import Console

    from thinkrec.recommender import Recommender
    from thinkrec.terminal import asked_user, recommendations_table

    found = Recommender.load().recommend(asked_user(user, history), k, shortlist=shortlist)
    Console().print(recommendations_table(found))
    return f"{len(found)} items"
