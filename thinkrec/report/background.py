"""Behind the figures: the data, how training went, and what exactly was run."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from thinkrec.artifacts import leaves
from thinkrec.params import PARAMS_FILE
from thinkrec.report.accuracy import figure_text
from thinkrec.report.markup import Content, Markup, curve, element, join, table

PACKAGES = ("torch", "transformers", "peft", "numpy", "pandas", "scikit-learn")
SPLIT_FACTS = {  # of `ingest`'s measures, and what people call them
    "interactions": "interactions",
    "users": "users",
    "items": "items",
    "positive_share": "liked",
    "known_user_share": "of users in train",
    "known_item_share": "of items in train",
    "median_history": "median history",
    "no_history_share": "without history",
    "best_auc": "AUC of the true probabilities",
}


def data_panel(measured: dict[str, Any]) -> Markup:
    """The dataset by split, from the measures of `ingest`."""
    rows = []
    for split, facts in measured["splits"].items():
        cells = [_fact(name, facts[name]) for name in SPLIT_FACTS if name in facts]
        rows.append([[split, element("small", None, measured["windows"].get(split, ""))], *cells])
    names = [called for name, called in SPLIT_FACTS.items() if name in next(iter(measured["splits"].values()))]
    refused = sum(measured["quarantined"].values())
    busiest = measured["ratings_of_busiest_tenth"]
    return join(
        [
            element(
                "p",
                {"class": "hint"},
                f"{measured['dataset']}: {measured['interactions']:,} interactions of {measured['users']:,} users with "
                f"{measured['items']:,} items, of {measured['rows_read']:,} rows read ({refused:,} malformed). The "
                f"busiest tenth of the users has {busiest['users']:.0%} of the interactions, that of the items "
                f"{busiest['items']:.0%}.",
            ),
            table("The splits", ["split", *names], rows),
        ]
    )


def _fact(name: str, value: Any) -> str:
    if value is None:
        return "–"
    if name == "best_auc":
        return figure_text(value)
    return f"{value:.0%}" if name.endswith("_share") else f"{value:,.0f}"


def learning(sft: dict[str, Any], gate: dict[str, Any]) -> Markup:
    """Curves over epochs of fine-tuning and of the gate, from the measures of `sft` and `gate`."""
    curves: list[Content] = []
    for title, epochs in (("Fine-tuning, by epoch", sft["curve"]), ("Gate, by epoch", gate.get("epochs", []))):
        series = {
            name: [epoch[metric] for epoch in epochs if epoch.get(metric) is not None]
            for metric, name in (("auc", "valid AUC"), ("uauc", "valid UAUC"))
        }
        measured = {name: points for name, points in series.items() if points}
        if measured:
            curves.append(curve(title, measured))
    if not curves:
        return element("p", {"class": "hint"}, "No epoch was measured on valid.")
    return element("div", {"class": "charts"}, curves)


def provenance(settings: dict[str, str]) -> Markup:
    """What was run: code, parameters that differ from the committed ones, seed and versions.

    Nothing of it differs between two clones of one commit on one machine: the date is that of the commit.
    """
    changed = changed_parameters()
    facts = {
        **settings,
        "code": code_commit() or "not in a git repository with a commit",
        "parameters": "not compared: no commit"
        if changed is None
        else "; ".join(f"{name}: {new} (committed: {old})" for name, (old, new) in changed.items())
        or "as committed in params.yaml",
        "versions": ", ".join([f"Python {platform.python_version()}", *filter(None, map(_version, PACKAGES))]),
    }
    return element(
        "dl",
        {"class": "provenance"},
        [element("div", None, element("dt", None, name), element("dd", None, value)) for name, value in facts.items()],
    )


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
    if not commit:
        return None
    return commit.strip() + (
        ", and changes that are not committed" if _git("diff", "HEAD", "--stat", "--", *code) else ""
    )


def changed_parameters() -> dict[str, tuple[Any, Any]] | None:
    """Parameters whose values differ from those of the last commit: name -> that value and the present one."""
    committed = _git("show", f"HEAD:./{PARAMS_FILE.name}")
    if committed is None:
        return None
    yaml = YAML(typ="safe")
    before, now = dict(leaves(yaml.load(committed))), dict(leaves(yaml.load(PARAMS_FILE.read_text(encoding="utf-8"))))
    names = [name for name in {**before, **now} if before.get(name) != now.get(name) and not name.startswith("run.")]
    return {name: (before.get(name), now.get(name)) for name in names}


def _git(*arguments: str) -> str | None:
    """What a git command prints here; None where it fails, or there is no git."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if done.returncode else done.stdout
