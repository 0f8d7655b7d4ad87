"""The recommender's model and its scores: causal, blind within ties, and equal to plain text where there are none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.builders import FAMILIES, SLOTS, Family, features_of, interactions, layout_of, recommender
from thinkrec.errors import UserError
from thinkrec.experts.training import add_expert
from thinkrec.lm.finetune import finetune
from thinkrec.lm.model import RecommenderLM, SlotProjector, SlotValues, SoftPrompt
from thinkrec.lm.scoring import score
from thinkrec.lm.trainer import TrainSettings
from thinkrec.params import LoraParams, SftParams, Slot
from thinkrec.text.layout import Window

few = settings(max_examples=15, deadline=None)
SAME = 1e-5
REASON = np.asarray([70, 71, 72, 1], np.int32)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return request.param


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return interactions()


@pytest.fixture(scope="module")
def model(table: pd.DataFrame, family: Family) -> RecommenderLM:
    return recommender(table, family)


def changed(table: pd.DataFrame, rows: NDArray[np.int64], column: str) -> pd.DataFrame:
    """`table` with these rows' labels flipped or items moved on."""
    values = table[column].to_numpy().copy()
    values[rows] = 1 - values[rows] if column == "label" else (values[rows] + 1) % 8
    return table.assign(**{column: values})


@few
@given(st.data())
def test_a_score_is_that_of_the_row_alone(table: pd.DataFrame, model: RecommenderLM, data: st.DataObject) -> None:
    layout = layout_of(table)
    rows = np.asarray(sorted(data.draw(st.sets(st.integers(0, len(table) - 1), min_size=2))), np.int64)
    together = score(model, layout, rows)
    for row in data.draw(st.permutations(rows.tolist()))[:4]:
        alone = score(model, layout, np.asarray([row]))
        assert together[rows == row] == pytest.approx(alone, abs=SAME)


def test_a_score_is_that_of_the_row_alone_without_ties(family: Family) -> None:
    table = interactions(1, users=2, ties=False)
    model, layout = recommender(table, family), layout_of(table)
    alone = [score(model, layout, np.asarray([row]))[0] for row in range(len(table))]
    assert score(model, layout, np.arange(len(table))) == pytest.approx(alone, abs=SAME)


@few
@given(st.integers(0, 35), st.sampled_from(["label", "item"]), st.integers(0, 99))
def test_nothing_at_or_after_a_row_changes_its_score(
    table: pd.DataFrame, model: RecommenderLM, row: int, column: str, seed: int
) -> None:
    at = table["user"].eq(table["user"][row]) & table["timestamp"].ge(table["timestamp"][row])
    rows = np.flatnonzero(at.to_numpy())
    rows = rows[np.random.default_rng(seed).random(len(rows)) < 0.7]
    rows = rows if column == "label" else rows[rows != row]  # its own label may change, what it is about may not
    everyone = np.arange(len(table))
    before = score(model, layout_of(table), everyone)[row]
    assert score(model, layout_of(changed(table, rows, column)), everyone)[row] == pytest.approx(before, abs=SAME)


@pytest.mark.parametrize("column", ["label", "item"])
def test_an_earlier_row_in_the_window_does_change_the_score(
    table: pd.DataFrame, model: RecommenderLM, column: str
) -> None:
    layout = layout_of(table)
    row = int(np.flatnonzero(layout.end > layout.start)[0])
    before = score(model, layout, np.asarray([row]))
    after = score(model, layout_of(changed(table, layout.end[[row]] - 1, column)), np.asarray([row]))
    assert abs(after - before) > 1e-3


def test_rows_that_share_a_timestamp_are_blind_to_each_other(table: pd.DataFrame, model: RecommenderLM) -> None:
    layout = layout_of(table)
    everyone = np.arange(len(table))
    tied = everyone[layout.end < everyone]  # rows with an elder twin
    assert len(tied) > 5
    before = score(model, layout, everyone)
    for row in tied.tolist():
        twin = np.asarray([row - 1])
        for column in ("label", "item"):
            after = score(model, layout_of(changed(table, twin, column)), everyone)
            assert after[row] == pytest.approx(before[row], abs=SAME)


def test_reasons_change_no_score(table: pd.DataFrame, model: RecommenderLM) -> None:
    rows = np.arange(len(table))
    told = layout_of(table, reasons=dict.fromkeys(range(0, len(table), 2), REASON))
    assert score(model, told, rows) == pytest.approx(score(model, layout_of(table), rows), abs=SAME)


def test_eager_attention_gives_the_same_scores(table: pd.DataFrame, family: Family) -> None:
    model, layout = recommender(table, family), layout_of(table)
    rows = np.arange(len(table))
    before = score(model, layout, rows)
    model.backbone.set_attn_implementation("eager")
    assert score(model, layout, rows) == pytest.approx(before, abs=SAME)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("soft", [[], [40, 41, 99]], ids=["no soft prompt", "soft prompt"])
def test_the_stream_equals_an_ordinary_causal_forward(family: Family, attention: str, soft: list[int]) -> None:
    table = interactions(2, users=1, ties=False)
    model, layout = recommender(table, family, slots=()), replace(layout_of(table), soft_tokens=len(soft))
    model.backbone.set_attn_implementation(attention)
    if soft:  # of the vectors that some tokens have, to compare it with them as text
        model.soft_prompt = SoftPrompt(model.backbone.get_input_embeddings().weight.detach()[soft])
    scores = score(model, layout, np.arange(len(table)))
    words = layout.vocabulary
    for row in range(len(table)):
        earlier = int(layout.end[row])
        begin = max(earlier - layout.history, 0) // layout.history * layout.history
        tokens = [words.begin, *soft]
        for past in range(begin, earlier):
            tokens += [*layout.items[layout.item[past]].tolist(), words.slot, words.verdicts[layout.label[past]]]
        tokens += [*layout.items[layout.item[row]].tolist(), words.slot]
        with torch.no_grad():
            logits = model.backbone(input_ids=torch.tensor([tokens])).logits[0, -1]
        assert scores[row] == pytest.approx(float(logits[words.yes] - logits[words.no]), abs=SAME)


def test_the_head_at_needed_positions_gives_the_full_logits(table: pd.DataFrame, model: RecommenderLM) -> None:
    layout = layout_of(table, reasons={1: REASON, 13: REASON})
    windows = [Window(np.arange(4), np.ones(4, bool)), Window(np.arange(12, 15), np.asarray([False, True, True]))]
    batch = layout.collate(windows)
    with torch.no_grad():
        output = model(batch)
        full = model.backbone(
            inputs_embeds=model.embed(batch), attention_mask=batch.attention_mask, position_ids=batch.position_ids
        ).logits
    slots = batch.verdicts
    assert len(output.reason_logits) == 8
    torch.testing.assert_close(output.verdict_logits, full[slots[:, 0], slots[:, 1]])
    torch.testing.assert_close(output.reason_logits, full[batch.reasons[:, 0], batch.reasons[:, 1]])
    words = layout.vocabulary
    torch.testing.assert_close(output.score, output.verdict_logits[:, words.yes] - output.verdict_logits[:, words.no])


def test_slots_hold_the_projected_features_of_their_rows(table: pd.DataFrame, model: RecommenderLM) -> None:
    batch = layout_of(table).collate([Window(np.asarray([3, 5]), np.ones(2, bool))])
    with torch.no_grad():
        embedded = model.embed(batch)
        plain = model.backbone.get_input_embeddings()(batch.input_ids)
        wanted = model.projector(torch.from_numpy(model.slot_values(np.asarray([3, 5]))))
    at = batch.slots[:, 1]
    torch.testing.assert_close(embedded[0, at], wanted)
    rest = torch.ones(batch.input_ids.shape[1], dtype=torch.bool).index_fill(0, at, False)
    assert embedded[0, rest].equal(plain[0, rest])


def test_slot_values_stand_side_by_side_in_the_order_asked_for(table: pd.DataFrame) -> None:
    features = features_of(table)
    values = SlotValues(features, ("statistics", "item"))
    assert values.widths == [3, 4]
    rows = np.asarray([7, 2])
    expected = np.concatenate(
        [features.statistics[rows], features.item_vectors[table["item"].to_numpy()[rows]]], axis=1
    )
    assert (values(rows) == expected).all()


def test_the_projector_standardises_by_the_values_it_was_scaled_on() -> None:
    projector = SlotProjector([2], 5)
    projector.fit_scale(np.asarray([[0.0, 7.0], [4.0, 7.0]], np.float32))
    assert projector.mean.tolist() == [2, 7]
    assert projector.spread.tolist() == pytest.approx([2, 1e-6])
    projector.spread[1] = 1
    raw = projector(torch.tensor([[4.0, 8.0]]))
    torch.testing.assert_close(raw, projector.layers(torch.tensor([[1.0, 1.0]])))


def test_parts_are_dropped_whole_and_only_in_training() -> None:
    torch.manual_seed(0)
    projector = SlotProjector([2, 1], 3, dropout=0.5)
    projector.layers = torch.nn.Identity()
    values = torch.ones(400, 3)
    assert projector.eval()(values).equal(values)
    dropped = projector.train()(values)
    assert set(dropped.unique().tolist()) == {0.0, 1.0}
    assert dropped[:, 0].equal(dropped[:, 1])
    assert dropped.mean(0).tolist() == pytest.approx([0.5] * 3, abs=0.1)
    assert not dropped[:, 0].equal(dropped[:, 2])


def soften(model: RecommenderLM, vectors: torch.Tensor) -> RecommenderLM:
    model.soft_prompt = SoftPrompt(vectors)
    return model


@pytest.mark.parametrize("slots", [SLOTS, ()], ids=["slots", "text only"])
def test_a_score_under_a_soft_prompt_is_that_of_the_row_alone(
    table: pd.DataFrame, family: Family, slots: tuple[Slot, ...]
) -> None:
    model = soften(
        recommender(table, family, slots=slots), torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    )
    layout = replace(layout_of(table), soft_tokens=3)
    alone = [score(model, layout, np.asarray([row]))[0] for row in range(len(table))]
    assert score(model, layout, np.arange(len(table))) == pytest.approx(alone, abs=SAME)


def test_another_soft_prompt_gives_other_scores(table: pd.DataFrame, family: Family) -> None:
    layout, rows = replace(layout_of(table), soft_tokens=3), np.arange(len(table))
    generator = torch.Generator().manual_seed(0)
    one, two = (
        score(soften(recommender(table, family), torch.randn(3, 32, generator=generator)), layout, rows)
        for _ in range(2)
    )
    assert np.abs(one - two).min() > 0


def test_soft_vectors_stand_after_the_begin_token_of_every_sequence_and_nowhere_else(table: pd.DataFrame) -> None:
    model = soften(recommender(table), torch.randn(3, 32))
    windows = [Window(np.arange(4), np.ones(4, bool)), Window(np.arange(12, 15), np.ones(3, bool))]
    with torch.no_grad():
        embedded = model.embed(replace(layout_of(table), soft_tokens=3).collate(windows))
        model.soft_prompt, vectors = None, model.soft_prompt.vectors
        plain = model.embed(layout_of(table).collate(windows))
    assert embedded[:, 1:4].equal(vectors.expand(2, -1, -1))
    assert torch.cat([embedded[:, :1], embedded[:, 4:]], dim=1).equal(plain)


def test_a_soft_prompt_starts_at_embeddings_of_tokens_by_the_seed(table: pd.DataFrame) -> None:
    embeddings = recommender(table).backbone.get_input_embeddings()
    prompts = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        prompts.append(SoftPrompt.from_tokens(embeddings, 5).vectors)
    assert prompts[0].equal(prompts[1]) and not prompts[0].equal(prompts[2])
    assert (prompts[0][:, None] == embeddings.weight).all(2).any(1).all()


def test_every_soft_vector_gets_a_gradient(table: pd.DataFrame, family: Family) -> None:
    model = soften(recommender(table, family), torch.randn(3, 32))
    batch = replace(layout_of(table), soft_tokens=3).collate([Window(np.arange(4), np.ones(4, bool))])
    model(batch).score.sum().backward()
    assert (model.soft_prompt.vectors.grad.abs().sum(1) > 0).all()


def test_fine_tuning_trains_the_soft_prompt_and_experts_leave_it(
    table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = soften(recommender(table), torch.randn(3, 32, generator=torch.Generator().manual_seed(0)))
    layout, rows = replace(layout_of(table), soft_tokens=3), np.arange(len(table))
    params = SftParams(
        recipe="compact", epochs=1, learning_rate=0.01, weight_decay=0.0, batch_rows=12, batch_tokens=600,
        think_share=0.0, reason_first=0.0, alpha=0.0, beta=0.0, eta=1.0, gamma=0.0, pairwise=0.0,
        slot_dropout=0.0, patience=1,
    )  # fmt: skip
    phase = TrainSettings(name="phase", epochs=1, learning_rate=0.01, weight_decay=0.0, seed=0)

    def tuned() -> torch.Tensor:
        user = table["user"].to_numpy()
        finetune(model, layout, train_rows=rows, valid_rows=rows, user=user, params=params, settings=phase)
        return model.soft_prompt.vectors.detach().clone()

    before = model.soft_prompt.vectors.detach().clone()
    by_sft = tuned()
    assert (by_sft != before).any(1).all()
    add_expert(model, LoraParams(r=4, alpha=8.0, dropout=0.0), layers=1)
    trained = score(model, layout, rows)
    assert tuned().equal(by_sft)
    assert np.abs(score(model, layout, rows) - trained).max() > 0  # the expert did learn


@pytest.mark.parametrize("slots", [SLOTS, ()], ids=["slots", "text only"])
@pytest.mark.parametrize("soft", [True, False])
def test_what_a_model_has_before_its_text_round_trips_through_disk(
    table: pd.DataFrame, tmp_path: Path, slots: tuple[Slot, ...], soft: bool
) -> None:
    model, other = recommender(table, slots=slots), recommender(table, slots=slots, seed=1)
    if soft:
        soften(model, torch.randn(3, 32)), soften(other, torch.randn(3, 32))
    model.save_inputs(tmp_path)
    files = {"projector.safetensors": slots, "soft_prompt.safetensors": soft}
    assert {path.name for path in tmp_path.iterdir()} == {name for name, expected in files.items() if expected}
    other.load_inputs(tmp_path)
    for mine, theirs in ((model.projector, other.projector), (model.soft_prompt, other.soft_prompt)):
        if mine is not None:
            assert all(weight.equal(theirs.state_dict()[name]) for name, weight in mine.state_dict().items())


@pytest.mark.parametrize("name", ["projector.safetensors", "soft_prompt.safetensors"])
def test_inputs_of_other_prompts_broken_or_missing_ones_are_refused(
    table: pd.DataFrame, tmp_path: Path, name: str
) -> None:
    model = soften(recommender(table), torch.randn(3, 32))
    refused = pytest.raises(UserError, match=f"{name}: not there, or not for these prompt.slots .* dvc repro sft")
    recommender(table, slots=("user",)).save_inputs(tmp_path)
    soften(recommender(table), torch.randn(2, 32)).save_inputs(tmp_path)
    if name == "projector.safetensors":
        recommender(table, slots=("user",)).save_inputs(tmp_path)
    with refused:
        model.load_inputs(tmp_path)
    (tmp_path / name).write_bytes(b"not tensors")
    with refused:
        model.load_inputs(tmp_path)
    (tmp_path / name).unlink()
    with refused:
        model.load_inputs(tmp_path)


def test_scores_come_in_the_order_of_the_rows(table: pd.DataFrame, model: RecommenderLM) -> None:
    layout = layout_of(table)
    rows = np.asarray([30, 2, 17])
    assert score(model, layout, rows) == pytest.approx(score(model, layout, rows[::-1])[::-1], abs=SAME)
    assert len(score(model, replace(layout), np.zeros(0, np.int64))) == 0
