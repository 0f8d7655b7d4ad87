"""Steps of training: so many rows to learn from, in as many passes as memory asks for.

A step is a list of windows of like length, the same whatever its prompts' length, the processes or the memory. It is
cut into pieces, one for each pass of each process. A piece knows its share of the step, so that the pieces' losses add
up to the loss of the step in one pass: means over targets become means over the whole step's targets, and means over
pairs of one sequence (which no cut parts) means over the whole step's pairs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thinkrec.text.layout import Layout, Window, batches_by_tokens

Step = list[Window]
WHOLE_STEP = torch.ones(2, dtype=torch.int64)  # as good as any counts of all


@dataclass(frozen=True, slots=True)
class Piece:
    """Windows of a step, and how many of its targets and of its (liked, disliked) pairs of one window they hold.

    A step of fewer windows than pieces has some that hold its first window once more, and count none of it.
    """

    windows: Step
    targets: tuple[int, int]  # its own, all of the step
    pairs: tuple[int, int]


def steps_by_rows(layout: Layout, windows: Sequence[Window], rows: int) -> list[Step]:
    """The windows of an epoch as steps of at most `rows` targets (one window may exceed that), longest first."""
    return list(batches_by_tokens(layout, windows, sys.maxsize, targets=rows))


def passes(layout: Layout, steps: Sequence[Step], tokens: int, processes: int) -> int:
    """The least number of passes per step and process in which none holds more than `tokens`, padding included.

    One number for all `steps`, since optimisers accumulate gradients over a fixed number of passes. Only a window that
    is longer than `tokens` itself exceeds them.
    """
    longest = layout.lengths([step[0] for step in steps])
    held = np.maximum(tokens // longest, 1)
    pieces = -(-np.asarray([len(step) for step in steps]) // held)
    return max(1, -(-int(pieces.max(initial=1)) // processes))


def cut(layout: Layout, step: Step, pieces: int) -> list[Piece]:
    """A step as exactly so many pieces of nearly as many windows each."""
    targets = np.asarray([window.target.sum() for window in step])
    pairs = np.asarray([_pairs(layout.label, window) for window in step])
    out = []
    for part in np.array_split(np.arange(len(step)), pieces):
        if len(part):
            counts = [(int(each[part].sum()), int(each.sum())) for each in (targets, pairs)]
            out.append(Piece([step[index] for index in part], *counts))
        else:
            out.append(Piece(step[:1], (0, int(targets.sum())), (0, int(pairs.sum()))))
    return out


def share(counts: Tensor) -> Tensor:
    """The share () that the counts (own, all) make; of nothing it is 0."""
    return counts[0] / counts[1].clamp(min=1)


def collate(layout: Layout, piece: Piece) -> dict[str, Tensor]:
    """A piece as keyword arguments: the tensors of its batch, and its counts `targets` and `pairs` (own, all)."""
    counts = {"targets": torch.tensor(piece.targets), "pairs": torch.tensor(piece.pairs)}
    return {**layout.collate(piece.windows).tensors(), **counts}


def _pairs(label: NDArray[np.int8], window: Window) -> int:
    liked = int((label[window.rows[window.target]] == 1).sum())
    return liked * (int(window.target.sum()) - liked)
