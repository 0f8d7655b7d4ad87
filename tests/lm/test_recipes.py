"""The recipes: exactly which parameters train in every phase of each, in every family."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.builders import Family, interactions, layout_of, params_with, recommender
from tests.lm import work
from tests.lm.work import lora_names, trainable
from thinkrec.experts.training import add_expert
from thinkrec.lm import sft
from thinkrec.lm.adapters import add_lora, save_adapter
from thinkrec.lm.model import RecommenderLM, SoftPrompt
from thinkrec.lm.recipes import RECIPES
from thinkrec.lm.scoring import score
from thinkrec.lm.sft import train_only
from thinkrec.lm.trainer import TrainResult
from thinkrec.params import LoraParams
from thinkrec.text.layout import Layout

LORA = LoraParams(r=2, alpha=4.0, dropout=0.0)
PROJECTOR = {f"projector.layers.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")}


def model_of(family: Family) -> RecommenderLM:
    model = recommender(interactions(), family)
    model.soft_prompt = SoftPrompt(torch.randn(2, 32))
    return model


def test_compact_trains_the_backbone_on_traces_then_what_enters_it(family: Family) -> None:
    model = model_of(family)
    thinking, projector = RECIPES["compact"].phases
    train_only(model, thinking.trains)
    assert trainable(model) == set(dict(model.named_parameters())) - PROJECTOR
    train_only(model, projector.trains)
    assert trainable(model) == PROJECTOR | {"soft_prompt.vectors"}
    assert thinking.slots and projector.slots and not RECIPES["compact"].adapter
    assert thinking.think_only and not projector.think_only


def test_compact_by_text_trains_the_whole_backbone_to_recommend(family: Family) -> None:
    model = model_of(family)
    model.projector = None
    assert RECIPES["compact"].by_text[0] == RECIPES["compact"].phases[0]
    whole = RECIPES["compact"].by_text[1]
    train_only(model, whole.trains)
    assert trainable(model) == set(dict(model.named_parameters()))
    assert not whole.think_only and not whole.slots


class Phases:
    """Stands for training: it moves whatever trains, and keeps what every phase was given."""

    def __init__(self) -> None:
        self.given: dict[str, dict[str, Any]] = {}

    def __call__(self, model: RecommenderLM, layout: Layout, **given: Any) -> TrainResult:
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(float(weight.requires_grad))
        self.given[given["settings"].name] = {**given, "layout": layout}
        return TrainResult([], {"objective": 0.6})


def fitted(
    monkeypatch: pytest.MonkeyPatch, reasons: dict[int, Any], *, slots: bool = True, **changes: Any
) -> dict[str, dict[str, Any]]:
    table = interactions()
    model, layout, phases = model_of("llama"), layout_of(table, reasons=reasons), Phases()
    if not slots:
        model.projector = None
    loaded = SimpleNamespace(
        model=model,
        layout=layout,
        prompted=lambda *, slots: (model, layout),
        rows=lambda split: np.arange(3),
        user=table["user"].to_numpy(),
        recipe=RECIPES[changes.get("recipe", work.SFT.recipe)],
    )
    monkeypatch.setattr(sft, "finetune", phases)
    params = params_with({"seed": 1}).model_copy(update={"sft": work.SFT.model_copy(update=changes), "lora": LORA})
    results, _ = sft.fit_global(loaded, params)  # type: ignore[arg-type]
    assert list(results) == list(phases.given)
    return phases.given


def test_the_backbone_thinks_before_the_projector_recommends(monkeypatch: pytest.MonkeyPatch) -> None:
    given = fitted(monkeypatch, {row: work.REASON for row in range(40)})
    assert list(given) == ["thinking", "projector"]
    thinking, projector = given["thinking"], given["projector"]
    assert thinking["think_only"] and not projector["think_only"]
    assert thinking["params"] == projector["params"] == work.SFT
    assert (thinking["settings"].metric, projector["settings"].metric) == ("think_loss", "objective")
    assert thinking["settings"].learning_rate == projector["settings"].learning_rate == 2 * work.SFT.learning_rate
    held = set(thinking["untaught"].reasons)
    assert len(held) == 2  # one in twenty
    for phase in (thinking, projector):  # what is held out is held out of all phases
        assert set(phase["untaught"].reasons) == held
        assert set(phase["layout"].reasons) == set(range(40)) - held


@pytest.mark.parametrize("reasons", [{}, {3: work.REASON}])
def test_without_traces_to_measure_by_there_is_no_thinking(
    monkeypatch: pytest.MonkeyPatch, reasons: dict[int, Any]
) -> None:
    given = fitted(monkeypatch, reasons)
    assert list(given) == ["projector"] and given["projector"]["untaught"] is None
    assert given["projector"]["layout"].reasons == reasons


def test_by_text_alone_the_backbone_is_what_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fitted(monkeypatch, {}, slots=False)
    assert list(whole) == ["whole"] and whole["whole"]["settings"].learning_rate == work.SFT.learning_rate
    assert list(fitted(monkeypatch, {1: work.REASON, 2: work.REASON}, slots=False)) == ["thinking", "whole"]
    assert list(fitted(monkeypatch, {}, slots=False, recipe="paper")) == ["text"]
    assert list(fitted(monkeypatch, {}, recipe="paper")) == ["text", "projector"]


def test_held_out_traces_are_a_seeded_few() -> None:
    reasons = {row: work.REASON for row in range(10_000)}
    taught, held = sft.hold_out(reasons, seed=1)
    assert len(held) == sft.HELD_OUT and not set(taught) & set(held) and len(taught) + len(held) == len(reasons)
    assert set(sft.hold_out(reasons, seed=1)[1]) == set(held) != set(sft.hold_out(reasons, seed=2)[1])


def test_paper_trains_the_adapter_on_text_then_the_projector_alone(family: Family) -> None:
    model = model_of(family)
    add_lora(model.backbone, LORA)
    text, projector = RECIPES["paper"].phases
    train_only(model, text.trains)
    assert trainable(model) == lora_names(0, 1) | {"soft_prompt.vectors"}
    train_only(model, projector.trains)
    assert trainable(model) == PROJECTOR
    assert (text.slots, projector.slots, RECIPES["paper"].expert_slots) == (False, True, False)


def test_experts_train_their_last_layers_alone(family: Family, tmp_path: Path) -> None:
    model = model_of(family)
    adapter = add_lora(model.backbone, LORA)
    save_adapter(adapter, tmp_path / "adapter", base="out/backbone")
    adapter.unload()
    for start in (None, tmp_path / "adapter"):
        expert = add_expert(model, LORA, layers=1, global_adapter=start)
        assert trainable(model) == lora_names(1)
        expert.unload()


def test_the_score_is_the_recipes(family: Family) -> None:
    table = interactions()
    layout, rows = layout_of(table), np.arange(12)
    model = recommender(table, family)
    batch = layout.collate(layout.scoring_windows(rows, 0 * rows))
    with torch.no_grad():
        logits = model(batch).verdict_logits
    words = layout.vocabulary
    order = batch.target_rows.numpy()
    difference = (logits[:, words.yes] - logits[:, words.no]).numpy()
    assert score(model, layout, order) == pytest.approx(difference, abs=1e-5)
    model.scored = RECIPES["paper"].score
    assert score(model, layout, order) == pytest.approx(logits[:, words.yes].numpy(), abs=1e-5)


def test_text_alone_is_told_no_features() -> None:
    table = interactions()
    layout, rows = layout_of(table), np.arange(12)
    model, other = (recommender(table) for _ in range(2))
    other.slot_values.features.user_vectors[:] += 1
    assert np.abs(score(model, layout, rows) - score(other, layout, rows)).max() > 1e-3
    silent = (each.with_inputs(each.slot_values, None) for each in (model, other))
    assert np.array_equal(*(score(each, layout, rows) for each in silent))
