"""Fine-tuning: each loss and a batch's put together by hand, each sample kind by its share, and a model that learns."""

from dataclasses import replace
from functools import cache
from math import exp, log

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers.models.llama.modeling_llama import LlamaMLP

from tests.builders import interactions, layout_of, recommender, tokenizer
from tests.lm.work import REASON, SETTINGS, SFT, fine_tuned, tune
from tests.project import run_params
from thinkrec.lm.adapters import add_lora
from thinkrec.lm.finetune import encode_reasons, measures, think_loss, up_to_last_reason
from thinkrec.lm.losses import Objective, answer_loss, pairwise_loss, recommendation_loss
from thinkrec.lm.scoring import score
from thinkrec.lm.trainer import PLAIN, computes_in_bf16, kept_by_token, resumable
from thinkrec.metrics import auc, validation
from thinkrec.params import LoraParams
from thinkrec.text.layout import Window
from thinkrec.text.vocabulary import find_vocabulary

WINDOWS = [Window(np.arange(4), np.ones(4, bool)), Window(np.arange(12, 15), np.ones(3, bool))]
ONCE = replace(SETTINGS, name="sft", weight_decay=0.0)


def test_recommendation_loss_is_binary_cross_entropy_on_the_score():
    loss = recommendation_loss(torch.tensor([0.0, 2.0, 2.0]), torch.tensor([1, 1, 0]))
    assert loss.tolist() == pytest.approx([log(2), log(1 + exp(-2)), log(1 + exp(2))])


def test_answer_loss_is_the_mean_over_the_verdict_and_its_reason_if_there_is_one():
    verdicts = torch.tensor([log(2), log(4 / 3)])
    reasons = torch.tensor([[0.0, log(7)], [0.0, 0.0]])
    loss = answer_loss(verdicts, reasons, torch.tensor([1, 0]), torch.tensor([1, 1]))
    # Target 0 has its verdict alone; target 1 a verdict at 3/4 and tokens at 7/8 and 1/2.
    assert loss.tolist() == pytest.approx([log(2), (log(4 / 3) + log(8 / 7) + log(2)) / 3])
    none = torch.zeros(0, dtype=torch.long)
    assert answer_loss(verdicts, torch.zeros(0, 2), none, none).equal(verdicts)


def test_pairwise_loss_compares_within_a_sequence_only():
    scores, label = torch.tensor([1.0, 0.0, 5.0, -1.0]), torch.tensor([1, 0, 0, 1])
    assert float(pairwise_loss(scores, label, torch.tensor([0, 0, 1, 2]))) == pytest.approx(log(1 + exp(-1)))
    two = pairwise_loss(scores, label, torch.tensor([0, 0, 1, 1]))
    assert float(two) == pytest.approx((log(1 + exp(-1)) + log(1 + exp(6))) / 2)
    assert float(pairwise_loss(scores[:2], torch.tensor([1, 1]), torch.tensor([0, 0]))) == 0  # without a pair


def test_reasons_are_what_follows_the_verdict_and_end():
    traces = pd.DataFrame({"row": [7, 2], "text": ["Yes. The sea suits.", "No. Too slow."]})
    reasons = encode_reasons(tokenizer(), traces)
    assert list(reasons) == [7, 2]
    assert tokenizer().decode(reasons[7], skip_special_tokens=True) == ". The sea suits."
    assert reasons[2][-1] == 1 and (reasons[2] == 1).sum() == 1
    stop = find_vocabulary(tokenizer()).stop  # what stands in a verdict's place, and what follows one, is the same
    assert stop and all(tuple(tokens[: len(stop)]) == stop for tokens in reasons.values())


@cache
def world():
    """A model, prompts in which row 1 has a reason, and such in which it thinks first as well."""
    table = interactions(users=2, ties=False)
    layout = layout_of(table, reasons={1: REASON})
    return recommender(table), layout, replace(layout, thoughts=layout.reasons)


@torch.no_grad()
def loss_of(
    layout,
    windows=WINDOWS,
    *,
    label=None,
    thinking=0.1,
    think_only=False,
    **changes,
):
    """The loss of a batch of these windows, in which the labels asked for may be others than those shown."""
    params, label = SFT.model_copy(update=changes), layout.label if label is None else label
    objective = Objective(world()[0], label, thinking, params, think_only=think_only)
    return float(objective(**layout.collate(windows).tensors()))


def by_target(layout, output, rows):
    """Labels of the targets `rows`, the verdicts that state them, L_rec and the verdicts' cross-entropy."""
    label = torch.from_numpy(layout.label[rows].astype(np.int64))
    verdict = torch.tensor(layout.vocabulary.verdicts)[label]
    losses = recommendation_loss(output.score, label), cross_entropy(output.verdict_logits, verdict, reduction="none")
    return label, verdict, *losses


@torch.no_grad()
def test_the_loss_of_a_batch_by_hand():
    model, layout, _ = world()
    output = model(layout.collate(WINDOWS))
    label, _, rec, words = by_target(layout, output, [0, 1, 2, 3, 12, 13, 14])
    assert 0 < label.sum() < 7
    think = answer_loss(words, output.reason_logits, torch.from_numpy(REASON).long(), torch.tensor([1] * 4))
    both = 0.8 * (0.8 * rec + 0.2 * words)  # every row is recommended
    both[1] += 2.0 * (0.1 * rec[1] + 0.9 * think[1])  # and one is reasoned about besides
    pairs = pairwise_loss(output.score, label, torch.tensor([0] * 4 + [1] * 3))
    assert loss_of(layout) == pytest.approx(float(both.mean() + 0.3 * pairs), rel=1e-5)


@torch.no_grad()
def test_a_trace_met_in_both_orders_counts_once_by_hand():
    model, plain, layout = world()
    first, last, mixed = (loss_of(layout, reason_first=share, pairwise=0.0) for share in (1.0, 0.0, 0.25))
    assert mixed == pytest.approx(0.25 * first + 0.75 * last, rel=1e-5)
    assert last == pytest.approx(loss_of(plain, pairwise=0.0))
    batch = layout.collate(WINDOWS)
    output = model(batch)
    assert batch.reason_first.tolist() == [False] * 4 + [True] + [False] * 3
    _, verdict, rec, words = by_target(layout, output, batch.target_rows.tolist())
    after = batch.reason_targets == 4
    think = cross_entropy(
        torch.cat([output.reason_logits[after], output.verdict_logits[4:5]]),
        torch.cat([batch.reason_tokens[after], verdict[4:5]]),
    )
    once = [0, 1, 2, 3, 5, 6, 7]
    expected = 2.0 * (0.1 * rec[4] + 0.9 * think) + 0.8 * (0.8 * rec + 0.2 * words)[once].sum()
    assert first == pytest.approx(float(expected) / 7, rel=1e-5)


@torch.no_grad()
def test_thinking_alone_is_of_reasons_and_that_a_verdict_comes_before_them_by_hand():
    model, plain, both = world()
    model.match = None
    alone = {"thinking": 1 / 7, "think_only": True}
    output = model(plain.collate(WINDOWS))
    words = float(cross_entropy(output.reason_logits, torch.from_numpy(REASON).long()))
    either = output.verdict_logits[1].softmax(-1)[list(plain.vocabulary.verdicts)].sum()
    loss = loss_of(plain, **alone)
    assert loss == pytest.approx((4 * words - float(either.log())) / 5, rel=1e-5)  # a verdict it is, whichever
    assert loss_of(plain, label=1 - plain.label, **alone) == loss  # no label is asked for
    assert loss_of(both, **alone) == pytest.approx(loss, rel=1e-5)  # after its reason, a verdict is
    asked = [loss_of(both, label=label, reason_first=1.0, **alone) for label in (both.label, 1 - both.label)]
    assert asked[0] != pytest.approx(asked[1], rel=1e-3)


@torch.no_grad()
def test_what_comes_after_the_last_reason_is_left_out_and_no_reason_notices():
    table = interactions()
    layout, model = layout_of(table, reasons={1: REASON, 2: REASON}), recommender(table).eval()
    (kept,) = up_to_last_reason(layout, WINDOWS)
    assert kept.rows.tolist() == [0, 1, 2] and kept.target.all()
    before, after = (model(layout.collate(windows)).reason_logits for windows in (WINDOWS[:1], [kept]))
    assert len(after) == 2 * len(REASON) and torch.allclose(before, after, atol=1e-6)


def test_scores_before_a_reason_alone_are_compared_in_pairs():
    _, plain, thinking_first = world()
    nothing_else = {"alpha": 0.0, "beta": 0.0, "eta": 0.0, "gamma": 0.0}
    windows = [Window(np.arange(6), np.ones(6, bool))]
    before = loss_of(plain, windows, **nothing_else)
    assert loss_of(thinking_first, windows, **nothing_else) == pytest.approx(before, rel=1e-5) and before > 0


@pytest.mark.parametrize(
    ("thinking", "share", "weights"),
    [
        (0.4, 0.2, (0.5, 0.8)),
        (0.01, 0.2, (4.0, 0.8)),  # capped: one trace may not count for more
        (0.0, 0.2, (0.0, 1.0)),  # no traces: nothing but recommending
        (0.4, 0.0, (0.0, 1.0)),
    ],
)
def test_each_kind_counts_by_its_share_over_its_frequency(thinking, share, weights):
    model, layout, _ = world()
    objective = Objective(model, layout.label, thinking, SFT.model_copy(update={"think_share": share}))
    assert (objective.think_weight, objective.rec_weight) == pytest.approx(weights)


@pytest.mark.parametrize(("share", "met"), [(0.0, []), (0.5, [0, 20] * 2)])
def test_traced_rows_are_met_a_second_time_only_where_that_is_asked_for(share, met, monkeypatch):
    table = interactions(1, users=6, rows=20)
    layout = layout_of(table, reasons={0: REASON, 20: REASON, 39: REASON})  # 39 is one of valid
    forward, seen = Objective.forward, []

    def watched(self, **tensors):
        if self.training:
            seen.extend(tensors["target_rows"][tensors["reason_first"]].tolist())
        return forward(self, **tensors)

    monkeypatch.setattr(Objective, "forward", watched)
    params = SFT.model_copy(update={"reason_first": share, "batch_rows": 1000, "batch_tokens": 600})
    tune(table, recommender(table), layout, params, ONCE)
    assert sorted(seen) == sorted(met)


def test_fine_tuning_learns_and_only_what_may_be_learned():
    table = interactions(1, users=6, rows=20)
    table["label"] = (table["item"] < 4).astype(np.int8)
    layout, valid = layout_of(table, reasons={3: REASON}), np.flatnonzero(np.arange(len(table)) % 20 >= 14)
    model = recommender(table, dropout=0.1)
    frozen = model.backbone.get_input_embeddings().requires_grad_(False)
    before = frozen.weight.clone()
    params = SFT.model_copy(update={"batch_rows": 1000, "batch_tokens": 600})
    result = tune(table, model, layout, params, replace(ONCE, epochs=6))
    assert result.best["auc"] > 0.8
    assert auc(table["label"][valid], score(model, layout, valid)) == pytest.approx(result.best["auc"])
    assert frozen.weight.equal(before)


def test_traces_held_out_are_measured_a_token_each_after_its_verdict():
    table = interactions(1, users=6, rows=20)
    layout, model = layout_of(table, reasons={3: REASON}), recommender(table)
    untaught = replace(layout, reasons={5: REASON, 27: REASON[:2]})
    losses = []
    for row, tokens in untaught.reasons.items():
        alone = layout_of(table, reasons={row: tokens})
        with torch.no_grad():
            logits = model(alone.collate(alone.scoring_windows(np.asarray([row]), np.asarray([0])))).reason_logits
        losses += cross_entropy(logits, torch.from_numpy(tokens).long(), reduction="none").tolist()
    assert len(losses) == 6
    assert think_loss(model, untaught) == pytest.approx(np.mean(losses), rel=1e-5)
    assert np.isnan(think_loss(model, replace(layout, reasons={})))
    settings = replace(ONCE, epochs=3, metric="think_loss")
    result = tune(table, model, layout, settings=settings, untaught=untaught)
    assert result.best["think_loss"] == min(epoch["think_loss"] for epoch in result.epochs)
    assert think_loss(model, untaught) == pytest.approx(result.best["think_loss"], rel=1e-5)


@pytest.fixture
def passes(monkeypatch):
    """Grows by what a layer puts out, for each time that it is computed where gradients are wanted."""
    forward, computed = LlamaMLP.forward, []

    def watched(self, x):
        if torch.is_grad_enabled():
            computed.append(self.down_proj(x.new_zeros(1, self.down_proj.in_features)).dtype)
        return forward(self, x)

    monkeypatch.setattr(LlamaMLP, "forward", watched)
    return computed


def test_gradient_checkpointing_computes_twice_and_changes_nothing(passes):
    _, weights = fine_tuned()
    once = len(passes)
    with resumable(run_params(gradient_checkpointing=True)):
        _, others = fine_tuned()
    assert len(passes) == 3 * once > 0
    assert all(weight.equal(others[name]) for name, weight in weights.items())


@pytest.mark.parametrize(("much", "times"), [(10**9, 1), (0, 2)])
def test_activations_are_computed_twice_where_they_would_take_much(passes, much, times, monkeypatch):
    monkeypatch.setattr("thinkrec.lm.trainer.MUCH", much)
    fine_tuned()
    once = len(passes)
    with resumable(run_params(gradient_checkpointing="auto")):
        fine_tuned()
    assert len(passes) == (1 + times) * once


def test_what_is_kept_counts_from_the_first_layer_that_a_gradient_goes_through():
    model = recommender(interactions(), layers=4)
    model.requires_grad_(False)
    add_lora(model.backbone, LoraParams(r=2, alpha=4.0, dropout=0.0), layers=1)
    assert kept_by_token(model, model.backbone) == 48 * 32
    model.projector.requires_grad_(True)
    assert kept_by_token(model, model.backbone) == 48 * 32 * 4


def test_a_processor_computes_wide_models_in_bf16_if_it_can(monkeypatch):
    cpu, can = torch.device("cpu"), torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert computes_in_bf16(PLAIN, cpu, wide=True) == can
    assert not computes_in_bf16(PLAIN, cpu, wide=False)
    assert computes_in_bf16(PLAIN, torch.device("cuda"), wide=False)
    assert not computes_in_bf16(PLAIN.model_copy(update={"precision": "fp32"}), torch.device("cuda"), wide=True)


def test_precision_is_that_of_the_passes_not_of_the_weights(passes):
    exact, weights = fine_tuned()
    assert set(passes) == {torch.float32}  # auto, on a processor
    passes.clear()
    rough, others = fine_tuned(settings=replace(SETTINGS, trainer=PLAIN.model_copy(update={"precision": "bf16"})))
    assert set(passes) == {torch.bfloat16}
    assert {weight.dtype for weight in others.values()} == {torch.float32}
    assert not all(weight.equal(weights[name]) for name, weight in others.items())
    for mine, theirs in zip(rough["epochs"], exact["epochs"], strict=True):
        assert mine["train_loss"] == pytest.approx(theirs["train_loss"], rel=0.02)


def test_validation_measures_the_log_loss_of_the_scores_probabilities():
    user, label = np.asarray([0, 0, 1, 1]), np.asarray([0, 1, 1, 0])
    scores = np.asarray([0.0, 0.0, np.log(3), -np.log(3)], np.float32)
    expected = validation(user, label, scores) | {"log_loss": (2 * np.log(2) + 2 * np.log(4 / 3)) / 4}
    assert measures(user, label, scores) == pytest.approx(expected)
