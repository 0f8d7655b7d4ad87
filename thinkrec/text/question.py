"""The `question` layout: the paper's prompt, a history, a candidate and a question (METHOD: thinking activation).

    Here is what somebody thought of some items, oldest first.
    - "title": keywords, with feature <slot>: liked
    - "title": keywords, with feature <slot>: disliked
    Somebody's own feature is <slot>.
    The next item is "title": keywords, with feature <slot>.
    Would they like it? Answer Yes or No, then say why.
    Answer: Yes. reason <end>

A model with a chat template gets this as a message of the user, and answers as the assistant. A history shows the last
`history` strictly earlier interactions, fewer where a prompt would exceed `max_tokens`. A slot in the history describes
its item alone, the user's slot the user alone. Without slots, the phrases about features are left out, too.

Training draws one of several phrasings for every sequence; scoring uses the first. Targets that have the same history
(those of one moment, such as candidates) share a sequence: each is a block that sees the history and itself.

Shapes: n interactions, k rows or windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from thinkrec.history import shown_history
from thinkrec.text.chat import ANSWER
from thinkrec.text.layout import BEGIN, ITEM, USER, Block, Layout, Rows, Window, runs
from thinkrec.text.vocabulary import pieces

TOGETHER = 32  # targets that share a history's sequence: more save little and make the attention's square grow

SHARED = {"entry": "\n-", "feature": ", with feature", "stop": "."}
# The words around items, by their places. A slot stands after `feature` and after `user`.
PHRASINGS = (
    {
        **SHARED,
        "opening": "Here is what somebody thought of some items, oldest first.",
        "nothing": "\nNothing is known yet.",
        "disliked": ": disliked",
        "liked": ": liked",
        "user": "\nSomebody's own feature is",
        "candidate": "\nThe next item is",
        "question": "\nWould they like it? Answer Yes or No, then say why.",
    },
    {
        **SHARED,
        "opening": "A user's ratings so far, in the order in which they were given.",
        "nothing": "\nThere are none.",
        "disliked": ": did not like it",
        "liked": ": liked it",
        "user": "\nWhat the ratings of all users say of this one:",
        "candidate": "\nNow the user is shown",
        "question": "\nWill the user like it? Begin with Yes or No, and give the reason.",
    },
    {
        **SHARED,
        "opening": "Judge by the past of one person what that person enjoys. The past, from the oldest on:",
        "nothing": "\nempty.",
        "disliked": ". Verdict: No",
        "liked": ". Verdict: Yes",
        "user": "\nThe person's feature:",
        "candidate": "\nThe item in question is",
        "question": "\nIs it to the person's taste, Yes or No, and why?",
    },
)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionLayout(Layout):
    """One prompt per moment of a user."""

    head: tuple[int, ...]
    words: tuple[dict[str, list[int]], ...]  # tokens of every phrasing's parts
    user_slot: bool
    item_slots: bool

    def _lengths(self, items: NDArray[np.integer]) -> NDArray[np.int64]:
        """Most tokens that each of these items takes in a history."""
        most = {name: max(len(words[name]) for words in self.words) for name in ("entry", "liked", "disliked")}
        slot = len(self.words[0]["feature"]) + 1 if self.item_slots else 0
        return self.items.lengths[items] + most["entry"] + max(most["liked"], most["disliked"]) + slot

    def _around(self) -> int:
        """Most tokens of a prompt beside its items: its frame, question and answer."""
        parts = ("opening", "nothing", "user", "candidate", "question")
        phrases = max(sum(len(words[part]) for part in parts) for words in self.words)
        answer = len(self.vocabulary.lead) + 1 + max(map(len, self.vocabulary.rest))
        return len(self.head) + self.soft_tokens + phrases + answer + 2

    def _first(self, rows: Rows) -> Rows:
        """The first row (k,) that the prompt of each target shows; its own row where there is no history."""
        lengths = self._lengths(self.item)
        upto = np.concatenate([[0], np.cumsum(lengths)])
        over = upto[self.end[rows]] + lengths[rows] + self._around() - self.max_tokens
        fits = np.minimum(np.searchsorted(upto, over), self.end[rows])
        return np.maximum.reduce([self.start[rows], self.end[rows] - self.history, fits])

    def _windows(self, rows: Rows, state: NDArray[np.integer], phrasing: NDArray[np.integer]) -> list[Window]:
        first, end = self._first(rows), self.end[rows]
        order = np.lexsort((rows, phrasing, state, first, end, self.start[rows]))
        keys = np.stack([self.start[rows], end, first, state, phrasing])[:, order]
        windows = []
        for run in runs(keys, TOGETHER):
            first_target = order[run[0]]
            past = shown_history(first[first_target], end[first_target], self.history)
            shown = np.concatenate([past, rows[order[run]]])
            windows.append(Window(shown, np.arange(len(shown)) >= len(past), int(phrasing[first_target])))
        return windows

    def scoring_windows(self, rows: Rows, state: NDArray[np.integer]) -> list[Window]:
        return self._windows(rows, state, np.zeros(len(rows), np.int64))

    def training_windows(self, rows: Rows, rng: np.random.Generator) -> list[Window]:
        """Every row with the phrasing that its moment draws."""
        drawn = rng.integers(0, len(self.words), len(self.item))
        return self._windows(rows, np.zeros(len(rows), np.int64), drawn[self.end[rows] - 1])

    def lengths(self, windows: Sequence[Window]) -> NDArray[np.int64]:
        each, around = self._lengths(self.item), self._around()
        reason, thought = (max(map(len, texts.values()), default=0) for texts in (self.reasons, self.thoughts))
        return np.asarray(
            [
                each[window.rows].sum()
                + around * max(int(window.target.sum()), 1)
                + (reason * int(self.reasons_shown(window).sum()) if reason else 0)
                + sum(
                    2 * (each[row] + around) + thought
                    for row in window.rows[window.target].tolist()
                    if row in self.thoughts
                )
                for window in windows
            ],
            np.int64,
        )

    def without_slots(self) -> Self:
        return replace(self, user_slot=False, item_slots=False)

    def _named(self, row: int, words: dict[str, list[int]], at: int) -> tuple[list[int], list[tuple[int, int, int]]]:
        """The tokens of a row's item, its slot after them, and the slot's place `at` tokens further on."""
        text = self.items[self.item[row]].tolist()
        if not self.item_slots:
            return text, []
        text += words["feature"]
        return [*text, self.vocabulary.slot], [(at + len(text), row, ITEM)]

    def beginning(self, window: Window) -> Block:
        words = self.words[window.phrasing]
        tokens = [self.head[0], *[self.vocabulary.slot] * self.soft_tokens, *self.head[1:], *words["opening"]]
        slots, mentions = [], []
        past = window.rows[~window.target].tolist()
        for row in past:
            tokens += words["entry"]
            mentions.append((len(tokens), len(self.items[self.item[row]]), row))
            named, places = self._named(row, words, len(tokens))
            tokens += [*named, *words["liked" if self.label[row] else "disliked"]]
            slots += places
        if not past:
            tokens += words["nothing"]
        return Block(tokens, BEGIN, slots=slots, mentions=mentions, shown=len(tokens))

    def blocks(self, window: Window) -> list[Block]:
        words = self.words[window.phrasing]
        blocks = []
        learned = self.reasons_shown(window)[window.target].tolist()
        for row, with_reason in zip(window.rows[window.target].tolist(), learned, strict=True):
            tokens: list[int] = []
            slots = []
            if self.user_slot:
                tokens += words["user"]
                slots.append((len(tokens), row, USER))
                tokens += [self.vocabulary.slot, *words["stop"]]
            tokens += words["candidate"]
            text_at = len(tokens)
            named, places = self._named(row, words, text_at)
            tokens += [*named, *words["stop"], *words["question"], *self.vocabulary.lead]
            slots += places
            blocks.append(self.target_block(tokens, 0, row, text_at=text_at, slots=slots, with_reason=with_reason))
        return blocks


def phrase_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[dict[str, list[int]], ...]:
    """The tokens of every phrasing's parts."""
    return tuple(dict(zip(phrasing, pieces(tokenizer, list(phrasing.values())), strict=True)) for phrasing in PHRASINGS)


def question_text(history: Sequence[tuple[str, int]], target: str, phrasing: int = 0) -> str:
    """The prompt as plain text, without slots: items of the `history` with their labels, oldest first, and a target."""
    words = PHRASINGS[phrasing]
    past = [f"{words['entry']} {item}{words['liked' if label else 'disliked']}" for item, label in history]
    before = words["opening"] + ("".join(past) or words["nothing"])
    return f"{before}{words['candidate']} {target}{words['stop']}{words['question']}{ANSWER}"
