"""The runs behind the paper's tables: what each changes in `params.yaml`, and whether its file says that it is done.

A row is one run of the pipeline. The base row, `thinkrec`, changes nothing, and its predictions hold the baselines'
lines as well; every other row adds one line, of its own name. ThinkRec and its ablations run with further seeds, too; a
seed's rows are compared with the ThinkRec of that seed.
"""

from __future__ import annotations

import functools
import hashlib
import json
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thinkrec import artifacts
from thinkrec.errors import UserError
from thinkrec.evaluation.models import OURS
from thinkrec.ingest.catalogue import find_dataset
from thinkrec.params import load

Overrides = Mapping[str, Any]  # dotted name of a parameter -> its value
Files = dict[str, dict[str, Any]]  # row -> its file
FOLDER, JOINT = Path("tables"), "seeds"
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
    params: dict[str, Any]  # what its result depends on, besides code: not `run`, nor where the raw files lie
    experiment: str  # the name of its DVC experiment: another one wherever the parameters differ
    seed: int | None = None  # its further seed; None for that of `params.yaml`
    asked: bool = True  # for itself, not as the base of others

    @property
    def title(self) -> str:
        return self.name if self.seed is None else f"{self.name} of seed {self.seed}"

    @property
    def path(self) -> Path:
        """Where its file stands."""
        return row_path(self.params["dataset"]["name"], self.name, "" if self.seed is None else self.seed)


def plan(
    dataset: str, *, raw: Path | None = None, names: Sequence[str] = (), seeds: Sequence[str] = ()
) -> dict[str, Row]:
    """The rows of these names and seeds (of all, if none is given) by title, with the base rows that they need.

    In the order of ROWS, and seed by seed within a name. The base row of `params.yaml` itself is always among them.

    Raises:
        UserError: no such dataset, row or seed, or none of both; raw files that are missing; faulty `params.yaml`.
    """
    params = load()
    known_seeds = {str(params.seed): None} | {str(seed): seed for seed in FURTHER_SEEDS if seed != params.seed}
    for kind, given, known in (("row", names, ROWS), ("seed", seeds, known_seeds)):
        if unknown := [name for name in given if name not in known]:
            raise UserError(f"--{kind}s: no {kind} {unknown[0]!r}; known: {', '.join(known)}")
    chosen = [known_seeds[number] for number in seeds or known_seeds]
    if None not in chosen and (unseeded := [name for name in names if name not in SEEDED]):
        raise UserError(
            f"--rows: {', '.join(unseeded)} runs with seed {params.seed} alone; with --seeds: {', '.join(SEEDED)}"
        )
    asked = [(name, seed) for name in names or ROWS for seed in chosen if seed is None or name in SEEDED]
    needed = {(BASE, None), *asked, *((BASE, seed) for _, seed in asked)}
    about = {
        "dataset.name": find_dataset(dataset).name,
        "dataset.raw": _raw(dataset, raw, otherwise=params.dataset.raw),
    }
    rows = []
    for name, seed in ((name, seed) for name in ROWS for seed in known_seeds.values() if (name, seed) in needed):
        overrides = {**about, **ROWS[name]} | ({} if seed is None else {"seed": seed, **NO_REASONS})
        values = override_params(params.model_dump(mode="json"), overrides)
        values = type(params).model_validate(values).model_dump(mode="json", exclude={"run": True, "dataset": {"raw"}})
        digest = hashlib.sha256(json.dumps(_counted(values, seed), sort_keys=True).encode()).hexdigest()[:7]
        rows.append(
            Row(
                name=name,
                overrides=overrides,
                params=values,
                experiment=f"{dataset.replace(':', '-')}-{name}-{digest}",  # a git reference has no colon
                seed=seed,
                asked=(name, seed) in asked,
            )
        )
    return {row.title: row for row in rows}


def override_params(values: Any, overrides: Overrides) -> Any:
    """Nested parameters after some of them were changed in place."""
    for name, value in overrides.items():
        *sections, key = name.split(".")
        functools.reduce(operator.getitem, sections, values)[key] = value
    return values


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


def row_path(dataset: str, name: str, part: str | int = "") -> Path:
    """Where a row's file stands; `part` is a further seed, or JOINT for ThinkRec's lead over the row in all seeds."""
    return FOLDER / dataset / (f"{JOINT}/{part}" if isinstance(part, int) else part) / f"{name}.json"


def read_rows(dataset: str, part: str | int = "") -> Files:
    """The files that a dataset has, by row, in the order of ROWS; `part` as in `row_path`."""
    paths = {name: row_path(dataset, name, part) for name in ROWS}
    return {name: artifacts.read_json(path) for name, path in paths.items() if path.is_file()}


def read_seeds(dataset: str) -> dict[int, Files]:
    """The row files by seed, that of `params.yaml` first: of SEEDED rows that ran alike but for the seed.

    A further seed's file is left out where its other parameters are not those of the first's, reasons' apart.
    """
    files = {name: file for name, file in read_rows(dataset).items() if name in SEEDED}
    if BASE not in files:
        return {}
    first = files[BASE]["params"]["seed"]
    by_seed = {first: files}
    for seed in FURTHER_SEEDS:
        if seed != first:
            by_seed[seed] = {
                name: file
                for name, file in read_rows(dataset, seed).items()
                if name in files
                and _counted(file["params"] | {"seed": first}, seed) == _counted(files[name]["params"], seed)
            }
    return {seed: files for seed, files in by_seed.items() if BASE in files}


def changed_params(row: Row, file: Mapping[str, Any]) -> list[str]:
    """What differs between the parameters of a row's file and those it would run with now: nothing if it is done.

    Each as `experts.n 3 -> 4`.
    """
    then, now = (_counted(params, row.seed) for params in (file["params"], row.params))
    return [
        f"{name} {then.get(name, '(none)')} -> {now.get(name, '(none)')}"
        for name in sorted(then | now)
        if then.get(name, ...) != now.get(name, ...)
    ]


def _counted(params: Mapping[str, Any], seed: int | None) -> dict[str, Any]:
    """A row's parameters by dotted name; to a further seed, which writes no reasons, those of reasons are nothing."""
    return {name: value for name, value in artifacts.leaves(params) if seed is None or not name.startswith(OF_REASONS)}
