"""The mixture of experts against what PEFT offers: whole models, a question per user after a history of ten."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor

from benchmarks.measure import Goal, Line, faster, in_turn
from benchmarks.worlds import HISTORY, SHAPES, Shape, causal_lm, layout_of, ratings, recommender, with_lora
from thinkrec.lm.adapters import install_mixture, save_adapter
from thinkrec.lm.model import RecommenderLM
from thinkrec.text.layout import Batch

USERS, EXPERTS = 32, 6


def fusion() -> Iterator[Line]:
    """Six experts mixed per sample: against a merge per user, and against one adapter for all."""
    for shape in SHAPES:
        with TemporaryDirectory() as folder:
            yield from _of(shape, Path(folder))


def _of(shape: Shape, root: Path) -> Iterator[Line]:
    table = ratings(np.full(USERS, HISTORY + 1))
    layout = layout_of(table)
    last = np.arange(HISTORY, len(table), HISTORY + 1)
    windows = layout.scoring_windows(last, np.zeros(USERS, np.int64))
    batch, alone = layout.collate(windows), [layout.collate([window]) for window in windows]
    weights = torch.from_numpy(np.random.default_rng(0).dirichlet(np.ones(EXPERTS), USERS).astype(np.float32))

    folders = [root / f"expert_{number}" for number in range(EXPERTS)]
    for seed, folder in enumerate(folders):
        save_adapter(with_lora(causal_lm(shape), seed=seed), folder, base="none")

    mixed = causal_lm(shape)
    batch_weights = install_mixture(mixed, [None, *folders])
    batch_weights.tensor = torch.cat([torch.zeros(USERS, 1), weights], dim=1)
    ours = recommender(table, layout, mixed)

    single = causal_lm(shape)
    PeftModel.from_pretrained(single, folders[0])
    one = recommender(table, layout, single)

    merging = causal_lm(shape)
    peft = PeftModel.from_pretrained(merging, folders[0], adapter_name="e0")
    for number, folder in enumerate(folders[1:], start=1):
        peft.load_adapter(folder, adapter_name=f"e{number}")
    theirs = recommender(table, layout, merging)

    def merged() -> list[Tensor]:
        out = []
        for mine, row in zip(alone, weights.tolist(), strict=True):
            peft.add_weighted_adapter([f"e{n}" for n in range(EXPERTS)], row, "merged", combination_type="cat")
            peft.set_adapter("merged")
            out.append(_scores(theirs, mine))
            peft.delete_adapter("merged")
        return out

    assert torch.allclose(_scores(ours, batch), torch.cat(merged()), atol=1e-4), "both compute the same"
    what = f"fusion of {EXPERTS} experts, {USERS} users, {shape}"
    yield faster(
        what,
        "peft: add_weighted_adapter (cat) and a pass per user",
        in_turn(lambda: _scores(ours, batch), merged, rounds=3),
        Goal("at least", 6),
    )
    # One round is short: more of them for the same trust.
    timing = in_turn(lambda: _scores(ours, batch), lambda: _scores(one, batch), rounds=15)
    yield faster(what, "peft: one adapter, the same batch", timing, Goal("at most", 1.1))


@torch.inference_mode()
def _scores(model: RecommenderLM, batch: Batch) -> Tensor:
    return model(batch).score
