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
    """Export the model: with adapters beside it for servers that take LoRA, or with one expert merged into it."""
    from thinkrec.export import export as write
    from thinkrec.params import load

    manifest = write(folder, load().prompt, expert=expert)
    adapters = ", ".join(adapter["name"] for adapter in manifest["adapters"])
    return f"{folder}: a model {f'and its adapters {adapters}' if adapters else 'without adapters'}; see manifest.json"
