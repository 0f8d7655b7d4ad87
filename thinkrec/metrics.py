"""Ranking and probability metrics (METHOD §6), in pure numpy and without a loop over users.

Every function takes flat arrays, one entry per interaction, in any order: `user` (integers), `label` (0 or 1),
`score` (any real number; higher means "would like it more") or `probability` (in 0..1).

A metric that is a mean over users is computed in `per_user` alone: one value per user, NaN for users that the method
leaves out. The metric is the mean of the other values. Its bootstrap is the same mean under weights, so thousands of
draws cost one matrix product.

Shape suffixes: n rows, u users (distinct, ascending), d draws of the bootstrap, p positive and m negative rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

KS = (5, 10)
CALIBRATION_BINS = 15
# A float32 sigmoid saturates at 0 and 1; without a floor one such row makes the log-loss infinite.
PROBABILITY_FLOOR = 1e-7
# Pairs of users that an AUC under weights is counted by: to 64 for each row they are faster than rows, and more than
# four millions take too much memory.
PAIRS_PER_ROW, MOST_PAIRS = 64, 2**22
DRAWS_AT_ONCE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class PerUser:
    """Each user's own contribution to the metrics that are means over users.

    `values` maps a metric's name to one value per user (u), NaN where the metric does not cover the user:
    `uauc`, and for each k `ndcg@k`, `map@k` (divided by all positives), `map_cut@k` (divided by min(k, positives))
    and `hr@k`; the same four with `_long` appended cover only users with more than k rows.
    """

    user: Ints
    rows: Ints
    values: dict[str, Floats]

    def means(self) -> dict[str, float]:
        """Each metric: the mean over the users that it covers, NaN where it covers none."""
        return {name: _mean(value[~np.isnan(value)]) for name, value in self.values.items()}

    def covered(self) -> dict[str, int]:
        """How many users each metric covers."""
        return {name: int((~np.isnan(value)).sum()) for name, value in self.values.items()}


def auc(label: ArrayLike, score: ArrayLike) -> float:
    """Area under the ROC curve over all rows, ties counted half; NaN when there is only one class."""
    label_n, score_n = _rows(label, score)
    if not len(label_n):
        return float("nan")
    return float(_auc_by_segment(np.zeros(len(label_n), np.int64), label_n, score_n)[0])


def uauc(user: ArrayLike, label: ArrayLike, score: ArrayLike) -> tuple[float, int]:
    """Mean AUC over the users with both classes, and how many users those are."""
    user_n, label_n, score_n = _rows(user, label, score)
    value_u = _auc_by_segment(np.unique(user_n, return_inverse=True)[1], label_n, score_n)
    both_u = ~np.isnan(value_u)
    return _mean(value_u[both_u]), int(both_u.sum())


def validation(user: ArrayLike, label: ArrayLike, score: ArrayLike) -> dict[str, float]:
    """The measures that choose a fit's best epoch on valid: AUC, UAUC and their mean, the `objective`.

    The mean keeps a fit from improving one at the cost of the other. A measure that cannot be computed counts as .5.
    """
    measures = {"auc": auc(label, score), "uauc": uauc(user, label, score)[0]}
    return measures | {"objective": float(np.mean([np.nan_to_num(value, nan=0.5) for value in measures.values()]))}


def per_user(user: ArrayLike, label: ArrayLike, score: ArrayLike, *, ks: Sequence[int] = KS, seed: int) -> PerUser:
    """Every metric that is a mean over users, user by user.

    A user's rows are ranked by score; `seed` and a row's position, never its score, decide between equal scores.
    """
    user_n, label_n, score_n = _rows(user, label, score)
    users, segment_n = np.unique(user_n, return_inverse=True)
    rows_u = np.bincount(segment_n, minlength=len(users))
    values = {"uauc": _auc_by_segment(segment_n, label_n, score_n)}

    order = np.lexsort((tie_order(len(user_n), seed), -score_n, segment_n))
    segment_n, gain_n = segment_n[order], label_n[order].astype(np.float64)
    first_u = np.cumsum(rows_u) - rows_u
    rank_n = np.arange(len(order)) - first_u[segment_n] + 1
    gains_n = np.concatenate([[0.0], np.cumsum(gain_n)])
    hits_n = gains_n[1:] - gains_n[first_u[segment_n]]  # the user's positives down to this rank

    positives_u = np.bincount(segment_n, gain_n, minlength=len(users))
    discounts = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(max(ks, default=0)) + 2))])
    for k in ks:
        top_n = gain_n * (rank_n <= k)
        hits_u, dcg_u, precision_u = (
            np.bincount(segment_n, top_n * worth, minlength=len(users))
            for worth in (1.0, 1 / np.log2(rank_n + 1), hits_n / rank_n)
        )
        reachable_u = np.minimum(positives_u, k)
        measured = {
            # Without positives the numerator is 0, so that any divisor gives 0.
            f"ndcg@{k}": dcg_u / np.maximum(discounts[reachable_u.astype(np.int64)], 1),
            f"map@{k}": precision_u / np.maximum(positives_u, 1),
            f"map_cut@{k}": precision_u / np.maximum(reachable_u, 1),
            f"hr@{k}": (hits_u > 0).astype(np.float64),
        }
        values |= {name: np.where(rows_u >= 2, value, np.nan) for name, value in measured.items()}
        values |= {f"{name}_long": np.where(rows_u > max(k, 1), value, np.nan) for name, value in measured.items()}
    return PerUser(user=users, rows=rows_u, values=values)


def weighted_means(value_u: Floats, weight_du: ArrayLike) -> Floats:
    """A per-user metric's mean under each draw's weights (d, u): users with NaN are left out of both sums."""
    weights = np.asarray(weight_du)
    covered_u = ~np.isnan(value_u)
    # One product with two columns: what the covered users score, and how many of them the draw holds.
    sums_d2 = weights.astype(np.float64) @ np.stack([np.where(covered_u, value_u, 0.0), covered_u], axis=1)
    return _ratio(sums_d2[:, 0], sums_d2[:, 1])


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedAuc:
    """One score's AUC, prepared for many weightings of its users: what can be counted once is not counted for a draw.

    A positive row beats the negatives below `low` outright and ties with those from `low` to `high`. Where users are
    few, it is counted once how often whose positives beat whose negatives; then a draw costs u squared, and no rows.
    """

    positive_user_p: Ints
    negative_user_m: Ints  # by ascending score
    low_p: Ints
    high_p: Ints
    won_uu: Floats | None = None  # pairs won, ties by half, by user of the positive and of the negative

    @classmethod
    def prepare(cls, segment: ArrayLike, label: ArrayLike, score: ArrayLike) -> WeightedAuc:
        """Sort rows whose users are given as columns 0..u-1 of the weights to come."""
        segment_n, label_n, score_n = _rows(segment, label, score)
        positive_n = label_n > 0
        negative_score = score_n[~positive_n]
        by_score = np.argsort(negative_score, kind="stable")
        positive_score, by_user = score_n[positive_n], segment_n[~positive_n]
        by_row = cls(
            positive_user_p=segment_n[positive_n],
            negative_user_m=by_user[by_score],
            low_p=np.searchsorted(negative_score[by_score], positive_score, side="left"),
            high_p=np.searchsorted(negative_score[by_score], positive_score, side="right"),
        )
        users = int(segment_n.max(initial=-1)) + 1
        few = users**2 <= min(PAIRS_PER_ROW * len(segment_n), MOST_PAIRS)
        return replace(by_row, won_uu=by_row._won_by_user(users)) if few else by_row

    @property
    def cells(self) -> int:
        """How many numbers it holds for each draw."""
        return len(self.positive_user_p) + len(self.negative_user_m) if self.won_uu is None else len(self.won_uu)

    def __call__(self, weight_ud: ArrayLike) -> Floats:
        """The AUC of each draw (d), from how often it holds each user (u, d); NaN where it lacks a class.

        It needs about 16 bytes for each of its `cells` and draw: callers bound the number of draws.
        """
        if self.won_uu is not None:
            weights = np.asarray(weight_ud, dtype=np.float64)
            won_d: Floats = np.einsum("ud,ud->d", weights, self.won_uu @ weights)
            positives_d, negatives_d = (
                np.bincount(rows, minlength=len(weights)) @ weights
                for rows in (self.positive_user_p, self.negative_user_m)
            )
            return _ratio(won_d, positives_d * negatives_d)
        weight_pd = np.asarray(weight_ud, dtype=np.float32)[self.positive_user_p]
        twice_beaten_pd, negatives_d = self._twice_beaten(weight_ud)
        won_d = np.einsum("pd,pd->d", weight_pd, twice_beaten_pd, dtype=np.float64) / 2
        return _ratio(won_d, weight_pd.sum(axis=0, dtype=np.float64) * negatives_d)

    def _twice_beaten(self, weight_ud: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        """Twice the negatives that each positive beats in each draw (p, d), and how many there are (d)."""
        # float32 holds whole numbers to 2**24, more than a draw's weighted rows on any table that fits a chunk.
        weights = np.asarray(weight_ud, dtype=np.float32)
        kind = np.float32 if len(self.negative_user_m) < 2**20 else np.float64
        below = np.zeros((len(self.negative_user_m) + 1, weights.shape[1]), kind)
        np.cumsum(weights[self.negative_user_m], axis=0, out=below[1:])
        return below[self.low_p] + below[self.high_p], below[-1]

    def _won_by_user(self, users: int) -> Floats:
        """`won_uu`: what some draws that hold one user each would count."""
        won_uu = np.zeros((users, users))
        by_user = np.argsort(self.positive_user_p, kind="stable")
        holders, first = np.unique(self.positive_user_p[by_user], return_index=True)
        for start in range(0, users if len(first) else 0, DRAWS_AT_ONCE):
            some = slice(start, start + DRAWS_AT_ONCE)
            twice_beaten_pd, _ = self._twice_beaten(np.eye(users)[:, some])
            won_uu[holders, some] = np.add.reduceat(twice_beaten_pd[by_user], first, axis=0, dtype=np.float64) / 2
        return won_uu


def sigmoid(logit: ArrayLike) -> Floats:
    """The probability (n) of a logit (n), in double precision."""
    probability: Floats = 1 / (1 + np.exp(-np.asarray(logit, dtype=np.float64)))
    return probability


def log_losses(label: ArrayLike, probability: ArrayLike) -> Floats:
    """Each row's negative log-likelihood (n), in nats; probabilities are kept `PROBABILITY_FLOOR` off 0 and 1."""
    label_n, probability_n = _rows(label, probability)
    probability_n = np.clip(probability_n, PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
    losses: Floats = -np.where(label_n > 0, np.log(probability_n), np.log1p(-probability_n))
    return losses


def log_loss(label: ArrayLike, probability: ArrayLike) -> float:
    """The rows' mean negative log-likelihood, in nats."""
    return _mean(log_losses(label, probability))


def says_yes(probability: ArrayLike) -> Bools:
    """The verdict that a probability stands for: Yes above one half."""
    return np.asarray(probability, dtype=np.float64) > 0.5


def accuracy(label: ArrayLike, probability: ArrayLike) -> float:
    """Share of rows whose verdict is the label."""
    label_n, probability_n = _rows(label, probability)
    return _mean((says_yes(probability_n) == (label_n > 0)).astype(np.float64))


def calibration_bins(
    label: ArrayLike, probability: ArrayLike, *, bins: int = CALIBRATION_BINS
) -> tuple[Floats, Floats, Ints]:
    """Mean probability, share of positives and number of rows of each equal-mass bin, by ascending probability.

    Equal probabilities share one bin, whatever the order of their rows. Empty bins are left out.
    """
    label_n, probability_n = _rows(label, probability)
    # The middle of a tie's ranks, in 0..n: with no ties these are n equal steps.
    middle_n = _average_ranks(np.zeros(len(label_n), np.int64), probability_n) - 0.5
    bin_n = (middle_n * bins / max(len(label_n), 1)).astype(np.int64)
    rows = np.bincount(bin_n, minlength=bins)
    filled = rows > 0
    mean, share = (
        np.bincount(bin_n, value, minlength=bins)[filled] / rows[filled] for value in (probability_n, label_n)
    )
    return mean, share, rows[filled]


def calibration_error(label: ArrayLike, probability: ArrayLike, *, bins: int = CALIBRATION_BINS) -> float:
    """Expected calibration error: the rows' mean distance between a bin's probability and its share of positives."""
    mean, share, rows = calibration_bins(label, probability, bins=bins)
    return float(np.average(np.abs(mean - share), weights=rows)) if len(rows) else float("nan")


def score_table(
    user: ArrayLike, label: ArrayLike, probability: ArrayLike, *, ks: Sequence[int] = KS, seed: int
) -> dict[str, Any]:
    """All metrics of one model over these rows, ready for a metrics file; NaN where one cannot be computed.

    Beside the metrics by name: `rows`, and `users`, the number of users in all and covered by each kind of metric.
    """
    by_user = per_user(user, label, probability, ks=ks, seed=seed)
    covered = by_user.covered()
    return {
        "auc": auc(label, probability),
        **by_user.means(),
        "log_loss": log_loss(label, probability),
        "accuracy": accuracy(label, probability),
        "calibration_error": calibration_error(label, probability),
        "rows": int(by_user.rows.sum()),
        "users": {
            "all": len(by_user.user),
            "uauc": covered["uauc"],
            **{f"@{k}": covered[f"ndcg@{k}"] for k in ks},
            **{f"@{k}_long": covered[f"ndcg@{k}_long"] for k in ks},
        },
    }


def tie_order(rows: int, seed: int) -> Ints:
    """The random rank that decides between equal scores: the same for every model scored on the same rows."""
    return np.random.default_rng(seed).permutation(rows)


def _auc_by_segment(segment_n: Ints, label_n: Floats, score_n: Floats) -> Floats:
    """AUC within each segment 0..u-1 (Mann-Whitney's rank sum), NaN for segments with one class."""
    segments = int(segment_n.max()) + 1 if len(segment_n) else 0
    rank_n = _average_ranks(segment_n, score_n)
    rows, positives = np.bincount(segment_n, minlength=segments), np.bincount(segment_n, label_n, minlength=segments)
    rank_sum = np.bincount(segment_n, rank_n * label_n, minlength=segments)
    return _ratio(rank_sum - positives * (positives + 1) / 2, positives * (rows - positives))


def _average_ranks(segment_n: Ints, score_n: Floats) -> Floats:
    """Each row's rank by ascending score within its segment, from 1; ties share the mean of their ranks."""
    order = np.lexsort((score_n, segment_n))
    segment, score = segment_n[order], score_n[order]
    position = np.arange(len(order))
    new_segment = np.diff(segment, prepend=-1) != 0
    tie = np.cumsum(new_segment | (np.diff(score, prepend=0.0) != 0)) - 1
    mean_position = np.bincount(tie, position) / np.bincount(tie) if len(order) else np.empty(0)
    first = np.maximum.accumulate(np.where(new_segment, position, 0))
    ranks = np.empty(len(order))
    ranks[order] = mean_position[tie] - first + 1
    return ranks


def _rows(*columns: ArrayLike) -> tuple[NDArray[Any], ...]:
    """The columns as flat arrays of one length; the last, a score, must be finite, the one before it 0 or 1."""
    *others, label, score = (np.asarray(column) for column in columns)
    label, score = label.astype(np.float64), score.astype(np.float64)
    lengths = {array.shape for array in (*others, label, score)}
    if len(lengths) != 1 or score.ndim != 1:
        raise ValueError(f"columns should be flat and of one length; they have shapes {sorted(lengths)}")
    if not np.isfinite(score).all():
        raise ValueError(f"{(~np.isfinite(score)).sum()} scores are not finite numbers")
    if not np.isin(label, (0, 1)).all():
        raise ValueError("labels should be 0 or 1")
    return (*others, label, score)


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _ratio(above: Floats, below: Floats) -> Floats:
    """Their quotient, NaN where the divisor is 0."""
    quotient: Floats = np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below != 0)
    return quotient
