"""The recommender's model and its scores: causal, blind within ties, and equal to plain text where there are none."""

from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import SLOTS, features_of, interactions, layout_of, recommender
from tests.lm.work import REASON, SETTINGS, SFT, tune
from thinkrec.errors import UserError
from thinkrec.experts.training import add_expert
from thinkrec.lm.model import SlotProjector, SlotValues, SoftPrompt
from thinkrec.lm.scoring import score
from thinkrec.params import LoraParams
from thinkrec.text.layout import Window

few = settings(max_examples=8, deadline=None)
SAME = 1e-5
EVERYONE = np.arange(36)
WINDOWS = [Window(np.arange(4), np.ones(4, bool)), Window(np.arange(12, 15), np.asarray([False, True, True]))]


@pytest.fixture(scope="module")
def table():
    return interactions()


@pytest.fixture(scope="module")
def model(table, family):
    return recommender(table, family)


def softened(table, family="llama", *, slots=SLOTS, seed=0, count=3):
    """A model with a random soft prompt, and prompts with room for it."""
    model = recommender(table, family, slots=slots)
    model.soft_prompt = SoftPrompt(torch.randn(count, 32, generator=torch.Generator().manual_seed(seed)))
    return model, replace(layout_of(table), soft_tokens=count)


def changed(table, rows, column):
    """The prompts of `table` with these rows' labels flipped or items moved on."""
    values = table[column].to_numpy().copy()
    values[rows] = 1 - values[rows] if column == "label" else (values[rows] + 1) % 8
    return layout_of(table.assign(**{column: values}))


def alone(model, layout):
    return [score(model, layout, np.asarray([row]))[0] for row in range(len(layout.item))]


@few
@given(st.data())
def test_a_score_is_that_of_the_row_alone(table, model, data):
    layout = layout_of(table)
    rows = np.asarray(sorted(data.draw(st.sets(st.integers(0, len(table) - 1), min_size=2))), np.int64)
    together = score(model, layout, rows)
    for row in data.draw(st.permutations(rows.tolist()))[:4]:
        assert together[rows == row] == pytest.approx(score(model, layout, np.asarray([row])), abs=SAME)


@pytest.mark.parametrize("slots", [SLOTS, ()], ids=["slots", "text only"])
@pytest.mark.parametrize("ties", [True, False])
def test_a_score_under_a_soft_prompt_is_that_of_the_row_alone(family, slots, ties):
    model, layout = softened(interactions(1, users=2, ties=ties), family, slots=slots)
    assert score(model, layout, np.arange(24)) == pytest.approx(alone(model, layout), abs=SAME)


@few
@given(st.integers(0, 35), st.sampled_from(["label", "item"]), st.integers(0, 99))
def test_nothing_at_or_after_a_row_changes_its_score(table, model, row, column, seed):
    at = table["user"].eq(table["user"][row]) & table["timestamp"].ge(table["timestamp"][row])
    rows = np.flatnonzero(at.to_numpy())
    rows = rows[np.random.default_rng(seed).random(len(rows)) < 0.7]
    rows = rows if column == "label" else rows[rows != row]  # its own label may change, what it is about may not
    before = score(model, layout_of(table), EVERYONE)[row]
    assert score(model, changed(table, rows, column), EVERYONE)[row] == pytest.approx(before, abs=SAME)


@pytest.mark.parametrize("column", ["label", "item"])
def test_an_earlier_row_in_the_window_does_change_the_score(table, model, column):
    layout = layout_of(table)
    row = np.flatnonzero(layout.end > layout.start)[:1]
    after = score(model, changed(table, layout.end[row] - 1, column), row)
    assert abs(after - score(model, layout, row)) > 1e-3


@pytest.mark.parametrize("column", ["label", "item"])
def test_rows_that_share_a_timestamp_are_blind_to_each_other(table, model, column):
    layout = layout_of(table)
    tied = EVERYONE[layout.end < EVERYONE]  # rows with an elder twin
    assert len(tied) > 5
    before = score(model, layout, EVERYONE)
    for row in tied[::3].tolist():
        after = score(model, changed(table, np.asarray([row - 1]), column), EVERYONE)
        assert after[row] == pytest.approx(before[row], abs=SAME)


def test_reasons_and_the_order_of_rows_change_no_score(table, model):
    layout = layout_of(table, reasons=dict.fromkeys(range(0, len(table), 2), REASON))
    before = score(model, layout_of(table), EVERYONE)
    assert score(model, layout, EVERYONE) == pytest.approx(before, abs=SAME)
    some = np.asarray([30, 2, 17])
    assert score(model, layout, some) == pytest.approx(before[some], abs=SAME)
    assert len(score(model, layout, some[:0])) == 0


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("soft", [[], [40, 41, 99]], ids=["no soft prompt", "soft prompt"])
def test_the_stream_equals_an_ordinary_causal_forward(family, attention, soft):
    table = interactions(2, users=1, ties=False)
    everything = layout_of(table, history=len(table))  # no block is too old for any token
    model, layout = recommender(table, family, slots=()), replace(everything, soft_tokens=len(soft))
    model.backbone.set_attn_implementation(attention)
    if soft:  # of the vectors that some tokens have, to compare it with them as text
        model.soft_prompt = SoftPrompt(model.backbone.get_input_embeddings().weight.detach()[soft])
    scores, words = score(model, layout, np.arange(len(table))), layout.vocabulary
    blocks = [
        [*layout.items[item].tolist(), words.slot, words.verdicts[label]]
        for item, label in zip(layout.item, layout.label, strict=True)
    ]
    for row in range(len(table)):
        earlier = int(layout.end[row])
        tokens = [words.begin, *soft, *chain(*blocks[:earlier]), *blocks[row][:-1]]
        with torch.no_grad():
            output = model.backbone(input_ids=torch.tensor([tokens]), output_hidden_states=True)
        logits, states = output.logits[0, -1], iter(output.hidden_states[-1][0, 1 + len(soft) :])
        vectors = []
        for shown in [*range(earlier), row]:
            block, length = list(islice(states, len(blocks[shown]))), len(layout.items[layout.item[shown]])
            vectors.append(model.match.weight @ torch.stack(block[:length]).mean(0))
        signs = 2 * layout.label[:earlier].astype(int) - 1
        alike = sum(int(sign) * float(vector @ vectors[-1]) for sign, vector in zip(signs, vectors, strict=False))
        match = alike / (earlier + 5)
        assert scores[row] == pytest.approx(float(logits[words.yes] - logits[words.no]) + match, abs=SAME)


def test_the_head_at_needed_positions_gives_the_full_logits(table, model):
    layout = layout_of(table, reasons={1: REASON, 13: REASON})
    batch, words = layout.collate(WINDOWS), layout.vocabulary
    with torch.no_grad():
        output = model(batch)
        reading = {"attention_mask": batch.attention_mask, "position_ids": batch.position_ids}
        full = model.backbone(inputs_embeds=model.embed(batch), **reading).logits
        match = model.match_texts(model.hidden_states(model.embed(batch), **reading), batch)
    assert len(output.reason_logits) == 8
    full[batch.verdicts[:, 0], batch.verdicts[:, 1], words.yes] += match
    torch.testing.assert_close(output.verdict_logits, full[batch.verdicts[:, 0], batch.verdicts[:, 1]])
    torch.testing.assert_close(output.reason_logits, full[batch.reasons[:, 0], batch.reasons[:, 1]])
    torch.testing.assert_close(output.score, output.verdict_logits[:, words.yes] - output.verdict_logits[:, words.no])


def test_scores_of_a_model_in_bfloat16_are_computed_in_float32(table, family):
    layout, model = layout_of(table), recommender(table, family, slots=(), match=False)
    model.backbone.bfloat16()
    batch, words = layout.collate(WINDOWS), layout.vocabulary
    with torch.no_grad():
        hidden = model.hidden_states(model.embed(batch), batch.attention_mask, batch.position_ids)
        scores, logits = model.read_verdicts(hidden.flatten(0, 1), None)
        rounded = model.logits(hidden.flatten(0, 1))
        weight = model.backbone.get_output_embeddings().weight.float()
    wanted = hidden.flatten(0, 1).float() @ (weight[words.yes] - weight[words.no])
    torch.testing.assert_close(scores, wanted, atol=SAME, rtol=SAME)
    torch.testing.assert_close(logits[:, words.yes] - logits[:, words.no], scores)
    assert len(scores.unique()) > len((rounded[:, words.yes] - rounded[:, words.no]).unique())


def test_slots_hold_the_projected_features_of_their_rows(table, model):
    rows = np.asarray([3, 5])
    batch = layout_of(table).collate([Window(rows, np.ones(2, bool))])
    with torch.no_grad():
        embedded = model.embed(batch)
        plain = model.backbone.get_input_embeddings()(batch.input_ids)
        expected = model.projector(torch.from_numpy(model.slot_values(rows)))
    at = batch.slots[:, 1]
    torch.testing.assert_close(embedded[0, at], expected)
    rest = torch.ones(batch.input_ids.shape[1], dtype=torch.bool).index_fill(0, at, False)
    assert embedded[0, rest].equal(plain[0, rest])


def test_slot_values_stand_side_by_side_in_the_order_asked_for(table):
    features, rows = features_of(table), np.asarray([7, 2])
    values = SlotValues(features, ("statistics", "item"))
    assert values.widths == [3, 4]
    items = features.item_vectors[table["item"].to_numpy()[rows]]
    assert (values(rows) == np.concatenate([features.statistics[rows], items], axis=1)).all()


def test_the_projector_standardises_by_the_values_it_was_scaled_on():
    projector = SlotProjector([2], 5)
    projector.fit_scale(np.asarray([[0.0, 7.0], [4.0, 7.0]], np.float32))
    assert projector.mean.tolist() == [2, 7]
    assert projector.spread.tolist() == pytest.approx([2, 1e-6])
    projector.spread[1] = 1
    raw = projector(torch.tensor([[4.0, 8.0]]))
    torch.testing.assert_close(raw, projector.layers(torch.tensor([[1.0, 1.0]])))


def test_parts_are_dropped_whole_and_only_in_training():
    torch.manual_seed(0)
    projector = SlotProjector([2, 1], 3, dropout=0.5)
    projector.layers = torch.nn.Identity()
    values = torch.ones(400, 3)
    assert projector.eval()(values).equal(values)
    dropped = projector.train()(values)
    assert set(dropped.unique().tolist()) == {0.0, 1.0}
    assert dropped[:, 0].equal(dropped[:, 1]) and not dropped[:, 0].equal(dropped[:, 2])
    assert dropped.mean(0).tolist() == pytest.approx([0.5] * 3, abs=0.1)


def test_soft_vectors_stand_after_the_begin_token_of_every_sequence_and_nowhere_else(table, family):
    model, layout = softened(table, family)
    vectors = model.soft_prompt.vectors
    embedded = model.embed(layout.collate(WINDOWS))
    model(layout.collate(WINDOWS[:1])).score.sum().backward()
    assert (vectors.grad.abs().sum(1) > 0).all()
    scores = [score(each, layout, EVERYONE) for each in (model, softened(table, family, seed=1)[0])]
    assert np.abs(scores[0] - scores[1]).min() > 0
    model.soft_prompt = None
    assert embedded[:, 1:4].equal(vectors.expand(2, -1, -1))
    assert torch.cat([embedded[:, :1], embedded[:, 4:]], dim=1).equal(model.embed(layout_of(table).collate(WINDOWS)))


def test_a_soft_prompt_starts_at_embeddings_of_tokens_by_the_seed(table):
    embeddings = recommender(table).backbone.get_input_embeddings()
    prompts = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        prompts.append(SoftPrompt.from_tokens(embeddings, 5).vectors)
    assert prompts[0].equal(prompts[1]) and not prompts[0].equal(prompts[2])
    assert (prompts[0][:, None] == embeddings.weight).all(2).any(1).all()


def test_fine_tuning_trains_the_soft_prompt_and_experts_leave_it(table):
    model, layout = softened(table)

    def tuned():
        tune(table, model, layout, SFT.model_copy(update={"batch_tokens": 600}), replace(SETTINGS, epochs=1))
        return model.soft_prompt.vectors.detach().clone()

    before, by_sft = model.soft_prompt.vectors.detach().clone(), tuned()
    assert (by_sft != before).any(1).all()
    add_expert(model, LoraParams(r=4, alpha=8.0, dropout=0.0), layers=1)
    trained = score(model, layout, EVERYONE)
    assert tuned().equal(by_sft)
    assert np.abs(score(model, layout, EVERYONE) - trained).max() > 0  # the expert did learn


@pytest.mark.parametrize("slots", [SLOTS, ()], ids=["slots", "text only"])
@pytest.mark.parametrize("soft", [True, False])
def test_what_a_model_puts_into_prompts_round_trips_through_disk(table, tmp_path, slots, soft):
    model, other = (softened(table, slots=slots, seed=seed)[0] for seed in (0, 1))
    if not soft:
        model.soft_prompt = other.soft_prompt = None
    model.save_inputs(tmp_path)
    expected = {"projector.safetensors": slots, "soft_prompt.safetensors": soft, "match.safetensors": True}
    assert {path.name for path in tmp_path.iterdir()} == {name for name, is_there in expected.items() if is_there}
    other.load_inputs(tmp_path)
    for part in ("projector", "soft_prompt", "match"):
        mine, theirs = getattr(model, part), getattr(other, part)
        if mine is not None:
            assert all(weight.equal(theirs.state_dict()[name]) for name, weight in mine.state_dict().items())


@pytest.mark.parametrize("name", ["projector.safetensors", "soft_prompt.safetensors"])
def test_inputs_of_other_prompts_broken_or_missing_ones_are_refused(table, tmp_path, name):
    model, _ = softened(table)
    model.save_inputs(tmp_path)
    others = softened(table, slots=("user",)) if name == "projector.safetensors" else softened(table, count=2)
    others[0].save_inputs(tmp_path)
    for change in (lambda path: None, lambda path: path.write_bytes(b"not tensors"), Path.unlink):
        change(tmp_path / name)
        with pytest.raises(UserError, match=f"{name}: not there, or not for these prompt.slots .* dvc repro sft"):
            model.load_inputs(tmp_path)
