"""Who is ahead of whom: the sentence that opens the page, and the leads as a forest plot.

A lead is significant where its paired 95 % interval excludes 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from thinkrec.evaluation.models import OURS, display_name, kind_of

METRIC_NAMES = {"auc": "AUC", "uauc": "UAUC", "log_loss": "log loss", "calibration_error": "calibration error"}
LEADING = ("auc", "uauc")  # the metrics of the sentence and of the forest plots
STANDINGS = {"ahead of": "better", "behind": "worse", "level with": "level"}  # and their classes on the page
Table = dict[str, Any]  # of a split, or of its new items, as `evaluation.tables` makes it


def metric_name(metric: str) -> str:
    """What people call a metric."""
    return METRIC_NAMES.get(metric, metric.upper())


def figure_text(value: float | None, form: str = ".4f") -> str:
    """A figure, `+.4f` a difference; a dash where there is none."""
    return "–" if value is None else f"{value:{form}}".replace("-", "−")


def best_rival(table: Table, metric: str) -> str | None:
    """The best of the other models by a metric that all have."""
    values = {name: table["models"][name]["all"].get(metric) for name in _rivals(table)}
    measured = {name: value for name, value in values.items() if value is not None}
    return max(measured, key=lambda name: measured[name], default=None)


def _rivals(table: Table) -> list[str]:
    """The other models under the online protocol; other ways of routing ThinkRec are none."""
    return [name for name in table["models"] if kind_of(name) == "online" and not name.startswith(OURS)]


def standing(lead: dict[str, Any]) -> str:
    """Where ThinkRec stands by a lead's interval: one of STANDINGS."""
    low, high = lead["low"], lead["high"]
    if low is None or high is None or low <= 0 <= high:
        return "level with"
    return "ahead of" if low > 0 else "behind"


def headline(test: Table | None) -> str:
    """The page's first sentence: who is ahead of whom on test, with the intervals."""
    if test is None:
        return "There are no test interactions, so nothing was compared."
    parts: list[str] = []
    for metric in LEADING:
        best = best_rival(test, metric)
        lead = test["differences"].get(best, {}).get(metric)
        if best and lead and lead["difference"] is not None:
            difference, low, high = (figure_text(lead[key], "+.4f") for key in ("difference", "low", "high"))
            of_whom = "of them" if parts else f"of {len(_rivals(test))} other models"
            parts.append(
                f"{standing(lead)} {display_name(best)}, the best {of_whom} by {metric_name(metric)} "
                f"({difference}, 95 % interval {low} to {high})"
            )
    rows = test["models"][OURS]["all"]["rows"]
    if not parts:
        return f"ThinkRec scored {rows:,} test interactions, and nothing that it could be compared with was measured."
    return f"On {rows:,} test interactions ThinkRec is {', and '.join(parts)}."


def forest(table: Table, metric: str) -> dict[str, Any] | None:
    """A forest plot of the leads by a metric, the smallest first; None without any.

    `axis` are its ends and `zero` the place of 0, in percent of the width; of `rows` each has `name`, the `lead`, its
    class `kind` and the places of `value`, `low` and `high`, or an `arrow` that points at what lies beyond the axis.
    """
    leads = {
        name: entry[metric]
        for name, entry in table["differences"].items()
        if kind_of(name) == "online" and entry[metric]["difference"] is not None
    }
    if not leads:
        return None
    left, right = ends = axis(list(leads.values()))

    def place(value: float | None) -> str:
        return "" if value is None else f"{100 * min(max((value - left) / (right - left), 0.0), 1.0):.2f}%"

    rows = []
    for name, lead in sorted(leads.items(), key=lambda pair: pair[1]["difference"]):
        value = lead["difference"]
        places = {key: place(value if lead[key] is None else lead[key]) for key in ("low", "high")}
        row = {"name": display_name(name), "lead": lead, "kind": STANDINGS[standing(lead)], "value": place(value)}
        rows.append(row | places | {"arrow": "◀" if value < left else "▶" if value > right else ""})
    return {"metric": metric_name(metric), "axis": ends, "zero": place(0), "rows": rows}


def axis(leads: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """The ends of a forest plot's axis: wide enough for the nearer half of the leads, with 0 inside."""
    nearer = sorted(leads, key=lambda lead: abs(lead["difference"]))[: max(1, (len(leads) + 1) // 2)]
    ends = [end for lead in nearer for end in (lead["low"], lead["high"], lead["difference"]) if end is not None]
    low, high = min(*ends, 0.0), max(*ends, 0.0)
    margin = 0.08 * (high - low) or 0.01
    return low - margin, high + margin
