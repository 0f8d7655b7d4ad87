"""Behind the figures: how training went, and what exactly was run."""

from __future__ import annotations

import math
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from thinkrec.artifacts import leaves
from thinkrec.params import PARAMS_FILE

PACKAGES = ("torch", "transformers", "peft", "numpy", "pandas", "scikit-learn")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 460, 200, 50, 90, 12, 26  # of a curve's drawing, and its margins


def learning(sft: Mapping[str, Any], gate: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Curves over epochs of fine-tuning and of the gate, from the measures of `sft` and `gate`."""
    curves = []
    for title, epochs in (("Fine-tuning, by epoch", sft["curve"]), ("Gate, by epoch", gate.get("epochs", []))):
        series = {
            name: [epoch[metric] for epoch in epochs if epoch.get(metric) is not None]
            for metric, name in (("auc", "valid AUC"), ("uauc", "valid UAUC"))
        }
        if measured := {name: points for name, points in series.items() if points}:
            curves.append({"title": title, **_draw(measured)})
    return curves


def _draw(series: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Where curves over epochs 1, 2, ... stand in a drawing: marks of both axes, points, and names at the last ones."""
    values = [value for points in series.values() for value in points]
    low, high = min(values), max(values)
    low, high = (low - 0.001, high + 0.001) if high - low < 0.002 else (low, high)
    longest = max(map(len, series.values()))

    def x(place: int) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (place / (longest - 1) if longest > 1 else 0.5), 1)

    def y(value: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low), 1)

    lines, label_y = [], -math.inf
    for name, points in sorted(series.items(), key=lambda pair: -pair[1][-1]):
        label_y = max(y(points[-1]) + 4, label_y + 14)  # labels keep off each other
        places = [(x(place), y(value)) for place, value in enumerate(points)]
        lines.append({"name": name, "places": places, "label": (x(len(points) - 1) + 8, label_y)})
    return {
        "box": f"0 0 {WIDTH} {HEIGHT}",
        **{"left": LEFT, "right": WIDTH - RIGHT, "bottom": HEIGHT - 8},
        "marks": [(y(mark), f"{mark:.3f}") for mark in (low, (low + high) / 2, high)],
        "epochs": [(x(place), place + 1) for place in sorted({0, longest // 2, longest - 1})],
        "lines": lines,
    }


def provenance(settings: dict[str, str]) -> dict[str, str]:
    """What was run: code, parameters that differ from the committed ones, seed and versions.

    Nothing of it differs between two clones of one commit on one machine: the date is that of the commit.
    """
    return {
        **settings,
        "code": code_commit() or "not in a git repository with a commit",
        "parameters": changed_parameters(),
        "versions": ", ".join([f"Python {platform.python_version()}", *filter(None, map(_version, PACKAGES))]),
    }


def _version(package: str) -> str | None:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return None


def code_commit() -> str | None:
    """The last commit that changed what stages depend on, its day, and whether the workspace differs from it."""
    try:
        stages = YAML(typ="safe").load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"].values()
    except (OSError, KeyError):
        return None
    code = sorted({dep for stage in stages for dep in stage["deps"] if not dep.startswith(("out/", "metrics/"))})
    commit = _git("log", "-1", "--format=%h of %cs", "--", *code)
    changed = ", and changes that are not committed" if _git("diff", "HEAD", "--stat", "--", *code) else ""
    return commit.strip() + changed if commit else None


def changed_parameters() -> str:
    """The parameters whose values differ from those of the last commit, in words."""
    committed = _git("show", f"HEAD:./{PARAMS_FILE.name}")
    if committed is None:
        return "not compared: no commit"
    texts = (committed, PARAMS_FILE.read_text(encoding="utf-8"))
    before, now = (dict(leaves(YAML(typ="safe").load(text))) for text in texts)
    names = [name for name in {**before, **now} if before.get(name) != now.get(name) and not name.startswith("run.")]
    changes = [f"{name}: {now.get(name)} (committed: {before.get(name)})" for name in names]
    return "; ".join(changes) or "as committed in params.yaml"


def _git(*arguments: str) -> str | None:
    """What a git command prints here; None where it fails, or there is no git."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if done.returncode else done.stdout
