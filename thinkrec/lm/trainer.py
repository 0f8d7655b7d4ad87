"""One training loop for everything that is trained by gradient here: `transformers.Trainer`, told what a step is.

A phase is a module whose forward returns a loss, a plan of steps per epoch (a function of seed and epoch alone) and a
validation that returns measures, one of which says which epoch is best. The best epoch's weights are kept. Only what
requires a gradient is trained, checkpointed and restored, so checkpoints of an adapter are small. A killed phase,
started again with the same weights, plan, settings and number of processes, goes on from its last checkpoint to the
same bytes; one that had ended when its stage was killed is not trained again (`resumable`).

A step may be cut into pieces, one for every pass of every process: gradients are accumulated over a process's passes
and averaged over processes (`torchrun`), and the result is that of the whole step. Processes keep all weights (DDP), or
train a copy that is sharded over them (FSDP) and bring it together to validate and to save.
"""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal
from zipfile import is_zipfile

import numpy as np
import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils.data import DataLoader, Dataset
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils import logging

from thinkrec.artifacts import atomic
from thinkrec.errors import UserError
from thinkrec.lm import processes
from thinkrec.params import Metric, RunParams, TrainerParams

CHECKPOINTS = Path(".cache") / "checkpoints"
WEIGHTS = "trainable.safetensors"
ENDED, RANDOM = "ended.json", "random.safetensors"  # of a phase that ended: its result, and the random state after it
SHORTEST_WARMED = 20  # steps: warm-up begins at a rate of 0, and a phase of one step would learn nothing
Measure = Metric | Literal["think_loss"]
HIGHER_IS_BETTER: dict[Measure, bool] = {
    "objective": True, "auc": True, "uauc": True, "log_loss": False, "think_loss": False
}  # fmt: skip
PLAIN = TrainerParams(precision="auto", metric="objective")

Cut = Callable[[Any, int], Sequence[Any]]


@dataclass(frozen=True, slots=True)
class _Stage:
    """How the phases of a stage are trained, which no result depends on, and the folders of their checkpoints."""

    checkpoint_steps: int = 0
    gradient_checkpointing: bool = False
    folders: list[Path] | None = None


NO_STAGE = _Stage()
_stage: ContextVar[_Stage] = ContextVar("stage", default=NO_STAGE)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """What a phase is called and how it is optimised (AdamW, linear warm-up over 5 % of the steps, cosine decay)."""

    name: str
    epochs: int
    learning_rate: float
    weight_decay: float
    seed: int
    patience: int | None = None  # epochs without a better metric; None trains them all
    metric: Measure = "objective"  # the measure of `validate` that names the best epoch
    trainer: TrainerParams = PLAIN  # its `metric` is not read: phases that have no such measure name their own


@dataclass(frozen=True, slots=True)
class TrainResult:
    """Validation after every epoch, and the best of them; each names its `epoch`, from 1, and `train_loss`."""

    epochs: list[dict[str, float]]
    best: dict[str, float]


@contextmanager
def resumable(run: RunParams) -> Iterator[None]:
    """A block that trains phases and writes what they made, such as a stage.

    If it is killed or fails, the next run of the same block takes over the phases that had ended and goes on with the
    one that had not.
    """
    folders: list[Path] = []
    token = _stage.set(_Stage(run.checkpoint_steps, run.gradient_checkpointing, folders))
    try:
        yield
        processes.wait()
        if processes.rank() == 0:
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
    finally:
        _stage.reset(token)


def train(
    objective: nn.Module,
    plan: Callable[[int], Sequence[Any]],
    collate: Callable[[Any], dict[str, Tensor]],
    validate: Callable[[], dict[str, float]],
    settings: TrainSettings,
    *,
    cut: Cut | None = None,
    passes: int = 1,
    inputs: Sequence[object] | None = None,
) -> TrainResult:
    """Train `objective` and leave it holding the weights of its best epoch, in eval mode.

    Args:
        objective: its forward returns the loss of a piece as a share of its step's: over the pieces they add up.
        plan: the steps of an epoch, from 0.
        collate: the keyword arguments of the forward, made of a piece.
        validate: measures, `settings.metric` among them. With several processes, all must get the same.
        cut: a step as exactly so many pieces. Without it a step is one piece, which every process works on, unsharded.
        passes: how many pieces of a step each process works on, one after another.
        inputs: what a checkpoint of this phase depends on beside weights, plan and settings: arrays, numbers, and
            dataclasses, mappings and sequences of them. Without it the first epoch is collated to see.

    Raises:
        ValueError: the plan has no steps.
        UserError: the weights should be sharded over processes that have no accelerators.
    """
    assert cut or passes == 1, "a step that is not cut is one pass"
    steps = _Steps(plan, settings.epochs)
    pieces = passes * processes.count() if cut else 1
    key = _fingerprint(objective, steps, cut, pieces, collate, settings, inputs)
    folder = CHECKPOINTS / f"{settings.name}-{processes.from_main(key)}"
    kept = _stage.get().folders
    if kept is not None:
        kept.append(folder)
        if processes.from_main((folder / ENDED).is_file()):
            return _take_over(objective, folder)
    device = next(objective.parameters()).device
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    sharded = False
    trained = copy.deepcopy(objective) if sharded else objective
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=len(steps),
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup_steps=0.05 if len(steps) >= SHORTEST_WARMED else 0,
        lr_scheduler_type="cosine",
        max_grad_norm=1.0,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=passes,
        seed=settings.seed,
        data_seed=settings.seed,
        eval_strategy="steps",  # _AtEpochEnds says when; Trainer alone at the last step
        eval_steps=len(steps),
        save_strategy="steps",
        save_steps=len(steps),
        save_total_limit=1,
        restore_callback_states_from_checkpoint=True,  # or a resumed phase forgets how long it has been patient
        load_best_model_at_end=True,
        metric_for_best_model=settings.metric,
        greater_is_better=HIGHER_IS_BETTER[settings.metric],
        logging_strategy="no",
        report_to=[],
        disable_tqdm=not sys.stderr.isatty() or processes.rank() > 0,
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
        **(_fsdp_arguments(trained) if sharded else {}),
        use_cpu=device.type == "cpu",
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # or one process on several accelerators would be nn.DataParallel
    trainer = _PlanTrainer(
        model=trained,
        args=arguments,
        train_dataset=_Pieces(steps, cut, pieces, passes * processes.count()),
        eval_dataset=steps,  # only for Trainer's check of its arguments: `evaluate` is ours
        data_collator=lambda pieces: collate(pieces[0]),
        callbacks=[
            _AtEpochEnds(frozenset(steps.starts[1:]), _stage.get().checkpoint_steps),
            *([EarlyStoppingCallback(settings.patience)] if settings.patience else []),
        ],
    )
    if sharded and not trainer.is_fsdp_enabled:
        shutil.rmtree(folder, ignore_errors=True)
        raise UserError("trainer.sharding=fsdp: processors do not shard; ask for trainer.sharding=none")
    trainer.remove_callback(PrinterCallback)
    trainer.settings, trainer.validate, trainer.whole = settings, validate, objective if sharded else None
    trainer.in_bf16 = computes_in_bf16(settings.trainer, device)
    trainer.loss_scale = processes.count() if cut else 1
    with _checkpointing(trained, _stage.get().gradient_checkpointing):
        trainer.train(resume_from_checkpoint=processes.from_main(_last_checkpoint(folder)))
    trainer.bring_together()
    objective.eval()
    epochs = _by_epoch(trainer.state.log_history, steps.starts)
    at = trainer.state.best_global_step
    best = [measures for measures, end in zip(epochs, steps.starts[1:], strict=False) if end == at]
    result = TrainResult(epochs, best[0] if best else epochs[-1])
    processes.wait()
    if processes.rank() == 0:
        if kept is None:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            _keep(objective, folder, result)
    return result


def _keep(objective: nn.Module, folder: Path, result: TrainResult) -> None:
    """Put into the place of a phase's checkpoints what it ended with."""
    with atomic(folder) as partial:
        partial.mkdir()
        save_file({name: weight.detach().clone() for name, weight in _trainable(objective)}, partial / WEIGHTS)
        random = {"cpu": torch.get_rng_state()}  # what is drawn after this phase must not tell whether it was trained
        if torch.cuda.is_available():
            random["cuda"] = torch.cuda.get_rng_state()
        save_file(random, partial / RANDOM)
        (partial / ENDED).write_text(json.dumps(asdict(result)), encoding="utf-8")  # measures may be NaN


def _take_over(objective: nn.Module, folder: Path) -> TrainResult:
    """What a phase ended with that was not lost with its stage; `objective` gets its weights."""
    saved, random = load_file(folder / WEIGHTS), load_file(folder / RANDOM)
    with torch.no_grad():
        for name, weight in _trainable(objective):
            weight.copy_(saved[name])
    torch.set_rng_state(random["cpu"])
    if "cuda" in random and torch.cuda.is_available():
        torch.cuda.set_rng_state(random["cuda"])
    objective.eval()
    return TrainResult(**json.loads((folder / ENDED).read_text(encoding="utf-8")))


def computes_in_bf16(params: TrainerParams, device: torch.device) -> bool:
    """Whether passes run in bfloat16. `auto` does on accelerators; on a processor the tiny model only loses by it."""
    return params.precision == "bf16" or (params.precision == "auto" and device.type != "cpu")


@contextmanager
def _checkpointing(objective: nn.Module, wanted: bool) -> Iterator[None]:
    """Gradient checkpointing of the language model in `objective`, while training."""
    model = next((module for module in objective.modules() if isinstance(module, PreTrainedModel)), None)
    if not wanted or model is None:
        yield
        return
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    try:
        yield
    finally:
        model.activation_checkpointing_disable()


def _fsdp_arguments(objective: nn.Module) -> dict[str, Any]:
    """Shard every layer of the language model by itself, and what is left together."""
    layers = {
        name
        for module in objective.modules()
        if isinstance(module, PreTrainedModel)
        for name in module._no_split_modules or []
    }
    return {"fsdp": True, "fsdp_config": {"transformer_layer_cls_to_wrap": sorted(layers)}}


class _Steps(Dataset[Any]):
    """All steps of all epochs in order; an epoch's plan is made when its first step is asked for."""

    def __init__(self, plan: Callable[[int], Sequence[Any]], epochs: int) -> None:
        self.plan = lru_cache(maxsize=2)(plan)
        self.starts = [0]
        for epoch in range(epochs):
            self.starts.append(self.starts[-1] + len(self.plan(epoch)))
        if not self.starts[-1]:
            raise ValueError("nothing to train on: the plan has no steps")

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, step: int) -> Any:
        epoch = bisect_right(self.starts, step) - 1
        return self.plan(epoch)[step - self.starts[epoch]]


class _Pieces(Dataset[Any]):
    """The pieces of all steps, step by step; a step's first ones are the first pass of every process, and so on.

    That is how accelerate deals them out: to each process in turn. A step that is not cut comes as often.
    """

    def __init__(self, steps: _Steps, cut: Cut | None, pieces: int, per_step: int) -> None:
        self.steps, self.per_step = steps, per_step
        self.pieces_of = lru_cache(maxsize=2)(
            lambda step: cut(steps[step], pieces) if cut else [steps[step]] * per_step
        )

    def __len__(self) -> int:
        return len(self.steps) * self.per_step

    def __getitem__(self, index: int) -> Any:
        step, piece = divmod(index, self.per_step)
        return self.pieces_of(step)[piece]


class _AtEpochEnds(TrainerCallback):
    """Validates and saves at epochs' ends, saves every so many steps as well, and logs the mean loss since last time.

    The loss is logged wherever there is a checkpoint: what is logged is in it, what is not would be lost by a kill.
    """

    def __init__(self, ends: frozenset[int], checkpoint_steps: int) -> None:
        self.ends, self.checkpoint_steps = ends, checkpoint_steps

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step in self.ends:
            control.should_evaluate = control.should_save = True
        elif self.checkpoint_steps and state.global_step % self.checkpoint_steps == 0:
            control.should_save = True
        control.should_log = control.should_save


class _PlanTrainer(Trainer):
    settings: TrainSettings
    validate: Callable[[], dict[str, float]]
    whole: nn.Module | None  # what `model` is the sharded copy of
    in_bf16: bool
    loss_scale: int
    loss_is_scaled_for_ga = True  # shares of a step's loss add up: no mean over passes
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
        # Not by `bf16=True`: under FSDP that casts weights and inputs, and autocast alone knows what must stay exact.
        with torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.in_bf16):
            loss = model(**inputs)
        loss = loss * self.loss_scale  # gradients are averaged over processes, and shares should add up
        return (loss, None) if return_outputs else loss

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        self.model.eval()
        self.bring_together()
        measures = self.validate()
        self.model.train()
        if self.args.disable_tqdm and processes.rank() == 0:
            shown = ", ".join(f"{name} {value:.4f}" for name, value in measures.items())
            print(
                f"{self.settings.name}: step {self.state.global_step}/{self.state.max_steps}: {shown}", file=sys.stderr
            )
        metrics = {f"eval_{name}": value for name, value in measures.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @torch.no_grad()
    def bring_together(self) -> None:
        """Give the module that was asked for what its sharded copy has learned."""
        if self.whole is not None:
            for (_, weight), (_, part) in zip(_trainable(self.whole), _trainable(self.model), strict=True):
                assert isinstance(part, DTensor)
                weight.copy_(part.full_tensor())

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        self.bring_together()
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            weights = {name: weight.detach().clone() for name, weight in _trainable(self.whole or self.model)}
            save_file(weights, folder / WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        saved = load_file(Path(resume_from_checkpoint) / WEIGHTS)
        with torch.no_grad():
            for name, weight in _trainable(model or self.model):
                whole = saved.pop(name)
                if isinstance(weight, DTensor):
                    whole = distribute_tensor(whole.to(weight.device), weight.device_mesh, weight.placements)
                weight.copy_(whole)
        assert not saved, f"checkpoint holds weights that do not train: {sorted(saved)}"

    def _load_best_model(self) -> None:
        self._load_from_checkpoint(self.state.best_model_checkpoint)


def _trainable(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, weight) for name, weight in module.named_parameters() if weight.requires_grad]


def _last_checkpoint(folder: Path) -> str | None:
    """The last checkpoint that was written to its end by every process; half-written ones are removed.

    Trainer's state is the last that the main process writes; the others write their random state.
    """
    if processes.rank() > 0:
        return None
    count = processes.count()
    random_states = [f"rng_state_{rank}.pth" for rank in range(count)] if count > 1 else ["rng_state.pth"]
    for checkpoint in folder.glob("checkpoint-*"):
        try:
            json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
            whole = all(is_zipfile(checkpoint / name) for name in random_states)  # torch's files are archives
        except (FileNotFoundError, ValueError):
            whole = False
        if not whole:
            shutil.rmtree(checkpoint)
    return get_last_checkpoint(str(folder)) if folder.is_dir() else None


def _fingerprint(
    module: nn.Module,
    steps: _Steps,
    cut: Cut | None,
    pieces: int,
    collate: Callable[[Any], dict[str, Tensor]],
    settings: TrainSettings,
    inputs: Sequence[object] | None,
) -> str:
    """Of what a phase starts from: a checkpoint of anything else must not be taken for its own.

    Frozen weights and the loss' own parameters count by the loss of a first piece, in which neither dropout nor the
    scale of a fresh LoRA shows.
    """
    digest = hashlib.sha256(repr([settings, steps.starts, pieces, processes.count()]).encode())
    for name, weight in _trainable(module):
        _add(digest, [name, weight])
    loras = [layer for layer in module.modules() if isinstance(layer, LoraLayer)]
    _add(digest, [(layer.scaling, repr(layer.lora_dropout)) for layer in loras])
    first = collate(cut(steps[0], pieces)[0] if cut else steps[0])
    _add(digest, [first, *((steps.plan(0), inputs) if inputs is not None else map(collate, steps.plan(0)))])
    device = next(module.parameters()).device
    with torch.no_grad():
        loss = module.eval()(**{name: tensor.to(device) for name, tensor in first.items()})
    digest.update(f"{float(loss):.5g}".encode())
    return digest.hexdigest()[:16]


def _add(digest: Any, value: object) -> None:
    """Add a value to a digest, the values inside it included."""
    match value:
        case Tensor():
            digest.update(save({"": value.detach().cpu().contiguous()}))
        case np.ndarray():
            digest.update(f"{value.dtype}{value.shape}".encode())
            digest.update(np.ascontiguousarray(value).data)
        case Mapping():
            for key, inner in value.items():
                _add(digest, [key, inner])
        case str() | bytes():
            digest.update(repr(value).encode())
        case Iterable():
            digest.update(b"[")
            for inner in value:
                _add(digest, inner)
            digest.update(b"]")
        case _ if is_dataclass(value):
            _add(digest, [(one.name, getattr(value, one.name)) for one in fields(value)])
        case _:
            digest.update(repr(value).encode())


def _by_epoch(log: list[dict[str, float]], starts: Sequence[int]) -> list[dict[str, float]]:
    """Trainer's log as one row per epoch: validation measures, the mean training loss since the validation before."""
    losses = {int(entry["step"]): entry["loss"] for entry in log if "loss" in entry}
    logged = [0, *sorted(losses)]
    steps = {end: end - begin for begin, end in pairwise(logged)}  # that the loss logged at a step is the mean of
    measures = {int(entry["step"]): entry for entry in log if any(name.startswith("eval_") for name in entry)}
    rows = []
    for epoch, (begin, end) in enumerate(pairwise(starts), 1):
        if end in measures and end > begin:
            inside = [step for step in steps if begin < step <= end]
            loss = sum(losses[step] * steps[step] for step in inside) / (end - begin)
            found = sorted(measures[end].items())
            named = {name.removeprefix("eval_"): value for name, value in found if name.startswith("eval_")}
            rows.append({"epoch": epoch, "train_loss": loss, **named})
    return rows
