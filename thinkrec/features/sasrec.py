"""SASRec (Kang and McAuley, ICDM 2018) on ratings, and gSASRec's loss (Petrov and Macdonald, RecSys 2023).

A causal transformer reads the item and the label of each of a user's interactions. Its output after a history is the
user's state e_u for whatever comes next. Here SASRec is fitted on the labels of the next interactions (binary
cross-entropy), as rating data have them. gSASRec is fitted to tell a liked item from drawn ones:

    L = beta softplus(-s+) + sum over k drawn items of softplus(s-),
    beta = a (t (1 - 1 / a) + 1 / a),   a = k / (I - 1)

with disliked interactions as further negatives. beta corrects the overconfidence that few drawn negatives bring.

Where reading begins depends on the length of the history alone. Rows of one user therefore share sequences, and a
state does not depend on what else is asked for. It sees `history` to 2 * `history` - 1 interactions, or all there are.

Shapes: m histories, B sequences, T their longest length, I items, d dimensions, k drawn items.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from thinkrec.features.ratings import Ratings
from thinkrec.features.recommender import Floats, Recommender, Rows, prior_logit, sum_parts
from thinkrec.params import SasRecParams

BATCH = 32  # sequences
ALIKE = 16  # sequences of a batch that are read together: those of like length, since padding is read, too
BLOCKS = 2
HEADS = 1
DROPOUT = 0.3
INITIAL_SCALE = 0.05


class SASRec(Recommender):
    """SASRec with labels at its input and item biases at its output."""

    def __init__(self, ratings: Ratings, rows: Rows, params: SasRecParams, *, seed: int) -> None:
        super().__init__()
        self.params, self.ratings, self.fit_rows = params, ratings, rows
        self.bias = prior_logit(ratings.label[rows])
        known_item = torch.zeros(ratings.items).index_fill_(0, torch.from_numpy(ratings.item[rows]), 1)
        self.register_buffer("known_item", known_item)
        with torch.random.fork_rng(devices=[]):  # layers draw from the global generator, which is put back
            torch.manual_seed(seed)
            self.item = nn.Parameter(torch.randn(ratings.items, params.dim) * INITIAL_SCALE)
            self.label = nn.Parameter(torch.randn(2, params.dim) * INITIAL_SCALE)
            self.position = nn.Parameter(torch.randn(2 * params.history, params.dim) * INITIAL_SCALE)
            dim, norm = params.dim, nn.LayerNorm(params.dim)
            layer = nn.TransformerEncoderLayer(dim, HEADS, 4 * dim, DROPOUT, batch_first=True, norm_first=True)
            self.encoder = nn.TransformerEncoder(layer, BLOCKS, norm=norm, enable_nested_tensor=False)
        # A disliked item enters with the opposite sign of a liked one, to begin with.
        self.sign = nn.Parameter(torch.tensor([[-1.0], [1.0]]).repeat(1, params.dim))
        self.item_bias = nn.Parameter(torch.zeros(ratings.items))
        self.dropout = nn.Dropout(DROPOUT)

    def batches(self, generator: torch.Generator) -> Sequence[Rows]:
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))  # dropout and draws of this epoch
        some = self.fit_rows[self.ratings.end[self.fit_rows] > self.ratings.start[self.fit_rows]]
        # At random, not by length: with the same sequences together in every epoch, valid AUC was .005 lower.
        sequence = np.unique(self._begin(self.ratings.start[some], self.ratings.end[some]), return_inverse=True)[1]
        order = torch.randperm(int(sequence.max(initial=-1)) + 1, generator=generator).numpy()
        return [some[part] for part in _split(order[sequence], BATCH)]

    def loss(self, batch: Rows) -> Tensor:
        start, end = self.ratings.start[batch], self.ratings.end[batch]
        parts = self._by_sequence(start, end, ALIKE)
        in_parts = torch.cat([self.encode(self.ratings, start[part], end[part]) for part in parts])
        states = in_parts[torch.from_numpy(np.argsort(np.concatenate(parts)))]
        item, label = (torch.from_numpy(column[batch]) for column in (self.ratings.item, self.ratings.label))
        vectors, biases = sum_parts(self.item_parts(item))
        logit = self.bias + biases + (states * vectors).sum(1)
        return self.objective(states, logit, label)

    def objective(self, states: Tensor, logit: Tensor, label: Tensor) -> Tensor:
        """Mean binary cross-entropy of the labels (m,) of what follows the histories."""
        return functional.binary_cross_entropy_with_logits(logit, label.float())

    def encode(self, ratings: Ratings, start: Rows, end: Rows) -> Tensor:
        """States (m, d) after the histories start[k]:end[k], none of them empty."""
        begin = self._begin(start, end)
        first, sequence = np.unique(begin, return_inverse=True)
        last = np.zeros(len(first), np.int64)
        np.maximum.at(last, sequence, end)
        place = np.arange((last - first).max())
        row_BT = np.where(place < (last - first)[:, None], first[:, None] + place, 0)
        item_BT, label_BT = torch.from_numpy(ratings.item[row_BT]), torch.from_numpy(ratings.label[row_BT])
        item_BTd = sum_parts(self.item_parts(item_BT))[0] * math.sqrt(self.params.dim)
        seen_BTd = item_BTd * self.sign[label_BT] + self.label[label_BT] + self.position[: len(place)]
        causal = nn.Transformer.generate_square_subsequent_mask(len(place))
        out_BTd = self.encoder(self.dropout(seen_BTd), mask=causal, is_causal=True)
        return out_BTd[torch.from_numpy(sequence), torch.from_numpy(end - 1 - begin)]

    @torch.no_grad()
    def states(self, ratings: Ratings, start: Rows, end: Rows) -> tuple[Floats, Floats]:
        out = np.zeros((len(end), self.params.dim), np.float32)
        some = np.flatnonzero(end > start)
        for part in self._by_sequence(start[some], end[some], BATCH):
            out[some[part]] = self.encode(ratings, start[some[part]], end[some[part]]).numpy()
        return out, np.zeros(len(end), np.float32)

    def _begin(self, start: Rows, end: Rows) -> Rows:
        """The first row (m,) to read of each history."""
        return start + np.maximum(end - start - self.params.history, 0) // self.params.history * self.params.history

    def _by_sequence(self, start: Rows, end: Rows, count: int) -> list[Rows]:
        """The histories (m,) as parts that share `count` sequences, those of like length together."""
        if not len(start):
            return []
        first, sequence = np.unique(self._begin(start, end), return_inverse=True)
        length = np.zeros(len(first), np.int64)
        np.maximum.at(length, sequence, end - first[sequence])
        return _split(np.argsort(np.argsort(length, kind="stable"), kind="stable")[sequence], count)


def _split(rank: Rows, count: int) -> list[Rows]:
    """Which histories (m,) go together where each names the rank of its sequence: `count` sequences at a time."""
    order = np.argsort(rank // count, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(rank[order] // count)) + 1) if len(rank) else []


class GSASRec(SASRec):
    """SASRec fitted with drawn negatives and the generalised binary cross-entropy."""

    negatives = 1  # items drawn per interaction
    calibration = 0.25  # t: how much of the overconfidence that few negatives bring is taken back

    def objective(self, states: Tensor, logit: Tensor, label: Tensor) -> Tensor:
        items = torch.nonzero(self.known_item)[:, 0]
        count, t = self.negatives, self.calibration
        share = min(count / max(len(items) - 1, 1), 1.0)
        beta = share * (t * (1 - 1 / share) + 1 / share)
        drawn = items[torch.randint(len(items), (len(label), count))]
        vectors, biases = sum_parts(self.item_parts(drawn))
        negative = self.bias + biases + torch.einsum("md,mkd->mk", states, vectors)
        liked = beta * functional.softplus(-logit) + functional.softplus(negative).sum(1)
        return torch.where(label == 1, liked, functional.softplus(logit)).mean()
