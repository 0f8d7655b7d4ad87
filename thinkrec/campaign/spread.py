"""The row files of several seeds -> what each line has over them: mean, deviation, ThinkRec's joint lead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from thinkrec.campaign.rows import BASE
from thinkrec.evaluation.intervals import HEADLINE
from thinkrec.evaluation.models import kind_of
from thinkrec.evaluation.tables import NEW_ITEMS

SPLIT = "test"
LIFT = "possible_lift"
Files = Mapping[str, Mapping[str, Any]]  # row -> its file
Spread = dict[str, dict[str, Any]]  # line -> its entry in `spread_over_seeds`


def spread_over_seeds(by_seed: Mapping[int, Files], joint: Files) -> Spread:
    """What each line has over seeds; nothing for a line of one seed, a static one, or one with hindsight.

    By line: `commit` (seed -> that of its run's file), `metrics` -> metric -> `mean` and `std` (of a sample) on the
    test split, and `lead` -> metric -> ThinkRec's joint lead; `new_items` has such `metrics` and `lead` of test rows
    about items that train never saw. A metric without a value for a seed is left out, and so are joint leads of other
    runs than those of the files.
    """
    current = [file for name, file in joint.items() if file["runs"] == run_ids(by_seed, name)]
    leads = {line: lead for file in current for line, lead in file["leads"].items()}
    leads_on_new = {line: lead for file in current for line, lead in file.get(NEW_ITEMS, {}).items()}
    commits: dict[str, dict[int, str]] = {}
    entries: dict[str, list[Mapping[str, Any]]] = {}
    for seed, file in ((seed, file) for seed, files in by_seed.items() for file in files.values()):
        for name, line in file["lines"].items():
            if kind_of(name) == "online":
                commits.setdefault(name, {})[seed] = file["commit"]
                entries.setdefault(name, []).append(line[SPLIT])
    return {
        name: {
            "commit": commits[name],
            "metrics": _spread(of_line),
            "lead": leads.get(name, {}),
            NEW_ITEMS: {
                "metrics": _spread(entry.get(NEW_ITEMS, {}) for entry in of_line),
                "lead": leads_on_new.get(name, {}),
            },
        }
        for name, of_line in entries.items()
        if len(of_line) > 1
    }


def run_ids(by_seed: Mapping[int, Files], name: str) -> dict[str, list[str]]:
    """By seed, as `joint_file` has it: the experiments of the base row and of the row of that name."""
    return {
        str(seed): [files[row]["experiment"] for row in (BASE, name)]
        for seed, files in by_seed.items()
        if name in files
    }


def _spread(entries: Iterable[Mapping[str, Any]]) -> Any:
    values = pd.DataFrame(
        [
            {metric: entry.get(metric, {}).get("value") for metric in HEADLINE} | {LIFT: entry.get(LIFT)}
            for entry in entries
        ],
        dtype=float,
    )
    return values.dropna(axis="columns").agg(["mean", "std"]).to_dict()
