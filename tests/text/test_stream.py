"""The stream layout: who sees whom, where positions come from, and that no row is lost or scored twice."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import interactions, layout_of
from thinkrec.history import shown_history
from thinkrec.text.layout import Batch, Window, batches_by_tokens

few = settings(max_examples=40, deadline=None)
REASON = np.asarray([70, 71, 72, 1], np.int32)


def alike(layout, rows):
    return layout.scoring_windows(rows, np.zeros(len(rows), np.int64))


def sees(layout, window):
    """Which rows the slot of every row of a window attends to, itself included, by the batch's own mask."""
    batch = layout.collate([window])
    before = len(layout.beginning(window).tokens)
    owner = dict.fromkeys(range(before), -1)
    at = before
    for row, shown in zip(window.rows.tolist(), layout.reasons_shown(window).tolist(), strict=True):
        length = layout.items.lengths[layout.item[row]] + 2 + (len(layout.reasons[row]) if shown else 0)
        owner |= dict.fromkeys(range(at, at + length), row)
        at += length
    mask = batch.attention_mask[0, 0].numpy()
    return {
        row: {owner[key] for key in np.flatnonzero(mask[slot]).tolist()} - {-1}
        for row, (_, slot) in zip(batch.slot_rows.tolist(), batch.slots.tolist(), strict=True)
    }


@few
@given(st.integers(0, 99), st.booleans(), st.integers(1, 5), st.data())
def test_scoring_meets_every_row_once_as_a_target(seed, ties, history, data):
    layout = layout_of(interactions(seed, rows=17, ties=ties), history=history)
    count = len(layout.item)
    rows = np.asarray(data.draw(st.lists(st.integers(0, count - 1), unique=True, min_size=1)), np.int64)
    state = np.asarray(data.draw(st.lists(st.integers(0, 2), min_size=len(rows), max_size=len(rows))), np.int64)
    windows = layout.scoring_windows(rows, state)
    assert sorted(row for window in windows for row in window.rows[window.target].tolist()) == sorted(rows.tolist())
    state_of = dict(zip(rows.tolist(), state.tolist(), strict=True))
    for window in windows:
        assert len({int(layout.start[row]) for row in window.rows}) == 1
        assert len({state_of[row] for row in window.rows[window.target].tolist()}) == 1
        assert window.target.sum() <= 2 * history


@few
@given(st.integers(0, 99), st.booleans(), st.integers(1, 5))
def test_a_target_sees_its_last_earlier_rows_between_history_and_twice_that(seed, ties, history):
    layout = layout_of(interactions(seed, users=2, rows=17, ties=ties), history=history)
    for window in alike(layout, np.arange(len(layout.item))):
        seen = sees(layout, window)
        for row in window.rows[window.target].tolist():
            before = seen[row] - {row}
            available = int(layout.end[row] - layout.start[row])
            assert min(history, available) <= len(before) <= 2 * history - 1
            assert before == set(range(int(layout.end[row]) - len(before), int(layout.end[row])))


@few
@given(st.integers(0, 99), st.integers(1, 4), st.integers(0, 2), st.data())
def test_a_row_is_shown_the_same_whatever_it_is_scored_with(seed, history, soft, data):
    layout = replace(layout_of(interactions(seed), history=history), soft_tokens=soft)
    rows = np.asarray(sorted(data.draw(st.sets(st.integers(0, len(layout.item) - 1), min_size=1))), np.int64)
    for window in alike(layout, rows):
        together = sees(layout, window)
        for row in window.rows[window.target].tolist():
            (alone,) = alike(layout, np.asarray([row]))
            assert sees(layout, alone)[row] == together[row]


@few
@given(st.integers(0, 99), st.booleans(), st.integers(1, 4), st.data())
def test_training_meets_every_row_once_as_a_target(seed, ties, history, data):
    layout = layout_of(interactions(seed, rows=17, ties=ties), history=history)
    rows = np.asarray(sorted(data.draw(st.sets(st.integers(0, len(layout.item) - 1), min_size=1))), np.int64)
    windows = layout.training_windows(rows, np.random.default_rng(seed))
    assert np.concatenate([window.rows for window in windows]).tolist() == rows.tolist()
    for window in windows:
        assert window.target.all() and 1 <= len(window.rows) <= 2 * history
        assert len({int(layout.start[row]) for row in window.rows}) == 1


def test_neighbours_share_a_window():
    layout = layout_of(interactions(users=1, rows=17, ties=False), history=3)
    targets = [window.rows[window.target].tolist() for window in alike(layout, np.arange(17))]
    assert targets == [[0, 1, 2, 3, 4, 5], [6, 7, 8], [9, 10, 11], [12, 13, 14], [15, 16]]


def test_training_cuts_are_drawn_anew_each_epoch():
    layout = layout_of(interactions(rows=17))
    cuts = {
        tuple(len(window.rows) for window in layout.training_windows(np.arange(51), np.random.default_rng(epoch)))
        for epoch in range(5)
    }
    assert len(cuts) > 1


def with_reasons(*rows, history=3):
    table = interactions(users=2, ties=False)
    return layout_of(table, history=history, reasons=dict.fromkeys(rows, REASON))


def test_a_reason_is_predicted_from_its_verdict_on():
    batch = with_reasons(1, 4).collate([Window(np.arange(6), np.ones(6, bool))])
    assert batch.reason_tokens.tolist() == REASON.tolist() * 2
    assert batch.reason_targets.tolist() == [1] * 4 + [4] * 4
    verdict = int(batch.slots[1, 1]) + 1
    assert batch.reasons[:4].tolist() == [[0, verdict + step] for step in range(4)]
    assert batch.input_ids[0, verdict + 1 : verdict + 5].tolist() == REASON.tolist()
    assert batch.position_ids[0, verdict : verdict + 5].diff().tolist() == [1] * 4
    mask = batch.attention_mask[0, 0, verdict + 4]
    assert mask[: verdict + 5].all() and not mask[verdict + 5 :].any()


def test_from_its_verdict_on_a_block_sees_the_history_that_a_reason_is_held_to():
    table = interactions(users=2, ties=True)
    layout = layout_of(table, history=3, reasons={5: REASON})
    batch = layout.collate([Window(np.arange(8), np.ones(8, bool))])
    starts = [int(at) for at in batch.mentions[:, 1]]
    row_of = np.searchsorted(starts, np.arange(batch.input_ids.shape[1]), side="right") - 1
    for row, (_, slot) in zip(batch.slot_rows.tolist(), batch.slots.tolist(), strict=True):
        before, after = (
            set(row_of[batch.attention_mask[0, 0, place].numpy()]) - {-1, row} for place in (slot, slot + 1)
        )
        assert before == set(range(layout.end[row]))
        assert after == set(shown_history(layout.start[row], layout.end[row], 3).tolist())
    slot = int(batch.slots[5, 1])
    assert len(batch.attention_mask[0, 0, slot + 1 : slot + 1 + len(REASON)].sum(1).diff().unique()) == 1  # all alike


def test_reasons_are_shown_to_targets_that_see_as_much_as_the_teacher_did():
    layout = with_reasons(*range(12))
    everything = np.ones(6, bool)
    # From the user's first row on: all there is. From row 4 on: only rows with three earlier ones in the window.
    assert layout.reasons_shown(Window(np.arange(6), everything)).all()
    assert layout.reasons_shown(Window(np.arange(4, 10), everything)).tolist() == [False] * 3 + [True] * 3
    targets = np.asarray([False, True] * 3)
    assert layout.reasons_shown(Window(np.arange(6), targets)).tolist() == targets.tolist()
    assert not replace(layout, reasons={}).reasons_shown(Window(np.arange(6), everything)).any()


@few
@given(st.integers(0, 99), st.integers(20, 400), st.sampled_from([0, 30]), st.integers(1, 30))
def test_batches_stay_within_their_budgets_and_lose_nothing(seed, budget, soft, targets):
    layout = layout_of(interactions(seed, users=5, rows=15), reasons={3: REASON, 20: REASON})
    layout = replace(layout, soft_tokens=soft)
    windows = layout.training_windows(np.arange(75), np.random.default_rng(seed))
    batches = list(batches_by_tokens(layout, windows, budget, targets=targets))
    met = sorted(tuple(window.rows.tolist()) for batch in batches for window in batch)
    assert met == sorted(tuple(window.rows.tolist()) for window in windows)
    for batch in batches:
        made = layout.collate(batch)
        assert len(batch) == 1 or (made.input_ids.numel() <= budget and len(made.target_rows) <= targets)


def test_a_batch_keeps_its_sequences_apart():
    layout = with_reasons(1, 13)
    windows = [Window(np.arange(6), np.ones(6, bool)), Window(np.arange(12, 15), np.asarray([False, True, True]))]
    both = layout.collate(windows)
    parts = [layout.collate([window]) for window in windows]
    assert both.slot_rows.tolist() == [*range(6), 12, 13, 14]
    assert both.target_rows.tolist() == [*range(6), 13, 14]
    assert both.first_target.tolist() == [0, 13]
    assert both.reason_targets.tolist() == [1] * 4 + [6] * 4
    for index, part in enumerate(parts):
        width = part.input_ids.shape[1]
        assert both.input_ids[index, :width].equal(part.input_ids[0])
        assert both.position_ids[index, :width].equal(part.position_ids[0])
        assert both.attention_mask[index, 0, :width, :width].equal(part.attention_mask[0, 0])
        assert not both.attention_mask[index, 0, :width, width:].any()
        assert both.attention_mask[index, 0].any(1).all()  # padding attends to something, or softmax gives NaN


def test_a_batch_moves_as_a_whole():
    batch = with_reasons(1).collate([Window(np.arange(6), np.ones(6, bool))])
    moved = batch.to("meta")
    assert all(getattr(moved, name).device.type == "meta" for name in Batch.__slots__)


@pytest.mark.parametrize("history", [1, 3])
def test_a_tie_longer_than_a_window_is_scored_whole(history):
    table = interactions(users=1, rows=15)
    table["timestamp"] = np.repeat([0, 1], [2, 13])
    layout = layout_of(table, history=history)
    windows = alike(layout, np.arange(15))
    assert sum(int(window.target.sum()) for window in windows) == 15
    for window in windows:
        for row in window.rows[window.target & (window.rows >= 2)].tolist():
            assert sees(layout, window)[row] - {row} == set(range(2)[-2 if history > 1 else -1 :])
