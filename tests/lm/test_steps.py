"""Steps: rows decide what a step learns from, tokens what a pass holds, and no cut changes a step's loss."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.builders import interactions, layout_of, recommender
from tests.lm import work
from thinkrec.lm.finetune import Piece, collate, cut, passes, steps_by_rows
from thinkrec.lm.losses import Objective, share_of


@pytest.fixture
def table():
    return interactions(1, users=6, rows=12)


@pytest.fixture
def layout(table):
    return layout_of(table, reasons={3: work.REASON, 17: work.REASON})


def steps_of(layout, rows=20):
    windows = layout.training_windows(np.arange(len(layout.item)), np.random.default_rng(0))
    return steps_by_rows(layout, windows, rows)


def rows_of(pieces):
    windows = [window for piece in pieces for window in (piece.windows if isinstance(piece, Piece) else [piece])]
    return sorted(row for window in windows for row in window.rows[window.target].tolist())


@pytest.mark.parametrize("pieces", [1, 2, 3, 50])
def test_the_pieces_of_a_step_hold_its_rows_once_and_their_losses_add_up(table, layout, pieces):
    layout = replace(layout, thoughts=layout.reasons)
    objective = Objective(recommender(table), layout.label, 0.1, work.SFT.model_copy(update={"reason_first": 0.5}))
    for step in steps_of(layout):
        parts = cut(layout, step, pieces)
        assert len(parts) == pieces
        assert rows_of([part for part in parts if part.targets[0]]) == rows_of(step)
        with torch.no_grad():
            whole = float(objective(**layout.collate(step).tensors()))
            summed = sum(float(objective(**collate(layout, part))) for part in parts)
        assert summed == pytest.approx(whole, abs=1e-6)


def test_counts_are_those_of_targets_and_of_pairs(layout):
    step = steps_of(layout)[0]
    label = layout.label
    targets = [window.target.sum() for window in step]
    pairs = [(label[window.rows] == 1).sum() * (label[window.rows] == 0).sum() for window in step]
    for part, window, count, paired in zip(cut(layout, step, len(step)), step, targets, pairs, strict=True):
        assert part.windows == [window]
        assert (part.targets, part.pairs) == ((count, sum(targets)), (paired, sum(pairs)))


def test_a_step_without_pairs_has_none_to_share(layout):
    alike = replace(layout, label=np.ones_like(layout.label))
    for part in cut(alike, steps_of(alike)[0], 2):
        assert part.pairs == (0, 0) and float(share_of(collate(alike, part)["pairs"])) == 0


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("tokens", [1, 100, 150, 400, 10_000])
def test_no_pass_exceeds_its_tokens_and_fewer_passes_would(layout, tokens, processes):
    steps = steps_of(layout, rows=30)
    needed = passes(layout.lengths, steps, tokens, processes)

    def exceeds(count):
        parts = [part.windows for step in steps for part in cut(layout, step, count * processes)]
        return any(len(part) > 1 and layout.lengths(part).max() * len(part) > tokens for part in parts)

    assert not exceeds(needed)
    assert needed == 1 or exceeds(needed - 1)
    if tokens == 10_000:
        assert needed == 1


def test_training_is_the_same_however_a_step_is_cut():
    whole, weights = work.fine_tuned(work.SFT.model_copy(update={"batch_tokens": 100_000}))
    for tokens in (150, 60):
        in_passes, others = work.fine_tuned(work.SFT.model_copy(update={"batch_tokens": tokens}))
        for mine, theirs in zip(in_passes["epochs"], whole["epochs"], strict=True):
            assert mine == pytest.approx(theirs, abs=1e-5)
        assert all(weight.allclose(weights[name], rtol=0, atol=3e-5) for name, weight in others.items())
