"""Content-aware recommenders: what an item is comes from its keywords, too, so items without any rating have vectors.

LightFM's item (Kula, CBRecSys 2015), with a mean for its sum:

    e_i = own_i + 1 / |K_i| sum over k in K_i of e_k,   and b_i likewise

K_i are the item's keywords. An item that the fit never saw is the mean of its keywords alone; an item without keywords
is its own vector alone. Keywords begin at zero, so those of no item of the fit stay there.

Shapes: I items, d dimensions, V keywords in all, W the most of one item.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from thinkrec.features.mf import MatrixFactorisation
from thinkrec.features.ratings import Ratings
from thinkrec.features.recommender import ItemPart, Recommender, Rows
from thinkrec.features.sasrec import SASRec
from thinkrec.features.statistics import NameSets
from thinkrec.shown import shown_keywords


class KeywordItems(Recommender):
    """A recommender whose items are their own vectors and biases plus the means of their keywords'."""

    keywords: Tensor  # (I, W) numbers of keywords, 0 where an item has fewer

    def __init__(self, ratings: Ratings, rows: Rows, params: Any, *, seed: int) -> None:
        super().__init__(ratings, rows, params, seed=seed)
        names = NameSets.from_sets(list(dict.fromkeys(shown_keywords(words))) for words in ratings.keywords)
        keywords = torch.zeros(ratings.items, max(len(names.members), 1), dtype=torch.int64)
        keywords[: len(names.sizes), : len(names.members)] = torch.from_numpy(names.members.T + 1)
        self.register_buffer("keywords", keywords)
        self.keyword = nn.Parameter(torch.zeros(names.names + 1, params.dim))
        self.keyword_bias = nn.Parameter(torch.zeros(names.names + 1, 1))

    def item_parts(self, item: Tensor) -> list[ItemPart]:
        bags = self.keywords[item.flatten()]
        vectors, biases = (
            functional.embedding_bag(bags, weight, mode="mean", padding_idx=0)
            for weight in (self.keyword, self.keyword_bias)
        )
        return [*super().item_parts(item), (vectors.reshape(*item.shape, -1), biases.reshape(item.shape))]


class HybridMF(KeywordItems, MatrixFactorisation):
    """Matrix factorisation over items and their keywords: LightFM's model, with our users, who are folded in."""

    keyword_decay = 0.01  # pull of what the keywords say towards 0

    def loss(self, batch: Tensor) -> Tensor:
        """Plain MF's, and a penalty on what the keywords say: a lighter one, since many items share a keyword."""
        vectors, biases = self.item_parts(self.rows[1, batch])[1]
        penalty = vectors.square().sum(1).mean() + biases.square().mean()
        return super().loss(batch) + self.keyword_decay * penalty


class HybridSASRec(KeywordItems, SASRec):
    """SASRec over items and their keywords, at its input and at its output."""
