"""A target that thinks first is met beside the one that answers first, and neither knows of the other."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import interactions, layout_of, recommender
from thinkrec.text.layout import batches_by_tokens

few = settings(max_examples=25, deadline=None)
KINDS = ("stream", "question")
TOLD = (1, 4, 13)
END = 1


def layout_with(kind, rows=TOLD, *, seed=0):
    """With ties. Every row of `rows` has a reason, and a thought of other tokens and of another length."""
    layout = layout_of(interactions(seed, users=2), layout=kind)
    stop = layout.vocabulary.stop
    reasons = {row: np.asarray([*stop, 70, 71, END], np.int32) for row in rows}
    thoughts = {row: np.asarray([*stop, 80 + row, 81 + row, 82 + row, END], np.int32) for row in rows}
    return replace(layout, reasons=reasons, thoughts=thoughts)


def windows_of(layout):
    return layout.training_windows(np.arange(len(layout.item)), np.random.default_rng(0))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_nothing_is_different_for_the_others(kind):
    layout, model = layout_with(kind), recommender(interactions(users=2))
    model.vocabulary = layout.vocabulary
    windows = windows_of(layout)
    batch, plain = layout.collate(windows), replace(layout, thoughts={}).collate(windows)
    assert batch.target_rows[batch.reason_first].tolist() == [*TOLD]
    assert not plain.reason_first.any()
    assert batch.target_rows[~batch.reason_first].equal(plain.target_rows)
    assert batch.first_target.equal(plain.first_target)
    after_verdict = ~batch.reason_first[batch.reason_targets]
    ours, theirs = model(batch), model(plain)
    torch.testing.assert_close(ours.score[~batch.reason_first], theirs.score, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.reason_logits[after_verdict], theirs.reason_logits, atol=1e-4, rtol=1e-4)
    assert batch.reason_tokens[after_verdict].equal(plain.reason_tokens)


@pytest.mark.parametrize("kind", KINDS)
def test_a_thought_is_learned_from_its_full_stop_on_to_its_end(kind):
    layout = layout_with(kind)
    batch, stop = layout.collate(windows_of(layout)), list(layout.vocabulary.stop)
    for target in batch.reason_first.nonzero().flatten().tolist():
        learned = batch.reason_targets == target
        thought = layout.thoughts[int(batch.target_rows[target])].tolist()
        assert batch.reason_tokens[learned].tolist() == thought[len(stop) :]  # its end, too, which is never read
        sequence, place = batch.reasons[learned].unbind(1)
        assert batch.input_ids[sequence, place].tolist() == thought[len(stop) - 1 : -1]


@pytest.mark.parametrize("kind", KINDS)
def test_only_targets_that_are_met_with_their_reason_think_first(kind):
    layout = layout_with(kind)
    thinking = replace(layout, reasons={row: layout.reasons[row] for row in TOLD[:2]})
    batch = thinking.collate(windows_of(thinking))
    assert batch.target_rows[batch.reason_first].tolist() == [*TOLD[:2]]
    assert not replace(layout, reasons={}).collate(windows_of(layout)).reason_first.any()
    other = layout.over(interactions(1, users=2))
    assert not other.thoughts and not other.reasons


@few
@given(st.sampled_from(KINDS), st.integers(0, 99), st.integers(60, 600))
def test_batches_of_targets_that_think_first_stay_within_their_budget(kind, seed, budget):
    layout = layout_with(kind, tuple(range(24)), seed=seed)
    windows = layout.training_windows(np.arange(24), np.random.default_rng(seed))
    assert [
        layout.collate([window]).input_ids.numel() <= length
        for window, length in zip(windows, layout.lengths(windows), strict=True)
    ] == [True] * len(windows)
    for batch in batches_by_tokens(layout, windows, budget):
        assert len(batch) == 1 or layout.collate(batch).input_ids.numel() <= budget


def test_a_question_has_no_room_set_aside_for_thoughts_of_its_history():
    layout = layout_with("question")
    windows = windows_of(layout)
    told, plain = (each.lengths(windows) for each in (layout, replace(layout, thoughts={})))
    thinks = [bool(set(window.rows[window.target]) & set(TOLD)) for window in windows]
    assert any(set(window.rows) & set(TOLD) for window, one in zip(windows, thinks, strict=True) if not one)
    assert (told > plain).tolist() == thinks
