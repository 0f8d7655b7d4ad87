"""Matrix factorisation with biases, and the fold-in of users that it never saw (METHOD: collaborative features).

    logit(u, i) = b + b_u + b_i + e_u . e_i

fitted by Adam on binary cross-entropy. Shapes: U users, I items, d dimensions, n rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

Floats = NDArray[np.float32]
Ints = NDArray[np.integer]

BATCH = 1024
INITIAL_SCALE = 0.05


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


def fold_in(factors: MatrixFactors, item: Ints, label: Ints, ends: Ints) -> Floats:
    """Vectors (m, d) of one unseen user after the first `ends[k]` interactions of a history `item, label` (n,).

    Ridge regression of the linearised residuals on the item vectors, by running normal equations. The ridge is the
    one under which a vector has the spread of the fitted users' (prior variance = their mean square).
    """
    vectors = factors.item[item].astype(np.float64)
    expected = 1 / (1 + np.exp(-(factors.bias + factors.item_bias[item])))
    slope = expected * (1 - expected)
    outer = np.cumsum(slope[:, None, None] * vectors[:, :, None] * vectors[:, None, :], axis=0)
    moment = np.cumsum((label - expected)[:, None] * vectors, axis=0)
    fitted = factors.user[np.any(factors.user != 0, axis=1)]
    prior = 1 / max(float(np.mean(np.square(fitted))) if len(fitted) else 1.0, 1e-8)
    known = ends > 0
    out = np.zeros((len(ends), vectors.shape[1]), np.float32)
    if known.any():
        last = ends[known] - 1
        system = outer[last] + prior * np.eye(vectors.shape[1])
        out[known] = np.linalg.solve(system, moment[last][:, :, None])[:, :, 0]
    return out
