"""Supervised fine-tuning on recommending and reasoning, shared by the global model and the experts.

A step learns from so many rows, in as many passes as memory asks for. It is a list of windows of like length, the same
whatever its prompts' length, the processes or the memory, and is cut into pieces: one for each pass of each process. A
piece knows its share of the step's targets and pairs (which no cut parts), so that the pieces' losses (`lm.losses`) add
up to the loss of the step in one pass.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from thinkrec import processes
from thinkrec.claims.answers import split_verdict
from thinkrec.lm.losses import Objective
from thinkrec.lm.model import RecommenderLM
from thinkrec.lm.scoring import score, weighted_batches
from thinkrec.lm.trainer import Plan, TrainResult, TrainSettings, train
from thinkrec.metrics import log_loss, sigmoid, validation
from thinkrec.params import SftParams
from thinkrec.text.items import encode
from thinkrec.text.layout import Layout, Window, batches_by_tokens

Rows = NDArray[np.int64]
Step = list[Window]
Lengths = Callable[[Sequence[Window]], NDArray[np.int64]]  # in tokens, of windows


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


def up_to_last_reason(layout: Layout, windows: Iterable[Window]) -> Iterator[Window]:
    """The windows that show a reason, each without what comes after its last one: nothing before sees that."""
    for window in windows:
        shown = np.flatnonzero(layout.reasons_shown(window))
        if len(shown):
            kept = slice(shown[-1] + 1)
            yield replace(window, rows=window.rows[kept], target=window.target[kept])


def passes(lengths: Lengths, steps: Sequence[Step], tokens: int, processes: int) -> int:
    """The least number of passes per step and process in which none holds more than `tokens`, padding included.

    One number for all `steps`. Only a window that is longer than `tokens` itself exceeds them.
    """
    count = np.asarray([len(step) for step in steps])
    longest = np.maximum.reduceat(lengths([window for step in steps for window in step]), count.cumsum() - count)
    pieces = -(-count // np.maximum(tokens // longest, 1))
    return max(1, -(-int(pieces.max(initial=1)) // processes))


def cut(layout: Layout, step: Step, pieces: int) -> list[Piece]:
    """A step as exactly so many pieces of nearly as many windows each."""
    targets = np.asarray([window.target.sum() for window in step])
    pairs = np.asarray([_pairs(layout.label, window) for window in step])
    out = []
    for part in np.array_split(np.arange(len(step)), pieces):
        counts = [(int(each[part].sum()), int(each.sum())) for each in (targets, pairs)]
        out.append(Piece([step[index] for index in part] or step[:1], *counts))
    return out


def collate(layout: Layout, piece: Piece) -> dict[str, Tensor]:
    """A piece as keyword arguments: the tensors of its batch, and its counts `targets` and `pairs` (own, all)."""
    counts = {"targets": torch.tensor(piece.targets), "pairs": torch.tensor(piece.pairs)}
    return {**layout.collate(piece.windows).tensors(), **counts}


def _pairs(label: NDArray[np.int8], window: Window) -> int:
    liked = int((label[window.rows[window.target]] == 1).sum())
    return liked * (int(window.target.sum()) - liked)


def encode_reasons(tokenizer: PreTrainedTokenizerBase, traces: pd.DataFrame) -> dict[int, NDArray[np.int32]]:
    """Tokens of every trace from the full stop after its verdict on, the end token included, by row."""
    encoded = encode(tokenizer, (split_verdict(text)[1] for text in traces["text"]), lead=". ")
    return {
        int(row): np.append(encoded[index], tokenizer.eos_token_id).astype(np.int32)
        for index, row in enumerate(traces["row"].tolist())
    }


def finetune(
    model: RecommenderLM,
    layout: Layout,
    *,
    train_rows: Rows,
    valid_rows: Rows,
    user: NDArray[np.integer],
    params: SftParams,
    settings: TrainSettings,
    think_only: bool = False,
    untaught: Layout | None = None,
    redraw: bool = True,
) -> TrainResult:
    """Train whatever of `model` requires a gradient on `train_rows`; the best epoch by `settings.metric` stays.

    Validation measures the scores of `valid_rows` and, with a layout `untaught`, how well its reasons are predicted
    (`think_loss`). With `think_only` reasons alone are learned, and measured. Every epoch draws its windows anew or,
    without `redraw`, has those of the first in another order.
    """
    taught = replace(layout, thoughts=layout.reasons if params.reason_first else {})

    def steps_of(epoch: int) -> list[Step]:
        rng = np.random.default_rng([settings.seed, epoch])
        drawn = rng if redraw else np.random.default_rng([settings.seed, 0])
        windows = taught.training_windows(train_rows, drawn)
        if think_only:
            windows = list(up_to_last_reason(taught, windows))
        steps = steps_by_rows(taught, windows, params.batch_rows)
        return [steps[index] for index in rng.permutation(len(steps))]

    first = [window for step in steps_of(0) for window in step]
    with_reason = sum(taught.reasons_shown(window).sum() for window in first)
    thinking = float(with_reason / sum(window.target.sum() for window in first))
    objective = Objective(model, layout.label, thinking, params, think_only=think_only)

    def validate() -> dict[str, float]:
        of_reasons = {} if untaught is None else {"think_loss": think_loss(model, untaught)}
        if think_only:
            return of_reasons
        return measures(user[valid_rows], layout.label[valid_rows], score(model, layout, valid_rows)) | of_reasons

    plan = Plan(
        steps=steps_of,
        collate=partial(collate, taught),
        cut=partial(cut, taught),
        passes=max(
            passes(taught.lengths, steps_of(epoch), params.batch_tokens, processes.count())
            for epoch in range(settings.epochs)
        ),
        inputs=[taught, untaught, model.slot_values, user, train_rows, valid_rows, params, think_only],
    )
    return train(objective, plan, validate, settings)


@torch.inference_mode()
def think_loss(model: RecommenderLM, layout: Layout) -> float:
    """Mean cross-entropy, in nats, of a token of the layout's reasons, each after its verdict; NaN without any."""
    model.eval()
    rows = np.asarray(sorted(layout.reasons), np.int64)
    windows = layout.scoring_windows(rows, np.arange(len(rows)))  # each is a sequence with one target
    by_batch = []
    for batch in weighted_batches(model, layout, windows):
        loss = functional.cross_entropy(model(batch).reason_logits.float(), batch.reason_tokens, reduction="sum")
        by_batch.append((float(loss), len(batch.reason_tokens)))
    total, tokens = (sum(part) for part in zip(*processes.gather(by_batch), strict=True)) if len(rows) else (0.0, 0)
    return total / tokens if tokens else float("nan")


def measures(user: NDArray[np.integer], label: NDArray[np.integer], score: NDArray[np.floating]) -> dict[str, float]:
    """What a phase is validated by: `metrics.validation`, and the log-loss of the scores' probabilities."""
    return validation(user, label, score) | {"log_loss": log_loss(label, sigmoid(score))}
