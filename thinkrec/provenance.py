"""What an artefact was made with: written beside it, and checked before the artefact is used.

DVC keeps a chain consistent. Single stages, copied folders and edited parameters can break it, and scores would then
be wrong without a word. So out/ingest and every trained artefact carry a `provenance.json`: parameters by value, files
and tokenizers by hash. A check changes no result, so dvc.yaml does not list the parameters that only checks look at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thinkrec.artifacts import INTERACTIONS, MEASURES, missing_artifact, read_json, sha256, stage_of, write_json
from thinkrec.errors import UserError
from thinkrec.params import DatasetParams
from thinkrec.sections import Section

PROVENANCE = "provenance.json"
SHORT = 12  # characters of a hash that a message shows


def hash_of(path: Path) -> str:
    """A hash of a file, or of every file in a folder with its relative name, but for what its stage measured.

    Raises:
        UserError: there is nothing there.
    """
    files = (
        [path]
        if path.is_file()
        else sorted(file for file in path.rglob("*") if file.is_file() and file != path / MEASURES)
    )
    if not files:
        raise missing_artifact(path)
    names = [f"{file.relative_to(path).as_posix()} {sha256(file)}\n" for file in files]
    return hashlib.sha256("".join(names).encode()).hexdigest()


def parameters(name: str, section: Section, *names: str) -> dict[str, Any]:
    """Parameters of a section, by their names in params.yaml; all of them where no `names` are given."""
    values = section.model_dump(mode="json", include=set(names) or None)
    return {f"{name}.{key}": value for key, value in values.items()}


def dataset_parameters(dataset: DatasetParams) -> dict[str, Any]:
    """The parameters that say which dataset it is; where its files are does not matter, and is no artefact's matter."""
    return parameters("dataset", dataset, "name", "threshold", "windows", "core", "columns")


def write_provenance(folder: Path, provenance: Mapping[str, Any]) -> None:
    """Write into `folder` what is in it was made with."""
    write_json(folder / PROVENANCE, dict(provenance))


def check_provenance(folder: Path, expected: Mapping[str, Any]) -> None:
    """Compare what `folder` was made with to what is `expected` here.

    Raises:
        UserError: something differs; the message names it.
    """
    stored = read_json(folder / PROVENANCE)
    differing = [name for name in {**stored, **expected} if stored.get(name) != expected.get(name)]
    if differing:
        pairs = ", ".join(
            f"{name} {_short(stored.get(name))} (here {_short(expected.get(name))})" for name in differing
        )
        raise UserError(f"{folder}: made with {pairs}; put that back, or run: dvc repro {stage_of(folder)}")


def check_dataset(dataset: DatasetParams, root: Path = Path()) -> None:
    """See that the ingested tables of the project at `root` are those of the dataset that its params.yaml names.

    Raises:
        UserError: they are another dataset's, or are not there.
    """
    check_provenance((root / INTERACTIONS).parent, dataset_parameters(dataset))


def _short(value: Any) -> str:
    text = str(value)
    return text[:SHORT] if len(text) == hashlib.sha256().digest_size * 2 else text
