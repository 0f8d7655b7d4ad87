"""A target that thinks first is met beside the one that answers first, and neither knows of the other."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import interactions, layout_of
from thinkrec.text.layout import Batch, Layout, Window, batches_by_tokens

few = settings(max_examples=25, deadline=None)
KINDS: tuple[Literal["stream", "question"], ...] = ("stream", "question")
TOLD = (1, 4, 13)
END = 1


def layout_with(kind: Literal["stream", "question"], rows: tuple[int, ...] = TOLD, *, seed: int = 0) -> Layout:
    """With ties. Every row of `rows` has a reason, and a thought of other tokens and of another length."""
    layout = layout_of(interactions(seed, users=2), layout=kind)
    stop = layout.vocabulary.stop
    reasons = {row: np.asarray([*stop, 70, 71, END], np.int32) for row in rows}
    thoughts = {row: np.asarray([*stop, 80 + row, 81 + row, 82 + row, END], np.int32) for row in rows}
    return replace(layout, reasons=reasons, thoughts=thoughts)


def windows_of(layout: Layout) -> list[Window]:
    return layout.training_windows(np.arange(len(layout.item)), np.random.default_rng(0))


def both(layout: Layout) -> tuple[Batch, Batch]:
    """A batch with the targets that think first, and the same batch without them."""
    windows = windows_of(layout)
    return layout.collate(windows), replace(layout, thoughts={}).collate(windows)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_different_for_the_others(kind: Literal["stream", "question"]) -> None:
    told, plain = both(layout_with(kind))
    assert told.target_rows[told.reason_first].tolist() == [*TOLD]
    assert not plain.reason_first.any()
    answered = ~told.reason_first
    for name in ("verdicts", "target_rows"):
        assert getattr(told, name)[answered].equal(getattr(plain, name))
    assert told.first_target.equal(plain.first_target)
    width = plain.input_ids.shape[1]
    for sequence, row in enumerate(plain.first_target.tolist()):
        assert row == int(told.first_target[sequence])
        length = int((plain.attention_mask[sequence, 0].sum(1) > 0).sum())
        own = told.position_ids[sequence].new_zeros(told.input_ids.shape[1], dtype=torch.bool)
        own[: int(plain.verdicts[plain.verdicts[:, 0] == sequence, 1].max()) + 1] = True
        at = own.nonzero().flatten()
        assert len(at) <= min(width, length)
        assert told.input_ids[sequence, at].equal(plain.input_ids[sequence, at])
        assert told.position_ids[sequence, at].equal(plain.position_ids[sequence, at])
        mask = told.attention_mask[sequence, 0][at]
        assert mask[:, at].equal(plain.attention_mask[sequence, 0][at][:, at])
        assert not mask[:, ~own].any()


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_question_its_thought_and_the_question_again(kind: Literal["stream", "question"]) -> None:
    layout = layout_with(kind)
    batch = layout.collate(windows_of(layout))
    stop = list(layout.vocabulary.stop)
    first = {row: k for k, row in enumerate(batch.target_rows.tolist()) if not batch.reason_first[k]}
    again = {row: k for k, row in enumerate(batch.target_rows.tolist()) if batch.reason_first[k]}
    for row in TOLD:
        sequence, verdict = batch.verdicts[first[row]].tolist()
        assert sequence == int(batch.verdicts[again[row], 0])
        mask, position = batch.attention_mask[sequence, 0], batch.position_ids[sequence]
        last = int(batch.verdicts[again[row], 1])
        read = mask[last] & ~mask[verdict]  # of its own block alone
        thought = layout.thoughts[row].tolist()
        own = read.nonzero().flatten()
        question = batch.input_ids[sequence, mask[verdict] & ~mask[last]].tolist()
        assert batch.input_ids[sequence, own].tolist() == [*question, *thought[:-1], *question]
        assert own.tolist() == list(range(int(own[0]), last + 1))
        start = int(position[mask[verdict] & ~mask[last]][0])
        assert position[own].tolist() == list(range(start, start + len(own)))  # as its first block, and on from there
        assert not mask[torch.arange(len(mask)) > last][:, own].any()
        slots = batch.slots[batch.slot_rows == row]
        slots = slots[(slots[:, 0] == sequence) & (slots[:, 1] >= own[0])]
        shift = len(question) + len(thought) - 1
        assert slots[len(slots) // 2 :, 1].tolist() == (slots[: len(slots) // 2, 1] + shift).tolist()
        learned = batch.reason_targets == again[row]
        assert batch.reason_tokens[learned].tolist() == thought[len(stop) :]  # its end, too, which is never read
        begin = int(own[0]) + len(question) + len(stop) - 1
        assert batch.reasons[learned].tolist() == [[sequence, begin + step] for step in range(4)]


@pytest.mark.parametrize("kind", KINDS)
def test_only_targets_that_are_met_with_their_reason_think_first(kind: Literal["stream", "question"]) -> None:
    layout = layout_with(kind)
    thinking = replace(layout, reasons={row: layout.reasons[row] for row in TOLD[:2]})
    batch = thinking.collate(windows_of(thinking))
    assert batch.target_rows[batch.reason_first].tolist() == [*TOLD[:2]]
    assert not replace(layout, reasons={}).collate(windows_of(layout)).reason_first.any()
    other = layout.over(interactions(1, users=2))
    assert not other.thoughts and not other.reasons


@few
@given(st.sampled_from(KINDS), st.integers(0, 99), st.integers(60, 600))
def test_batches_of_targets_that_think_first_stay_within_their_budget(
    kind: Literal["stream", "question"], seed: int, budget: int
) -> None:
    layout = layout_with(kind, tuple(range(24)), seed=seed)
    windows = layout.training_windows(np.arange(24), np.random.default_rng(seed))
    assert [
        layout.collate([window]).input_ids.numel() <= length
        for window, length in zip(windows, layout.lengths(windows), strict=True)
    ] == [True] * len(windows)
    for batch in batches_by_tokens(layout, windows, budget):
        assert len(batch) == 1 or layout.collate(batch).input_ids.numel() <= budget


def test_a_question_has_no_room_set_aside_for_thoughts_of_its_history() -> None:
    layout = layout_with("question")
    windows = windows_of(layout)
    told, plain = (each.lengths(windows) for each in (layout, replace(layout, thoughts={})))
    thinks = [bool(set(window.rows[window.target]) & set(TOLD)) for window in windows]
    assert any(set(window.rows) & set(TOLD) for window, one in zip(windows, thinks, strict=True) if not one)
    assert (told > plain).tolist() == thinks
