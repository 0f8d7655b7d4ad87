"""What an artefact was made with, written beside it and checked before it is used.

DVC keeps a chain consistent; single stages, copied folders and edited parameters can break it. Scores would then come
out wrong without a word, so every trained artefact carries what it belongs to: parameters of the prompt by value,
files and tokenizers by hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thinkrec.artifacts import missing_artifact, read_json, sha256, stage_of, write_json
from thinkrec.errors import UserError
from thinkrec.params import PromptParams

STAMP = "made_with.json"
SHORT = 12  # characters of a hash that a message shows


def hash_of(path: Path) -> str:
    """A hash of a file or of every file in a folder, by relative name.

    Raises:
        UserError: there is nothing there.
    """
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    if not files:
        raise missing_artifact(path)
    names = [f"{file.relative_to(path).as_posix()} {sha256(file)}\n" for file in files]
    return hashlib.sha256("".join(names).encode()).hexdigest()


def of_prompt(prompt: PromptParams) -> dict[str, Any]:
    """The parameters of the prompt, by their names in params.yaml."""
    return {f"prompt.{name}": value for name, value in prompt.model_dump(mode="json").items()}


def stamp(folder: Path, made_with: Mapping[str, Any]) -> None:
    """Write into `folder` what is in it was made with."""
    write_json(folder / STAMP, dict(made_with))


def check(folder: Path, here: Mapping[str, Any]) -> None:
    """Compare what `folder` was made with to what is `here`.

    Raises:
        UserError: something differs; the message names it.
    """
    made_with = read_json(folder / STAMP)
    names = [name for name in {**made_with, **here} if made_with.get(name) != here.get(name)]
    if names:
        said = ", ".join(f"{name} {_short(made_with.get(name))} (here {_short(here.get(name))})" for name in names)
        raise UserError(f"{folder}: made with {said}; put that back, or run: dvc repro {stage_of(folder)}")


def _short(value: Any) -> str:
    text = str(value)
    return text[:SHORT] if len(text) == hashlib.sha256().digest_size * 2 else text
