"""Fine-tuning: the batch loss put together by hand, each sample kind by its share, and a model that learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from transformers.models.llama.modeling_llama import LlamaMLP

from tests.builders import interactions, layout_of, recommender, tokenizer
from tests.lm import work
from tests.project import run_params
from thinkrec.lm.finetune import encode_reasons, finetune, measures, think_loss
from thinkrec.lm.losses import Objective, answer_loss, pairwise_loss, recommendation_loss
from thinkrec.lm.scoring import score
from thinkrec.lm.trainer import PLAIN, TrainSettings, resumable
from thinkrec.metrics import auc, validation
from thinkrec.params import SftParams
from thinkrec.text.layout import Batch, Window
from thinkrec.text.stream import StreamLayout
from thinkrec.text.vocabulary import find_vocabulary

REASON = np.asarray([70, 71, 72, 1], np.int32)


def params(**changes: Any) -> SftParams:
    values = {
        "recipe": "compact", "epochs": 1, "learning_rate": 0.01, "weight_decay": 0.0, "batch_rows": 1000,
        "batch_tokens": 600, "think_share": 0.2, "reason_first": 0.0, "alpha": 0.1,
        "beta": 0.9, "eta": 0.8, "gamma": 0.2, "pairwise": 0.3, "slot_dropout": 0.0, "patience": 1,
    }  # fmt: skip
    return SftParams(**(values | changes))


def test_reasons_are_what_follows_the_verdict_and_end() -> None:
    traces = pd.DataFrame({"row": [7, 2], "text": ["Yes. The sea suits.", "No. Too slow."]})
    reasons = encode_reasons(tokenizer(), traces)
    assert list(reasons) == [7, 2]
    assert tokenizer().decode(reasons[7], skip_special_tokens=True) == ". The sea suits."
    assert reasons[2][-1] == 1 and (reasons[2] == 1).sum() == 1
    stop = find_vocabulary(tokenizer()).stop  # what stands in a verdict's place, and what follows one, is the same
    assert stop and all(tuple(tokens[: len(stop)]) == stop for tokens in reasons.values())


def test_the_loss_of_a_batch_by_hand() -> None:
    table = interactions(users=2, ties=False)
    layout = layout_of(table, reasons={1: REASON})
    model = recommender(table)
    windows = [Window(np.arange(4), np.ones(4, bool)), Window(np.arange(12, 15), np.ones(3, bool))]
    tensors = layout.collate(windows).tensors()
    objective = Objective(model, layout.label, 0.1, params())
    assert objective.think_weight == pytest.approx(2.0) and objective.rec_weight == pytest.approx(0.8)
    with torch.no_grad():
        loss = float(objective(**tensors))
        batch = Batch(**tensors)
        output = model(batch)
    rows = [0, 1, 2, 3, 12, 13, 14]
    label = torch.from_numpy(table["label"].to_numpy()[rows].astype(np.int64))
    assert 0 < label.sum() < 7
    verdict = torch.tensor([layout.vocabulary.verdicts[value] for value in label.tolist()])
    rec = recommendation_loss(output.score, label)
    said = torch.nn.functional.cross_entropy(output.verdict_logits, verdict, reduction="none")
    think = answer_loss(said, output.reason_logits, torch.from_numpy(REASON).long(), torch.tensor([1] * 4))
    both = 0.8 * (0.8 * rec + 0.2 * said)  # every row is recommended
    both[1] += 2.0 * (0.1 * rec[1] + 0.9 * think[1])  # and one is reasoned about besides
    pairs = pairwise_loss(output.score, label, torch.tensor([0] * 4 + [1] * 3))
    assert loss == pytest.approx(float(both.mean() + 0.3 * pairs), rel=1e-5)


def test_a_trace_met_in_both_orders_counts_once_by_hand() -> None:
    table = interactions(users=2, ties=False)
    plain = layout_of(table, reasons={1: REASON})
    layout = replace(plain, thoughts=plain.reasons)
    model = recommender(table)
    windows = [Window(np.arange(4), np.ones(4, bool)), Window(np.arange(12, 15), np.ones(3, bool))]
    only_first, only_last, mixed = (
        Objective(model, layout.label, 0.1, params(reason_first=share, pairwise=0.0)) for share in (1.0, 0.0, 0.25)
    )
    tensors = layout.collate(windows).tensors()
    with torch.no_grad():
        batch = Batch(**tensors)
        output = model(batch)
        assert float(mixed(**tensors)) == pytest.approx(
            0.25 * float(only_first(**tensors)) + 0.75 * float(only_last(**tensors)), rel=1e-5
        )
        assert float(only_last(**tensors)) == pytest.approx(float(only_last(**plain.collate(windows).tensors())))
    assert batch.reason_first.tolist() == [False] * 4 + [True] + [False] * 3
    label = torch.from_numpy(layout.label[batch.target_rows].astype(np.int64))
    verdict = torch.tensor([layout.vocabulary.verdicts[value] for value in label.tolist()])
    after = batch.reason_targets == 4
    think = torch.nn.functional.cross_entropy(
        torch.cat([output.reason_logits[after], output.verdict_logits[4:5]]),
        torch.cat([batch.reason_tokens[after], verdict[4:5]]),
    )
    rec = recommendation_loss(output.score, label)
    words = torch.nn.functional.cross_entropy(output.verdict_logits, verdict, reduction="none")
    once = [0, 1, 2, 3, 5, 6, 7]
    expected = 2.0 * (0.1 * rec[4] + 0.9 * think) + 0.8 * (0.8 * rec + 0.2 * words)[once].sum()
    with torch.no_grad():
        assert float(only_first(**tensors)) == pytest.approx(float(expected) / 7, rel=1e-5)


def test_thinking_alone_is_of_reasons_and_that_a_verdict_comes_before_them_by_hand() -> None:
    table = interactions(users=2, ties=False)
    plain = layout_of(table, reasons={1: REASON})
    model = recommender(table)
    windows = [Window(np.arange(4), np.ones(4, bool)), Window(np.arange(12, 15), np.ones(3, bool))]

    def loss(layout: StreamLayout, label: NDArray[np.int8], reason_first: float = 0.0) -> float:
        objective = Objective(model, label, 1 / 7, params(reason_first=reason_first), think_only=True)
        with torch.no_grad():
            return float(objective(**layout.collate(windows).tensors()))

    with torch.no_grad():
        output = model(plain.collate(windows))
        words = float(torch.nn.functional.cross_entropy(output.reason_logits, torch.from_numpy(REASON).long()))
        either = output.verdict_logits[1].softmax(-1)[list(plain.vocabulary.verdicts)].sum()
    found = loss(plain, plain.label)
    assert found == pytest.approx((4 * words - float(either.log())) / 5, rel=1e-5)  # a verdict it is, whichever
    assert loss(plain, 1 - plain.label) == found  # no label is asked for
    both = replace(plain, thoughts=plain.reasons)  # after its reason, a verdict is
    assert loss(both, plain.label) == pytest.approx(found, rel=1e-5)
    assert loss(both, 1 - plain.label, 1.0) != pytest.approx(loss(both, plain.label, 1.0), rel=1e-3)


def test_scores_before_a_reason_alone_are_compared_in_pairs() -> None:
    table = interactions(users=2, ties=False)
    plain = layout_of(table, reasons={1: REASON, 2: REASON})
    objective = Objective(recommender(table), plain.label, 0.1, params(alpha=0.0, beta=0.0, eta=0.0, gamma=0.0))
    window = [Window(np.arange(6), np.ones(6, bool))]
    with torch.no_grad():
        before = float(objective(**plain.collate(window).tensors()))
        told = float(objective(**replace(plain, thoughts=plain.reasons).collate(window).tensors()))
    assert told == pytest.approx(before, rel=1e-5) and before > 0


@pytest.mark.parametrize(("share", "met"), [(0.0, []), (0.5, [0, 20] * 2)])
def test_traced_rows_are_met_a_second_time_only_where_that_is_asked_for(
    share: float, met: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table = interactions(1, users=6, rows=20)
    layout, rows = layout_of(table, reasons={0: REASON, 20: REASON, 39: REASON}), np.arange(len(table))
    forward, seen = Objective.forward, []

    def watched(self: Objective, **tensors: torch.Tensor) -> torch.Tensor:
        if self.training:
            seen.extend(tensors["target_rows"][tensors["reason_first"]].tolist())
        return forward(self, **tensors)

    monkeypatch.setattr(Objective, "forward", watched)
    model, valid = recommender(table), rows[rows % 20 >= 14]  # 39 is one of these
    result = finetune(
        model,
        layout,
        train_rows=rows[rows % 20 < 14],
        valid_rows=valid,
        user=table["user"].to_numpy(),
        params=params(reason_first=share),
        settings=TrainSettings(name="sft", epochs=2, learning_rate=0.01, weight_decay=0.0, seed=1),
    )
    assert sorted(seen) == sorted(met)
    assert auc(table["label"][valid], score(model, layout, valid)) == pytest.approx(result.best["auc"])


@pytest.mark.parametrize(
    ("thinking", "share", "weights"),
    [
        (0.4, 0.2, (0.5, 0.8)),
        (0.01, 0.2, (4.0, 0.8)),  # capped: one trace may not count for more
        (0.0, 0.2, (0.0, 1.0)),  # no traces: nothing but recommending
        (0.4, 0.0, (0.0, 1.0)),
    ],
)
def test_each_kind_counts_by_its_share_over_its_frequency(
    thinking: float, share: float, weights: tuple[float, float]
) -> None:
    table = interactions()
    objective = Objective(recommender(table), table["label"].to_numpy(), thinking, params(think_share=share))
    assert (objective.think_weight, objective.rec_weight) == pytest.approx(weights)


def test_fine_tuning_learns_and_only_what_may_be_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table = interactions(1, users=6, rows=20)
    table["label"] = (table["item"] < 4).astype(np.int8)
    layout, rows = layout_of(table, reasons={3: REASON}), np.arange(len(table))
    model = recommender(table, dropout=0.1)
    frozen = model.backbone.get_input_embeddings()
    frozen.requires_grad_(False)
    before = frozen.weight.clone()
    train, valid = rows[rows % 20 < 14], rows[rows % 20 >= 14]
    result = finetune(
        model,
        layout,
        train_rows=train,
        valid_rows=valid,
        user=table["user"].to_numpy(),
        params=params(),
        settings=TrainSettings(name="sft", epochs=6, learning_rate=0.01, weight_decay=0.0, seed=1),
    )
    assert result.best["auc"] > 0.8
    assert auc(table["label"][valid], score(model, layout, valid)) == pytest.approx(result.best["auc"])
    assert frozen.weight.equal(before)


def test_traces_held_out_are_measured_a_token_each_after_its_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table = interactions(1, users=6, rows=20)
    layout, rows = layout_of(table, reasons={3: REASON}), np.arange(len(table))
    untaught = replace(layout, reasons={5: REASON, 27: REASON[:2]})
    model = recommender(table)
    with torch.no_grad():
        losses: list[float] = []
        for row, tokens in untaught.reasons.items():
            alone = layout_of(table, reasons={row: tokens})
            window = alone.scoring_windows(np.asarray([row]), np.asarray([0]))
            logits = model(alone.collate(window)).reason_logits
            expected = torch.nn.functional.cross_entropy(logits, torch.from_numpy(tokens).long(), reduction="none")
            losses += expected.tolist()
    assert len(losses) == 6
    assert think_loss(model, untaught) == pytest.approx(np.mean(losses), rel=1e-5)
    assert np.isnan(think_loss(model, replace(layout, reasons={})))
    result = finetune(
        model,
        layout,
        train_rows=rows[rows % 20 < 14],
        valid_rows=rows[rows % 20 >= 14],
        user=table["user"].to_numpy(),
        params=params(),
        settings=TrainSettings(
            name="thinking", epochs=3, learning_rate=0.01, weight_decay=0.0, seed=1, metric="think_loss"
        ),
        untaught=untaught,
    )
    assert result.best["think_loss"] == min(epoch["think_loss"] for epoch in result.epochs)
    assert think_loss(model, untaught) == pytest.approx(result.best["think_loss"], rel=1e-5)


def test_gradient_checkpointing_computes_twice_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    passes: list[int] = []
    forward = LlamaMLP.forward

    def counting(self: LlamaMLP, x: torch.Tensor) -> torch.Tensor:
        passes[-1] += torch.is_grad_enabled()
        return forward(self, x)

    monkeypatch.setattr(LlamaMLP, "forward", counting)
    weights = []
    for wanted in (False, True):
        passes.append(0)
        with resumable(run_params(gradient_checkpointing=wanted)):
            weights.append(work.fine_tuned()[1])
    assert passes[1] == 2 * passes[0] > 0
    assert all(weight.equal(weights[1][name]) for name, weight in weights[0].items())


def test_precision_is_that_of_the_passes_not_of_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seen: set[torch.dtype] = set()
    forward = LlamaMLP.forward

    def watching(self: LlamaMLP, x: torch.Tensor) -> torch.Tensor:
        out = forward(self, x)
        if torch.is_grad_enabled():
            seen.add(out.dtype)
        return out

    monkeypatch.setattr(LlamaMLP, "forward", watching)
    said, weights = work.fine_tuned()
    assert seen == {torch.float32}  # auto, on a processor
    seen.clear()
    settings = replace(work.SETTINGS, trainer=PLAIN.model_copy(update={"precision": "bf16"}))
    roughly, others = work.fine_tuned(settings=settings)
    assert seen == {torch.bfloat16}
    assert {weight.dtype for weight in others.values()} == {torch.float32}
    assert not all(weight.equal(weights[name]) for name, weight in others.items())
    for mine, theirs in zip(roughly["epochs"], said["epochs"], strict=True):
        assert mine["train_loss"] == pytest.approx(theirs["train_loss"], rel=0.02)


def test_validation_measures_the_log_loss_of_the_scores_probabilities() -> None:
    user, label = np.asarray([0, 0, 1, 1]), np.asarray([0, 1, 1, 0])
    found = measures(user, label, np.asarray([0.0, 0.0, np.log(3), -np.log(3)], np.float32))
    assert found["log_loss"] == pytest.approx((2 * np.log(2) + 2 * np.log(4 / 3)) / 4)
    assert found["auc"] == pytest.approx(validation(user, label, np.asarray([0, 0, 1, -1]))["auc"])


def test_validation_weighs_both_measures_and_takes_a_missing_one_for_chance() -> None:
    user, label = np.asarray([0, 0, 1, 1]), np.asarray([0, 1, 0, 1])
    found = validation(user, label, np.asarray([0.1, 0.2, 0.9, 0.8]))
    assert found["auc"] == 0.5 and found["uauc"] == 0.5 and found["objective"] == 0.5
    alone = validation(np.arange(4), label, np.asarray([0.0, 1.0, 0.0, 1.0]))
    assert alone["auc"] == 1 and alone["objective"] == 0.75
    assert validation(user[:0], label[:0], np.zeros(0))["objective"] == 0.5
