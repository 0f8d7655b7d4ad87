"""The recipes: exactly which parameters train in every phase of each, in every family."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.builders import FAMILIES, Family, interactions, layout_of, recommender
from thinkrec.lm.experts import add_expert, add_lora, save_adapter
from thinkrec.lm.model import RecommenderLM, SoftPrompt
from thinkrec.lm.recipes import RECIPES
from thinkrec.lm.scoring import score
from thinkrec.lm.sft import train_only
from thinkrec.params import LoraParams

LORA = LoraParams(r=2, alpha=4.0, dropout=0.0)
PROJECTOR = {f"projector.layers.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")}


def made(family: Family) -> RecommenderLM:
    model = recommender(interactions(), family)
    model.soft_prompt = SoftPrompt(torch.randn(2, 32))
    return model


def trainable(model: RecommenderLM) -> set[str]:
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


def lora_names(*layers: int) -> set[str]:
    return {
        f"backbone.model.layers.{layer}.self_attn.{name}.lora_{part}.default.weight"
        for layer in layers
        for name in ("q_proj", "v_proj")
        for part in "AB"
    }


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return request.param


def test_compact_trains_the_whole_backbone_and_what_enters_it(family: Family) -> None:
    model = made(family)
    (phase,) = RECIPES["compact"].phases
    train_only(model, phase.trains)
    assert trainable(model) == set(dict(model.named_parameters()))
    assert phase.slots and not RECIPES["compact"].adapter


def test_paper_trains_the_adapter_on_text_then_the_projector_alone(family: Family) -> None:
    model = made(family)
    add_lora(model.backbone, LORA)
    text, projector = RECIPES["paper"].phases
    train_only(model, text.trains)
    assert trainable(model) == lora_names(0, 1) | {"soft_prompt.vectors"}
    train_only(model, projector.trains)
    assert trainable(model) == PROJECTOR
    assert (text.slots, projector.slots, RECIPES["paper"].expert_slots) == (False, True, False)


def test_experts_train_their_last_layers_alone(family: Family, tmp_path: Path) -> None:
    model = made(family)
    adapter = add_lora(model.backbone, LORA)
    save_adapter(adapter, tmp_path / "adapter", base="out/backbone")
    adapter.unload()
    add_expert(model, LORA, layers=1).unload()
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
    other.slot_values.features.user_bank[:] += 1
    assert np.abs(score(model, layout, rows) - score(other, layout, rows)).max() > 1e-3
    assert (score(model.without_slots(), layout, rows) == score(other.without_slots(), layout, rows)).all()
