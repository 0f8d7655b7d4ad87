"""The interface of an ordinary recommender, and the one loop that fits them all (METHOD §3).

    logit(u at a moment, i) = b + b_u + b_i + e_u . e_i

e_u and b_u are the user's *state* at that moment: a function of the user's earlier interactions, for users of the fit
and others alike. So one fitted model serves both protocols: the caller decides how long the history is.

Shapes: n rows of the table, m histories, U users, I items, d dimensions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from thinkrec.errors import diverged
from thinkrec.features.ratings import Ratings
from thinkrec.progress import track

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
ItemPart = tuple[Tensor, Tensor]  # vectors (..., d) and biases (...) of items (...)
DIVERGED = 1e6  # no weight of a model that fits is so large
BATCH = 1024  # rows


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemSide:
    """The items' side of a fitted recommender; an item that the fit never saw has zeros, or what its keywords say."""

    vectors: Floats  # (I, d)
    biases: Floats  # (I,)
    bias: float  # the global one

    def logits(self, vectors: Floats, biases: Floats, item: NDArray[Any]) -> Floats:
        """Logits (k,) of user states, vectors (k, d) and biases (k,), with the items (k,)."""
        inner = np.einsum("kd,kd->k", vectors, self.vectors[item])
        return np.asarray(self.bias + biases + self.biases[item] + inner, np.float32)


class Recommender(nn.Module, ABC):
    """A model fitted on some rows of `ratings`; users and items without a row among them are unknown to it."""

    ratings: Ratings
    fit_rows: Rows  # those of the ratings that it is fitted on
    item: nn.Parameter  # (I, d)
    item_bias: nn.Parameter  # (I,)
    bias: float
    known_item: Tensor  # (I,) 1 where the fit has a row

    @abstractmethod
    def batches(self, generator: torch.Generator) -> Sequence[Any]:
        """The batches of one epoch, drawn anew."""

    @abstractmethod
    def loss(self, batch: Any) -> Tensor:
        """The mean loss of a batch, penalties included."""

    def item_parts(self, item: Tensor) -> list[ItemPart]:
        """What the items (...) are the sum of: of most models their own vectors and biases alone."""
        in_fit = self.known_item[item]
        return [(self.item[item] * in_fit[..., None], self.item_bias[item] * in_fit)]

    @torch.no_grad()
    def items(self) -> ItemSide:
        """The items as of the present weights."""
        vectors, biases = sum_parts(self.item_parts(torch.arange(len(self.item))))
        return ItemSide(vectors=vectors.numpy(), biases=biases.numpy(), bias=self.bias)

    @abstractmethod
    def states(self, ratings: Ratings, start: Rows, end: Rows) -> tuple[Floats, Floats]:
        """User vectors (m, d) and biases (m,) after the histories start[k]:end[k] (row ranges of one user each).

        An empty history gives zeros.
        """

    def fitted_users(self) -> Floats:
        """Vectors (U, d) of the users after their last row of the fit; zeros for unknown users."""
        return self.states(self.ratings, *self.ratings.bounds_by_user(self.fit_rows))[0]

    def logits(self, ratings: Ratings, rows: Rows) -> Floats:
        """Logits (k,) of interactions: each user's state before the row against the row's item."""
        vectors, biases = self.states(ratings, ratings.start[rows], ratings.end[rows])
        return self.items().logits(vectors, biases, ratings.item[rows])


class RowRecommender(Recommender):
    """A recommender with a free vector for every user and item, fitted on rows (n) in any order."""

    known_user: Tensor  # (U,) 1 where the fit has a row

    def __init__(self, ratings: Ratings, rows: Rows, *, dim: int, scale: float, seed: int) -> None:
        super().__init__()
        self.ratings, self.fit_rows = ratings, rows
        generator = torch.Generator().manual_seed(seed)
        self.rows = torch.from_numpy(np.stack([column[rows] for column in (ratings.user, ratings.item, ratings.label)]))
        self.bias = prior_logit(ratings.label[rows])
        self.user = nn.Parameter(torch.randn(ratings.users, dim, generator=generator) * scale)
        self.item = nn.Parameter(torch.randn(ratings.items, dim, generator=generator) * scale)
        self.item_bias = nn.Parameter(torch.zeros(ratings.items))
        self.register_buffer("known_user", torch.zeros(ratings.users).index_fill_(0, self.rows[0].unique(), 1))
        self.register_buffer("known_item", torch.zeros(ratings.items).index_fill_(0, self.rows[1].unique(), 1))

    def batches(self, generator: torch.Generator) -> Sequence[Tensor]:
        return torch.randperm(self.rows.shape[1], generator=generator).split(BATCH)


@contextmanager
def fixed_order() -> Iterator[None]:
    """Deterministic algorithms: gradients of a shared vector add up in one order, whatever the number of threads."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@fixed_order()
@torch.random.fork_rng(devices=[])  # dropout and drawn items use the global generator, which is put back
def fit(
    model: Recommender,
    *,
    epochs: int,
    learning_rate: float,
    seed: int,
    patience: int = 0,
    validate: Callable[[], dict[str, float]] | None = None,
    progress: str | None = None,
) -> list[dict[str, float]]:
    """Fit by Adam and leave the model in eval mode; returns the validation after every epoch.

    With `validate`, which returns measures with an `objective` (higher is better), the model ends as its best epoch
    left it, and fitting stops after `patience` epochs without a better one. Without, it ends after the last epoch.
    """
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=learning_rate)
    measured: list[dict[str, float]] = []
    best: tuple[float, int, dict[str, Tensor]] = (-np.inf, 0, {})
    for epoch in track(range(epochs), progress, unit="epoch"):
        model.train()
        for batch in model.batches(generator):
            optimiser.zero_grad(set_to_none=True)
            model.loss(batch).backward()
            optimiser.step()
        model.eval()
        if not all(bool((weight.abs() < DIVERGED).all()) for weight in model.parameters()):  # nan is less than nothing
            raise diverged(progress or type(model).__name__, f"epoch {epoch + 1}", learning_rate)
        if validate is None:
            continue
        measured.append(validate())
        if measured[-1]["objective"] > best[0]:
            best = (measured[-1]["objective"], epoch, deepcopy(model.state_dict()))
        elif epoch - best[1] >= patience:
            break
    if measured:
        model.load_state_dict(best[2])
    return measured


def sum_parts(parts: Sequence[ItemPart]) -> ItemPart:
    """Vectors (..., d) and biases (...) of items that are the sum of these parts."""
    vectors, biases = zip(*parts, strict=True)
    return reduce(torch.add, vectors), reduce(torch.add, biases)


def running_sums(values: NDArray[Any]) -> NDArray[Any]:
    """Sums (n + 1, ...) of the first 0, 1, ..., n of the values (n, ...)."""
    return np.concatenate([np.zeros_like(values[:1]), np.cumsum(values, axis=0)])


def prior_logit(label: NDArray[Any]) -> float:
    """The log-odds of the labels (n,), finite even where there is one class only."""
    rate = float(label.mean())
    return float(np.log((rate + 1e-6) / (1 - rate + 1e-6)))


def align_vectors(source: Sequence[Floats], reference: Sequence[Floats]) -> Floats:
    """The orthogonal matrix (d, d) to multiply the source's vectors by, to bring them closest to the reference's.

    Two fits differ by a rotation that no logit notices, but a projector would. Both give the vectors of the same users
    and the same items.
    """
    # Orthogonal Procrustes. scipy's gives the same to 4e-7, but other last bits, which every later stage would feel.
    left, _, right = np.linalg.svd(sum(ours.T @ theirs for ours, theirs in zip(source, reference, strict=True)))
    return np.asarray(left @ right, np.float32)
