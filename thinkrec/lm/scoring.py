"""Scores of any rows: one forward pass per window; the verdict's logits are read at every target.

Batches are the same however many processes there are. Each process takes its share of them, and all get every score.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from thinkrec import processes
from thinkrec.errors import UserError
from thinkrec.lm.adapters import BatchWeights
from thinkrec.lm.model import RecommenderLM, mean_over_texts
from thinkrec.progress import track
from thinkrec.text.layout import Batch, Layout, Window, batches_by_tokens

SCORING_TOKENS = 16_384
SHARED, EACH = 12, 6  # tokens of a trial's prompt, and of each of the two rows after it
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}  # mean difference of a trial's logits, in units of their spread
ROUNDED = 0.1  # the same, of weights with fewer bits


@dataclass(frozen=True, slots=True, eq=False)
class RowWeights:
    """The adapter weights of every interaction: those of row r are `routing_weights[state[r]]`."""

    batch_weights: BatchWeights  # where the model's mixture reads a batch's weights
    routing_weights: NDArray[np.float32]  # (S, N + 1), rows sum to 1; column 0 is the global adapter
    state: NDArray[np.integer]  # (n,)

    def set_rows(self, rows_B: torch.Tensor) -> None:
        """Give the mixture the weights (B, N + 1) of the sequences of a batch: those of these interactions."""
        weights = torch.from_numpy(self.routing_weights[self.state[rows_B.cpu().numpy()]])
        self.batch_weights.tensor = weights.to(rows_B.device)


def weighted_batches(
    model: RecommenderLM,
    layout: Layout,
    windows: Sequence[Window],
    weights: RowWeights | None = None,
    *,
    targets: float = np.inf,
    progress: str | None = None,
) -> Iterator[Batch]:
    """This process's batches of these windows, on the model's device, their adapter weights set before each.

    A batch has at most so many `targets`, but for one window that has more.
    """
    batches = processes.mine(list(batches_by_tokens(layout, windows, SCORING_TOKENS, targets=targets)))
    for group in track(batches, None if processes.rank() else progress, unit="batch"):
        batch = layout.collate(group).to(model.device)
        if weights is not None:
            weights.set_rows(batch.first_target)
        yield batch


@torch.inference_mode()
def score(
    model: RecommenderLM,
    layout: Layout,
    rows: NDArray[np.int64],
    weights: RowWeights | None = None,
    *,
    progress: str | None = None,
) -> NDArray[np.float32]:
    """Scores (k,) of the interactions `rows` (k,), under their adapter `weights` if there are some.

    The sigmoid of a score is the probability. It does not depend on the other rows that are asked for.
    """
    model.eval()
    state = np.zeros(len(rows), np.int64) if weights is None else weights.state[rows].astype(np.int64)
    windows = layout.scoring_windows(rows, state)
    batches = weighted_batches(model, layout, windows, weights, progress=progress)
    parts = [(batch.target_rows.cpu().numpy(), model(batch).score.float().cpu().numpy()) for batch in batches]
    scores = np.full(len(layout.item), np.nan, np.float32)
    for target_rows, target_scores in processes.gather(parts):
        scores[target_rows] = target_scores
    return scores[rows]


@torch.inference_mode()
def text_states(model: RecommenderLM, layout: Layout, rows: NDArray[np.int64]) -> torch.Tensor:
    """Mean hidden states (M, D) over every item's text in the prompts of `rows`."""
    model.eval()
    windows = layout.scoring_windows(rows, np.zeros(len(rows), np.int64))
    parts = []
    for batch in weighted_batches(model, layout, windows):
        hidden = model.hidden_states(model.embed(batch), batch.attention_mask, batch.position_ids)
        parts.append(mean_over_texts(hidden, batch).cpu().numpy())
    return torch.from_numpy(np.concatenate(processes.gather(parts)))


@torch.no_grad()
def check_passes(model: RecommenderLM) -> None:
    """Try whether two rows after one prompt, side by side, get the logits that `transformers` gives one alone.

    Raises:
        UserError: they do not. The model's code ignores masks or positions, or does something to embeddings or logits
            that is not known here.
    """
    backbone, device = model.backbone, model.device
    embeddings = backbone.get_input_embeddings()
    generator = torch.Generator().manual_seed(0)
    width = SHARED + 2 * EACH
    ids = torch.randint(embeddings.num_embeddings, (1, width), generator=generator).to(device)
    place = torch.arange(width, device=device)
    alone = torch.cat([place[:SHARED], place[-EACH:]])
    row = (place - SHARED) // EACH  # negative: the prompt
    mask = (place <= place[:, None]) & ((row == row[:, None]) | (row < 0))
    position = place - EACH * (row > 0)
    try:
        theirs = backbone(input_ids=ids[:, alone]).logits[0, -EACH:].float()
        hidden = model.hidden_states(embeddings(ids), mask[None, None], position[None])
        off = (model.logits(hidden[0, -EACH:]) - theirs).abs().mean() / theirs.std()
    except (TypeError, ValueError, RuntimeError, AttributeError, NotImplementedError) as error:
        problem = f"does not take prompts as embeddings with a mask ({' '.join(str(error).split())[:100]})"
    else:
        if off <= TOLERANCE.get(embeddings.weight.dtype, ROUNDED):
            return
        problem = f"gives other logits than transformers where rows share a sequence (off by {off:.1g} of their spread)"
    raise UserError(f"backbone.name: a {type(backbone).__name__} {problem}, so its scores would be wrong; use another")
