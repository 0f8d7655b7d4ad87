"""The `stream` layout: one user's interactions as one sequence, a verdict predicted at every target's slot.

    <begin> | title: keywords <slot> Yes | title: keywords <slot> No | ... | title: keywords <slot> Yes. reason <end>

With `soft_tokens`, that many places stand between the begin token and the first block. The model fills them with
learned vectors; like the begin token they are visible to all blocks.

Each interaction is a *block*. A block's tokens attend to themselves causally and to the visible tokens of blocks
with a strictly earlier timestamp, so rows that share a timestamp are blind to each other, and rotary positions
depend on strictly earlier rows alone. Reasons are visible to their own block only; with `history_labels: likes` a
disliked interaction is visible to itself only.

A target sees between `history` and 2 * `history` - 1 earlier interactions (all of them where there are fewer).
Where its window begins is a function of its own history, so a score does not depend on what else is in the batch.

Shapes: n interactions, B sequences of a batch, T their longest length in tokens, R rows of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from thinkrec.data.histories import history_bounds
from thinkrec.text.items import Ragged
from thinkrec.text.vocabulary import Vocabulary

Rows = NDArray[np.int64]
PADDING, BEGIN = -2, -1  # block numbers of tokens that belong to no row


@dataclass(frozen=True, slots=True)
class Window:
    """Rows of one user in time order, and which of them are targets (scored, or trained on)."""

    rows: Rows
    target: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Batch:
    """Tensors of B padded sequences. Row-wise tensors are in sequence order, then time order."""

    input_ids: Tensor  # (B, T) int64
    position_ids: Tensor  # (B, T) int64
    attention_mask: Tensor  # (B, 1, T, T) bool, True = attend
    slots: Tensor  # (S, 2) int64: sequence and position of every slot, of targets and history alike
    slot_rows: Tensor  # (S,) int64: the interaction of each slot
    targets: Tensor  # (R,) int64: which slots are targets
    first_target: Tensor  # (B,) int64: the interaction of each sequence's first target, which names its routing
    reasons: Tensor  # (Q, 2) int64: sequence and position from which a reason's next token is predicted
    reason_targets: Tensor  # (Q,) int64: the target (0..R-1) that each belongs to
    reason_tokens: Tensor  # (Q,) int64: the token to predict

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return Batch(*(getattr(self, name).to(device) for name in Batch.__slots__))


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLayout:
    """Everything that turns row numbers into token sequences."""

    timestamp: NDArray[np.int64]  # (n,)
    label: NDArray[np.int8]  # (n,)
    item: NDArray[np.int32]  # (n,)
    start: Rows  # (n,) first row of the same user
    end: Rows  # (n,) one past the last strictly earlier row
    items: Ragged
    reasons: Mapping[int, NDArray[np.int32]]  # row -> tokens after the verdict, the end token included
    vocabulary: Vocabulary
    history: int
    hide_dislikes: bool
    soft_tokens: int

    @property
    def beginning(self) -> int:
        """Tokens before a sequence's first block: the begin token and the soft prompt."""
        return 1 + self.soft_tokens

    def block_lengths(self) -> NDArray[np.int64]:
        """Tokens (n,) of every row's block, its reason included."""
        lengths = self.items.lengths[self.item] + 2
        for row, tokens in self.reasons.items():
            lengths[row] += len(tokens)
        return lengths

    def at(self, interactions: pd.DataFrame) -> StreamLayout:
        """The same rows, at the moments that another view of the table gives them."""
        time = interactions["timestamp"].to_numpy()
        start, end = history_bounds(interactions["user"].to_numpy(), time)
        return replace(self, timestamp=time, start=start, end=end)


def make_layout(
    interactions: pd.DataFrame,
    items: Ragged,
    vocabulary: Vocabulary,
    *,
    history: int,
    hide_dislikes: bool,
    reasons: Mapping[int, NDArray[np.int32]] | None = None,
    soft_tokens: int = 0,
) -> StreamLayout:
    """The layout of the interactions artefact."""
    start, end = history_bounds(interactions["user"].to_numpy(), interactions["timestamp"].to_numpy())
    return StreamLayout(
        timestamp=interactions["timestamp"].to_numpy(),
        label=interactions["label"].to_numpy(),
        item=interactions["item"].to_numpy(),
        start=start,
        end=end,
        items=items,
        reasons=reasons or {},
        vocabulary=vocabulary,
        history=history,
        hide_dislikes=hide_dislikes,
        soft_tokens=soft_tokens,
    )


def scoring_windows(layout: StreamLayout, rows: Rows, state: NDArray[np.integer]) -> list[Window]:
    """Sequences in which every one of `rows` is a target once.

    Rows share a sequence if they are of one user, their windows begin at the same place and they have the same
    `state` (k,): whatever else the model's weights depend on, such as the routing of the user at that time.
    """
    earlier = layout.end[rows] - layout.start[rows]
    begin = layout.start[rows] + np.maximum(earlier - layout.history, 0) // layout.history * layout.history
    order = np.lexsort((rows, state, begin, layout.start[rows]))
    keys = np.stack([layout.start[rows], begin, state])[:, order]
    cuts = np.flatnonzero((np.diff(keys, axis=1) != 0).any(0)) + 1
    windows = []
    for group in np.split(order, cuts) if len(rows) else []:
        for part in np.split(group, range(2 * layout.history, len(group), 2 * layout.history)):
            targets = rows[part]
            context = np.arange(begin[part[0]], layout.end[targets].max())
            shown = np.union1d(context, targets)
            windows.append(Window(shown, np.isin(shown, targets)))
    return windows


def training_windows(layout: StreamLayout, rows: Rows, rng: np.random.Generator) -> list[Window]:
    """Cut each user's `rows` (sorted) into runs of 2 * `history` in which every row is a target.

    Every user's first cut is drawn anew, so that over the epochs a row is met with histories of every length.
    """
    length = 2 * layout.history
    windows = []
    for mine in np.split(rows, np.flatnonzero(np.diff(layout.start[rows])) + 1) if len(rows) else []:
        first = int(rng.integers(1, length + 1))
        for run in np.split(mine, range(first, len(mine), length)):
            windows.append(Window(run, np.ones(len(run), bool)))
    return windows


def reasons_shown(layout: StreamLayout, window: Window) -> NDArray[np.bool_]:
    """Which of a window's rows (k,) are met with their reason.

    Those that are targets, have one, and see in this window at least what the teacher saw: `history` earlier rows,
    or all there are. A reason that cites what is out of sight would teach the model to make things up.
    """
    sees = layout.end[window.rows] - window.rows[0]
    enough = (sees >= layout.history) | (window.rows[0] == layout.start[window.rows])
    has = np.asarray([row in layout.reasons for row in window.rows.tolist()], bool)
    return window.target & enough & has


def batches_by_tokens(
    layout: StreamLayout, windows: Sequence[Window], budget: int, *, targets: float = np.inf
) -> Iterator[list[Window]]:
    """Batches of similar length, within `budget` tokens when padded, and of at most `targets` rows to predict.

    One sequence may exceed either.
    """
    lengths = layout.block_lengths()
    sizes = np.asarray([lengths[window.rows].sum() + layout.beginning for window in windows])
    batch: list[Window] = []
    longest = held = 0
    for index in np.argsort(-sizes, kind="stable"):
        count = int(windows[index].target.sum())
        if batch and (longest * (len(batch) + 1) > budget or held + count > targets):
            yield batch
            batch, held = [], 0
        if not batch:
            longest = int(sizes[index])
        batch.append(windows[index])
        held += count
    if batch:
        yield batch


def collate(layout: StreamLayout, windows: Sequence[Window]) -> Batch:
    """The tensors of these windows, a sequence each."""
    encoded = [_encode(layout, window) for window in windows]
    width = max(len(one.tokens) for one in encoded)

    def padded(name: str, fill: int) -> NDArray[np.int64]:
        out = np.full((len(encoded), width), fill, np.int64)
        for index, one in enumerate(encoded):
            out[index, : len(getattr(one, name))] = getattr(one, name)
        return out

    block, group = padded("block", PADDING), padded("group", np.iinfo(np.int64).max)
    visible = padded("visible", 0).astype(bool)
    causal = np.tri(width, dtype=bool)
    earlier = (group[:, None, :] < group[:, :, None]) & visible[:, None, :]
    own = (block[:, None, :] == block[:, :, None]) & causal
    slots, slot_rows, targets, first, reasons, reason_targets, reason_tokens = [], [], [], [], [], [], []
    slots_before = targets_before = 0
    for index, (one, window) in enumerate(zip(encoded, windows, strict=True)):
        slots.append(np.stack([np.full(len(one.slots), index), one.slots], axis=1))
        slot_rows.append(window.rows)
        which = np.flatnonzero(window.target)
        targets.append(which + slots_before)
        first.append(window.rows[which[:1]])
        number = np.cumsum(window.target) - 1 + targets_before
        reasons.append(np.stack([np.full(len(one.reasons), index), one.reasons], axis=1))
        reason_targets.append(number[one.block[one.reasons]])
        reason_tokens.append(one.tokens[one.reasons + 1])
        slots_before += len(one.slots)
        targets_before += len(which)

    def tensor(parts: list[NDArray[Any]]) -> Tensor:
        return torch.from_numpy(np.concatenate(parts).astype(np.int64))

    return Batch(
        input_ids=torch.from_numpy(padded("tokens", layout.vocabulary.end)),
        position_ids=torch.from_numpy(padded("position", 0)),
        attention_mask=torch.from_numpy((earlier | own)[:, None]),
        slots=tensor(slots),
        slot_rows=tensor(slot_rows),
        targets=tensor(targets),
        first_target=tensor(first),
        reasons=tensor(reasons),
        reason_targets=tensor(reason_targets),
        reason_tokens=tensor(reason_tokens),
    )


@dataclass(frozen=True, slots=True)
class _Encoded:
    tokens: NDArray[np.int64]
    position: NDArray[np.int64]
    block: NDArray[np.int64]  # index into the sequence's rows
    group: NDArray[np.int64]  # rank of the block's timestamp
    visible: NDArray[np.int64]  # 1 where later blocks may look
    slots: NDArray[np.int64]  # (rows,) positions
    reasons: NDArray[np.int64]  # positions that predict a reason's tokens


def _encode(layout: StreamLayout, window: Window) -> _Encoded:
    words = layout.vocabulary
    rows = window.rows
    begin = layout.beginning
    tokens = [[words.begin, *[words.slot] * layout.soft_tokens]]
    block, visible = [[BEGIN] * begin], [[1] * begin]
    slots: list[int] = []
    reasons: list[int] = []
    lengths: list[int] = []
    size = begin
    for index, (row, with_reason) in enumerate(zip(rows.tolist(), reasons_shown(layout, window).tolist(), strict=True)):
        text = layout.items[layout.item[row]].tolist()
        label = int(layout.label[row])
        reason = layout.reasons[row].tolist() if with_reason else []
        tokens.append([*text, words.slot, words.verdicts[label], *reason])
        shown = int(label == 1 or not layout.hide_dislikes)
        visible.append([shown] * (len(text) + 2) + [0] * len(reason))
        slots.append(size + len(text))
        # The verdict's own position predicts the reason's first token, and so on up to the last but one.
        reasons.extend(range(size + len(text) + 1, size + len(text) + 1 + len(reason)))
        lengths.append(len(tokens[-1]))
        block.append([index] * lengths[-1])
        size += lengths[-1]
    time = layout.timestamp[rows]
    rank = np.concatenate([[0], np.cumsum(np.diff(time) != 0)]) if len(rows) else np.zeros(0, np.int64)
    # A block's first position counts the visible extent of strictly earlier blocks only (reasons take no room).
    extent = np.asarray([sum(flags) if any(flags) else 0 for flags in visible[1:]], np.int64)
    by_rank = np.bincount(rank, weights=extent, minlength=int(rank[-1]) + 1) if len(rows) else np.zeros(0)
    first = begin + np.concatenate([[0], np.cumsum(by_rank)[:-1]]).astype(np.int64)[rank]
    position = np.concatenate([np.arange(begin), *(at + np.arange(n) for at, n in zip(first, lengths, strict=True))])
    flat_block = np.concatenate(block).astype(np.int64)
    group = np.where(flat_block == BEGIN, -1, rank[np.maximum(flat_block, 0)])
    return _Encoded(
        tokens=np.concatenate(tokens).astype(np.int64),
        position=position.astype(np.int64),
        block=flat_block,
        group=group,
        visible=np.concatenate(visible).astype(np.int64),
        slots=np.asarray(slots, np.int64),
        reasons=np.asarray(reasons, np.int64),
    )
