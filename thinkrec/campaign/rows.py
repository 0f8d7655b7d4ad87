"""The runs behind the paper's tables: what each changes in `params.yaml`, and whether its file says that it is done.

A row is one run of the pipeline. The base row, `thinkrec`, changes nothing, and its predictions hold the baselines'
lines as well; every other row adds one line, of its own name. ThinkRec and its ablations run once per seed of
`choose_seeds`; a seed's rows are compared with the ThinkRec of that seed.
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
from thinkrec.evaluation.models import OURS
from thinkrec.ingest.catalogue import find_dataset
from thinkrec.params import Params, load

Overrides = Mapping[str, Any]  # dotted name of a parameter -> its value
Files = dict[str, dict[str, Any]]  # row -> its file
FOLDER = Path("tables")
BASE = OURS

NO_THINKING = {"sft.think_share": 0}
NO_EXPERTS = {"experts.n": 0}
TEXT_ONLY = (
    {"prompt.slots": [], "prompt.keywords": 0, "sft.pairwise": 0, "sft.match_size": 0} | NO_THINKING | NO_EXPERTS
)

# In the order in which they run. Rows that share a backbone or a global model which the base row does not have do not
# stand side by side: run at the same time, both would train it; one after the other, the second takes it from the
# cache.
ROWS: dict[str, Overrides] = {
    BASE: {},
    "no_thinking": NO_THINKING,
    "tallrec": TEXT_ONLY,
    "neither": {**NO_THINKING, **NO_EXPERTS},
    "collm": {**TEXT_ONLY, "prompt.slots": ["user", "item"], "features.model": "mf"},
    "no_experts": NO_EXPERTS,
    "soft_prompt": {**TEXT_ONLY, "prompt.soft_tokens": 16},
    "experts_1": {"experts.n": 1},
    "no_features": {"prompt.slots": []},
    "no_keywords": {"prompt.keywords": 0},
    "experts_2": {"experts.n": 2},
    "features_lightgcn": {"features.model": "lightgcn"},
    "experts_4": {"experts.n": 4},
    "features_sasrec": {"features.model": "sasrec"},
    "features_mf": {"features.model": "mf"},
    "features_hybrid_sasrec": {"features.model": "hybrid_sasrec"},
}

# Run with further seeds, too, which write no reasons: one seed's are enough, and take a minute a run.
SEEDED = (BASE, "no_thinking", "no_experts", "neither")
FURTHER_SEEDS = (1, 2, 3, 4)
NO_REASONS = {"evaluate.reasons": 0}
OF_REASONS = "evaluate."  # parameters that shape what is written, and no score: nothing to a run that writes nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a dataset, ready to be run."""

    name: str  # a key of ROWS
    overrides: Overrides  # what its run changes in `params.yaml`, the dataset included
    params: dict[
        str, Any
    ]  # all that it is a function of, but the code and the raw files' path, which differs by machine
    experiment: str  # the name of its DVC experiment: another one wherever the parameters differ
    seed: int | None = None  # its further seed; None for that of `params.yaml`

    @property
    def title(self) -> str:
        return self.name if self.seed is None else f"{self.name} of seed {self.seed}"


def choose_seeds(numbers: Sequence[str] = ()) -> list[int | None]:
    """The seeds of these numbers (all, if none is named), as `Row.seed`: that of `params.yaml` first.

    Raises:
        UserError: the campaign has no such seed.
    """
    default = load().seed
    seeds = {str(default): None} | {str(seed): seed for seed in FURTHER_SEEDS if seed != default}
    for number in numbers:
        if number not in seeds:
            raise UserError(f"--seeds: no seed {number!r}; known: {', '.join(seeds)}")
    return [seed for number, seed in seeds.items() if not numbers or number in numbers]


def plan(
    dataset: str, *, raw: Path | None = None, names: Sequence[str] = (), seeds: Sequence[int | None] = (None,)
) -> dict[str, Row]:
    """The rows of these names (all, if none is named) and seeds by title, with the base rows that they need.

    In the order of ROWS, and seed by seed within a name. The base row of `params.yaml` itself is always among them.

    Raises:
        UserError: no such dataset or row, or none with these seeds; raw files that are missing; faulty `params.yaml`.
    """
    for name in names:
        if name not in ROWS:
            raise UserError(
                f"--rows: no row {name!r}; did you mean {nearest_name(name, ROWS)}? Known: {', '.join(ROWS)}"
            )
    params = load()
    unseeded = [name for name in names if name not in SEEDED]
    if unseeded and None not in seeds:
        raise UserError(
            f"--rows: {', '.join(unseeded)} runs with seed {params.seed} alone; with --seeds: {', '.join(SEEDED)}"
        )
    chosen = {BASE, *names} if names else set(ROWS)
    with_seeds = chosen & set(SEEDED) if not names or set(names) & set(SEEDED) else set()
    about = {
        "dataset.name": find_dataset(dataset).name,
        "dataset.raw": _raw(dataset, raw, otherwise=params.dataset.raw),
    }
    rows: list[Row] = []
    for name, changes in ROWS.items():
        needed: list[int | None] = [None] if name == BASE or (name in chosen and None in seeds) else []
        needed += [seed for seed in seeds if seed is not None and name in with_seeds]
        rows += [_plan_row(params, name, {**about, **changes}, seed) for seed in needed]
    return {row.title: row for row in rows}


def _plan_row(params: Params, name: str, overrides: Overrides, seed: int | None) -> Row:
    overrides = overrides if seed is None else {**overrides, "seed": seed, **NO_REASONS}
    values = result_params(resolve(params, overrides))
    counted = values if seed is None else _of_scores(values)
    digest = hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()[:7]
    experiment = f"{values['dataset']['name'].replace(':', '-')}-{name}-{digest}"  # a git reference has no colon
    return Row(name=name, overrides=overrides, params=values, experiment=experiment, seed=seed)


def _raw(dataset: str, raw: Path | None, *, otherwise: Path | None) -> str | None:
    """The raw files' absolute path, as experiments run in folders of their own; None for a generated dataset."""
    about = find_dataset(dataset)
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


def read_rows(dataset: str, *, root: Path = Path(), seed: int | None = None) -> Files:
    """The files of the rows that a dataset has, by row, in the order of ROWS."""
    return _read({name: root / row_path(dataset, name, seed) for name in ROWS})


def read_joint(dataset: str, *, root: Path = Path()) -> Files:
    """The files of the joint leads that a dataset has, by row."""
    return _read({name: root / joint_path(dataset, name) for name in SEEDED})


def _read(paths: Mapping[str, Path]) -> Files:
    return {name: artifacts.read_json(path) for name, path in paths.items() if path.is_file()}


def read_seeds(dataset: str, *, root: Path = Path()) -> dict[int, Files]:
    """The row files by seed, that of `params.yaml` first: of SEEDED rows that ran alike but for the seed.

    A further seed's file is left out where its other parameters are not those of the first's, reasons' apart.
    """
    files = {name: file for name, file in read_rows(dataset, root=root).items() if name in SEEDED}
    if BASE not in files:
        return {}

    def but_for_seed(file: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in _of_scores(file["params"]).items() if name != "seed"}

    first = files[BASE]["params"]["seed"]
    by_seed = {first: files}
    for seed in FURTHER_SEEDS:
        if seed != first:
            further = read_rows(dataset, root=root, seed=seed)
            alike = [
                name for name in further.keys() & files if but_for_seed(further[name]) == but_for_seed(files[name])
            ]
            by_seed[seed] = {name: further[name] for name in ROWS if name in alike}
    return {seed: files for seed, files in by_seed.items() if BASE in files}


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


def _of_scores(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in _flat(params).items() if not name.startswith(OF_REASONS)}


def _flat(params: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{name}.{key}" if key else name: value
        for name, section in params.items()
        for key, value in (section.items() if isinstance(section, dict) else [("", section)])
    }
