"""Who is ahead of whom: the sentence that opens the page, the leads as a forest plot, every figure, and the slices.

All of it is text and drawings that need no script. A lead is significant where its paired 95 % interval excludes 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from thinkrec.evaluation.intervals import HEADLINE
from thinkrec.evaluation.models import BEST, OURS, display_name, kind_of
from thinkrec.evaluation.tables import CASE_NAMES, KINDS, NEW_ITEMS, SLICE_NAMES
from thinkrec.report.markup import Content, Markup, element, folded, join, spread, table

SHOWN_METRICS = (*HEADLINE, "log_loss", "calibration_error")
METRIC_NAMES = {"auc": "AUC", "uauc": "UAUC", "log_loss": "log loss", "calibration_error": "calibration error"}
LEADING = ("auc", "uauc")  # the metrics of the sentence and of the forest plots
Table = dict[str, Any]  # of a split, or of its new items, as `evaluation.tables` makes it


def metric_name(metric: str) -> str:
    """What people call a metric."""
    return METRIC_NAMES.get(metric, metric.upper())


def figure_text(value: float | None, digits: int = 4) -> str:
    """A figure; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def signed(value: float | None) -> str:
    """A difference with its sign."""
    return "–" if value is None else f"{value:+.4f}".replace("-", "−")


def rivals(table_: Table) -> list[str]:
    """The other models under the online protocol; other ways of routing ThinkRec are none."""
    return [name for name in table_["models"] if kind_of(name) == "online" and not name.startswith(OURS)]


def best_rival(table_: Table, metric: str) -> str | None:
    """The best of the other models by a metric that all have."""
    measured = [name for name in rivals(table_) if table_["models"][name]["all"].get(metric) is not None]
    return max(measured, key=lambda name: table_["models"][name]["all"][metric], default=None)


def standing(lead: dict[str, Any]) -> str:
    """Where ThinkRec stands by a lead's interval: `ahead of`, `behind` or `level with`."""
    low, high = lead["low"], lead["high"]
    if low is None or high is None or low <= 0 <= high:
        return "level with"
    return "ahead of" if low > 0 else "behind"


def headline(tables: dict[str, Table]) -> str:
    """The page's first sentence: who is ahead of whom on test, with the intervals."""
    test = tables.get("test")
    if test is None:
        return "There are no test interactions, so nothing was compared."
    count = len(rivals(test))
    parts: list[str] = []
    for metric in LEADING:
        best = best_rival(test, metric)
        lead = test["differences"].get(best, {}).get(metric) if best else None
        if best is None or lead is None or lead["difference"] is None:
            continue
        of_whom = "of them" if parts else f"of {count} other models"
        edges = f"{signed(lead['low'])} to {signed(lead['high'])}"
        parts.append(
            f"{standing(lead)} {display_name(best)}, the best {of_whom} by {metric_name(metric)} "
            f"({signed(lead['difference'])}, 95 % interval {edges})"
        )
    rows = test["models"][OURS]["all"]["rows"]
    if not parts:
        return f"ThinkRec scored {rows:,} test interactions, and nothing that it could be compared with was measured."
    return f"On {rows:,} test interactions ThinkRec is {', and '.join(parts)}."


def accuracy(tables: dict[str, Table]) -> Markup:
    """Tiles, forest plots of leads, and every figure behind them, folded away."""
    test = tables.get("test")
    if test is None:
        return element("p", {"class": "hint"}, "There are no test interactions.")
    return join(
        [
            element("div", {"class": "tiles"}, [_tile(test, metric) for metric in HEADLINE]),
            element(
                "p",
                {"class": "hint"},
                "ThinkRec minus each other model on the same test rows, with 95 % intervals (draws of users). Right of "
                "the line ThinkRec is better; a filled dot says that the interval does not reach the line. An arrow "
                "points at what lies beyond the axis.",
            ),
            forests(test, "test"),
            folded("All figures, test", values(test, "online", "test"), leads(test, "online", "test")),
            *(
                folded(f"{title}, test", values(test, kind, "test"), leads(test, kind, "test"))
                for kind, title in KINDS.items()
                if title and any(kind_of(name) == kind for name in test["models"])
            ),
            folded(
                "All figures, valid",
                values(tables["valid"], "online", "valid"),
                leads(tables["valid"], "online", "valid"),
            )
            if "valid" in tables
            else None,
        ]
    )


def _tile(test: Table, metric: str) -> Markup:
    ours = test["models"][OURS]
    edges = ours["interval"][metric]
    best = best_rival(test, metric)
    lead = test["differences"].get(best, {}).get(metric) if best else None
    return element(
        "div",
        {"class": "tile"},
        element("span", {"class": "name"}, metric_name(metric)),
        element("span", {"class": "value"}, figure_text(ours["all"][metric])),
        element("span", {"class": "more"}, f"95 %: {figure_text(edges['low'])} to {figure_text(edges['high'])}"),
        element("span", {"class": "more"}, f"{signed(lead['difference'])} to {display_name(best)}")
        if lead and best
        else None,
    )


def forests(table_: Table, where: str) -> Markup:
    """A forest plot of leads for each of the LEADING metrics."""
    return element("div", {"class": "forests"}, [_forest(table_, metric, where) for metric in LEADING])


def _forest(table_: Table, metric: str, where: str) -> Markup | None:
    leads_ = {
        name: entry[metric]
        for name, entry in table_["differences"].items()
        if kind_of(name) == "online" and entry[metric]["difference"] is not None
    }
    if not leads_:
        return None
    nearest = sorted(leads_, key=lambda name: leads_[name]["difference"])
    edges = axis([leads_[name] for name in nearest])
    rows: list[list[Content]] = []
    for name in nearest:
        lead = leads_[name]
        difference, low, high = lead["difference"], lead["low"], lead["high"]
        low, high = (difference if edge is None else edge for edge in (low, high))
        kind = {"ahead of": "better", "behind": "worse", "level with": "level"}[standing(lead)]
        interval = element("small", None, f"{signed(low)} … {signed(high)}")
        drawing = spread(edges, difference, low, high, kind)
        rows.append([display_name(name), drawing, [element("span", {"class": kind}, signed(difference)), interval]])
    scale = element(
        "span",
        {"class": "scale"},
        element("span", None, f"{signed(edges[0])[:6]}"),
        element("span", None, "ThinkRec better →"),
        element("span", None, f"{signed(edges[1])[:6]}"),
    )
    return table(f"Leads by {metric_name(metric)}, {where}", ["ThinkRec minus", scale, "lead"], rows, kind="forest")


def axis(leads_: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """The ends of a forest plot's axis: wide enough for the nearer half of the leads, with 0 inside."""
    nearer = sorted(leads_, key=lambda lead: abs(lead["difference"]))[: max(1, (len(leads_) + 1) // 2)]
    ends = [end for lead in nearer for end in (lead["low"], lead["high"], lead["difference"]) if end is not None]
    low, high = min(*ends, 0.0), max(*ends, 0.0)
    margin = 0.08 * (high - low) or 0.01
    return low - margin, high + margin


def values(table_: Table, kind: str, where: str) -> Markup:
    """Every metric of the models of one kind, with intervals of the headline metrics."""
    models = {name: model for name, model in table_["models"].items() if kind_of(name) == kind}
    has_lift = any("possible_lift" in model for model in models.values())
    rows = [
        [
            element("strong", None, display_name(name)) if name == OURS else display_name(name),
            *(_value(model, metric) for metric in SHOWN_METRICS),
            *([_percent(model.get("possible_lift"))] if has_lift else []),
        ]
        for name, model in models.items()
    ]
    heads = ["model", *map(metric_name, SHOWN_METRICS), *(["share of the achievable lift"] if has_lift else [])]
    totals = next(iter(table_["models"].values()))["all"]
    note = f"{totals['rows']:,} rows, {totals['users']['all']:,} users; 95 % intervals below the values"
    return table(f"Models, {where}{_of_kind(kind)}", heads, rows, note=note)


def leads(table_: Table, kind: str, where: str) -> Markup | None:
    """ThinkRec's leads over the models of one kind in every headline metric."""
    entries = {name: entry for name, entry in table_["differences"].items() if kind_of(name) == kind}
    if not entries:
        return None
    metrics = list(next(iter(entries.values())))
    rows = [[display_name(name), *(_lead(entry[metric]) for metric in metrics)] for name, entry in entries.items()]
    note = "on the same rows, under the same protocol; ▲ ahead, ▼ behind: the 95 % interval excludes 0"
    return table(
        f"ThinkRec minus each, {where}{_of_kind(kind)}", ["minus", *map(metric_name, metrics)], rows, note=note
    )


def _of_kind(kind: str) -> str:
    return "" if kind == "online" else f", {kind}"


def _value(model: dict[str, Any], metric: str) -> Content:
    edges = model["interval"].get(metric)
    below = (
        element("small", None, f"{figure_text(edges['low'], 3)} – {figure_text(edges['high'], 3)}") if edges else None
    )
    return [figure_text(model["all"].get(metric)), below]


def _lead(lead: dict[str, Any]) -> Content:
    sign, kind = {"ahead of": ("▲ ", "better"), "behind": ("▼ ", "worse")}.get(standing(lead), ("", None))
    return [
        element("span", {"class": kind}, f"{sign}{signed(lead['difference'])}"),
        element("small", None, f"{signed(lead['low'])} … {signed(lead['high'])}"),
    ]


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"


def slices(tables: dict[str, Table]) -> Markup:
    """Test rows cut by what is known of them, new items among them: ThinkRec beside the best other model."""
    test = tables.get("test")
    if test is None:
        return element("p", {"class": "hint"}, "There are no test interactions.")
    best = best_rival(test, "auc")
    compared = [name for name in (OURS, best, BEST) if name and name in test["models"]]
    rows: list[list[Content]] = []
    for name, bins in test["slices"].items():
        for bin_name, size in bins.items():
            figures = [test["models"][model]["slices"][name][bin_name] for model in compared]
            cells = [figure_text(of_model.get(metric)) for metric in LEADING for of_model in figures]
            rows.append(
                [
                    f"{SLICE_NAMES[name]}: {CASE_NAMES.get(bin_name, bin_name)}",
                    f"{size['rows']:,}",
                    f"{size['users']['all']:,}",
                    *cells,
                ]
            )
    heads = [f"{display_name(name)}, {metric_name(metric)}" for metric in LEADING for name in compared]
    new = test[NEW_ITEMS]
    measured = "models" in new
    ending = "." if measured else ": too few to be measured, or of one class."
    return join(
        [
            element("p", {"class": "hint"}, f"{new['rows']:,} test rows are about items that train never saw{ending}"),
            forests(new, "new items") if measured else None,
            folded("All figures, new items", values(new, "online", "new items"), leads(new, "online", "new items"))
            if measured
            else None,
            table("Slices of the test rows", ["slice", "rows", "users", *heads], rows) if rows else None,
        ]
    )
