"""The question layout: what a prompt says, what is cut where it is too long, and that company changes nothing."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.builders import TITLES, interactions, layout_of, recommender, tokenizer
from thinkrec.lm.model import RecommenderLM
from thinkrec.text.layout import ITEM, USER
from thinkrec.text.question import PHRASINGS, question_text
from thinkrec.text.vocabulary import find_vocabulary

few = settings(max_examples=25, deadline=None)
REASON = np.asarray([70, 71, 72, 1], np.int32)


def alone(layout, row):
    (window,) = layout.scoring_windows(np.asarray([row]), np.zeros(1, np.int64))
    return window


def read(layout, window):
    return tokenizer().decode(layout.collate([window]).input_ids[0])


def with_model(layout):
    model = recommender(interactions())
    return layout, RecommenderLM(model.backbone, layout.vocabulary, model.slot_values, model.projector).eval()


def test_a_prompt_without_slots_is_its_text():
    layout = layout_of(interactions(users=1, ties=False), history=2, layout="question", slots=())
    history = [(TITLES[layout.item[row]], int(layout.label[row])) for row in (3, 4)]
    text = question_text(history, TITLES[layout.item[5]])
    assert read(layout, alone(layout, 5)) == f"<s>{text} {('No', 'Yes')[layout.label[5]]}"
    assert read(layout, alone(layout, 0)).startswith(f"<s>{question_text([], TITLES[layout.item[0]])}")


def test_slots_tell_of_the_items_and_of_the_user_apart():
    layout = layout_of(interactions(users=1, ties=False), history=2, layout="question")
    batch = layout.collate([alone(layout, 5)])
    assert batch.slot_rows.tolist() == [3, 4, 5, 5]
    assert batch.slot_kinds.tolist() == [ITEM, ITEM, USER, ITEM]
    assert batch.input_ids[0, batch.slots[:, 1]].eq(layout.vocabulary.slot).all()
    only_user = layout_of(interactions(users=1, ties=False), history=2, layout="question", slots=("user",))
    assert only_user.collate([alone(only_user, 5)]).slot_kinds.tolist() == [USER]
    assert len(layout.without_slots().collate([alone(layout, 5)]).slots) == 0


def test_a_slot_of_an_item_is_told_nothing_of_the_user():
    layout, model = with_model(layout_of(interactions(), history=2, layout="question"))
    batch = layout.collate([alone(layout, 5)])
    before = model.embed(batch)
    values = model.slot_values
    moved = replace(values, features=replace(values.features, user_vectors=values.features.user_vectors + 1))
    other = model.with_inputs(moved, model.projector).eval()
    differs = (other.embed(batch) != before).any(-1)[0]
    assert differs.nonzero().flatten().tolist() == batch.slots[batch.slot_kinds == USER, 1].tolist()


@few
@given(st.integers(0, 99), st.booleans(), st.integers(1, 4), st.data())
def test_scoring_and_training_meet_every_row_once_after_its_last_history(seed, ties, history, data):
    layout = layout_of(interactions(seed, rows=17, ties=ties), history=history, layout="question")
    rows = np.asarray(sorted(data.draw(st.sets(st.integers(0, 50), min_size=1))), np.int64)
    rng = np.random.default_rng(seed)
    for windows in (layout.scoring_windows(rows, rng.integers(0, 2, len(rows))), layout.training_windows(rows, rng)):
        assert sorted(np.concatenate([window.rows[window.target] for window in windows])) == rows.tolist()
        for window in windows:
            past = window.rows[~window.target].tolist()
            for row in window.rows[window.target].tolist():
                assert past == list(range(max(layout.start[row], layout.end[row] - history), layout.end[row]))


def test_candidates_of_one_moment_share_the_history():
    table = interactions(users=1, rows=15)
    table["timestamp"] = np.repeat([0, 1], [3, 12])
    layout = layout_of(table, history=3, layout="question")
    (window,) = layout.scoring_windows(np.arange(3, 15), np.zeros(12, np.int64))
    assert window.rows.tolist() == list(range(15))
    mask = layout.collate([window])
    seen = mask.attention_mask[0, 0, mask.verdicts[:, 1]]
    history = len(layout.beginning(window).tokens)
    assert seen[:, :history].all()
    assert (seen[:, history:].sum(0) <= 1).all()  # no token beyond the history is seen by two candidates


def test_training_draws_phrasings_and_scoring_keeps_the_first():
    layout = layout_of(interactions(rows=17), layout="question")
    rows = np.arange(51)
    drawn = [
        {window.phrasing for window in layout.training_windows(rows, np.random.default_rng(seed))} for seed in (0, 1)
    ]
    assert drawn[0] == drawn[1] == set(range(len(PHRASINGS)))
    assert {window.phrasing for window in layout.scoring_windows(rows, 0 * rows)} == {0}


@pytest.mark.parametrize("kind", ["stream", "question"])
@pytest.mark.parametrize("budget", [90, 140, 200])
def test_a_long_prompt_loses_its_oldest_history_and_nothing_else(kind, budget):
    table = interactions(users=1, rows=20, ties=False)
    free, cut = (layout_of(table, history=8, layout=kind, max_tokens=most) for most in (9999, budget))
    shortened = 0
    for row in range(20):
        whole, short = alone(free, row), alone(cut, row)
        assert short.rows.tolist() == whole.rows[len(whole.rows) - len(short.rows) :].tolist()
        length = cut.collate([short]).input_ids.shape[1]
        assert length <= budget or len(short.rows) == 1
        shortened += len(short.rows) < len(whole.rows)
        assert cut.blocks(short)[-1].tokens == free.blocks(whole)[-1].tokens  # target, slots and question
    assert shortened
    for window in cut.training_windows(np.arange(20), np.random.default_rng(0)):
        assert cut.collate([window]).input_ids.shape[1] <= budget or len(window.rows) == 1


def letters(*tokens, chunks):
    """A tokenizer of these tokens, of which `chunks` says where text is parted."""
    inner = Tokenizer(models.WordLevel({token: index for index, token in enumerate([*tokens, "<e>"])}, unk_token="?"))
    inner.pre_tokenizer = pre_tokenizers.Split(chunks, "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<e>")


def test_verdicts_of_several_tokens_are_read_where_they_differ():
    roles = find_vocabulary(letters("?", " ", "No", "Yes", chunks=" "))
    assert (roles.lead, roles.no, roles.yes, roles.rest) == ((1,), 2, 3, ((), ()))
    roles = find_vocabulary(letters("?", "N", "o", "Y", "e", "s", " ", chunks=""))
    assert (roles.lead, roles.no, roles.yes, roles.rest) == ((6,), 1, 3, ((2,), (4, 5)))


@pytest.mark.parametrize("kind", ["stream", "question"])
def test_an_answer_of_several_tokens_is_written_out(kind):
    layout = layout_of(interactions(users=1, ties=False), history=2, layout=kind, reasons={5: REASON})
    split = replace(layout, vocabulary=replace(layout.vocabulary, lead=(9, 8), rest=((20,), (21, 22))))
    row = alone(split, 5)
    block = split.blocks(row)[-1]
    label = int(split.label[5])
    answer = [split.vocabulary.verdicts[label], *split.vocabulary.rest[label], *REASON.tolist()]
    assert block.tokens[-len(answer) - 2 :] == [9, 8, *answer]
    assert block.verdict == len(block.tokens) - len(answer) - 1
    batch = split.collate([row])
    assert batch.reason_tokens.tolist() == answer[1:]
    verdict = int(batch.verdicts[0, 1]) + 1
    assert batch.input_ids[0, verdict].item() == answer[0]
    assert batch.reasons.tolist() == [[0, verdict + step] for step in range(len(answer) - 1)]
    assert split.lengths([row])[0] >= batch.input_ids.shape[1]
