"""The `stream` layout: one user's interactions as one sequence, a verdict predicted at every target's slot.

    <begin> | "title": keywords <slot> Yes | "title": keywords <slot> No | ...
            | "title": keywords <slot> Yes. reason <end>

With `soft_tokens`, that many places for learned vectors stand after the begin token; all blocks see them. Each
interaction is a block. A reason is visible to its own block only, and no other sees a block that thinks first.

A target sees between `history` and 2 * `history` - 1 earlier interactions (all of them where there are fewer; fewer
where those would take more than `max_tokens`). Where its window begins is a function of its own history, so a score
does not depend on what else is in the batch.

Shapes: n interactions, k rows or windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from thinkrec.text.layout import BEGIN, WHOLE, Block, Layout, Rows, Window, runs


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLayout(Layout):
    """One sequence per user and stretch of time."""

    def _block_lengths(self) -> NDArray[np.int64]:
        """Tokens (n,) of every row's block but for its reason."""
        words = self.vocabulary
        rest = np.asarray([len(tokens) for tokens in words.rest])
        return self.items.lengths[self.item] + 2 + len(words.lead) + rest[self.label]

    def lengths(self, windows: Sequence[Window]) -> NDArray[np.int64]:
        plain = self._block_lengths()
        lengths = plain.copy()
        for row, tokens in self.reasons.items():
            lengths[row] += len(tokens)
        for row, tokens in self.thoughts.items():
            lengths[row] += 2 * plain[row] + len(tokens)
        before = 1 + self.soft_tokens
        return np.asarray([lengths[window.rows].sum() + before for window in windows], np.int64)

    def scoring_windows(self, rows: Rows, state: NDArray[np.integer]) -> list[Window]:
        start, end = self.start[rows], self.end[rows]
        begin = start + np.maximum(end - start - self.history, 0) // self.history * self.history
        begin = np.maximum(begin, self._earliest(rows))
        order = np.lexsort((rows, state, begin, start))
        windows = []
        for run in runs(np.stack([start, begin, state])[:, order], 2 * self.history):
            targets = rows[order[run]]
            context = np.arange(begin[order[run[0]]], self.end[targets].max())
            shown = np.union1d(context, targets)
            windows.append(Window(shown, np.isin(shown, targets)))
        return windows

    def _earliest(self, rows: Rows) -> Rows:
        """The first row (k,) from which on the history of each of `rows` fits before it into `max_tokens`."""
        lengths = self._block_lengths()
        upto = np.concatenate([[0], np.cumsum(lengths)])  # tokens of all blocks before each row
        over = upto[self.end[rows]] + lengths[rows] + 1 + self.soft_tokens - self.max_tokens
        return np.minimum(np.searchsorted(upto, over), self.end[rows])

    def training_windows(self, rows: Rows, rng: np.random.Generator) -> list[Window]:
        """Each user's `rows` in runs of 2 * `history`, or what fits into `max_tokens`, all of them targets.

        Every user's first cut is drawn anew: over the epochs a row is met with histories of every length.
        """
        length = 2 * self.history
        tokens = np.cumsum(self._block_lengths()[rows])
        room = self.max_tokens - 1 - self.soft_tokens
        windows = []
        for mine in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(self.start[rows])) + 1) if len(rows) else []:
            first = int(rng.integers(1, length + 1))
            for run in np.split(mine, range(first, len(mine), length)):
                while len(run):
                    used = tokens[run] - (tokens[run[0] - 1] if run[0] else 0)
                    fits = max(1, int(np.searchsorted(used, room, side="right")))
                    windows.append(Window(rows[run[:fits]], np.ones(len(run[:fits]), bool)))
                    run = run[fits:]
        return windows

    def reasons_shown(self, window: Window) -> NDArray[np.bool_]:
        """Of targets that see in this window at least what the teacher saw: `history` earlier rows, or all there are.

        A reason that cites what is out of sight would teach the model to make things up.
        """
        sees = self.end[window.rows] - window.rows[0]
        enough = (sees >= self.history) | (window.rows[0] == self.start[window.rows])
        return Layout.reasons_shown(self, window) & enough

    def without_slots(self) -> Self:
        return self  # they are where verdicts are read

    def beginning(self, window: Window) -> Block:
        tokens = [self.vocabulary.begin, *[self.vocabulary.slot] * self.soft_tokens]
        return Block(tokens, BEGIN, shown=len(tokens))

    def blocks(self, window: Window) -> list[Block]:
        words, rows = self.vocabulary, window.rows
        moments = np.concatenate([[0], np.cumsum(np.diff(self.timestamp[rows]) != 0)]).tolist()
        blocks = []
        for row, moment, with_reason in zip(rows.tolist(), moments, self.reasons_shown(window).tolist(), strict=True):
            text = self.items[self.item[row]].tolist()
            prompt = [*text, words.slot, *words.lead]
            slots = [(len(text), row, WHOLE)]
            block = self.target_block(prompt, moment, row, text_at=0, slots=slots, with_reason=with_reason)
            block.shown = len(prompt) + 1 + len(words.rest[self.label[row]])
            blocks.append(block)
        for index in np.flatnonzero(~window.target).tolist():
            blocks[index].verdict = -1
        return blocks
