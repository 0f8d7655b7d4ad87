"""The evaluation's pictures (PNG), and the points of its curves for `dvc plots`.

Line styles tell models apart once the colours (`thinkrec.figures`) run out.

Shape suffixes: n rows, u users, e adapters (the global one, then N experts), d embedding size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thinkrec.evaluation.models import display_name
from thinkrec.figures import COLOURS, GREY, panels, save
from thinkrec.metrics import Floats, auc, calibration_bins, calibration_error

STYLES = ("-", "--", ":", "-.")
CURVES = ("thinkrec", "running_rates", "logistic_regression", "mf", "sasrec", "best")  # as many as stay readable
CURVE_POINTS = 200
SHOWN_USERS = 600


def shown(columns: Iterable[str]) -> list[str]:
    """The models whose ROC curves are drawn: those of CURVES that have one of the `columns`."""
    return [name for name in CURVES if name in set(columns)]


def roc_points(predictions: pd.DataFrame, models: Sequence[str], *, limit: int = CURVE_POINTS) -> list[dict[str, Any]]:
    """The ROC curves of these models as rows {model, fpr, tpr}, at most `limit` a model, both corners included."""
    points: list[dict[str, Any]] = []
    for model in models:
        by_score = predictions.groupby(model)["label"].agg(["size", "sum"])[::-1].cumsum()  # equal scores are one step
        liked, rows = (np.append(0, by_score[column]) for column in ("sum", "size"))
        tpr, fpr = (count / max(count[-1], 1) for count in (liked, rows - liked))
        # Evenly spaced along the curve's own length: flat and steep stretches keep their corners.
        length = np.concatenate([[0.0], np.cumsum(np.diff(fpr) + np.diff(tpr))])
        places = np.unique(np.searchsorted(length, np.linspace(0, length[-1], limit)).clip(max=len(length) - 1))
        points += [{"model": model, "fpr": float(fpr[at]), "tpr": float(tpr[at])} for at in places]
    return points


def calibration_points(predictions: pd.DataFrame, models: Sequence[str]) -> list[dict[str, Any]]:
    """Each model's equal-mass bins as rows {model, predicted, observed, rows}."""
    points: list[dict[str, Any]] = []
    for model in models:
        bins = calibration_bins(predictions["label"], predictions[model])
        points += [
            {"model": model, "predicted": float(predicted), "observed": float(observed), "rows": int(rows)}
            for predicted, observed, rows in zip(*bins, strict=True)
        ]
    return points


def draw_roc(path: Path, predictions: pd.DataFrame, models: Sequence[str], *, ours: str = "thinkrec") -> None:
    """These models' ROC curves in one square, `ours` on top, the legend by falling AUC."""
    figure, (axes,) = panels(1, 1, 6.0, 6.0)
    area = {model: auc(predictions["label"], predictions[model]) for model in models}
    curves = pd.DataFrame(roc_points(predictions, models)).groupby("model")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1)
    lines = {}
    for rank, model in enumerate(sorted(models, key=lambda model: model != ours)):
        curve = curves.get_group(model)
        (lines[model],) = axes.plot(
            curve["fpr"],
            curve["tpr"],
            label=f"{display_name(model)} ({area[model]:.3f})",
            color=COLOURS[rank % len(COLOURS)],
            linestyle=STYLES[rank // len(COLOURS) % len(STYLES)],
            linewidth=2.4 if model == ours else 1.3,
            zorder=3 if model == ours else 2,
        )
    by_area = [lines[model] for model in sorted(models, key=lambda model: -area[model])]
    axes.legend(handles=by_area, title="AUC", loc="lower right", frameon=False, fontsize=9)
    axes.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC", xlim=(0, 1), ylim=(0, 1))
    axes.set_aspect("equal")
    save(figure, path)


def draw_calibration(path: Path, predictions: pd.DataFrame, model: str = "thinkrec") -> None:
    """Observed share of likes against predicted probability in equal-mass bins, over the probabilities' histogram."""
    figure, (axes,) = panels(1, 1, 6.0, 6.0)
    error = calibration_error(predictions["label"], predictions[model])
    points = pd.DataFrame(calibration_points(predictions, [model]))
    below = axes.twinx()
    below.hist(predictions[model], bins=np.linspace(0, 1, 41).tolist(), color="#d9d9d9")
    below.set(ylabel="rows", ylim=(0, below.get_ylim()[1] * 3))  # the histogram keeps to the lower third
    axes.set_zorder(below.get_zorder() + 1)
    axes.patch.set_visible(False)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1)
    axes.plot(points["predicted"], points["observed"], "o-", color=COLOURS[0], linewidth=2)
    axes.set(
        xlabel="predicted probability",
        ylabel="observed share of likes",
        title=f"Calibration of {display_name(model)} (expected error {error:.3f})",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    save(figure, path)


def draw_gate(path: Path, weight_ue: NDArray[Any], group_u: NDArray[Any]) -> None:
    """Every user as a thin column of adapter weights adding up to 1, by group, and by falling weight within one.

    `weight_ue` is a routing matrix (u, N + 1): column 0 is the global adapter, column n is group n - 1's expert.
    """
    figure, (axes,) = panels(1, 1, 8.0, 4.0)
    # Within a group, order by the adapter that leads the group as a whole: neighbours then look alike.
    leader_u = np.zeros(len(group_u), np.int64)
    for group in np.unique(group_u):
        leader_u[group_u == group] = weight_ue[group_u == group].mean(axis=0).argmax()
    order = np.lexsort((-weight_ue[np.arange(len(group_u)), leader_u], group_u))
    order = order[np.unique(np.linspace(0, len(order) - 1, min(SHOWN_USERS, len(order))).astype(int))]
    shown_ue, shown_group = weight_ue[order], np.asarray(group_u)[order]
    top_ue = np.cumsum(shown_ue, axis=1)
    edges = np.linspace(0, 1, len(order) + 1)
    for adapter in range(weight_ue.shape[1]):
        axes.stairs(
            top_ue[:, adapter],
            edges,
            baseline=top_ue[:, adapter] - shown_ue[:, adapter],
            fill=True,
            color=COLOURS[(adapter - 1) % len(COLOURS)] if adapter else GREY,
            label=f"{f'expert {adapter}' if adapter else 'global'} ({weight_ue[:, adapter].mean():.0%})",
        )
    starts = np.flatnonzero(np.diff(shown_group, prepend=shown_group[:1] - 1))
    for start in starts[1:]:
        axes.axvline(edges[start], color="black", linewidth=1.2)
    middles = [(edges[start] + edges[end]) / 2 for start, end in zip(starts, [*starts[1:], len(order)], strict=True)]
    names = [f"group {shown_group[start] + 1}\n{(group_u == shown_group[start]).sum():,} users" for start in starts]
    axes.set_xticks(middles, names)
    axes.set(ylabel="weight", title="Which adapter speaks for whom", xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=9, title="mean weight")
    save(figure, path)


def draw_groups(path: Path, vector_ud: NDArray[Any], group_u: NDArray[Any]) -> None:
    """User vectors on their first two principal components, coloured by group; a cross marks each group's mean."""
    figure, (axes,) = panels(1, 1, 6.0, 5.0)
    place_u2, share = principal_components(vector_ud)
    for group in np.unique(group_u):
        x, y = place_u2[group_u == group].T
        colour, label = COLOURS[int(group) % len(COLOURS)], f"group {group + 1} ({len(x):,})"
        axes.scatter(x, y, s=9, alpha=0.6, linewidths=0, color=colour, label=label)
        axes.scatter([x.mean()], [y.mean()], s=140, marker="X", color=colour, edgecolors="black", zorder=3)
    axes.set(
        xlabel=f"first component ({share[0]:.0%} of variance)",
        ylabel=f"second component ({share[1]:.0%})",
        title="User groups",
    )
    axes.legend(frameon=False, fontsize=9, markerscale=2)
    save(figure, path)


def principal_components(vector_ud: NDArray[Any]) -> tuple[Floats, Floats]:
    """Places on the first two principal components (u, 2) and the shares of variance they explain (2)."""
    from sklearn.decomposition import PCA  # a second to import, which the report can do without

    components = PCA(min(2, *vector_ud.shape), svd_solver="full")
    place = components.fit_transform(np.asarray(vector_ud, dtype=np.float64))
    missing = 2 - place.shape[1]  # a single dimension has no second component
    share = np.nan_to_num(components.explained_variance_ratio_)
    return np.pad(place, ((0, 0), (0, missing))), np.pad(share, (0, missing))
