"""Scores whose bits do not depend on what else is asked at the same time, yet of many users in one pass.

What stands before a user's candidates, the history, is read once. The candidates go on behind its keys and values, a
window of them as one sequence.

A product of matrices may round otherwise where one has more rows. So sequences share a pass through the layers only
with those padded to the same width, whose products have the same shape for each, and what is not of that shape (slots,
verdicts, the match of texts) is computed sequence by sequence.

Shapes: B sequences, D hidden size, k rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from thinkrec.lm.loaded import LoadedModel
from thinkrec.lm.scoring import SCORING_TOKENS
from thinkrec.metrics import sigmoid
from thinkrec.progress import track
from thinkrec.text.layout import Batch, Window

T = TypeVar("T")
STEP = 32  # tokens: widths are multiples of it
CPU_TOKENS = 2048  # of a pass there: more no longer stay in the core's cache


@dataclass(frozen=True, slots=True)
class _Asked:
    """A window of candidates that stand behind their history."""

    window: Window
    history: int  # its tokens
    candidates: int  # theirs, or a few more: the layout's own figure, so nothing else that is asked can change it


@dataclass(frozen=True, slots=True)
class _Part:
    """The tokens from `first` on and before `last` of a batch's only sequence."""

    batch: Batch
    first: int
    last: int


def probabilities(loaded: LoadedModel, rows: NDArray[np.int64], *, progress: str | None = None) -> NDArray[np.float64]:
    """Probabilities (k,) of a like of the interactions `rows`, each under its user's adapter weights.

    They are the last rows of their users: no window shows anything behind its first target but targets.
    """
    layout, state = loaded.layout, loaded.features.state
    by_history: dict[tuple[int, bytes], list[Window]] = defaultdict(list)
    for window in layout.scoring_windows(rows, state[rows].astype(np.int64)):
        by_history[int(state[window.rows[-1]]), window.rows[~window.target].tobytes()].append(window)
    asked = []
    for windows in by_history.values():
        blocks = [layout.beginning(windows[0]), *layout.blocks(windows[0])]
        history = sum(len(block.tokens) for block in blocks if block.verdict < 0)
        further = (layout.lengths(windows) - history).tolist()
        asked.append([_Asked(*each) for each in zip(windows, repeat(history), further)])
    scores = np.full(len(loaded.interactions), np.nan, np.float32)
    passes = list(_passes(asked, lambda of_history: of_history[0].history, loaded))
    for width, some in track(passes, progress, unit="pass"):
        _score(some, width, loaded, scores)
    return sigmoid(scores[rows])


def _passes(things: Sequence[T], size: Callable[[T], int], loaded: LoadedModel) -> Iterator[tuple[int, list[T]]]:
    """The things in groups for one pass, each with the width that all in it are padded to."""
    tokens = CPU_TOKENS if loaded.model.device.type == "cpu" else SCORING_TOKENS
    groups: dict[int, list[T]] = defaultdict(list)
    for thing in things:
        groups[-(-size(thing) // STEP) * STEP].append(thing)
    for width, alike in sorted(groups.items()):
        count = max(1, tokens // width)
        yield from ((width, alike[first : first + count]) for first in range(0, len(alike), count))


@torch.inference_mode()
def _score(histories: Sequence[Sequence[_Asked]], width: int, loaded: LoadedModel, scores: NDArray[np.float32]) -> None:
    """Put the scores of what is asked, by histories that are padded to `width`, in the places of their rows."""
    model = loaded.model.eval()

    def collated(asked: _Asked) -> Batch:
        return loaded.layout.collate([asked.window]).to(model.device)

    cache = _cache()
    begun = _read(loaded, [_Part(collated(first), 0, first.history) for first, *_ in histories], width, cache)
    asked = [(number, each) for number, of_history in enumerate(histories) for each in of_history]
    for room, some in _passes(asked, lambda numbered: numbered[1].candidates, loaded):
        numbers, batches = [number for number, _ in some], [collated(each) for _, each in some]
        behind = _cache()
        for depth, layer in enumerate(cache.layers):
            behind.update(layer.keys[numbers], layer.values[numbers], depth)
        parts = [
            _Part(batch, each.history, batch.input_ids.shape[1]) for batch, (_, each) in zip(batches, some, strict=True)
        ]
        for number, part, read in zip(numbers, parts, _read(loaded, parts, room, behind), strict=True):
            states = torch.cat([begun[number, : part.first], read[: part.last - part.first]])[None]
            verdicts = states[0, part.batch.verdicts[:, 1]]
            score, _ = model.read_verdicts(verdicts, model.match_texts(states, part.batch))
            scores[part.batch.target_rows.cpu().numpy()] = score.float().cpu().numpy()


def _cache() -> Cache:
    """Not the model's own kind, which may forget what a mask of ours still shows."""
    return Cache(layer_class_to_replicate=DynamicLayer)


def _read(loaded: LoadedModel, parts: Sequence[_Part], width: int, cache: Cache) -> Tensor:
    """The last hidden states (B, width, D) of parts of sequences, behind what is in the cache."""
    model, weights = loaded.model, loaded.row_weights()
    if weights is not None:
        weights.set_rows(torch.cat([part.batch.first_target for part in parts]))
    seen = cache.get_seq_length()
    embedded, masks, positions = [], [], []
    for part in parts:
        room, batch = width - (part.last - part.first), part.batch
        mask = batch.attention_mask[:, :, part.first : part.last]
        columns = (
            pad(mask[..., : part.first], (0, seen - part.first)),
            pad(mask[..., part.first : part.last], (0, room)),
        )
        masks.append(pad(torch.cat(columns, dim=-1), (0, 0, 0, room)))
        embedded.append(pad(model.embed(batch)[:, part.first : part.last], (0, 0, 0, room)))
        positions.append(pad(batch.position_ids[:, part.first : part.last], (0, room)))
    return model.hidden_states(torch.cat(embedded), torch.cat(masks), torch.cat(positions), cache)
