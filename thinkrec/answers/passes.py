"""Scores whose bits do not depend on what else is asked at the same time, yet of many users in one pass.

A product of matrices may round otherwise where one has more rows. So sequences share a pass through the layers only
with those padded to the same width, whose products have the same shape for each, and what is not of that shape (slots,
verdicts, the match of texts) is computed sequence by sequence.

Shapes: B sequences, T tokens, k rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thinkrec.lm.loaded import LoadedModel
from thinkrec.lm.scoring import SCORING_TOKENS
from thinkrec.metrics import sigmoid
from thinkrec.progress import track
from thinkrec.text.layout import Window

STEP = 32  # tokens: widths are multiples of it
CPU_TOKENS = 2048  # of a pass there: more no longer stay in the core's cache


def probabilities(loaded: LoadedModel, rows: NDArray[np.int64], *, progress: str | None = None) -> NDArray[np.float64]:
    """Probabilities (k,) of a like of the interactions `rows`, each under its user's adapter weights."""
    windows = loaded.layout.scoring_windows(rows, loaded.features.state[rows].astype(np.int64))
    widths = -(-loaded.layout.lengths(windows) // STEP) * STEP
    tokens = CPU_TOKENS if loaded.model.device.type == "cpu" else SCORING_TOKENS
    groups = []
    for width in np.unique(widths).tolist():
        of_width, size = np.flatnonzero(widths == width), max(1, tokens // width)
        groups += [(width, of_width[first : first + size]) for first in range(0, len(of_width), size)]
    scores = np.full(len(loaded.interactions), np.nan, np.float32)
    for width, places in track(groups, progress, unit="pass"):
        _score([windows[place] for place in places], width, loaded, scores)
    return sigmoid(scores[rows])


@torch.inference_mode()
def _score(windows: Sequence[Window], width: int, loaded: LoadedModel, scores: NDArray[np.float32]) -> None:
    """Put the scores of the windows' targets, all padded to `width` tokens, in the places of their rows."""
    model = loaded.model.eval()
    batches = [loaded.layout.collate([window]).to(model.device) for window in windows]
    weights = loaded.row_weights()
    if weights is not None:
        weights.set_rows(torch.cat([batch.first_target for batch in batches]))
    hidden = model.hidden_states(
        torch.cat([_pad(model.embed(batch), width, 1) for batch in batches]),
        torch.cat([_pad(batch.attention_mask, width, 2, 3) for batch in batches]),
        torch.cat([_pad(batch.position_ids, width, 1) for batch in batches]),
    )
    for number, batch in enumerate(batches):
        states = hidden[number : number + 1]
        read = states[0, batch.verdicts[:, 1]]
        score, _ = model.read_verdicts(read, model.match_texts(states, batch))
        scores[batch.target_rows.cpu().numpy()] = score.float().cpu().numpy()


def _pad(tensor: Tensor, width: int, *dimensions: int) -> Tensor:
    """The tensor with zeros behind it, so that these dimensions have `width` places."""
    shape = [width if number in dimensions else size for number, size in enumerate(tensor.shape)]
    padded = tensor.new_zeros(shape)
    padded[tuple(map(slice, tensor.shape))] = tensor
    return padded
