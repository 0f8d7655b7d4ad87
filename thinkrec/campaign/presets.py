"""Presets: what `params.yaml` should say for a language model or a dataset, a file each in the folders of `presets/`.

A file begins with two comments: what it is for, and what a run with it takes. Then come overrides, one a line, as
`dvc exp run -S` takes them: `backbone.name=models/smollm2`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from ruamel.yaml import YAML

from thinkrec.campaign.rows import override_params
from thinkrec.errors import UserError, nearest_name
from thinkrec.params import Params, load
from thinkrec.sections import explain

FOLDER = Path("presets")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One file of `presets/`."""

    name: str
    kind: str  # its folder
    about: str
    measured: str  # memory and minutes, or that nobody has run it
    overrides: tuple[str, ...]  # dotted name=value


def read_presets() -> dict[str, Preset]:
    """All presets by name, each tried on the project's `params.yaml`.

    Raises:
        UserError: there are none here, or one says what `params.yaml` cannot be.
    """
    presets = {path.stem: _read(path) for path in sorted(FOLDER.glob("*/*.txt"))}
    if not presets:
        raise UserError(f"{FOLDER}: no presets here; run from the project's root")
    return presets


def join_overrides(names: Sequence[str]) -> str:
    """The overrides of several presets, as arguments of `dvc exp run`. A UserError names one that there is not."""
    presets = read_presets()
    for name in names:
        if name not in presets:
            raise UserError(f"{name}: no such preset; did you mean {nearest_name(name, presets)}?")
    return " ".join(f"-S {override}" for name in names for override in presets[name].overrides)


def _read(path: Path) -> Preset:
    about, measured, *overrides = path.read_text(encoding="utf-8").splitlines()
    try:
        values = {name: YAML(typ="safe").load(value) for name, _, value in (line.partition("=") for line in overrides)}
        Params.model_validate(override_params(load().model_dump(mode="json"), values))
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: no such parameter ({error})") from None
    except ValidationError as error:
        raise UserError(f"{path}: {' '.join(explain(error).split())}") from None
    texts = [line.removeprefix("# ") for line in (about, measured)]
    return Preset(name=path.stem, kind=path.parent.name, about=texts[0], measured=texts[1], overrides=tuple(overrides))
