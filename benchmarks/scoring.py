"""Ranking candidates that share a history, and how much of the machine's arithmetic scoring a test split uses."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from benchmarks.measure import Goal, Line, faster, in_turn
from benchmarks.worlds import HISTORY, SHAPES, causal_lm, layout_of, rated, ratings, recommender
from thinkrec.lm.model import RecommenderLM
from thinkrec.lm.scoring import SCORING_TOKENS, score
from thinkrec.text.layout import Layout, batches_by_tokens

CANDIDATES = 100
USERS, TESTED = 287, 7331  # MovieLens 1M's test split, by the paper's windows
ROUNDS = 3
MATMUL = 2048  # rows and columns of the matrices that say what the machine can do


def ranking() -> Iterator[Line]:
    """A hundred candidates of one user after a history of ten: in shared windows, and each in a prompt of its own."""
    for shape in SHAPES:
        table = ratings(np.full(1, HISTORY + CANDIDATES))
        moment = table["timestamp"].to_numpy()[HISTORY]
        table["timestamp"] = np.where(np.arange(len(table)) < HISTORY, np.arange(len(table)), moment + len(table))
        layout = layout_of(table)
        model = recommender(table, layout, causal_lm(shape))
        rows, alone = np.arange(HISTORY, len(table)), np.arange(len(table))
        # Rows of different states never share a sequence: a route of its own gives each candidate its own prompt.
        together, apart = score(model, layout, rows), score(model, layout, rows, route=alone)
        assert np.allclose(together, apart, atol=1e-4), "both compute the same"
        yield faster(
            f"ranking {CANDIDATES} candidates of one user, {shape}",
            "a prompt each, batched",
            in_turn(lambda: score(model, layout, rows), lambda: score(model, layout, rows, route=alone)),  # noqa: B023
            Goal("at least", 5),
        )


def scoring() -> Iterator[Line]:
    """Pairs per second on a table shaped like MovieLens 1M's test split, as a share of the matmul peak."""
    table = ratings(HISTORY + rated(TESTED, USERS, least=1))
    layout = layout_of(table, slots=("user", "item", "statistics"))
    rows = np.flatnonzero(np.arange(len(table)) - layout.start >= HISTORY)
    for shape in SHAPES:
        model = recommender(table, layout, causal_lm(shape), slots=("user", "item", "statistics"))
        needed = operations(model, layout, rows)
        score(model, layout, rows[:500])
        pairs, peak = [], []
        for _ in range(ROUNDS):
            peak.append(matmul_rate())
            began = time.perf_counter()
            score(model, layout, rows)
            pairs.append(len(rows) / (time.perf_counter() - began))
        used = needed * statistics.median(pairs) / len(rows)
        yield Line(
            what=f"scoring {len(rows):,} pairs, {shape}: {statistics.median(pairs):,.0f} pairs/s",
            against=f"matmul peak, fp32, {torch.get_num_threads()} threads",
            measured=f"{used / 1e9:,.0f} GFLOP/s",
            other=f"{statistics.median(peak) / 1e9:,.0f} GFLOP/s",
            ratio=statistics.median(done * needed / len(rows) / most for done, most in zip(pairs, peak, strict=True)),
        )


def operations(model: RecommenderLM, layout: Layout, rows: np.ndarray) -> float:
    """Floating-point operations that scoring `rows` needs: of real tokens and pairs that attend, padding left out.

    Two per weight and token in the layers, two per weight and target in the head, and per layer four per channel
    for every pair of tokens of which one attends to the other.
    """
    backbone, config = model.backbone, model.backbone.config
    weights = sum(layer.weight.numel() for layer in backbone.base_model.modules() if isinstance(layer, nn.Linear))
    head = backbone.get_output_embeddings().weight.numel()
    total = 0.0
    windows = layout.scoring_windows(rows, np.zeros(len(rows), np.int64))
    for group in batches_by_tokens(layout, windows, SCORING_TOKENS):
        batch = layout.collate(group)
        seen = batch.attention_mask[:, 0].sum(2)
        real = torch.arange(seen.shape[1]) < torch.from_numpy(layout.lengths(group))[:, None]
        total += 2 * weights * int(real.sum()) + 2 * head * len(batch.verdicts)
        total += 4 * config.num_hidden_layers * config.hidden_size * int(seen[real].sum())
    return total


def matmul_rate(size: int = MATMUL, *, repeats: int = 5) -> float:
    """Floating-point operations per second of a large fp32 product, the best of a few."""
    a, b = torch.rand(size, size), torch.rand(size, size)
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - began)
    return 2 * size**3 / min(seconds)
