"""Hub id -> its current revision in models.lock.json. Run: thinkrec-stage pin Qwen/Qwen3-0.6B"""

from typing import Annotated

import typer


def pin(
    name: Annotated[str, typer.Argument(help="A model id on the Hugging Face hub, such as Qwen/Qwen3-0.6B.")],
) -> str:
    """Pin a hub model's revision, so that `backbone.name` may name it."""
    from thinkrec.lm.hub import pin_revision

    return f"{name} at revision {pin_revision(name)}, in models.lock.json (commit it)"
