"""Matrix factorisation with biases, and the fold-in of users that it never saw (METHOD: collaborative features).

    logit(u, i) = b + b_u + b_i + e_u . e_i

fitted by Adam on binary cross-entropy. Shapes: U users, I items, d dimensions, n rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

Floats = NDArray[np.float32]
Ints = NDArray[np.integer]

BATCH = 1024
INITIAL_SCALE = 0.05
LEAST_VARIANCE = 1e-6  # of a dimension that no fitted user uses
CHUNK_ROWS = 20_000  # folded in at once: some 100 MB at 16 dimensions


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixFactors:
    """A fitted model. What was not seen in the fit has zero vectors and zero bias, hence logit = what is known."""

    user: Floats  # (U, d)
    item: Floats  # (I, d)
    user_bias: Floats  # (U,)
    item_bias: Floats  # (I,)
    bias: float

    def logits(self, user: Ints, item: Ints) -> Floats:
        """Logits (n,) of the pairs `user[k], item[k]`."""
        inner = np.einsum("nd,nd->n", self.user[user], self.item[item])
        return np.asarray(self.bias + self.user_bias[user] + self.item_bias[item] + inner, np.float32)


def fit(
    user: Ints,
    item: Ints,
    label: Ints,
    *,
    users: int,
    items: int,
    dim: int,
    epochs: int,
    learning_rate: float,
    weight_decay: float,
    seed: int,
) -> list[MatrixFactors]:
    """Fit on rows (n,) and return the model after every epoch, first to last.

    `weight_decay` is the L2 weight on the vectors and biases of the rows in a batch (as a per-row penalty, so that
    frequent users and items are regularised less per observation).
    """
    generator = torch.Generator().manual_seed(seed)
    rows = torch.tensor(np.stack([user, item, label]), dtype=torch.int64)
    bias = float(np.log((label.mean() + 1e-6) / (1 - label.mean() + 1e-6)))
    weights = [
        (torch.randn(users, dim, generator=generator) * INITIAL_SCALE).requires_grad_(),
        (torch.randn(items, dim, generator=generator) * INITIAL_SCALE).requires_grad_(),
        torch.zeros(users, 1, requires_grad=True),
        torch.zeros(items, 1, requires_grad=True),
    ]
    optimiser = torch.optim.Adam(weights, lr=learning_rate)
    seen_user = torch.zeros(users, 1).index_fill_(0, rows[0].unique(), 1)
    seen_item = torch.zeros(items, 1).index_fill_(0, rows[1].unique(), 1)
    history: list[MatrixFactors] = []
    for _ in range(epochs):
        for batch in torch.randperm(rows.shape[1], generator=generator).split(BATCH):
            u, i, y = rows[:, batch]
            parts = [weights[0][u], weights[1][i], weights[2][u], weights[3][i]]
            logit = bias + (parts[0] * parts[1]).sum(1) + parts[2][:, 0] + parts[3][:, 0]
            penalty = sum(part.square().sum(1).mean() for part in parts)
            loss = functional.binary_cross_entropy_with_logits(logit, y.float()) + weight_decay * penalty
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            user_vectors, item_vectors = weights[0] * seen_user, weights[1] * seen_item
            history.append(
                MatrixFactors(
                    user=user_vectors.numpy().copy(),
                    item=item_vectors.numpy().copy(),
                    user_bias=(weights[2] * seen_user)[:, 0].numpy().copy(),
                    item_bias=(weights[3] * seen_item)[:, 0].numpy().copy(),
                    bias=bias,
                )
            )
    return history


def align(factors: MatrixFactors, reference: MatrixFactors) -> MatrixFactors:
    """Turn `factors` onto `reference` by the orthogonal matrix that brings their vectors closest (Procrustes).

    Two fits differ by a rotation that no logit notices but a projector would; rotating keeps every logit.
    """
    left, _, right = np.linalg.svd(
        factors.user.T @ reference.user + factors.item.T @ reference.item, full_matrices=False
    )
    turn = (left @ right).astype(np.float32)
    return MatrixFactors(
        user=factors.user @ turn,
        item=factors.item @ turn,
        user_bias=factors.user_bias,
        item_bias=factors.item_bias,
        bias=factors.bias,
    )


def fold_in(
    factors: MatrixFactors, item: Ints, label: Ints, first: Ints, *, start: Ints, end: Ints, widening: float
) -> tuple[Floats, Floats]:
    """Vectors (m, d) and biases (m,) of users as of the ends of histories, whether the fit knew the users or not.

    `item` and `label` (n,) hold whole users one after the other, `first` (n,) the row at which each row's user
    begins; history k is the rows start[k]:end[k] of one user, from that user's first row on. The vector is the
    posterior mode of one Newton step from the item biases: ridge regression of the residuals on the item vectors, under
    `widening` times the variance of the fitted users' vectors, which the fit has shrunk. All of them come from running
    sums, in one pass.
    """
    known_users = np.any(factors.user != 0, axis=1)
    # One variance for all dimensions: the result then turns with the factors, and how `align` turned them is no matter.
    variances = [np.square(factors.user[known_users]).mean()] * factors.user.shape[1]
    variances.append(np.square(factors.user_bias[known_users]).mean())
    prior = np.diag(1 / np.maximum(widening * np.asarray(variances, np.float64), LEAST_VARIANCE))
    out = np.zeros((len(end), factors.item.shape[1] + 1), np.float32)
    cuts = np.flatnonzero(np.append(True, first[1:] != first[:-1])) if len(item) else np.zeros(0, np.int64)
    for low, high in _chunks(cuts, len(item)):
        vectors = np.ones((high - low, factors.item.shape[1] + 1))
        vectors[:, :-1] = factors.item[item[low:high]]
        expected = 1 / (1 + np.exp(-(factors.bias + factors.item_bias[item[low:high]].astype(np.float64))))
        slope = expected * (1 - expected)
        outer = _running(slope[:, None, None] * vectors[:, :, None] * vectors[:, None, :])
        moment = _running((label[low:high] - expected)[:, None] * vectors)
        here = np.flatnonzero((start >= low) & (start < high) & (end > start))
        a, b = start[here] - low, end[here] - low
        solution = np.linalg.solve(prior + outer[b] - outer[a], (moment[b] - moment[a])[:, :, None])
        out[here] = solution[:, :, 0]
    return out[:, :-1], out[:, -1]


def _running(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of the first 0, 1, ..., n of the values (n, ...)."""
    return np.concatenate([np.zeros_like(values[:1]), np.cumsum(values, axis=0)])


def _chunks(cuts: Ints, rows: int) -> Iterator[tuple[int, int]]:
    """Row ranges of whole users of about CHUNK_ROWS rows each; `cuts` are the users' first rows."""
    low = 0
    while low < rows:
        later = cuts[cuts > low + CHUNK_ROWS]
        high = int(later[0]) if len(later) else rows
        yield low, high
        low = high
