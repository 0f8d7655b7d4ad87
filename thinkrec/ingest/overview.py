"""What a dataset is like, for people: the figures of `metrics/ingest.json` and one picture, plots/dataset.png.

Everything is counted on whole columns, so that millions of rows take seconds.

Shapes: n interactions, u users, i items.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from thinkrec.artifacts import SPLITS
from thinkrec.figures import COLOURS, GREY, panels, save
from thinkrec.history import history_bounds, seen_in_train
from thinkrec.ingest.partitions import DAY
from thinkrec.ingest.splits import Windows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SPLIT_COLOURS = dict(zip(SPLITS, COLOURS[1:4], strict=True))
BARS = 80  # of ratings over time, at most
FAR = 0.001  # share of ratings that may lie beyond either end of the picture
FEW = 5  # ratings without which a like-rate is not drawn
RATE_BINS = 20
POINTS = 300  # of a long tail's curve
TOP = 0.1  # of users, of items: the share of all ratings that these have is told

Counts = NDArray[np.int64]


def describe(interactions: pd.DataFrame, truth: pd.DataFrame) -> dict[str, Any]:
    """Shares of all ratings that the busiest tenth has, and what each split is like.

    `best_auc` is that of scoring by the true probability, where it is known.
    """
    busiest = {f"{name}s": _share_of_top(np.bincount(interactions[name])) for name in ("user", "item")}
    start, end = history_bounds(interactions["user"], interactions["timestamp"])
    length, tied = end - start, _tied(interactions)
    known_user, known_item = seen_in_train(interactions)
    user, item, label = (interactions[name].to_numpy() for name in ("user", "item", "label"))
    code = interactions["split"].cat.codes.to_numpy()
    splits: dict[str, dict[str, Any]] = {}
    for number, split in enumerate(SPLITS):
        rows = np.flatnonzero(code == number)
        splits[split] = {
            "interactions": len(rows),
            "users": np.count_nonzero(np.bincount(user[rows])),
            "items": np.count_nonzero(np.bincount(item[rows])),
            "positive_share": float(label[rows].mean()),
            "warm_share": float((known_user & known_item)[rows].mean()),
            "known_user_share": float(known_user[rows].mean()),
            "known_item_share": float(known_item[rows].mean()),
            "no_history_share": float((length[rows] == 0).mean()),
            "median_history": float(np.median(length[rows])),
            "tied_share": float(tied[rows].mean()),
        }
        if len(truth):
            both = 0 < label[rows].mean() < 1
            probability = truth["probability"].to_numpy()[rows]
            splits[split]["best_auc"] = float(roc_auc_score(label[rows], probability)) if both else float("nan")
    return {"ratings_of_busiest_tenth": busiest, "splits": splits}


def _share_of_top(count: Counts) -> float:
    """The share of all ratings that the busiest tenth has, at least one of them."""
    top = max(1, round(TOP * len(count)))
    return float(np.sort(count)[-top:].sum() / count.sum())


def _tied(interactions: pd.DataFrame) -> NDArray[np.bool_]:
    """Whether another row of the user has the same timestamp (n)."""
    user, time = interactions["user"].to_numpy(), interactions["timestamp"].to_numpy()
    same = (user[1:] == user[:-1]) & (time[1:] == time[:-1])
    return np.append(same, False) | np.append(False, same)


def draw(path: Path, interactions: pd.DataFrame, days: Counter[int], windows: Windows) -> None:
    """The dataset in six panels. `days` counts all good rows by day since 1970, those outside the windows too."""
    figure, (over_time, sizes, histories, rates, warm, tail) = panels(2, 3, 15.0, 8.0)
    _draw_time(over_time, days, windows)
    _draw_sizes(sizes, interactions)
    _draw_histories(histories, interactions)
    _draw_rates(rates, interactions)
    _draw_warm(warm, interactions)
    _draw_tail(tail, interactions)
    save(figure, path)


def _draw_time(axes: Axes, days: Counter[int], windows: Windows) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    day = np.array(sorted(days))
    count = np.array([days[number] for number in day.tolist()])
    # A few stray ratings, years away, would leave the rest no room.
    share = np.cumsum(count) / count.sum()
    first = min(int(day[np.searchsorted(share, FAR)]), windows.train.start // DAY)
    last = max(int(day[np.searchsorted(share, 1 - FAR)]), (windows.test.end - 1) // DAY)
    step = -(-(last + 1 - first) // BARS)
    edges = np.arange(first, last + 1 + step, step)
    height, _ = np.histogram(day, bins=edges, weights=count)
    axes.stairs(height, edges, fill=True, color="#777777", zorder=2)
    for split in SPLITS:
        window = windows.of(split)
        axes.axvspan(
            window.start / DAY, window.end / DAY, color=SPLIT_COLOURS[split], alpha=0.25, linewidth=0, label=split
        )
    locator = AutoDateLocator(maxticks=8)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.set(
        ylabel=f"ratings in {step} days" if step > 1 else "ratings a day",
        title="Ratings read, and the windows",
        xlim=(edges[0], edges[-1]),
    )
    axes.legend(frameon=False, fontsize=9)


def _draw_sizes(axes: Axes, interactions: pd.DataFrame) -> None:
    code = interactions["split"].cat.codes.to_numpy()
    place = 0
    ticks: dict[int, str] = {}
    for column, known, plural in zip(("user", "item"), seen_in_train(interactions), ("users", "items"), strict=True):
        number = interactions[column].to_numpy()
        for at, split in enumerate(SPLITS):
            old, new = (int(np.count_nonzero(np.bincount(number[(code == at) & rows]))) for rows in (known, ~known))
            colour = SPLIT_COLOURS[split]
            axes.bar(place, old, color=colour)
            axes.bar(place, new, bottom=old, color=colour, alpha=0.4)
            axes.text(place, old + new, f"{old + new:,}", ha="center", va="bottom", fontsize=9)
            ticks[place] = f"{plural}\n{split}"
            place += 1
        place += 1
    axes.set_xticks(list(ticks), list(ticks.values()), fontsize=9)
    axes.set(title="Users and items (pale: not in train)", ylim=(0, axes.get_ylim()[1] * 1.08))  # room for the numbers


def _draw_histories(axes: Axes, interactions: pd.DataFrame) -> None:
    start, end = history_bounds(interactions["user"], interactions["timestamp"])
    bin_of = np.ceil(np.log2(end - start + 1)).astype(np.int64)  # 0, 1, 2-3, 4-7, ...
    code = interactions["split"].cat.codes.to_numpy()
    bins = int(bin_of.max()) + 1
    for number, split in enumerate(SPLITS):
        count = np.bincount(bin_of[code == number], minlength=bins)
        axes.plot(range(bins), count / count.sum(), "o-", color=SPLIT_COLOURS[split], label=split, markersize=4)
    low = [0 if at == 0 else 2 ** (at - 1) for at in range(bins)]
    shown = range(0, bins, -(-bins // 9))
    axes.set_xticks(list(shown), [f"{low[at]:,}" if at < 2 else f"{low[at]:,}–" for at in shown])
    axes.set(
        xlabel="strictly earlier ratings of the user",
        ylabel="share of ratings",
        title="History lengths",
        ylim=(0, None),
    )
    axes.legend(frameon=False, fontsize=9)


def _draw_rates(axes: Axes, interactions: pd.DataFrame) -> None:
    label = interactions["label"].to_numpy()
    edges = np.linspace(0, 1, RATE_BINS + 1)
    for column, colour in (("user", COLOURS[0]), ("item", COLOURS[5])):
        number = interactions[column].to_numpy()
        count = np.bincount(number)
        often = count >= FEW
        rate = np.bincount(number, weights=label)[often] / count[often]
        share = np.histogram(rate, bins=edges)[0] / max(len(rate), 1)
        axes.stairs(share, edges, color=colour, linewidth=1.8, label=f"{column}s ({len(rate):,})")
    code = interactions["split"].cat.codes.to_numpy()
    for at, split in enumerate(SPLITS):
        mean = label[code == at].mean()
        axes.axvline(mean, color=SPLIT_COLOURS[split], linestyle="--", linewidth=1.3, label=f"{split}: {mean:.3f}")
    axes.set(
        xlabel=f"share of likes, of those with {FEW} ratings or more",
        ylabel="share of them",
        title="Like-rates",
        xlim=(0, 1),
    )
    axes.legend(frameon=False, fontsize=9)


def _draw_warm(axes: Axes, interactions: pd.DataFrame) -> None:
    known_user, known_item = seen_in_train(interactions)
    kinds = {
        "warm": known_user & known_item,
        "new user": ~known_user & known_item,
        "new item": known_user & ~known_item,
        "both new": ~known_user & ~known_item,
    }
    code = interactions["split"].cat.codes.to_numpy()
    later = [split for split in SPLITS if split != "train"]
    left = np.zeros(len(later))
    for (kind, rows), colour in zip(kinds.items(), (COLOURS[2], COLOURS[4], COLOURS[3], COLOURS[0]), strict=True):
        share = np.array([rows[code == SPLITS.index(split)].mean() for split in later])
        axes.barh(later, share, left=left, color=colour, label=kind)
        for at, (begin, width) in enumerate(zip(left, share, strict=True)):
            if width > 0.04:
                axes.text(begin + width / 2, at, f"{width:.0%}", ha="center", va="center", fontsize=9)
        left += share
    axes.invert_yaxis()
    axes.set(xlabel="share of ratings", title="Warm and cold", xlim=(0, 1))
    axes.legend(frameon=False, fontsize=9, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.15))


def _draw_tail(axes: Axes, interactions: pd.DataFrame) -> None:
    for column, colour in (("user", COLOURS[0]), ("item", COLOURS[5])):
        count = np.sort(np.bincount(interactions[column]))[::-1]
        held = np.append(0, np.cumsum(count)) / count.sum()
        at = np.unique(np.linspace(0, len(count), POINTS).astype(np.int64))
        top = _share_of_top(count)
        axes.plot(at / len(count), held[at], color=colour, label=f"{column}s ({len(count):,}): busiest tenth {top:.0%}")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1)
    axes.set(
        xlabel="share of users or items, busiest first",
        ylabel="share of ratings",
        title="Long tail",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    axes.legend(frameon=False, fontsize=9, loc="lower right")
