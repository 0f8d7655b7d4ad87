"""Pinning a hub model: its id -> the commit that it stands at, in `models.lock.json`."""

from __future__ import annotations

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from thinkrec.artifacts import read_json, write_json
from thinkrec.errors import UserError
from thinkrec.lm.backbone import LOCK


def pin_revision(name: str) -> str:
    """Look up the commit of the model's main branch and write it to the lock.

    Raises:
        UserError: the hub does not know the model or cannot be reached.
    """
    try:
        revision = HfApi().model_info(name).sha
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(f"{name}: the hub gave no revision ({reason}); check the id and the connection") from None
    if revision is None:
        raise UserError(f"{name}: the hub gave no revision; name one in {LOCK} by hand")
    lock = read_json(LOCK) if LOCK.exists() else {}
    write_json(LOCK, dict(sorted({**lock, name: revision}.items())))
    return revision
