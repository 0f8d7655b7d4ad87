"""Matrix factorisation with biases, and the fold-in of users at any moment (METHOD: collaborative features).

    logit(u, i) = b + b_u + b_i + e_u . e_i

Shapes: n rows, U users, I items, d dimensions, m histories.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from thinkrec.features.ratings import Ratings
from thinkrec.features.recommender import Floats, RowRecommender, Rows, running_sums, sum_parts
from thinkrec.metrics import sigmoid
from thinkrec.params import MfParams

INITIAL_SCALE = 0.05
FOLD_IN_WIDENING = 4.0  # prior variance of a folded-in user over that of the fitted ones, which the fit has shrunk
LEAST_VARIANCE = 1e-6  # of a dimension that no fitted user uses
CHUNK_ROWS = 500  # folded in at once: a megabyte at 16 dimensions, which a core holds in its cache


class MatrixFactorisation(RowRecommender):
    """Fitted user vectors are for grouping users. A user's state at a moment is always folded in."""

    def __init__(self, ratings: Ratings, rows: Rows, params: MfParams, *, seed: int) -> None:
        super().__init__(ratings, rows, dim=params.dim, scale=INITIAL_SCALE, seed=seed)
        self.params = params
        self.user_bias = nn.Parameter(torch.zeros(ratings.users))

    def loss(self, batch: Tensor) -> Tensor:
        """Binary cross-entropy. The penalty is per row, so it weighs the same for every observation."""
        user, item, label = self.rows[:, batch]
        of_item = self.item_parts(item)
        vectors, biases = sum_parts(of_item)
        own, own_bias = of_item[0]
        parts = [self.user[user], own, self.user_bias[user, None], own_bias[:, None]]
        logit = self.bias + (parts[0] * vectors).sum(1) + parts[2][:, 0] + biases
        penalty = torch.stack([part.square().sum(1).mean() for part in parts]).sum()
        return functional.binary_cross_entropy_with_logits(logit, label.float()) + self.params.weight_decay * penalty

    @torch.no_grad()
    def fitted_users(self) -> Floats:
        return (self.user * self.known_user[:, None]).numpy()

    def states(self, ratings: Ratings, start: Rows, end: Rows) -> tuple[Floats, Floats]:
        """The posterior mode of one Newton step from the item biases.

        That is ridge regression of the residuals on the item vectors. The prior variance is FOLD_IN_WIDENING times
        that of the fitted users' vectors. All histories of a user share one pass of running
        sums; users that no history is of are not read.
        """
        in_fit = self.known_user.numpy() > 0
        user_bias = self.user_bias.detach().numpy()
        items = self.items()
        dim = items.vectors.shape[1]
        # One variance for all dimensions makes the result independent of the rotation of the factors.
        variances = [np.square(self.fitted_users()[in_fit]).mean()] * dim
        variances.append(np.square(user_bias[in_fit]).mean())
        wide = FOLD_IN_WIDENING * np.asarray(variances, np.float64)
        prior = np.diag(1 / np.maximum(wide, LEAST_VARIANCE))
        out = np.zeros((len(end), dim + 1), np.float32)
        order = np.argsort(start, kind="stable")
        sorted_start = start[order]
        for low, high in _chunks(np.unique(ratings.start), len(ratings.item)):
            here = order[slice(*np.searchsorted(sorted_start, [low, high]))]
            here = here[end[here] > start[here]]
            if not len(here):
                continue
            item, label = ratings.item[low:high], ratings.label[low:high]
            seen = np.ones((high - low, dim + 1))
            seen[:, :-1] = items.vectors[item]
            expected = sigmoid(items.bias + items.biases[item].astype(np.float64))
            slope = expected * (1 - expected)
            outer = running_sums(slope[:, None, None] * seen[:, :, None] * seen[:, None, :])
            moment = running_sums((label - expected)[:, None] * seen)
            a, b = start[here] - low, end[here] - low
            solution = np.linalg.solve(prior + outer[b] - outer[a], (moment[b] - moment[a])[:, :, None])
            out[here] = solution[:, :, 0]
        return out[:, :-1], out[:, -1]


def _chunks(first_rows: NDArray[np.int64], rows: int) -> Iterator[tuple[int, int]]:
    """Row ranges of whole users of about CHUNK_ROWS rows each; `first_rows` are the users' first rows, rising."""
    edges = [0]
    while edges[-1] < rows:
        later = np.searchsorted(first_rows, edges[-1] + CHUNK_ROWS, side="right")
        edges.append(int(first_rows[later]) if later < len(first_rows) else rows)
    return pairwise(edges)
