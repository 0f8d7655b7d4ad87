"""A finished project -> folders that others can load. Run: thinkrec-stage export served"""

from pathlib import Path
from typing import Annotated

import typer


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

    Example: thinkrec-stage export served --expert 2
    """
    from thinkrec.export import export as write
    from thinkrec.params import load

    manifest = write(folder, load().prompt, expert=expert)
    adapters = ", ".join(adapter["name"] for adapter in manifest["adapters"])
    return f"{folder}: a model {f'and its adapters {adapters}' if adapters else 'without adapters'}; see manifest.json"
