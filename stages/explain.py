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
    """Explain how well an item suits somebody.

    Shows the probability, the experts' weights, the reason that the model writes, and what the reason claims of titles
    and keywords, each claim held against the history and the item as the model saw them.

    Example: thinkrec-stage explain --user 42 --item 7
    """
    from rich.console import Console

    from thinkrec.recommender import Recommender
    from thinkrec.terminal import asked_user, explanation_table

    said = Recommender.load().explain(asked_user(user, history), item)
    Console().print(explanation_table(said))
    true, claims = int(said.evidence["true"].sum()), len(said.evidence)
    return f"{said.title}: {said.probability:.1%}; of what the reason claims, true: {true} of {claims}"
