"""The recipes: exactly which parameters train in every phase of each, and on what."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.builders import interactions, layout_of, loaded_model, recommender
from tests.lm.work import REASON, SFT, lora_names, trainable
from tests.project import params_with
from thinkrec.lm import sft
from thinkrec.lm.adapters import add_lora
from thinkrec.lm.model import SoftPrompt, mean_over_texts
from thinkrec.lm.recipes import RECIPES
from thinkrec.lm.scoring import score
from thinkrec.lm.trainer import TrainResult
from thinkrec.params import LoraParams

LORA = LoraParams(r=2, alpha=4.0, dropout=0.0)
PROJECTOR = {f"projector.layers.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")}
SOFT = {"soft_prompt.vectors"}
MATCH = {"match.weight"}
COMPACT, PAPER = RECIPES["compact"], RECIPES["paper"]


def model_of():
    model = recommender(interactions())
    model.soft_prompt = SoftPrompt(torch.randn(2, 32))
    return model


def test_compact_trains_the_backbone_on_traces_then_what_enters_it():
    model = model_of()
    everything = {name for name, _ in model.named_parameters()}
    thinking, refinement, projector = COMPACT.phases
    assert refinement == replace(thinking, name="refinement", learns="truth")
    sft.train_only(model, thinking.trains)
    assert trainable(model) == everything - PROJECTOR - MATCH
    sft.train_only(model, projector.trains)
    assert trainable(model) == PROJECTOR | SOFT
    assert thinking.slots and projector.slots and not COMPACT.adapter
    assert (thinking.learns, projector.learns) == ("reasons", "labels")
    model.projector = None
    *before, whole = COMPACT.by_text
    assert before == [thinking, refinement]
    sft.train_only(model, whole.trains)
    assert trainable(model) == everything - PROJECTOR
    assert whole.learns == "labels and reasons" and not whole.slots


def test_paper_trains_the_adapter_on_text_then_the_projector_alone():
    model = model_of()
    add_lora(model.backbone, LORA)
    text, refinement, projector = PAPER.phases
    assert refinement == replace(text, name="refinement", learns="truth")
    sft.train_only(model, text.trains)
    assert trainable(model) == lora_names(0, 1) | SOFT
    sft.train_only(model, projector.trains)
    assert trainable(model) == PROJECTOR
    assert (text.slots, projector.slots, PAPER.expert_slots) == (False, True, False)


def phases_of(monkeypatch, reasons, *, slots=True, steps=3, **changes):
    """What every phase was given, by its name; in the place of training, all that trains is moved."""
    table, phases = interactions(), {}
    model, layout = model_of(), layout_of(table, reasons=reasons)

    def finetune(model, layout, **how):
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(float(weight.requires_grad))
        phases[how["settings"].name] = {**how, "layout": layout, "match": model.match}
        return TrainResult([], {"objective": 0.6})

    def refine(loaded, params, **how):
        assert loaded.model.projector is None or loaded.recipe is COMPACT  # where a LoRA reads text, so it does here
        phases[how["name"]] = {**how, "layout": loaded.layout, "match": loaded.model.match}
        return TrainResult([], {"reward": 0.6})

    monkeypatch.setattr(sft, "finetune", finetune)
    model.projector, model.match = model.projector if slots else None, None
    params = params_with({"seed": 1, "refine.steps": steps})
    params = params.model_copy(update={"sft": SFT.model_copy(update=changes), "lora": LORA})
    loaded = replace(loaded_model(table, model, layout), recipe=RECIPES[params.sft.recipe])
    results, _ = sft.fit_global(loaded, params, refine)
    assert list(results) == list(phases)
    return phases


def test_the_backbone_thinks_before_the_projector_recommends(monkeypatch):
    phases = phases_of(monkeypatch, {row: REASON for row in range(40)})
    assert list(phases) == ["thinking", "refinement", "projector"]
    thinking, refinement, projector = phases.values()
    assert thinking["think_only"] and not projector["think_only"]
    assert thinking["params"] == projector["params"] == SFT
    assert (thinking["settings"].metric, projector["settings"].metric) == ("think_loss", "objective")
    assert (thinking["settings"].learning_rate, projector["settings"].learning_rate) == (0.01, 0.04)
    held = set(thinking["untaught"].reasons)
    assert len(held) == 2  # one in twenty
    assert set(projector["untaught"].reasons) == held
    assert set(thinking["layout"].reasons) == set(range(40)) - held and not projector["layout"].reasons
    assert (set(refinement["held_out"]), refinement["layout"].reasons) == (held, thinking["layout"].reasons)
    assert list(phases_of(monkeypatch, {1: REASON, 2: REASON}, steps=0)) == ["thinking", "projector"]


@pytest.mark.parametrize("reasons", [{}, {3: REASON}])
def test_without_traces_to_measure_by_there_is_no_thinking(monkeypatch, reasons):
    phases = phases_of(monkeypatch, reasons)
    assert list(phases) == ["projector"] and phases["projector"]["untaught"] is None


def test_by_text_alone_the_backbone_is_what_learns(monkeypatch):
    whole = phases_of(monkeypatch, {}, slots=False)
    assert list(whole) == ["whole"] and whole["whole"]["settings"].learning_rate == SFT.learning_rate
    assert list(phases_of(monkeypatch, {1: REASON, 2: REASON}, slots=False)) == ["thinking", "refinement", "whole"]
    assert list(phases_of(monkeypatch, {}, slots=False, recipe="paper")) == ["text"]
    assert list(phases_of(monkeypatch, {}, recipe="paper")) == ["text", "projector"]
    traced = phases_of(monkeypatch, {1: REASON, 2: REASON}, recipe="paper")
    assert list(traced) == ["text", "refinement", "projector"]


def test_text_alone_is_matched_with_the_history_as_large_as_asked_for(monkeypatch):
    traces = {1: REASON, 2: REASON}
    by_text = phases_of(monkeypatch, traces, slots=False)
    assert by_text["thinking"]["match"] is None  # which learns no verdicts
    assert by_text["whole"]["match"].weight.shape == (SFT.match_size, 32)
    for others in (phases_of(monkeypatch, traces, slots=False, match_size=0), phases_of(monkeypatch, traces)):
        assert {phase["match"] for phase in others.values()} == {None}


def test_the_match_starts_scaled_by_the_texts_of_train():
    table = interactions()
    layout, model = layout_of(table), recommender(table, slots=())
    loaded = loaded_model(table.assign(split="train"), model, layout)
    model.match = sft.start_match(loaded, SFT, seed=1)
    batch = layout.collate(layout.scoring_windows(np.arange(len(table)), np.zeros(len(table), np.int64)))
    with torch.no_grad():
        hidden = model.hidden_states(model.embed(batch), batch.attention_mask, batch.position_ids)
        scaled = (mean_over_texts(hidden, batch) - model.match.mean) / model.match.spread
    assert scaled.mean(0).abs().max() < 1e-4 and (scaled.std(0) - 1).abs().max() < 1e-4


def test_held_out_traces_are_a_seeded_few():
    reasons = {row: REASON for row in range(10_000)}
    taught, held = sft.hold_out(reasons, seed=1)
    assert len(held) == sft.HELD_OUT and not set(taught) & set(held) and len(taught) + len(held) == len(reasons)
    assert set(sft.hold_out(reasons, seed=1)[1]) == set(held) != set(sft.hold_out(reasons, seed=2)[1])


def test_the_score_is_the_recipes():
    table = interactions()
    layout, rows, model = layout_of(table), np.arange(12), recommender(table)
    batch, words = layout.collate(layout.scoring_windows(rows, 0 * rows)), layout.vocabulary
    with torch.no_grad():
        logits = model(batch).verdict_logits.numpy()
    order = batch.target_rows.numpy()
    assert score(model, layout, order) == pytest.approx(logits[:, words.yes] - logits[:, words.no], abs=1e-5)
    model.scored = PAPER.score
    assert score(model, layout, order) == pytest.approx(logits[:, words.yes], abs=1e-5)


def test_text_alone_is_told_no_features():
    table = interactions()
    layout, rows = layout_of(table), np.arange(12)
    model, other = (recommender(table) for _ in range(2))
    other.slot_values.features.user_vectors[:] += 1
    assert np.abs(score(model, layout, rows) - score(other, layout, rows)).max() > 1e-3
    silent = (each.with_inputs(each.slot_values, None) for each in (model, other))
    assert np.array_equal(*(score(each, layout, rows) for each in silent))
