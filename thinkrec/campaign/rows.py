"""The runs behind the paper's tables: what each changes in `params.yaml`, and whether its file says that it is done.

A row is one run of the pipeline. The base row, `thinkrec`, changes nothing, and its predictions hold the baselines'
lines as well; every other row adds one line, of its own name. ThinkRec and its ablations run once per seed of
`seeds_called`; a seed's rows are compared with the ThinkRec of that seed.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thinkrec import artifacts
from thinkrec.errors import UserError, nearest_name
from thinkrec.evaluation.tables import OURS
from thinkrec.ingest.catalogue import find
from thinkrec.params import Params, load

Overrides = Mapping[str, Any]  # dotted name of a parameter -> its value
FOLDER = Path("tables")
BASE = OURS

NO_THINKING = {"sft.think_share": 0}
NO_EXPERTS = {"experts.n": 0}
TEXT_ONLY = {"prompt.slots": [], "prompt.keywords": 0, "sft.pairwise": 0, **NO_THINKING, **NO_EXPERTS}

# In the order in which they run. Rows that share a backbone or a global model which the base row does not have do not
# stand side by side: run at the same time, both would train it; one after the other, the second takes it from the
# cache.
ROWS: dict[str, Overrides] = {
    BASE: {},
    "no_thinking": NO_THINKING,
    "tallrec": TEXT_ONLY,
    "neither": {**NO_THINKING, **NO_EXPERTS},
    "collm": {**TEXT_ONLY, "prompt.slots": ["user", "item"]},
    "no_experts": NO_EXPERTS,
    "soft_prompt": {**TEXT_ONLY, "prompt.soft_tokens": 16},
    "experts_1": {"experts.n": 1},
    "no_keywords": {"prompt.keywords": 0},
    "experts_2": {"experts.n": 2},
    "features_lightgcn": {"features.model": "lightgcn"},
    "experts_4": {"experts.n": 4},
    "features_sasrec": {"features.model": "sasrec"},
}


# Run with further seeds, too, which write no reasons: one seed's are told of, and take a minute a run.
SEEDED = (BASE, "no_thinking", "no_experts", "neither")
FURTHER_SEEDS = (1, 2, 3, 4)
NO_REASONS = {"evaluate.reasons": 0}
OF_REASONS = "evaluate."  # parameters that shape what is written, and no score: nothing to a run that writes nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a dataset, ready to be queued.

    Attributes:
        name: a key of ROWS.
        overrides: what its run changes in `params.yaml`, the dataset included.
        params: all that the run is a function of, but the code and the raw files' path, which differs by machine.
        experiment: the name of its DVC experiment: another one wherever the parameters differ.
        seed: its further seed; None for that of `params.yaml`.
    """

    name: str
    overrides: Overrides
    params: dict[str, Any]
    experiment: str
    seed: int | None = None

    @property
    def title(self) -> str:
        return self.name if self.seed is None else f"{self.name} of seed {self.seed}"


def seeds_called(names: Sequence[str] = ()) -> list[int | None]:
    """The seeds of that number (all, if none is named), as `Row.seed`: that of `params.yaml` first.

    Raises:
        UserError: the campaign has no such seed.
    """
    default = load().seed
    by_name: dict[str, int | None] = {
        str(default): None,
        **{str(seed): seed for seed in FURTHER_SEEDS if seed != default},
    }
    for name in names:
        if name not in by_name:
            raise UserError(f"--seeds: no seed {name!r}; known: {', '.join(by_name)}")
    return [seed for number, seed in by_name.items() if not names or number in names]


def plan(dataset: str, *, raw: Path | None, names: Sequence[str] = (), seed: int | None = None) -> dict[str, Row]:
    """The rows of that name (all, if none is named) by name, in the order of ROWS; of a further `seed`, those SEEDED.

    Raises:
        UserError: no such dataset or row (names the nearest), raw files that are missing, faulty `params.yaml`.
    """
    for name in names:
        if name not in ROWS:
            raise UserError(
                f"--rows: no row {name!r}; did you mean {nearest_name(name, ROWS)}? Known: {', '.join(ROWS)}"
            )
    params = load()
    about = {"dataset.name": find(dataset).name, "dataset.raw": _raw(dataset, raw, otherwise=params.dataset.raw)}
    rows = {}
    for name, changes in ROWS.items():
        if (not names or name in names) and (seed is None or name in SEEDED):
            overrides = {**about, **changes, **({} if seed is None else {"seed": seed, **NO_REASONS})}
            values = result_params(resolve(params, overrides))
            counted = values if seed is None else _of_scores(values)
            digest = hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()[:7]
            experiment = f"{dataset.replace(':', '-')}-{name}-{digest}"  # a git reference has no colon
            rows[name] = Row(name=name, overrides=overrides, params=values, experiment=experiment, seed=seed)
    return rows


def campaign(
    dataset: str, *, raw: Path | None, names: Sequence[str] = (), seeds: Sequence[int | None]
) -> dict[str, Row]:
    """The rows of these names (all, if none is named) and `seeds` by title, with the base rows that they need.

    In the order of ROWS, and seed by seed within a name. The base row of `params.yaml` itself is always among them.

    Raises:
        UserError: as `plan` does; or a named row does not run with any of `seeds`.
    """
    unseeded = [name for name in names if name in ROWS and name not in SEEDED]
    if unseeded and None not in seeds:
        raise UserError(
            f"--rows: {', '.join(unseeded)} runs with seed {load().seed} alone; with --seeds: {', '.join(SEEDED)}"
        )
    named = [BASE, *names] if names else ()
    planned = [plan(dataset, raw=raw, names=named if None in seeds else [BASE])]
    if not names or set(names) & set(SEEDED):
        planned += [plan(dataset, raw=raw, names=named, seed=seed) for seed in seeds if seed is not None]
    by_name = [rows[name] for name in ROWS for rows in planned if name in rows]
    return {row.title: row for row in by_name}


def _raw(dataset: str, raw: Path | None, *, otherwise: Path | None) -> str | None:
    """The raw files' absolute path, as experiments run in folders of their own; None for a generated dataset."""
    about = find(dataset)
    if about.generated:
        if raw is not None:
            raise UserError(f"--raw: {dataset} is generated and reads no file; leave --raw out")
        return None
    raw = raw or otherwise
    if raw is None:
        how = f"download {about.address} and give" if about.address else "give"
        raise UserError(f"--raw: {dataset} needs its raw files; {how} their path: --raw PATH")
    if not raw.expanduser().exists():
        raise UserError(f"--raw: no such file or folder: {raw}")
    return str(raw.expanduser().resolve())


def resolve(params: Params, overrides: Overrides) -> Params:
    """The parameters with some of them changed, checked anew.

    Raises:
        ValueError: an override names no parameter, or an impossible value.
    """
    values = params.model_dump(mode="json")
    for name, value in overrides.items():
        *sections, key = name.split(".")
        functools.reduce(lambda inner, section: inner[section], sections, values)[key] = value
    return Params.model_validate(values)


def result_params(params: Params) -> dict[str, Any]:
    """The parameters that shape results, as plain values: not how the stages run, nor the path of the raw files."""
    values = params.model_dump(mode="json")
    del values["run"], values["dataset"]["raw"]
    return values


def row_path(dataset: str, row: str, seed: int | None = None) -> Path:
    return FOLDER / dataset / ("" if seed is None else f"seeds/{seed}") / f"{row}.json"


def joint_path(dataset: str, row: str) -> Path:
    """Where ThinkRec's joint lead over a row stands, over all seeds (`collect.joint_file`)."""
    return FOLDER / dataset / "seeds" / f"{row}.json"


def read_rows(dataset: str, *, root: Path = Path(), seed: int | None = None) -> dict[str, dict[str, Any]]:
    """The files of the rows that a dataset has, by row, in the order of ROWS."""
    paths = {name: root / row_path(dataset, name, seed) for name in ROWS}
    return {name: artifacts.read_json(path) for name, path in paths.items() if path.is_file()}


def read_joint(dataset: str, *, root: Path = Path()) -> dict[str, dict[str, Any]]:
    """The files of the joint leads that a dataset has, by row."""
    paths = {name: root / joint_path(dataset, name) for name in SEEDED}
    return {name: artifacts.read_json(path) for name, path in paths.items() if path.is_file()}


def read_seeds(dataset: str, *, root: Path = Path()) -> dict[int, dict[str, dict[str, Any]]]:
    """The row files by seed, that of `params.yaml` first: of SEEDED rows that ran alike but for the seed.

    A further seed's file is left out where its other parameters are not those of the first's, reasons' apart.
    """
    files = {name: file for name, file in read_rows(dataset, root=root).items() if name in SEEDED}
    if BASE not in files:
        return {}
    first = files[BASE]["params"]["seed"]
    by_seed = {first: files}
    for seed in FURTHER_SEEDS:
        if seed != first:
            further = read_rows(dataset, root=root, seed=seed)
            by_seed[seed] = {
                name: file
                for name, file in further.items()
                if name in files and _but_for_seed(file["params"]) == _but_for_seed(files[name]["params"])
            }
    return {seed: files for seed, files in by_seed.items() if BASE in files}


def _but_for_seed(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in _of_scores(params).items() if name != "seed"}


def _of_scores(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in _flat(params).items() if not name.startswith(OF_REASONS)}


def changed_params(row: Row, file: Mapping[str, Any]) -> list[str]:
    """What differs between the parameters of a row's file and those it would run with now: nothing if it is done.

    Each as `experts.n 3 -> 4`. To a further seed, which writes no reasons, those of reasons are nothing.
    """
    counted = _flat if row.seed is None else _of_scores
    then, now = (counted(params) for params in (file["params"], row.params))
    return [
        f"{name} {then.get(name, '(none)')} -> {now.get(name, '(none)')}"
        for name in sorted(then | now)
        if then.get(name, ...) != now.get(name, ...)
    ]


def _flat(params: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{name}.{key}" if key else name: value
        for name, section in params.items()
        for key, value in (section.items() if isinstance(section, dict) else [("", section)])
    }
