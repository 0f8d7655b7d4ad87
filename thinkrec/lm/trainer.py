"""One training loop for everything that is trained by gradient here: `transformers.Trainer`, told what a batch is.

A phase is a module whose forward returns the loss of a batch, a plan of batches per epoch (a function of seed and
epoch alone) and a validation that returns an `objective`. The best epoch's weights are kept. Only what requires
a gradient is trained, checkpointed and restored, so checkpoints of an adapter are small. A killed phase, started
again with the same weights, plan and settings, goes on from its last epoch.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils import logging

CHECKPOINTS = Path(".cache") / "checkpoints"
WEIGHTS = "trainable.safetensors"
SHORTEST_WARMED = 20  # steps: warm-up begins at a rate of 0, and a phase of one step would learn nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """What a phase is called and how it is optimised (AdamW, linear warm-up over 5 % of the steps, cosine decay)."""

    name: str
    epochs: int
    learning_rate: float
    weight_decay: float
    seed: int
    patience: int | None = None  # epochs without a better objective; None trains them all


@dataclass(frozen=True, slots=True)
class TrainResult:
    """Validation after every epoch, and the best of them; each names its `epoch`, from 1, and `train_loss`."""

    epochs: list[dict[str, float]]
    best: dict[str, float]


def train(
    objective: nn.Module,
    plan: Callable[[int], Sequence[Any]],
    collate: Callable[[Any], dict[str, Tensor]],
    validate: Callable[[], dict[str, float]],
    settings: TrainSettings,
) -> TrainResult:
    """Train `objective` and leave it holding the weights of its best epoch, in eval mode.

    `plan(epoch)` lists the batches of an epoch, `collate` makes the keyword arguments of the module's forward from
    one of them, `validate` returns measures, `objective` (higher is better) among them.
    """
    steps = _Steps(plan, settings.epochs)
    folder = CHECKPOINTS / f"{settings.name}-{_fingerprint(objective, steps, collate, settings)}"
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=len(steps),
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup_steps=0.05 if len(steps) >= SHORTEST_WARMED else 0,
        lr_scheduler_type="cosine",
        max_grad_norm=1.0,
        per_device_train_batch_size=1,
        seed=settings.seed,
        data_seed=settings.seed,
        eval_strategy="steps",
        eval_steps=steps.per_epoch,
        save_strategy="steps",
        save_steps=steps.per_epoch,
        save_total_limit=1,
        restore_callback_states_from_checkpoint=True,  # or a resumed phase forgets how long it has been patient
        load_best_model_at_end=True,
        metric_for_best_model="objective",
        greater_is_better=True,
        logging_strategy="no",  # _LogLoss says when
        report_to=[],
        disable_tqdm=not sys.stderr.isatty(),
        remove_unused_columns=False,
        use_cpu=next(objective.parameters()).device.type == "cpu",
    )
    trainer = _PlanTrainer(
        model=objective,
        args=arguments,
        train_dataset=steps,
        eval_dataset=steps,  # only for Trainer's check of its arguments: `evaluate` is ours
        data_collator=lambda batches: collate(batches[0]),
        callbacks=[_LogLoss(), *([EarlyStoppingCallback(settings.patience)] if settings.patience else [])],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.settings, trainer.validate = settings, validate
    trainer.train(resume_from_checkpoint=_last_checkpoint(folder))
    objective.eval()
    epochs = _by_epoch(trainer.state.log_history, steps.per_epoch)
    shutil.rmtree(folder, ignore_errors=True)
    return TrainResult(epochs, max(epochs, key=lambda measures: measures["objective"]))


class _Steps(Dataset[Any]):
    """All batches of all epochs in order; an epoch's plan is made when its first batch is asked for."""

    def __init__(self, plan: Callable[[int], Sequence[Any]], epochs: int) -> None:
        self.plan = lru_cache(maxsize=2)(plan)
        self.starts = [0]
        for epoch in range(epochs):
            self.starts.append(self.starts[-1] + len(self.plan(epoch)))
        if not self.starts[-1]:
            raise ValueError("nothing to train on: the plan has no batches")
        self.per_epoch = -(-self.starts[-1] // epochs)

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, step: int) -> Any:
        epoch = bisect_right(self.starts, step) - 1
        return self.plan(epoch)[step - self.starts[epoch]]


class _LogLoss(TrainerCallback):
    """Logs the training loss wherever there is a validation.

    Trainer's own `logging_steps` would miss the last one: it validates at the very last step, whether or not that
    is a whole number of epochs of the mean length, but logs only at such.
    """

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_log = control.should_evaluate


class _PlanTrainer(Trainer):
    settings: TrainSettings
    validate: Callable[[], dict[str, float]]
    control: Any

    def get_train_dataloader(self) -> DataLoader[Any]:
        loader = DataLoader(self.train_dataset, batch_size=1, shuffle=False, collate_fn=self.data_collator)
        return self.accelerator.prepare(loader)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        loss = model(**inputs)
        return (loss, None) if return_outputs else loss

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        self.model.eval()
        measures = self.validate()
        self.model.train()
        if self.args.disable_tqdm:
            shown = ", ".join(f"{name} {value:.4f}" for name, value in measures.items())
            print(
                f"{self.settings.name}: step {self.state.global_step}/{self.state.max_steps}: {shown}", file=sys.stderr
            )
        metrics = {f"eval_{name}": value for name, value in measures.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save(self, output_dir: str | None = None, state_dict: Mapping[str, Tensor] | None = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: weight.detach().clone() for name, weight in _trainable(self.model)}, folder / WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        saved = load_file(Path(resume_from_checkpoint) / WEIGHTS)
        with torch.no_grad():
            for name, weight in _trainable(model or self.model):
                weight.copy_(saved.pop(name))
        assert not saved, f"checkpoint holds weights that do not train: {sorted(saved)}"

    def _load_best_model(self) -> None:
        self._load_from_checkpoint(self.state.best_model_checkpoint)


def _trainable(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, weight) for name, weight in module.named_parameters() if weight.requires_grad]


def _last_checkpoint(folder: Path) -> str | None:
    """The last checkpoint that was written to its end (Trainer's state comes last); half-written ones are removed."""
    for checkpoint in folder.glob("checkpoint-*"):
        try:
            json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            shutil.rmtree(checkpoint)
    return get_last_checkpoint(str(folder)) if folder.is_dir() else None


def _fingerprint(
    module: nn.Module, steps: _Steps, collate: Callable[[Any], dict[str, Tensor]], settings: TrainSettings
) -> str:
    """Of what a phase starts from: a checkpoint of anything else must not be taken for its own.

    Data count by the batches of the first epoch; frozen weights and the loss' own parameters by the first batch's loss.
    """
    digest = hashlib.sha256(json.dumps([asdict(settings), steps.starts]).encode())
    data = chain.from_iterable(collate(batch).items() for batch in steps.plan(0))
    for name, tensor in chain(_trainable(module), data):
        digest.update(save({name: tensor.detach().cpu().contiguous()}))
    device = next(module.parameters()).device
    with torch.no_grad():
        first = {name: tensor.to(device) for name, tensor in collate(steps[0]).items()}
        digest.update(f"{float(module.eval()(**first)):.5g}".encode())
    return digest.hexdigest()[:16]


def _by_epoch(log: list[dict[str, float]], per_epoch: int) -> list[dict[str, float]]:
    """Trainer's log as one row per epoch: validation measures, the mean training loss since the validation before."""
    losses = {entry["step"]: entry["loss"] for entry in log if "loss" in entry}
    return [
        {
            "epoch": -(-int(entry["step"]) // per_epoch),
            "train_loss": losses[entry["step"]],
            **{name.removeprefix("eval_"): value for name, value in sorted(entry.items()) if name.startswith("eval_")},
        }
        for entry in log
        if "eval_objective" in entry
    ]
