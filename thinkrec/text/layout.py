"""What a prompt layout is: rows in, batches of token sequences out. `stream` and `question` are the two there are.

A sequence is a *beginning*, which everything after it may see, and *blocks*. A block's tokens attend to themselves
causally and to the visible tokens of blocks of a strictly earlier moment, and their positions count on from those: what
stands beside a block in its sequence changes nothing for it. That one rule keeps rows of the same second blind to each
other, and lets candidates of one user share a history that is computed once. It also lets a target be met twice in a
sequence: its block, and a second one in which a reason stands before the verdict (`Layout.thoughts`).

Shapes: n interactions, B sequences of a batch, T their longest length in tokens, S slots, M mentions of items, R
targets, Q reason tokens.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from thinkrec.history import history_bounds
from thinkrec.text.items import Ragged
from thinkrec.text.vocabulary import Vocabulary

Rows = NDArray[np.int64]
PADDING, BEGIN = -2, -1  # block numbers of tokens that belong to no row
WHOLE, USER, ITEM = 0, 1, 2  # what a slot tells of its row: everything, its user alone, everything but its user


@dataclass(frozen=True, slots=True)
class Window:
    """A sequence to be: rows of one user in time order, and which of them are targets (scored, or trained on)."""

    rows: Rows
    target: NDArray[np.bool_]
    phrasing: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """Tensors of B padded sequences.

    Row-wise tensors are in sequence order, then time order; targets that think first come last in their sequence.
    """

    input_ids: Tensor  # (B, T) int64
    position_ids: Tensor  # (B, T) int64
    attention_mask: Tensor  # (B, 1, T, T) bool, True = attend
    slots: Tensor  # (S, 2) int64: sequence and position of every slot
    slot_rows: Tensor  # (S,) int64: the interaction that each slot tells of
    slot_kinds: Tensor  # (S,) int64: WHOLE, USER or ITEM
    verdicts: Tensor  # (R, 2) int64: sequence and position from which each target's verdict is predicted
    target_rows: Tensor  # (R,) int64: the interaction of each target
    reason_first: Tensor  # (R,) bool: whether it is that interaction's second target, a reason before its verdict
    first_target: Tensor  # (B,) int64: the interaction of each sequence's first target, which names its routing
    mentions: Tensor  # (M, 3) int64: sequence, first position and length of every item's text
    mention_labels: Tensor  # (M,) float32: 1 if its item was liked, else -1; only those in `before` may be read
    target_mentions: Tensor  # (R,) int64: the mention (0..M-1) of each target's own item
    before: Tensor  # (R, M) bool: the mentions that stand in a target's history, of a strictly earlier moment
    reasons: Tensor  # (Q, 2) int64: sequence and position from which a reason's next token is predicted
    reason_targets: Tensor  # (Q,) int64: the target (0..R-1) that each belongs to
    reason_tokens: Tensor  # (Q,) int64: the token to predict

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return Batch(**{name: tensor.to(device) for name, tensor in self.tensors().items()})

    def tensors(self) -> dict[str, Tensor]:
        """The batch as keyword arguments."""
        return {name: getattr(self, name) for name in Batch.__slots__}


@dataclass(slots=True)
class Block:
    """Tokens of one interaction as a target or as a part of the history."""

    tokens: list[int]
    moment: int  # rank of its timestamp among the sequence's blocks
    row: int = -1
    slots: list[tuple[int, int, int]] = field(default_factory=list)  # offset, interaction, kind
    mentions: list[tuple[int, int, int]] = field(
        default_factory=list
    )  # offset and length of an item's text, interaction
    verdict: int = -1  # offset from which a target's verdict is predicted
    shown: int = 0  # how many of its first tokens later blocks see
    answer: int = sys.maxsize  # offset from which on its tokens see no row before `first_row`
    first_row: int = 0
    reason: list[tuple[int, int]] = field(default_factory=list)  # offset that predicts it, token: learned as the reason

    @property
    def reason_first(self) -> bool:
        """Whether the reason stands before the verdict."""
        return bool(self.reason) and self.reason[0][0] < self.verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout(ABC):
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
    soft_tokens: int
    max_tokens: int  # of a prompt; the oldest history goes first, the target never
    thoughts: Mapping[int, NDArray[np.int32]] = field(default_factory=dict)  # as `reasons`: to stand before a verdict

    @abstractmethod
    def scoring_windows(self, rows: Rows, state: NDArray[np.integer]) -> list[Window]:
        """Sequences in which every one of `rows` is a target once, shown as it would be alone.

        Rows share a sequence only if they have the same `state` (k,), on which the model's weights depend.
        """

    @abstractmethod
    def training_windows(self, rows: Rows, rng: np.random.Generator) -> list[Window]:
        """Sequences of an epoch in which every one of `rows` (sorted) is a target once; `rng` varies them."""

    def reasons_shown(self, window: Window) -> NDArray[np.bool_]:
        """Which of a window's rows (k,) are met with their reason: targets that have one and see what it cites."""
        return window.target & np.asarray([row in self.reasons for row in window.rows.tolist()], bool)

    @abstractmethod
    def lengths(self, windows: Sequence[Window]) -> NDArray[np.int64]:
        """Tokens that each window (k,) takes, or a few more."""

    @abstractmethod
    def beginning(self, window: Window) -> Block:
        """What stands before a window's first block."""

    @abstractmethod
    def blocks(self, window: Window) -> list[Block]:
        """The blocks of a window, in time order."""

    @abstractmethod
    def without_slots(self) -> Self:
        """The same prompts without slots, unless verdicts are read there."""

    def over(self, interactions: pd.DataFrame) -> Self:
        """The same prompts over another table, or another view of this one's times; without reasons."""
        return replace(self, **columns(interactions), reasons={}, thoughts={})

    def target_block(
        self,
        prompt: list[int],
        moment: int,
        row: int,
        *,
        text_at: int,
        slots: list[tuple[int, int, int]],
        with_reason: bool,
    ) -> Block:
        """A target's block: its prompt, all of the verdict that its label says, and its reason if that is learned.

        The item's text stands at the offset `text_at`.
        """
        label = int(self.label[row])
        after = [*self.vocabulary.rest[label], *(self.reasons[row].tolist() if with_reason else [])]
        return Block(
            [*prompt, self.vocabulary.verdicts[label], *after],
            moment,
            row,
            slots=slots,
            mentions=[(text_at, len(self.items[self.item[row]]), row)],
            verdict=len(prompt) - 1,
            answer=len(prompt),
            first_row=int(self.end[row]) - self.history,
            reason=list(enumerate(after, len(prompt))) if with_reason else [],
        )

    def thinking_first(self, block: Block) -> Block:
        """A target's `block` once more, as `reasons.decoding.reason_first` puts it together.

        In the verdict's place stands a full stop, which is given, then the thought, whose end is predicted but not
        read, then the question once more, and from there the verdict.
        """
        question, thought = block.tokens[: block.verdict + 1], self.thoughts[block.row].tolist()
        stop, further = len(self.vocabulary.stop), len(question) + len(thought) - 1
        tokens = [*question, *thought[:-1], *question]
        return Block(
            tokens,
            block.moment,
            block.row,
            slots=[*block.slots, *((further + offset, row, kind) for offset, row, kind in block.slots)],
            verdict=len(tokens) - 1,
            answer=block.answer,
            first_row=block.first_row,
            reason=list(enumerate(thought[stop:], len(question) + stop - 1)),
        )

    def collate(self, windows: Sequence[Window]) -> Batch:
        """The tensors of these windows, a sequence each."""
        sequences = []
        for window in windows:
            blocks = self.blocks(window)
            again = [self.thinking_first(block) for block in blocks if block.reason and block.row in self.thoughts]
            sequences.append(_encode([self.beginning(window), *blocks, *again]))
        width = max(len(sequence.places) for sequence in sequences)
        padding = [self.vocabulary.end, 0, PADDING, sys.maxsize, 0, 0, 0]
        places = np.tile(padding, (len(sequences), width, 1))
        for index, sequence in enumerate(sequences):
            places[index, : len(sequence.places)] = sequence.places
        token, position, block, moment, visible, row, first_row = np.moveaxis(places, 2, 0)
        earlier = (moment[:, None, :] < moment[:, :, None]) & visible[:, None, :].astype(bool)
        earlier &= row[:, None, :] >= first_row[:, :, None]
        same_block = (block[:, None, :] == block[:, :, None]) & np.tri(width, dtype=bool)
        slots, mentions, targets, reasons = (
            np.concatenate([np.insert(part, 0, index, axis=1) for index, part in enumerate(parts)])
            for parts in zip(
                *((each.slots, each.mentions, each.targets, each.reasons) for each in sequences), strict=True
            )
        )
        targets_before, mentions_before = (
            np.cumsum([0, *map(len, parts)])
            for parts in zip(*((each.targets, each.mentions) for each in sequences), strict=True)
        )
        together = targets[:, :1] == mentions[:, 0]
        arrays = {
            "input_ids": token,
            "position_ids": position,
            "attention_mask": (earlier | same_block)[:, None],
            "slots": slots[:, :2],
            "slot_rows": slots[:, 2],
            "slot_kinds": slots[:, 3],
            "verdicts": targets[:, :2],
            "target_rows": targets[:, 2],
            "reason_first": targets[:, 3].astype(bool),
            "first_target": np.concatenate([each.targets[:1, 1] for each in sequences]),
            "mentions": mentions[:, :3],
            "mention_labels": np.where(self.label[mentions[:, 3]] == 1, 1, -1).astype(np.float32),
            "target_mentions": mentions_before[targets[:, 0]] + targets[:, 4],
            "before": together & (mentions[:, 4] < targets[:, 5:]),
            "reasons": reasons[:, :2],
            "reason_targets": targets_before[reasons[:, 0]] + reasons[:, 2],
            "reason_tokens": reasons[:, 3],
        }
        return Batch(**{name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()})


def columns(interactions: pd.DataFrame) -> dict[str, Any]:
    """What a layout needs of a table, sorted by (user, timestamp)."""
    start, end = history_bounds(interactions["user"].to_numpy(), interactions["timestamp"].to_numpy())
    return {name: interactions[name].to_numpy() for name in ("timestamp", "label", "item")} | {
        "start": start,
        "end": end,
    }


def batches_by_tokens(
    layout: Layout, windows: Sequence[Window], budget: int, *, targets: float = np.inf
) -> Iterator[list[Window]]:
    """Batches of similar length, within `budget` tokens when padded, and of at most `targets` rows to predict.

    One sequence may exceed either.
    """
    sizes = layout.lengths(windows)
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


def runs(keys: NDArray[np.integer], longest: int) -> Iterator[NDArray[np.int64]]:
    """Places (in order) at which the columns of `keys` (j, k) stay the same, in parts of at most `longest`."""
    cuts = np.flatnonzero((np.diff(keys, axis=1) != 0).any(0)) + 1
    for run in np.split(np.arange(keys.shape[1]), cuts) if keys.shape[1] else []:
        yield from np.split(run, range(longest, len(run), longest))


@dataclass(frozen=True, slots=True)
class _Encoded:
    """A sequence of T tokens; where slots, mentions, targets and reasons stand is their first column."""

    # (T, 7): token, position, number and moment of its block, whether later blocks see it, its block's row, and the
    # first row that it sees
    places: NDArray[np.int64]
    slots: NDArray[np.int64]  # (S, 3): where, interaction, kind
    mentions: NDArray[np.int64]  # (M, 4): where an item's text begins, its length, interaction, moment
    targets: NDArray[
        np.int64
    ]  # (R, 5): where its verdict is predicted, interaction, whether its reason comes first, the
    # number of its mention, moment
    reasons: NDArray[np.int64]  # (Q, 3): where it is predicted, number of its target, token


def _encode(blocks: Sequence[Block]) -> _Encoded:
    """A sequence of its beginning and its blocks."""
    size = np.asarray([len(block.tokens) for block in blocks])
    moment = np.asarray([block.moment for block in blocks])
    shown = np.asarray([block.shown for block in blocks])
    block_row = np.asarray([sys.maxsize if block.row < 0 else block.row for block in blocks])  # the beginning, all see
    answer, first_row = np.asarray([(block.answer, block.first_row) for block in blocks]).T
    first = np.cumsum(size) - size
    # A block's first position counts the visible extent of strictly earlier blocks only (reasons take no room).
    extent = np.bincount(moment - moment[0], weights=shown).astype(np.int64)
    base = (np.cumsum(extent) - extent)[moment - moment[0]]
    within = np.arange(size.sum()) - np.repeat(first, size)
    slots: list[tuple[int, int, int]] = []
    mentions: list[tuple[int, int, int, int]] = []
    mention_of: dict[int, int] = {}  # interaction -> number of its mention
    targets: list[tuple[int, int, bool, int, int]] = []
    reasons: list[tuple[int, int, int]] = []
    for at, block in zip(first.tolist(), blocks, strict=True):
        slots += [(at + offset, row, kind) for offset, row, kind in block.slots]
        for offset, length, row in block.mentions:
            mention_of[row] = len(mentions)
            mentions.append((at + offset, length, row, block.moment))
        if block.verdict >= 0:
            reasons += [(at + offset, len(targets), token) for offset, token in block.reason]
            targets.append((at + block.verdict, block.row, block.reason_first, mention_of[block.row], block.moment))
    places = [
        np.concatenate([np.asarray(block.tokens, np.int64) for block in blocks]),
        within + np.repeat(base, size),
        np.repeat(np.arange(len(blocks)) - 1, size),
        np.repeat(moment, size),
        within < np.repeat(shown, size),
        np.repeat(block_row, size),
        np.where(within < np.repeat(answer, size), 0, np.repeat(first_row, size)),
    ]
    widths = ((slots, 3), (mentions, 4), (targets, 5), (reasons, 3))
    return _Encoded(
        np.stack(places, axis=1), *(np.asarray(rows, np.int64).reshape(-1, width) for rows, width in widths)
    )
