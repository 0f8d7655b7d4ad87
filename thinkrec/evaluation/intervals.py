"""How sure a figure is (METHOD §6): percentile bootstrap over users, paired differences, Holm's correction.

Users, not rows, are drawn: one user's rows stand or fall together, and a few users hold many of them. All models of a
table share each draw, so that the difference of two models is free of the draw's luck.

Shape suffixes: n rows, u users, d draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from thinkrec.metrics import Floats, Ints, WeightedAuc, auc, per_user, weighted_means

DRAWS = 10_000
LEVEL = 0.95
HEADLINE = ("auc", "uauc", "ndcg@5", "ndcg@10", "map@5")
# Numbers held at once: small enough for a core's cache, where the AUC's running sums are three times faster.
CHUNK_CELLS = 2**18


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootstrap:
    """One model's headline metrics: their values, and what each draw of users made of them (d)."""

    value: dict[str, float]
    draws: dict[str, Floats]


def bootstrap(
    user: ArrayLike,
    label: ArrayLike,
    scores: Mapping[str, ArrayLike],
    *,
    metrics: Sequence[str] = HEADLINE,
    draws: int = DRAWS,
    seed: int,
) -> dict[str, Bootstrap]:
    """Draw users with replacement and measure every model on each draw: models by name, as in `scores`.

    `metrics` are `auc` and names of `metrics.PerUser`. Memory is bounded, whatever the number of rows and draws.
    """
    users, segment_n = np.unique(np.asarray(user), return_inverse=True)
    label_n = np.asarray(label)
    ks = sorted({int(name.partition("@")[2].removesuffix("_long")) for name in metrics if "@" in name})
    auc_of = {model: WeightedAuc.prepare(segment_n, label_n, score) for model, score in scores.items()}
    by_user = {model: per_user(segment_n, label_n, score, ks=ks, seed=seed) for model, score in scores.items()}
    drawn: dict[str, dict[str, Floats]] = {model: {name: np.empty(draws) for name in metrics} for model in scores}

    cells = max(each.cells for each in auc_of.values()) if auc_of else 0
    for start, weight_du in resampled(len(users), cells=cells, draws=draws, seed=seed):
        held = slice(start, start + len(weight_du))
        weight_ud = np.ascontiguousarray(weight_du.T)
        for model, columns in drawn.items():
            for name, column in columns.items():
                column[held] = (
                    auc_of[model](weight_ud)
                    if name == "auc"
                    else weighted_means(by_user[model].values[name], weight_du)
                )
    values = {model: {"auc": auc(label_n, score), **by_user[model].means()} for model, score in scores.items()}
    return {
        model: Bootstrap(
            value={name: value for name, value in values[model].items() if name in metrics}, draws=drawn[model]
        )
        for model in scores
    }


def resampled(users: int, *, cells: int = 0, draws: int, seed: int) -> Iterator[tuple[int, Ints]]:
    """How often each draw holds each user (d, u), in chunks with their first draw's number.

    A chunk is as large as `cells` numbers for each draw allow. The draws depend on `seed` and `users` alone.
    """
    generator = np.random.default_rng(seed)
    chunk = max(8, CHUNK_CELLS // max(cells, users, 1))
    for start in range(0, draws, chunk):
        size = min(chunk, draws - start)
        picked = generator.integers(users, size=(size, users)) + users * np.arange(size)[:, None]
        yield start, np.bincount(picked.ravel(), minlength=size * users).reshape(size, users)


def interval(drawn: ArrayLike, *, level: float = LEVEL) -> dict[str, float]:
    """The middle `level` of the draws, from `low` to `high`; draws without a value (one class only) are left out."""
    values = np.asarray(drawn, dtype=np.float64)
    values = values[~np.isnan(values)]
    edges = np.quantile(values, [(1 - level) / 2, (1 + level) / 2]) if len(values) else np.full(2, np.nan)
    return dict(zip(("low", "high"), edges.tolist(), strict=True))


def mean_draws(user: ArrayLike, value: ArrayLike, *, draws: int = DRAWS, seed: int) -> Floats:
    """What each draw of users makes of the mean of `value` (k,), of the users `user` (k,); NaN without any."""
    users, segment_k = np.unique(np.asarray(user), return_inverse=True)
    if not len(users):
        return np.full(draws, np.nan)
    sum_u, rows_u = np.bincount(segment_k, np.asarray(value)), np.bincount(segment_k)
    chunks = resampled(len(users), draws=draws, seed=seed)
    return np.concatenate([(weight_du @ sum_u) / (weight_du @ rows_u) for _, weight_du in chunks])


def p_value(drawn: ArrayLike) -> float:
    """Two-sided p of "no difference": twice the share of draws on the rarer side of 0, never below 2 / (draws + 1).

    A draw of exactly 0 is on both sides.
    """
    values = np.asarray(drawn, dtype=np.float64)
    values = values[~np.isnan(values)]
    rarer = min((values <= 0).sum(), (values >= 0).sum())
    return float(min(1.0, 2 * (rarer + 1) / (len(values) + 1)))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment: the smallest of m values times m, the next times m - 1, and never falling."""
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    adjusted = np.empty(len(values))
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, values[order] * np.arange(len(values), 0, -1)))
    return [float(value) for value in adjusted]
