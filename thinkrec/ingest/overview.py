"""What a dataset is like, for people: the figures of `ingest`'s measures and one picture, plots/dataset.png.

Everything is counted on whole columns (n interactions), so that millions of rows take seconds.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thinkrec.artifacts import SPLITS
from thinkrec.figures import COLOURS, GREY, panels, save
from thinkrec.history import history_bounds, seen_in_train
from thinkrec.ingest.partitions import DAY
from thinkrec.ingest.splits import Windows
from thinkrec.metrics import auc

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SPLIT_COLOURS = dict(zip(SPLITS, COLOURS[1:4], strict=True))
ID_COLOURS = {"user": COLOURS[0], "item": COLOURS[5]}
BARS = 80  # of ratings over time, at most
FAR = 0.001  # share of ratings that may lie beyond either end of the picture
FEW = 5  # ratings without which a like-rate is not drawn
RATE_BINS = 20
POINTS = 300  # of a long tail's curve
TOP = 0.1  # of users, of items: those whose share of all ratings is stated
LEGEND: dict[str, Any] = {"frameon": False, "fontsize": 9}


def describe(interactions: pd.DataFrame, truth: pd.DataFrame) -> dict[str, Any]:
    """Shares of all ratings that the busiest tenth has, and what each split is like.

    `best_auc` is that of scoring by the true probability, where it is known.
    """
    start, end = history_bounds(interactions["user"], interactions["timestamp"])
    in_train = seen_in_train(interactions)
    rows = pd.DataFrame(
        {
            "positive_share": interactions["label"],
            "warm_share": in_train[0] & in_train[1],
            "known_user_share": in_train[0],
            "known_item_share": in_train[1],
            "no_history_share": end == start,
            "median_history": end - start,
            "tied_share": interactions.duplicated(["user", "timestamp"], keep=False),
        }
    )
    splits: dict[str, dict[str, Any]] = {}
    for split in SPLITS:
        chosen = (interactions["split"] == split).to_numpy()
        means = rows[chosen].astype(np.float64).mean()
        splits[split] = {
            "interactions": int(chosen.sum()),
            "users": interactions["user"][chosen].nunique(),
            "items": interactions["item"][chosen].nunique(),
            **{str(name): float(mean) for name, mean in means.items()},
            "median_history": float(rows["median_history"][chosen].median()),
        }
        if len(truth):
            splits[split]["best_auc"] = auc(rows["positive_share"][chosen], truth["probability"][chosen])
    busiest = {f"{name}s": _share_of_top(np.bincount(interactions[name])) for name in ("user", "item")}
    return {"ratings_of_busiest_tenth": busiest, "splits": splits}


def _share_of_top(count: NDArray[np.int64]) -> float:
    """The share of all ratings that the busiest tenth has, at least one of them."""
    top = max(1, round(TOP * len(count)))
    return float(np.sort(count)[-top:].sum() / count.sum())


def draw(path: Path, interactions: pd.DataFrame, days: Counter[int], windows: Windows) -> None:
    """The dataset in six panels. `days` counts all good rows by day since 1970, those outside the windows too."""
    figure, (over_time, *others) = panels(2, 3, 15.0, 8.0)
    _draw_time(over_time, days, windows)
    for axes, draw_panel in zip(
        others, (_draw_sizes, _draw_histories, _draw_rates, _draw_warm, _draw_tail), strict=True
    ):
        draw_panel(axes, interactions)
    save(figure, path)


def _draw_time(axes: Axes, days: Counter[int], windows: Windows) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    day = np.array(sorted(days))
    count = np.array([days[number] for number in day.tolist()])
    # A few stray ratings, years away, would leave the rest no room.
    share = np.cumsum(count) / count.sum()
    first = min(int(day[np.searchsorted(share, FAR)]), windows["train"].start // DAY)
    last = max(int(day[np.searchsorted(share, 1 - FAR)]), (windows["test"].end - 1) // DAY)
    step = -(-(last + 1 - first) // BARS)
    edges = np.arange(first, last + 1 + step, step)
    height, _ = np.histogram(day, bins=edges, weights=count)
    axes.stairs(height, edges, fill=True, color="#777777", zorder=2)
    for split, colour in SPLIT_COLOURS.items():
        window = windows[split]
        axes.axvspan(window.start / DAY, window.end / DAY, color=colour, alpha=0.25, linewidth=0, label=split)
    locator = AutoDateLocator(maxticks=8)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    ylabel = f"ratings in {step} days" if step > 1 else "ratings a day"
    axes.set(ylabel=ylabel, title="Ratings read, and the windows", xlim=(edges[0], edges[-1]))
    axes.legend(**LEGEND)


def _draw_sizes(axes: Axes, interactions: pd.DataFrame) -> None:
    place = 0
    ticks: dict[int, str] = {}
    for column, in_train in zip(("user", "item"), seen_in_train(interactions), strict=True):
        for split, colour in SPLIT_COLOURS.items():
            chosen = interactions["split"] == split
            old, new = (interactions[column][chosen & rows].nunique() for rows in (in_train, ~in_train))
            axes.bar(place, old, color=colour)
            axes.bar(place, new, bottom=old, color=colour, alpha=0.4)
            axes.text(place, old + new, f"{old + new:,}", ha="center", va="bottom", fontsize=9)
            ticks[place] = f"{column}s\n{split}"
            place += 1
        place += 1
    axes.set_xticks(list(ticks), list(ticks.values()), fontsize=9)
    axes.set(title="Users and items (pale: not in train)", ylim=(0, axes.get_ylim()[1] * 1.08))  # room for the numbers


def _draw_histories(axes: Axes, interactions: pd.DataFrame) -> None:
    start, end = history_bounds(interactions["user"], interactions["timestamp"])
    bin_of = np.ceil(np.log2(end - start + 1)).astype(np.int64)  # 0, 1, 2-3, 4-7, ...
    bins = int(bin_of.max()) + 1
    for split, colour in SPLIT_COLOURS.items():
        count = np.bincount(bin_of[interactions["split"] == split], minlength=bins)
        axes.plot(range(bins), count / count.sum(), "o-", color=colour, label=split, markersize=4)
    low = [0 if at == 0 else 2 ** (at - 1) for at in range(bins)]
    shown = range(0, bins, -(-bins // 9))
    axes.set_xticks(list(shown), [f"{low[at]:,}" if at < 2 else f"{low[at]:,}–" for at in shown])
    axes.set(xlabel="strictly earlier ratings of the user", ylabel="share of ratings", title="History lengths")
    axes.set_ylim(0, None)
    axes.legend(**LEGEND)


def _draw_rates(axes: Axes, interactions: pd.DataFrame) -> None:
    edges = np.linspace(0, 1, RATE_BINS + 1)
    for column, colour in ID_COLOURS.items():
        likes = interactions.groupby(column)["label"].agg(["size", "mean"])
        rate = likes["mean"][likes["size"] >= FEW]
        share = np.histogram(rate, bins=edges)[0] / max(len(rate), 1)
        axes.stairs(share, edges, color=colour, linewidth=1.8, label=f"{column}s ({len(rate):,})")
    for split, colour in SPLIT_COLOURS.items():
        mean = interactions["label"][interactions["split"] == split].mean()
        axes.axvline(mean, color=colour, linestyle="--", linewidth=1.3, label=f"{split}: {mean:.3f}")
    xlabel = f"share of likes, of those with {FEW} ratings or more"
    axes.set(xlabel=xlabel, ylabel="share of them", title="Like-rates", xlim=(0, 1))
    axes.legend(**LEGEND)


def _draw_warm(axes: Axes, interactions: pd.DataFrame) -> None:
    user, item = seen_in_train(interactions)
    kinds = {"warm": user & item, "new user": ~user & item, "new item": user & ~item, "both new": ~user & ~item}
    later = SPLITS[1:]
    left = np.zeros(len(later))
    for (kind, rows), colour in zip(kinds.items(), (COLOURS[2], COLOURS[4], COLOURS[3], COLOURS[0]), strict=True):
        share = np.array([rows[interactions["split"] == split].mean() for split in later])
        axes.barh(later, share, left=left, color=colour, label=kind)
        for at, (begin, width) in enumerate(zip(left, share, strict=True)):
            if width > 0.04:
                axes.text(begin + width / 2, at, f"{width:.0%}", ha="center", va="center", fontsize=9)
        left += share
    axes.invert_yaxis()
    axes.set(xlabel="share of ratings", title="Warm and cold", xlim=(0, 1))
    axes.legend(**LEGEND, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.15))


def _draw_tail(axes: Axes, interactions: pd.DataFrame) -> None:
    for column, colour in ID_COLOURS.items():
        count = np.sort(np.bincount(interactions[column]))[::-1]
        share = np.append(0, np.cumsum(count)) / count.sum()
        at = np.unique(np.linspace(0, len(count), POINTS).astype(np.int64))
        label = f"{column}s ({len(count):,}): busiest tenth {_share_of_top(count):.0%}"
        axes.plot(at / len(count), share[at], color=colour, label=label)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1)
    xlabel = "share of users or items, busiest first"
    axes.set(xlabel=xlabel, ylabel="share of ratings", title="Long tail", xlim=(0, 1), ylim=(0, 1))
    axes.legend(**LEGEND, loc="lower right")
