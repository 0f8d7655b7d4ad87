"""The training loop: a killed phase goes on to the same bytes, the best epoch stays, nothing is left behind."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from tests.project import run_params
from thinkrec import artifacts
from thinkrec.errors import UserError
from thinkrec.lm.trainer import CHECKPOINTS, Plan, TrainSettings, learning_rate, resumable, train

SETTINGS = TrainSettings(name="phase", epochs=4, learning_rate=0.05, weight_decay=0.01, seed=3)
OFTEN = run_params(checkpoint_steps=2)


class Killed(BaseException):
    """Not an Exception: nothing may swallow it."""


class Objective(nn.Module):
    """Least squares through dropout, above a frozen layer."""

    def __init__(self, seed=0, frozen=1.0):
        super().__init__()
        torch.manual_seed(seed)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        with torch.no_grad():
            self.frozen.weight.mul_(frozen)
        self.weight = nn.Parameter(torch.randn(4))
        self.dropout = nn.Dropout(0.3)

    def forward(self, x, y):
        return (self.dropout(self.frozen(x)) @ self.weight - y).square().mean()


def plan(epoch):
    return torch.randperm(5, generator=torch.Generator().manual_seed(epoch)).tolist()


def collate(batch):
    generator = torch.Generator().manual_seed(100 + batch)
    x = torch.randn(6, 4, generator=generator)
    return {"x": x, "y": x.sum(1)}


class Validate:
    """Given objectives, one per validation, from the `start`-th on; optionally killed at one of them."""

    def __init__(self, objectives, kill_at=None, start=0):
        self.objectives, self.kill_at, self.calls = objectives, kill_at, start

    def __call__(self):
        self.calls += 1
        if self.calls == self.kill_at:
            raise Killed
        return {"objective": self.objectives[self.calls - 1]}


class Remembering(Objective):
    """Keeps the loss of every training step, and ends its process for good in the step after `dying`."""

    def __init__(self, dying=-1):
        super().__init__()
        self.losses: list[float] = []
        self.dying = dying

    def forward(self, x, y):
        if len(self.losses) == self.dying:
            os.kill(os.getpid(), signal.SIGKILL)
        loss = super().forward(x, y)
        if self.training:
            self.losses.append(loss.item())
        return loss


RISING = [0.1, 0.2, 0.3, 0.4]


def run(
    objective,
    validate=None,
    *,
    settings=SETTINGS,
    plan=plan,
    inputs=(),
):
    validate = Validate(RISING) if validate is None else validate
    return train(objective, Plan(steps=plan, collate=collate, inputs=inputs), validate, settings)


def left_over():
    return sorted(CHECKPOINTS.iterdir()) if CHECKPOINTS.is_dir() else []


def step_of(checkpoint):
    """How many steps had been taken when a checkpoint was written."""
    with safe_open(checkpoint, framework="pt") as file:
        return json.loads(file.metadata()["progress"])["step"]


def kill_after(epochs, objectives=RISING, objective=Objective, **how):
    with pytest.raises(Killed):
        run(objective(), Validate(objectives, kill_at=epochs + 1), **how)


@pytest.mark.parametrize(("epochs", "objectives"), [(1, RISING), (3, RISING), (2, [0.9, 0.1, 0.3, 0.2])])
def test_a_killed_phase_goes_on_to_the_same_bytes(epochs, objectives):
    expected = run(whole := Objective(), Validate(objectives))
    kill_after(epochs, objectives)
    (checkpoint,) = left_over()
    assert step_of(checkpoint) == 5 * epochs
    checkpoint.with_name(f".{checkpoint.name}.partial").write_bytes(b"half-written")  # which is passed over
    torch.manual_seed(999)  # the new process is in another random state
    validate = Validate(objectives, start=epochs)
    assert run(again := Objective(), validate) == expected
    assert validate.calls == 4
    assert again.weight.equal(whole.weight)
    assert not left_over()


def run_until_killed(step):
    with resumable(OFTEN):
        run(Remembering(dying=step))


@pytest.mark.parametrize(("dying", "step"), [(4, 4), (13, 12)])
def test_a_phase_killed_within_an_epoch_goes_on_to_the_same_bytes(dying, step):
    """Killed for good, by SIGKILL, in a process of its own, in the step after so many."""
    expected = run(whole := Objective())  # checkpoints within change nothing
    killed = multiprocessing.get_context("spawn").Process(target=run_until_killed, args=(dying,))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert [step_of(path) for path in left_over()] == [step]
    again = Remembering()
    with resumable(OFTEN):
        assert run(again, Validate(RISING, start=step // 5)) == expected
    assert len(again.losses) == 20 - step
    assert again.weight.equal(whole.weight)
    assert not left_over()


@pytest.mark.parametrize("changes", [{"checkpoint_steps": 2}, {"gradient_checkpointing": True}])
def test_operational_settings_may_change_before_a_phase_goes_on(changes):
    kill_after(1)
    again = Remembering()
    with resumable(run_params(**changes)):
        run(again, Validate(RISING, start=1))
    assert len(again.losses) == 15


@pytest.mark.parametrize("spoil", ["empty", "half", "of another version"])
def test_a_checkpoint_that_cannot_be_read_begins_the_phase_anew(spoil, capsys):
    expected, objective = Objective(), Objective()
    run(expected)
    with pytest.raises(Killed):
        run(Objective(), Validate(RISING, kill_at=3))
    (checkpoint,) = CHECKPOINTS.iterdir()
    if spoil == "of another version":
        tensors = load_file(checkpoint)
        save_file(
            {key: tensors[key] for key in tensors if key != "loss/0"},
            checkpoint,
            artifacts.read_tensor_metadata(checkpoint),
        )
    else:
        os.truncate(checkpoint, checkpoint.stat().st_size // 2 * (spoil == "half"))
    run(objective)
    assert torch.equal(objective.weight, expected.weight)
    assert f"phase: {checkpoint} is damaged" in capsys.readouterr().err


def test_training_that_diverges_stops_at_its_step_and_says_what_to_lower():
    with pytest.raises(UserError, match=r"^phase: training diverged at step \d, .*lower the learning rate .1e\+30. of"):
        run(Objective(), settings=replace(SETTINGS, learning_rate=1e30))
    assert not left_over()


def test_checkpoints_hold_only_what_trains_and_go_when_all_is_done():
    kill_after(1)
    (checkpoint,) = left_over()
    with safe_open(checkpoint, framework="pt") as file:
        kinds = {"weight/weight", "best/weight", "step/weight", "exp_avg/weight", "exp_avg_sq/weight"}
        assert {key for key in file.keys() if not key.startswith("cuda/")} == {*kinds, "loss/0", "random/0"}  # noqa: SIM118
    run(Objective())
    assert not left_over()


def two_phases(objectives, *, killed=False):
    """Two phases, the second of which begins with something drawn; their results, weights and numbers of steps."""
    with resumable(run_params()):
        first = Remembering()
        results = [run(first, Validate(objectives))]
        drawn = torch.randn(4)
        second = Remembering()
        with torch.no_grad():
            second.weight.copy_(drawn)
        validate = Validate(RISING, kill_at=1 if killed else None)
        results.append(run(second, validate, settings=replace(SETTINGS, name="second", epochs=2)))
    return results, [first.weight, drawn, second.weight], [len(first.losses), len(second.losses)]


@pytest.mark.parametrize("objectives", [RISING, [0.9, 0.1, 0.3, 0.2], [float("nan")] * 4])
def test_of_killed_phases_those_that_had_ended_are_not_trained_again(objectives):
    expected, weights, steps = two_phases(objectives)
    assert steps == [20, 10] and not left_over()
    with pytest.raises(Killed):
        two_phases(objectives, killed=True)
    torch.manual_seed(999)
    again, others, trained = two_phases(objectives)
    assert trained == [0, 10] and repr(again) == repr(expected)  # NaN is NaN
    assert all(mine.equal(theirs) for mine, theirs in zip(others, weights, strict=True))
    assert not left_over()


def test_a_phase_that_stopped_early_is_not_trained_on_if_it_is_killed_after_its_end():
    patient, objectives = replace(SETTINGS, patience=1), [0.5, 0.4, 0.9, 0.9]
    with pytest.raises(Killed), resumable(run_params()):
        expected = run(whole := Objective(), Validate(objectives), settings=patient)
        raise Killed
    again = Remembering()
    with resumable(run_params()):
        assert run(again, Validate(objectives, start=2), settings=patient) == expected
    assert not again.losses and again.weight.equal(whole.weight)


def test_training_stops_when_patience_runs_out_also_over_a_kill():
    patient, falling = replace(SETTINGS, patience=2), [0.5, 0.4, 0.3, 0.6]
    assert len(run(Objective(), Validate(falling), settings=patient).epochs) == 3
    kill_after(2, falling, settings=patient)
    assert len(run(Objective(), Validate(falling, start=2), settings=patient).epochs) == 3


@pytest.mark.parametrize(("metric", "best", "epochs"), [("auc", 3, 4), ("log_loss", 2, 3), ("objective", 1, 2)])
def test_the_named_metric_says_which_epoch_is_best_and_whether_patience_lasts(metric, best, epochs):
    measures = [(0.9, 0.1, 0.5), (0.2, 0.3, 0.1), (0.3, 0.8, 0.4), (0.1, 0.2, 0.2)]
    seen = []
    objective = Objective()

    def validate():
        seen.append(objective.weight.detach().clone())
        assert not objective.training
        return dict(zip(("objective", "auc", "log_loss"), measures[len(seen) - 1], strict=True))

    result = run(objective, validate, settings=replace(SETTINGS, metric=metric))
    assert result.best["epoch"] == best
    assert objective.weight.equal(seen[best - 1]) and not seen[best - 1].equal(seen[3])
    assert [epoch["epoch"] for epoch in result.epochs] == [1, 2, 3, 4]
    assert [epoch["objective"] for epoch in result.epochs] == [0.9, 0.2, 0.3, 0.1]
    assert not objective.training
    seen.clear()
    objective = Objective()
    assert len(run(objective, validate, settings=replace(SETTINGS, metric=metric, patience=1)).epochs) == epochs


@pytest.mark.parametrize("metric", ["objective", "auc", "uauc"])
def test_where_valid_has_one_class_the_log_loss_judges(metric):
    losses = iter([0.7, 0.5, 0.6, 0.8])

    def validate():
        return {"auc": math.nan, "uauc": math.nan, "objective": 0.5, "log_loss": next(losses)}

    assert run(Objective(), validate, settings=replace(SETTINGS, metric=metric)).best["epoch"] == 2


def test_where_no_epoch_can_be_judged_the_last_one_stays():
    assert run(Objective(), Validate([float("nan")] * 4)).best["epoch"] == 4


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not():
    objectives = [Objective() for _ in range(3)]
    for seed, objective in zip((3, 3, 4), objectives, strict=True):
        run(objective, settings=replace(SETTINGS, seed=seed))
    same, again, other = (objective.weight for objective in objectives)
    assert same.equal(again) and not same.equal(other)


class Half(Objective):
    """Other parameters of the loss."""

    def forward(self, x, y):
        return 0.5 * super().forward(x, y)


class Adapted(Objective):
    """With a fresh LoRA, which changes nothing yet, whatever its scale and dropout."""

    def __init__(self, *, alpha=4, dropout=0.1):
        super().__init__()
        inject_adapter_in_model(
            LoraConfig(r=2, lora_alpha=alpha, lora_dropout=dropout, target_modules=["frozen"]), self
        )
        self.weight.requires_grad_(True)


@pytest.mark.parametrize(
    ("objective", "change"),
    [
        (lambda: Objective(seed=1), {}),
        (lambda: Objective(frozen=2.0), {}),
        (Half, {}),
        (lambda: Adapted(alpha=8), {}),
        (lambda: Adapted(dropout=0.5), {}),
        (Objective, {"plan": lambda epoch: plan(epoch)[:4]}),
        (Objective, {"plan": lambda epoch: plan(epoch)[::-1]}),
        (Objective, {"settings": replace(SETTINGS, learning_rate=0.01)}),
    ],
    ids=["weights", "frozen weights", "loss", "scale", "dropout", "number of batches", "batches", "settings"],
)
def test_another_phases_checkpoint_is_not_picked_up(objective, change):
    kill_after(1, objective=Adapted if isinstance(objective(), Adapted) else Objective)
    validate = Validate(RISING)
    result = run(objective(), validate, **change)
    assert validate.calls == 4 == len(result.epochs)
    assert len(left_over()) == 1  # the killed phase's own still waits


INPUTS = [{"rows": np.arange(3)}, SETTINGS, "text"]


@pytest.mark.parametrize(
    ("inputs", "resumed"),
    [
        ([{"rows": np.arange(3)}, *INPUTS[1:]], True),
        ([{"rows": np.arange(3) + 1}, *INPUTS[1:]], False),
        ([{"rows": np.arange(3).astype(np.int32)}, *INPUTS[1:]], False),
        ([{"row": np.arange(3)}, *INPUTS[1:]], False),
        ([INPUTS[0], replace(SETTINGS, seed=9), "text"], False),
        ([*INPUTS[:2], "te", "xt"], False),
    ],
    ids=["same", "values", "type", "name", "field", "parts"],
)
def test_a_phase_goes_on_only_with_the_inputs_it_began_with(inputs, resumed):
    kill_after(1, inputs=INPUTS)
    validate = Validate(RISING, start=int(resumed))
    result = run(Objective(), validate, inputs=inputs)
    assert validate.calls == 4 == len(result.epochs)


@pytest.mark.parametrize(
    ("shorter", "validated"), [(0, [5, 10, 15, 20]), (1, [5, 9, 14, 18])], ids=["even epochs", "uneven epochs"]
)
def test_every_epoch_names_its_mean_training_loss(shorter, validated):
    objective = Remembering()
    result = run(objective, plan=lambda epoch: plan(epoch)[: 5 - shorter * (epoch % 2)])
    steps = list(zip([0, *validated], validated, strict=False))
    means = [sum(objective.losses[begin:end]) / (end - begin) for begin, end in steps]
    assert [epoch["train_loss"] for epoch in result.epochs] == pytest.approx(means, rel=1e-5)


def test_a_plan_without_batches_is_an_error():
    with pytest.raises(ValueError, match="nothing to train on"):
        run(Objective(), plan=lambda epoch: [])


def test_loss_is_learned_and_frozen_weights_stay():
    objective = Objective()
    before = objective.frozen.weight.clone()
    result = run(objective, Validate([0.1 * k for k in range(1, 41)]), settings=replace(SETTINGS, epochs=40))
    assert result.epochs[-1]["train_loss"] < 0.5 * result.epochs[0]["train_loss"]
    assert objective.frozen.weight.equal(before)


def test_the_rate_rises_over_a_twentieth_of_the_steps_and_falls_to_nothing():
    rates = [learning_rate(SETTINGS, step, 40) / SETTINGS.learning_rate for step in range(41)]
    assert rates[:3] == [0, 0.5, 1] and rates[21] == pytest.approx(0.5) and rates[40] == pytest.approx(0)
    assert learning_rate(SETTINGS, 0, 19) == SETTINGS.learning_rate  # too short to warm up
