"""Scores of any rows: one forward pass per window, the verdict's logits read at every target.

Batches are the same however many processes there are; each takes its share of them, and all get everything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from thinkrec.lm import processes
from thinkrec.lm.mixture import Router
from thinkrec.lm.model import RecommenderLM
from thinkrec.text.layout import Batch, Layout, Window, batches_by_tokens

SCORING_TOKENS = 16_384


def routed_batches(
    model: RecommenderLM,
    layout: Layout,
    windows: Sequence[Window],
    *,
    router: Router | None,
    routing: NDArray[np.float32] | None,
    route: NDArray[np.integer] | None,
    progress: str | None,
) -> Iterator[Batch]:
    """This process's batches of these windows, on the model's device and with adapter weights set on the `router`.

    A sequence's weights are `routing[route[r]]` (routing: states x (N + 1), route: (n,) for all interactions), r its
    first target. Without a router there is nothing to set.
    """
    batches = processes.mine(list(batches_by_tokens(layout, windows, SCORING_TOKENS)))
    hidden = True if progress is None or processes.rank() else None
    for group in tqdm(batches, desc=progress, disable=hidden, leave=False):
        batch = layout.collate(group).to(model.device)
        if router is not None:
            assert routing is not None and route is not None
            weights = routing[route[batch.first_target.cpu().numpy()]]
            router.weights = torch.from_numpy(weights).to(model.device)
        yield batch


@torch.inference_mode()
def score(
    model: RecommenderLM,
    layout: Layout,
    rows: NDArray[np.int64],
    *,
    router: Router | None = None,
    routing: NDArray[np.float32] | None = None,
    route: NDArray[np.integer] | None = None,
    progress: str | None = None,
) -> NDArray[np.float32]:
    """Scores (k,) of the interactions `rows` (k,), as `RecommenderLM` reads them; the sigmoid is the probability.

    With a `router`, every row is scored under its own adapter weights (`routed_batches`). The result does not depend
    on which rows are asked for together.
    """
    model.eval()
    state = np.zeros(len(rows), np.int64) if route is None else route[rows].astype(np.int64)
    windows = layout.scoring_windows(rows, state)
    batches = routed_batches(model, layout, windows, router=router, routing=routing, route=route, progress=progress)
    found = [(batch.target_rows.cpu().numpy(), model(batch).score.float().cpu().numpy()) for batch in batches]
    out = np.full(len(layout.item), np.nan, np.float32)
    for scored, scores in processes.gather(found):
        out[scored] = scores
    return out[rows]
