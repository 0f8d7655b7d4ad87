"""The row files of several seeds -> what each line has over them: mean, deviation, ThinkRec's joint lead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from thinkrec.campaign.rows import BASE
from thinkrec.evaluation.intervals import HEADLINE
from thinkrec.evaluation.tables import kind_of

SPLIT = "test"
LIFT = "possible_lift"
Files = Mapping[str, Mapping[str, Any]]  # row -> its file
Spread = dict[str, dict[str, Any]]  # line -> its entry in `across`


def across(by_seed: Mapping[int, Files], joint: Files) -> Spread:
    """What each line has over seeds; nothing for a line of one seed.

    By line: `seeds`, `commit` (seed -> that of its run's file), `metrics` -> metric -> `mean` and `deviation` (of a
    sample) on the test split, and `lead` -> metric -> ThinkRec's joint lead. Without static lines and
    hindsight. A metric without a value for a seed is left out, and so are joint leads of other runs than those of the
    files.
    """
    leads: dict[str, Any] = {}
    for name, file in joint.items():
        if file["runs"] == run_ids(by_seed, name):
            leads |= file["leads"]
    lines: dict[str, dict[int, tuple[Mapping[str, Any], Mapping[str, Any]]]] = {}
    for seed, files in by_seed.items():
        for file in files.values():
            for name, line in file["lines"].items():
                if kind_of(name) == "online":
                    lines.setdefault(name, {})[seed] = file, line[SPLIT]
    return {
        name: {
            "seeds": list(by_seed_of_line),
            "commit": {seed: file["commit"] for seed, (file, _) in by_seed_of_line.items()},
            "metrics": _metrics([entry for _, entry in by_seed_of_line.values()]),
            "lead": leads.get(name, {}),
        }
        for name, by_seed_of_line in lines.items()
        if len(by_seed_of_line) > 1
    }


def run_ids(by_seed: Mapping[int, Files], name: str) -> dict[str, list[str]]:
    """By seed, as `joint_file` has it: the experiments of the base row and of the row of that name."""
    return {
        str(seed): [files[BASE]["experiment"], files[name]["experiment"]]
        for seed, files in by_seed.items()
        if name in files
    }


def _metrics(entries: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    spread: dict[str, dict[str, float]] = {}
    for metric in (*HEADLINE, LIFT):
        values: list[Any] = [
            entry.get(metric) if metric == LIFT else entry.get(metric, {}).get("value") for entry in entries
        ]
        if all(value is not None for value in values):
            spread[metric] = {"mean": float(np.mean(values)), "deviation": float(np.std(values, ddof=1))}
    return spread
