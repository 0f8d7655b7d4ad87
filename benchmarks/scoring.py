"""Ranking candidates that share a history, and how much of the machine's arithmetic scoring a test split uses."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from benchmarks.measure import Goal, Line, faster, in_turn, seconds
from benchmarks.worlds import HISTORY, SHAPES, causal_lm, layout_of, rated, ratings, recommender
from thinkrec.lm.adapters import BatchWeights
from thinkrec.lm.model import RecommenderLM
from thinkrec.lm.scoring import SCORING_TOKENS, RowWeights, score
from thinkrec.text.layout import Layout, Window, batches_by_tokens

CANDIDATES = 200
USERS, TESTED = 287, 7331  # MovieLens 1M's test split, by the paper's windows
ROUNDS = 5
MATMUL = 2048  # rows and columns of the matrices that say what the machine can do


def ranking() -> Iterator[Line]:
    """Two hundred candidates of one user after a history of ten: in shared windows, and each in a prompt of its own."""
    for shape in SHAPES:
        table = ratings(np.full(1, HISTORY + CANDIDATES))
        moment = table["timestamp"].to_numpy()[HISTORY]
        table["timestamp"] = np.where(np.arange(len(table)) < HISTORY, np.arange(len(table)), moment + len(table))
        layout = layout_of(table)
        model = recommender(table, layout, causal_lm(shape))
        rows = np.arange(HISTORY, len(table))
        # Rows of different states never share a sequence: a state of its own gives each candidate its own prompt.
        weights = RowWeights(BatchWeights(), np.ones((len(table), 1), np.float32), np.arange(len(table)))
        together, apart = score(model, layout, rows), score(model, layout, rows, weights)
        assert np.allclose(together, apart, atol=1e-4), "both compute the same"
        ways = {  # to ask about each alone, and how many times faster sharing should be
            "a prompt each, batched": (lambda: score(model, layout, rows, weights), 5),  # noqa: B023
            "a prompt each": (lambda: [score(model, layout, row) for row in np.split(rows, len(rows))], 10),  # noqa: B023
        }
        for against, (apart_again, bound) in ways.items():
            timing = in_turn(lambda: score(model, layout, rows), apart_again)  # noqa: B023
            what = f"ranking {CANDIDATES} candidates, {shape}: {1 / timing.a:.2f} users/s"
            yield faster(what, against, timing, Goal("at least", bound))


def scoring() -> Iterator[Line]:
    """Pairs per second on a table shaped like MovieLens 1M's test split, as a share of the matmul peak."""
    table = ratings(HISTORY + rated(TESTED, USERS, least=1))
    layout = layout_of(table, slots=("user", "item", "statistics"))
    rows = np.flatnonzero(np.arange(len(table)) - layout.start >= HISTORY)
    for shape in SHAPES:
        model = recommender(table, layout, causal_lm(shape), slots=("user", "item", "statistics"))
        batches = list(
            batches_by_tokens(layout, layout.scoring_windows(rows, np.zeros(len(rows), np.int64)), SCORING_TOKENS)
        )
        weights, attention = operations(model, layout, batches)
        score(model, layout, rows[:500])
        shares, took, peaks = [], [], []
        for _ in range(ROUNDS):
            peaks.append(matmul_rate())
            took.append(seconds(lambda: score(model, layout, rows)))  # noqa: B023
            shares.append((weights + attention) / took[-1] / peaks[-1])
        middle = statistics.median(took)
        yield Line(
            what=f"scoring {len(rows):,} pairs, {shape}: {len(rows) / middle:,.0f} pairs/s",
            against=f"matmul peak, fp32, {torch.get_num_threads()} threads",
            measured=f"{(weights + attention) / middle / 1e9:,.0f} GFLOP/s",
            other=f"{statistics.median(peaks) / 1e9:,.0f} GFLOP/s",
            ratio=statistics.median(shares),
        )


def operations(model: RecommenderLM, layout: Layout, batches: Sequence[Sequence[Window]]) -> tuple[float, float]:
    """Floating-point operations that one pass over these batches needs: those with weights, those of attention.

    Padding needs none: it is of real tokens and of pairs of which one attends to the other. Two per weight and token in
    the layers, two per weight and needed position in the head, and per layer four per channel and pair.
    """
    backbone, config = model.backbone, model.backbone.config
    weights = sum(layer.weight.numel() for layer in backbone.base_model.modules() if isinstance(layer, nn.Linear))
    head = backbone.get_output_embeddings().weight.numel()
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    channels = config.num_attention_heads * width
    with_weights = of_attention = 0.0
    for group in batches:
        batch = layout.collate(group)
        seen = batch.attention_mask[:, 0].sum(2)
        real = torch.arange(seen.shape[1]) < torch.from_numpy(layout.lengths(group))[:, None]
        with_weights += 2 * weights * int(real.sum()) + 2 * head * (len(batch.verdicts) + len(batch.reasons))
        of_attention += 4 * config.num_hidden_layers * channels * int(seen[real].sum())
    return with_weights, of_attention


def matmul_rate() -> float:
    """Floating-point operations per second of a large product of matrices, the best of a few."""
    a, b = (torch.rand(MATMUL, MATMUL) for _ in range(2))
    return 2 * MATMUL**3 / min(seconds(lambda: a @ b) for _ in range(ROUNDS))
