"""The recipes: exactly which parameters train in every phase of each, in every family."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.builders import FAMILIES, Family, interactions, layout_of, recommender
from tests.lm import work
from thinkrec.lm import sft
from thinkrec.lm.experts import add_expert, add_lora, save_adapter
from thinkrec.lm.model import RecommenderLM, SoftPrompt
from thinkrec.lm.recipes import RECIPES
from thinkrec.lm.scoring import score
from thinkrec.lm.sft import kept, train_only
from thinkrec.lm.trainer import PLAIN, TrainResult, TrainSettings
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


def test_compact_trains_the_projector_then_the_whole_backbone_and_what_enters_it(family: Family) -> None:
    model = made(family)
    projector, whole = RECIPES["compact"].phases
    train_only(model, projector.trains)
    assert trainable(model) == PROJECTOR
    train_only(model, whole.trains)
    assert trainable(model) == set(dict(model.named_parameters()))
    assert projector.slots and whole.slots and not RECIPES["compact"].adapter


@pytest.mark.parametrize(("then", "held"), [(0.7, "sft"), (0.6, "projector"), (0.5, "projector")])
def test_an_optional_phase_is_kept_where_its_best_epoch_is_better_than_the_one_before(then: float, held: str) -> None:
    results = {
        name: TrainResult([], {"auc": value, "log_loss": 1 - value})
        for name, value in (("projector", 0.6), ("sft", then))
    }
    assert kept("compact", results, "auc") == kept("compact", results, "log_loss") == held
    assert kept("compact", {"sft": results["sft"]}, "auc") == "sft"  # of text alone there is no phase before


def test_a_later_phase_that_is_not_optional_is_always_kept() -> None:
    results = {"text": TrainResult([], {"auc": 0.7}), "projector": TrainResult([], {"auc": 0.6})}
    assert kept("paper", results, "auc") == "projector"


@pytest.mark.parametrize("then", [0.7, 0.5])
def test_an_optional_phase_that_did_not_help_is_undone(monkeypatch: pytest.MonkeyPatch, then: float) -> None:
    model = made("llama")
    bench = SimpleNamespace(
        model=model, prompted=lambda *, slots: (model, None), rows=lambda split: np.arange(3), user=np.arange(3)
    )
    seen: dict[str, tuple[float, list[torch.Tensor]]] = {}

    def finetune(model: RecommenderLM, layout: None, *, settings: TrainSettings, **_: Any) -> TrainResult:
        """Stands for training: it moves whatever trains."""
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(float(weight.requires_grad))
        seen[settings.name] = settings.learning_rate, [weight.detach().clone() for weight in model.parameters()]
        return TrainResult([], {"auc": 0.6 if settings.name == "projector" else then})

    monkeypatch.setattr(sft, "finetune", finetune)
    trainer = PLAIN.model_copy(update={"metric": "auc"})
    results, adapter = sft.fit_global(bench, work.SFT, LORA, trainer, seed=1)  # type: ignore[arg-type]
    assert adapter is None and list(results) == list(seen) == ["projector", "sft"]
    assert seen["projector"][0] == 2 * seen["sft"][0]  # few weights, larger steps
    wanted = seen["sft" if then > 0.6 else "projector"][1]
    assert all(torch.equal(weight, value) for weight, value in zip(model.parameters(), wanted, strict=True))


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
