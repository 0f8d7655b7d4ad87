"""What a prompt layout is: rows in, batches of token sequences out. `stream` and `question` are the two there are.

A sequence is a *beginning*, which everything after it may see, and *blocks*. A block's tokens attend to themselves
causally and to the visible tokens of blocks of a strictly earlier moment, and their positions count on from those: what
stands beside a block in its sequence changes nothing for it. That one rule keeps rows of the same second blind to each
other, and lets candidates of one user share a history that is computed once. It also lets a target be met twice in a
sequence: its block, and a second one in which a reason stands before the verdict (`Layout.thoughts`).

Shapes: n interactions, B sequences of a batch, T their longest length in tokens, S slots, R targets, Q reason tokens.
"""

from __future__ import annotations

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
    verdict: int = -1  # offset from which a target's verdict is predicted
    shown: int = 0  # how many of its first tokens later blocks see
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

        Rows may share a sequence only if they have the same `state` (k,): whatever else the model's weights depend on,
        such as the routing of the user at that time.
        """

    @abstractmethod
    def training_windows(self, rows: Rows, rng: np.random.Generator) -> list[Window]:
        """Sequences of an epoch in which every one of `rows` (sorted) is a target once; `rng` varies them."""

    @abstractmethod
    def reasons_shown(self, window: Window) -> NDArray[np.bool_]:
        """Which of a window's rows (k,) are met with their reason: targets that have one and see what it cites."""

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
        """The same prompts told nothing by slots, where those are not needed as places."""

    def over(self, interactions: pd.DataFrame) -> Self:
        """The same prompts over another table, or another view of this one's times; without reasons."""
        return replace(self, **columns(interactions), reasons={}, thoughts={})

    def answer(self, label: int) -> list[int]:
        """What stands after the question: the verdict, all of its word. A reason may follow."""
        words = self.vocabulary
        return [words.verdicts[label], *words.rest[label]]

    def thinking_first(self, block: Block) -> Block:
        """A target's `block` once more, as a target that thinks first: the question, its thought, the question again.

        These are the tokens that `generation.reason_first` puts together: in the verdict's place a full stop, which
        is given, then the thought, whose end is predicted but not read, then the question, and from there the verdict.
        """
        question, thought = block.tokens[: block.verdict + 1], self.thoughts[block.row].tolist()
        given, further = len(self.vocabulary.stop), len(question) + len(thought) - 1
        tokens = [*question, *thought[:-1], *question]
        return Block(
            tokens,
            block.moment,
            block.row,
            slots=[*block.slots, *((further + offset, row, kind) for offset, row, kind in block.slots)],
            verdict=len(tokens) - 1,
            reason=list(enumerate(thought[given:], len(question) + given - 1)),
        )

    def collate(self, windows: Sequence[Window]) -> Batch:
        """The tensors of these windows, a sequence each."""
        encoded = []
        for window in windows:
            blocks = self.blocks(window)
            again = [self.thinking_first(one) for one in blocks if one.reason and one.row in self.thoughts]
            encoded.append(_encode(self.beginning(window), [*blocks, *again]))
        width = max(len(one.tokens) for one in encoded)

        def padded(name: str, fill: int) -> NDArray[np.int64]:
            out = np.full((len(encoded), width), fill, np.int64)
            for index, one in enumerate(encoded):
                out[index, : len(getattr(one, name))] = getattr(one, name)
            return out

        def placed(name: str) -> Tensor:
            at = [
                np.stack([np.full(len(getattr(one, name)), index), getattr(one, name)], axis=1)
                for index, one in enumerate(encoded)
            ]
            return torch.from_numpy(np.concatenate(at).astype(np.int64))

        def joined(parts: list[NDArray[Any]]) -> Tensor:
            return torch.from_numpy(np.concatenate(parts).astype(np.int64))

        block, moment = padded("block", PADDING), padded("moment", np.iinfo(np.int64).max)
        visible = padded("visible", 0).astype(bool)
        earlier = (moment[:, None, :] < moment[:, :, None]) & visible[:, None, :]
        own = (block[:, None, :] == block[:, :, None]) & np.tri(width, dtype=bool)
        before = np.cumsum([0, *(len(one.verdicts) for one in encoded)])
        return Batch(
            input_ids=torch.from_numpy(padded("tokens", self.vocabulary.end)),
            position_ids=torch.from_numpy(padded("position", 0)),
            attention_mask=torch.from_numpy((earlier | own)[:, None]),
            slots=placed("slots"),
            slot_rows=joined([one.slot_rows for one in encoded]),
            slot_kinds=joined([one.slot_kinds for one in encoded]),
            verdicts=placed("verdicts"),
            target_rows=joined([one.target_rows for one in encoded]),
            reason_first=joined([one.reason_first for one in encoded]).bool(),
            first_target=joined([one.target_rows[:1] for one in encoded]),
            reasons=placed("reasons"),
            reason_targets=joined([one.reason_targets + at for one, at in zip(encoded, before, strict=False)]),
            reason_tokens=joined([one.reason_tokens for one in encoded]),
        )


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
    tokens: NDArray[np.int64]
    position: NDArray[np.int64]
    block: NDArray[np.int64]  # index into the sequence's blocks
    moment: NDArray[np.int64]  # of its block
    visible: NDArray[np.int64]  # 1 where later blocks may look
    slots: NDArray[np.int64]  # positions
    slot_rows: Rows
    slot_kinds: NDArray[np.int64]
    verdicts: NDArray[np.int64]  # positions
    target_rows: Rows
    reason_first: NDArray[np.bool_]
    reasons: NDArray[np.int64]  # positions that predict a reason's tokens
    reason_targets: NDArray[np.int64]
    reason_tokens: NDArray[np.int64]


def _encode(beginning: Block, blocks: Sequence[Block]) -> _Encoded:
    everything = [beginning, *blocks]
    size = np.asarray([len(one.tokens) for one in everything])
    first = np.cumsum(size) - size
    moment = np.asarray([one.moment for one in everything])
    shown = np.asarray([one.shown for one in everything])
    # A block's first position counts the visible extent of strictly earlier blocks only (reasons take no room).
    extent = np.bincount(moment - moment[0], weights=shown).astype(np.int64)
    base = (np.cumsum(extent) - extent)[moment - moment[0]]
    within = np.arange(size.sum()) - np.repeat(first, size)
    slots: list[tuple[int, int, int]] = []
    targets: list[tuple[int, int, bool]] = []
    reasons: list[tuple[int, int, int]] = []
    for at, one in zip(first.tolist(), everything, strict=True):
        slots += [(at + offset, row, kind) for offset, row, kind in one.slots]
        if one.verdict >= 0:
            reasons += [(at + offset, len(targets), token) for offset, token in one.reason]
            targets.append((at + one.verdict, one.row, one.reason_first))
    slot_array, target_array, reason_array = (
        np.asarray(found, np.int64).reshape(-1, 3) for found in (slots, targets, reasons)
    )
    return _Encoded(
        tokens=np.concatenate([np.asarray(one.tokens, np.int64) for one in everything]),
        position=within + np.repeat(base, size),
        block=np.repeat(np.arange(len(everything)) - 1, size),
        moment=np.repeat(moment, size),
        visible=(within < np.repeat(shown, size)).astype(np.int64),
        slots=slot_array[:, 0],
        slot_rows=slot_array[:, 1],
        slot_kinds=slot_array[:, 2],
        verdicts=target_array[:, 0],
        target_rows=target_array[:, 1],
        reason_first=target_array[:, 2].astype(bool),
        reasons=reason_array[:, 0],
        reason_targets=reason_array[:, 1],
        reason_tokens=reason_array[:, 2],
    )
