"""LightGCN (He et al., SIGIR 2020) on ratings: embeddings smoothed over the graph of who liked what.

    e^(k+1) = D^-1/2 A D^-1/2 e^(k),   e = mean of e^(0), ..., e^(K)

A holds the liked rows of the fit. Every row, liked or not, is a sample of the binary cross-entropy. A step leaves the
edges of its own rows out of A: otherwise the presence of an edge would give the label away. A user's state at a moment
is what the items liked before it pass on by the same formula, without the user's own e^(0), so that users of the fit
and others are treated alike. We add item biases to the paper's model.

Shapes: n rows of the fit, m histories, U users, I items, d dimensions, K layers.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from thinkrec.features.ratings import Ratings
from thinkrec.features.recommender import Floats, ItemSide, RowRecommender, Rows, running_sums
from thinkrec.params import LightGcnParams

INITIAL_SCALE = 0.1


class LightGCN(RowRecommender):
    """LightGCN with item biases."""

    layers = 2  # hops in the graph of users and items

    def __init__(self, ratings: Ratings, rows: Rows, params: LightGcnParams, *, seed: int) -> None:
        super().__init__(ratings, rows, dim=params.dim, scale=INITIAL_SCALE, seed=seed)
        self.params = params

    def loss(self, batch: Tensor) -> Tensor:
        """Binary cross-entropy; the penalty is on the e^(0) and biases of the batch's rows."""
        user, item, label = self.rows[:, batch]
        others = torch.ones(self.rows.shape[1], dtype=torch.bool).index_fill_(0, batch, False)
        users, items, _ = self.propagate(others)
        logit = self.bias + self.item_bias[item] + (users[user] * items[item]).sum(1)
        parts = [self.user[user], self.item[item], self.item_bias[item, None]]
        penalty = torch.stack([part.square().sum(1).mean() for part in parts]).sum()
        return functional.binary_cross_entropy_with_logits(logit, label.float()) + self.params.weight_decay * penalty

    def propagate(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors of users (U, d) and of items (I, d) by the liked ones among `rows` (n,), and what items pass on.

        What an item passes on (I, d) is its share in the vector of a user who likes it, times sqrt(the user's degree).
        """
        user, item, _ = self.rows[:, rows & (self.rows[2] == 1)]
        users, items = self.user * self.known_user[:, None], self.item * self.known_item[:, None]
        degree_u = torch.bincount(user, minlength=len(users)).clamp(min=1).float()
        degree_i = torch.bincount(item, minlength=len(items)).clamp(min=1).float()
        weight = (degree_u[user] * degree_i[item]).rsqrt()[:, None]
        sum_u, sum_i, passed = users, items, torch.zeros_like(items)
        for _ in range(self.layers):
            passed = passed + items
            users, items = (
                torch.zeros_like(users).index_add(0, user, weight * items[item]),
                torch.zeros_like(items).index_add(0, item, weight * users[user]),
            )
            sum_u, sum_i = sum_u + users, sum_i + items
        count = self.layers + 1
        return sum_u / count, sum_i / count, passed * degree_i.rsqrt()[:, None] / count

    def items(self) -> ItemSide:
        return replace(super().items(), vectors=self._whole()[1].numpy())

    def states(self, ratings: Ratings, start: Rows, end: Rows) -> tuple[Floats, Floats]:
        passed = self._whole()[2].numpy()
        liked = ratings.label == 1
        sums = running_sums(np.where(liked[:, None], passed[ratings.item], 0).astype(np.float64))
        likes = running_sums(liked.astype(np.int64))
        degree = np.maximum(likes[end] - likes[start], 1)
        vectors = (sums[end] - sums[start]) / np.sqrt(degree)[:, None]
        return vectors.astype(np.float32), np.zeros(len(end), np.float32)

    @torch.no_grad()
    def _whole(self) -> tuple[Tensor, Tensor, Tensor]:
        """What `propagate` says over the whole graph of the fit."""
        return self.propagate(torch.ones(self.rows.shape[1], dtype=torch.bool))
