"""Fine-tuning: the batch loss put together by hand, each sample kind by its share, and a model that learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tests.builders import interactions, layout_of, recommender, tokenizer
from thinkrec.lm.finetune import Objective, encode_reasons, finetune
from thinkrec.lm.losses import answer_loss, pairwise_loss, recommendation_loss
from thinkrec.lm.scoring import score
from thinkrec.lm.trainer import TrainSettings
from thinkrec.metrics import auc, validation
from thinkrec.params import SftParams
from thinkrec.text.layout import Batch, Window

REASON = np.asarray([70, 71, 72, 1], np.int32)


def params(**changes: Any) -> SftParams:
    values = {
        "recipe": "compact", "epochs": 1, "learning_rate": 0.01, "weight_decay": 0.0, "batch_rows": 1000,
        "batch_tokens": 600, "think_share": 0.2, "trace_weight_cap": 4.0, "alpha": 0.1, "beta": 0.9, "eta": 0.8,
        "gamma": 0.2, "pairwise": 0.3, "slot_dropout": 0.0, "patience": 1,
    }  # fmt: skip
    return SftParams(**(values | changes))


def test_reasons_are_what_follows_the_verdict_and_end() -> None:
    traces = pd.DataFrame({"row": [7, 2], "text": ["Yes. The sea suits.", "No. Too slow."]})
    reasons = encode_reasons(tokenizer(), traces)
    assert list(reasons) == [7, 2]
    assert tokenizer().decode(reasons[7], skip_special_tokens=True) == ". The sea suits."
    assert reasons[2][-1] == 1 and (reasons[2] == 1).sum() == 1


def test_the_loss_of_a_batch_by_hand() -> None:
    table = interactions(users=2, ties=False)
    layout = layout_of(table, reasons={1: REASON})
    model = recommender(table)
    windows = [Window(np.arange(4), np.ones(4, bool)), Window(np.arange(12, 15), np.ones(3, bool))]
    tensors = layout.collate(windows).tensors()
    objective = Objective(model, layout.label, 0.1, params())
    assert objective.think_weight == pytest.approx(2.0) and objective.rec_weight == pytest.approx(0.8 / 0.9)
    with torch.no_grad():
        loss = float(objective(**tensors))
        batch = Batch(**tensors)
        output = model(batch)
    rows = [0, 1, 2, 3, 12, 13, 14]
    label = torch.from_numpy(table["label"].to_numpy()[rows].astype(np.int64))
    assert 0 < label.sum() < 7
    verdict = torch.tensor([layout.vocabulary.verdicts[value] for value in label.tolist()])
    rec = recommendation_loss(output.score, label)
    think = answer_loss(
        output.verdict_logits, verdict, output.reason_logits, torch.from_numpy(REASON).long(), torch.tensor([1] * 4)
    )
    plain = 0.8 / 0.9 * (0.8 * rec + 0.2 * think)
    plain[1] = 2.0 * (0.1 * rec[1] + 0.9 * think[1])
    pairs = pairwise_loss(output.score, label, torch.tensor([0] * 4 + [1] * 3))
    assert loss == pytest.approx(float(plain.mean() + 0.3 * pairs), rel=1e-5)


@pytest.mark.parametrize(
    ("thinking", "share", "weights"),
    [
        (0.4, 0.2, (0.5, 4 / 3)),
        (0.01, 0.2, (4.0, 0.8 / 0.99)),  # capped: one trace may not count for more
        (0.0, 0.2, (0.0, 1.0)),  # no traces: all rows are plain ones
        (0.4, 0.0, (0.0, 1 / 0.6)),
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


def test_validation_weighs_both_measures_and_takes_a_missing_one_for_chance() -> None:
    user, label = np.asarray([0, 0, 1, 1]), np.asarray([0, 1, 0, 1])
    found = validation(user, label, np.asarray([0.1, 0.2, 0.9, 0.8]))
    assert found["auc"] == 0.5 and found["uauc"] == 0.5 and found["objective"] == 0.5
    alone = validation(np.arange(4), label, np.asarray([0.0, 1.0, 0.0, 1.0]))
    assert alone["auc"] == 1 and alone["objective"] == 0.75
    assert validation(user[:0], label[:0], np.zeros(0))["objective"] == 0.5
