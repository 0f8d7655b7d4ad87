"""A user, or a history, and an item -> why. Run: thinkrec-stage explain --user 42 --item 7"""

from pathlib import Path
from typing import Annotated

import typer


def explain(
    item: Annotated[str, typer.Option(help="The item, by the dataset's own id.")],
    user: Annotated[str | None, typer.Option(help="A user of the dataset, by the dataset's own id.")] = None,
    history: Annotated[
        Path | None,
        typer.Option(help="Instead of a user: CSV with the columns item_id and liked (yes or no), oldest first."),
    ] = None,
) -> str:
    """Say whether somebody would like an item and why, and check what the reason names against what was shown."""
    from rich.console import Console

    from thinkrec.recommender import Recommender
    from thinkrec.terminal import asked_user, explanation_table

    said = Recommender.load().explain(asked_user(user, history), item)
    Console().print(explanation_table(said))
    there, named = int(said.evidence["found"].sum()), len(said.evidence)
    return f"{said.title}: {said.probability:.1%}; {there} of the {named} things that the reason names are there"
