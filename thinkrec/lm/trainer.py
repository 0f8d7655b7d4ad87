"""The training loop of everything that is trained by gradient through the language model.

A phase is an objective (a module whose forward returns a loss), a plan of steps and a validation. AdamW trains whatever
of the objective requires a gradient. Validation at every epoch's end names the best epoch, whose weights stay.

A step may be cut into pieces, one for every pass of every process; the result is that of the whole step.

A checkpoint is one safetensors file with all that the rest of a phase depends on. A killed phase, started again with
the same weights, plan, settings and number of processes, goes on from its last checkpoint to the same bytes; from the
beginning, where that is damaged.
"""

from __future__ import annotations

import json
import math
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, Self

import joblib
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedModel

from thinkrec import processes
from thinkrec.artifacts import atomic
from thinkrec.errors import diverged
from thinkrec.lm.adapters import first_differing, layers_of
from thinkrec.lm.families import text_config
from thinkrec.params import ExpertParams, GateParams, Metric, Params, RunParams, SftParams, TrainerParams
from thinkrec.progress import reported, track, write

CHECKPOINTS = Path(".cache") / "checkpoints"
WARM_UP = 0.05  # of all steps
SHORTEST_WARMED = 20  # steps: warm-up begins at a rate of 0, and a phase of one step would learn nothing
LONGEST_GRADIENT = 1.0  # norm, over all weights
Measure = Metric | Literal["think_loss", "reward"]
HIGHER_IS_BETTER: dict[Measure, bool] = {
    "objective": True, "auc": True, "uauc": True, "log_loss": False, "think_loss": False, "reward": True
}  # fmt: skip
WIDE = 512  # hidden size from which on a processor gains by bfloat16; the tiny model only loses
KEPT = 48  # bytes, about, that a pass keeps for the gradient: of a token, per layer and hidden unit
MUCH = 2 * 2**30  # bytes of them that are rather computed twice
PLAIN = TrainerParams(precision="auto", metric="objective")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """What a phase is called and how it is optimised."""

    name: str
    epochs: int
    learning_rate: float
    weight_decay: float  # of matrices; biases, norms and scalars do not decay
    seed: int
    patience: int | None = None  # epochs without a better metric before training stops; None trains them all
    metric: Measure = "objective"  # the measure of the validation that names the best epoch
    trainer: TrainerParams = PLAIN  # its `metric` is not read: phases that have no such measure name their own

    @classmethod
    def of(cls, name: str, params: Params, section: ExpertParams | GateParams | SftParams, **others: Any) -> Self:
        """As params.yaml says, epochs and learning rate in a `section`; but for some `others`."""
        values: dict[str, Any] = {"epochs": section.epochs, "learning_rate": section.learning_rate, "weight_decay": 0.0}
        if "metric" not in others:  # who has another does not depend on this parameter
            values["metric"] = params.trainer.metric
        return cls(name=name, seed=params.seed, trainer=params.trainer, **{**values, **others})


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a phase learns from.

    `inputs` is all that the result depends on beside weights, settings and the first epoch's steps. A checkpoint that
    was made with others is not used. Inputs and steps hold arrays, but no tensors: their hash differs each time.
    """

    steps: Callable[[int], Sequence[Any]]  # of an epoch, from 0, and always the same
    collate: Callable[[Any], dict[str, Tensor]]  # a piece -> keyword arguments of the objective's forward
    inputs: Sequence[object]
    cut: Callable[[Any, int], Sequence[Any]] | None = None  # a step -> exactly so many pieces; None: it is one piece,
    # which every process works on, and the objective returns a whole loss instead of a share of it
    passes: int = 1  # pieces of a step that each process works on, one after another
    cached: bool = False  # whether the model reads through a cache, so that activations cannot be computed twice


@dataclass(frozen=True, slots=True)
class TrainResult:
    """Validation after every epoch, and the best of them; each names its `epoch`, from 1, and `train_loss`."""

    epochs: list[dict[str, float]]
    best: dict[str, float]


@dataclass(frozen=True, slots=True)
class _Stage:
    """How a block's phases run, which no result depends on, and their checkpoints, which go when it has succeeded."""

    checkpoint_steps: int
    gradient_checkpointing: bool | Literal["auto"]
    report_to: Sequence[str] = ()
    checkpoints: list[Path] = field(default_factory=list)


_stage: ContextVar[_Stage | None] = ContextVar("stage", default=None)


@contextmanager
def resumable(run: RunParams) -> Iterator[None]:
    """A block that trains phases and writes what they made, such as a stage.

    The next run of a block that was killed or failed goes on with the phase that had not ended, and trains no other.
    """
    stage = _Stage(run.checkpoint_steps, run.gradient_checkpointing, run.report_to)
    token = _stage.set(stage)
    try:
        yield
        _forget(stage.checkpoints)
    finally:
        _stage.reset(token)


def _forget(checkpoints: Iterable[Path]) -> None:
    processes.wait()
    if processes.rank() == 0:
        for path in checkpoints:
            path.unlink(missing_ok=True)


def train(
    objective: nn.Module, plan: Plan, validate: Callable[[], dict[str, float]], settings: TrainSettings
) -> TrainResult:
    """Train `objective` and leave it with the weights of its best epoch, in eval mode.

    `validate` returns measures, `settings.metric` among them; with several processes all must get the same.
    """
    assert plan.cut or plan.passes == 1, "a step that is not cut is one pass"
    steps = _Steps(plan, settings.epochs)
    stage = _stage.get() or _Stage(checkpoint_steps=0, gradient_checkpointing=False)
    key = processes.from_main(_fingerprint(objective, steps, settings))
    path = CHECKPOINTS / f"{settings.name}-{key}.safetensors"
    stage.checkpoints.append(path)
    phase = _Phase(objective, settings, steps, stage.gradient_checkpointing)
    torch.manual_seed(settings.seed)
    random = None
    if processes.from_main(path.is_file()):
        try:
            random = phase.load(path)
        except (SafetensorError, OSError, KeyError, TypeError) as error:  # half a file, or of another version
            print(f"{settings.name}: {path} is damaged ({error}); begins anew", file=sys.stderr)
    pieces = iter(DataLoader(steps, batch_size=None, sampler=range(phase.step, len(steps))))
    if random is not None:  # only now, since the loader draws a seed
        _set_random_state(random)
    name = None if processes.rank() else settings.name
    bar = track(name=name, total=len(steps), initial=phase.step, unit="step")
    with bar, reported(stage.report_to if name else (), settings.name) as report:
        while phase.step < len(steps) and not phase.out_of_patience:
            phase.learn(next(pieces))
            bar.update()
            ended = phase.step in steps.ends
            if ended:
                objective.eval()
                phase.end_epoch(validate())
                report(phase.epochs[-1], phase.step)
            if ended or (stage.checkpoint_steps and phase.step % stage.checkpoint_steps == 0):
                phase.save(path)
    phase.compute_twice(False)
    result = phase.result()
    if _stage.get() is None:
        _forget(stage.checkpoints)
    return result


class _Phase:
    """A phase under way."""

    def __init__(
        self, objective: nn.Module, settings: TrainSettings, steps: _Steps, checkpointing: bool | Literal["auto"]
    ) -> None:
        self.objective, self.settings, self.steps, self.checkpointing = objective, settings, steps, checkpointing
        self.backbone = next((module for module in objective.modules() if isinstance(module, PreTrainedModel)), None)
        self.kept_by_token = 0 if self.backbone is None else kept_by_token(objective, self.backbone)
        self.weights = {name: weight for name, weight in objective.named_parameters() if weight.requires_grad}
        self.device = next(objective.parameters()).device
        self.model = DistributedDataParallel(objective) if processes.count() > 1 else objective
        matrices = [weight for weight in self.weights.values() if weight.dim() > 1]
        others = [weight for weight in self.weights.values() if weight.dim() <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}],
            fused=True,
        )
        self.step = 0  # steps done
        self.epochs: list[dict[str, float]] = []  # as in `TrainResult`
        self.loss = torch.zeros((), device=self.device)  # sum over this epoch's steps so far, of this process
        self.best_weights: dict[str, Tensor] = {}

    @property
    def best(self) -> int | None:
        """The best epoch's number, the first of equals; None while none could be judged.

        Where the metric can be computed of no epoch (valid rows of one class), the log-loss judges.
        """
        metric = self.settings.metric
        ranked = "auc" if metric == "objective" else metric  # the objective takes an AUC that there is not for .5
        if all(math.isnan(epoch.get(ranked, 0.0)) for epoch in self.epochs):
            metric = "log_loss" if any("log_loss" in epoch for epoch in self.epochs) else metric
        sign = 1 if HIGHER_IS_BETTER[metric] else -1
        measured = [sign * epoch[metric] for epoch in self.epochs]
        judged = [value for value in measured if not math.isnan(value)]
        return measured.index(max(judged)) + 1 if judged else None

    @property
    def out_of_patience(self) -> bool:
        """Whether the best epoch (the first, while none could be judged) is too long ago."""
        return self.settings.patience is not None and len(self.epochs) - (self.best or 1) >= self.settings.patience

    def learn(self, pieces: Sequence[dict[str, Tensor]]) -> None:
        """Take a step, of which these are this process's pieces."""
        model = self.model.train()
        scale = processes.count() if self.steps.plan.cut else 1  # gradients are averaged, and shares should add up
        wide = self.backbone is not None and text_config(self.backbone).hidden_size >= WIDE
        in_bf16 = computes_in_bf16(self.settings.trainer, self.device, wide=wide)
        for number, piece in enumerate(pieces, start=1):
            tensors = {name: tensor.to(self.device) for name, tensor in piece.items()}
            much = "input_ids" in tensors and tensors["input_ids"].numel() * self.kept_by_token > MUCH
            wanted = much if self.checkpointing == "auto" else self.checkpointing
            self.compute_twice(wanted and not self.steps.plan.cached)
            if isinstance(model, DistributedDataParallel):
                model.require_backward_grad_sync = number == len(pieces)  # only then are gradients averaged
            with torch.autocast(self.device.type, torch.bfloat16, enabled=in_bf16):
                loss = model(**tensors) * scale
            loss.backward()
            self.loss += loss.detach()
        length = nn.utils.clip_grad_norm_(self.objective.parameters(), LONGEST_GRADIENT)
        if not math.isfinite(length):
            raise diverged(self.settings.name, f"step {self.step + 1}", self.settings.learning_rate)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.settings, self.step, len(self.steps))
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1

    def compute_twice(self, wanted: bool) -> None:
        """Whether the language model's activations, if there is one, are computed twice instead of kept."""
        if self.backbone is None or self.backbone.is_gradient_checkpointing == wanted:
            return
        if wanted:
            self.backbone.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        else:
            self.backbone.activation_checkpointing_disable()

    def end_epoch(self, measures: dict[str, float]) -> None:
        """Note an epoch's measures, and keep its weights if it is the best so far."""
        number = len(self.epochs) + 1
        begin, end = [0, *self.steps.ends][number - 1 : number + 1]
        loss = sum(processes.gather([float(self.loss)])) / processes.count() / (end - begin)
        self.loss.zero_()
        self.epochs.append({"epoch": number, "train_loss": loss, **dict(sorted(measures.items()))})
        if self.best == number:
            self.best_weights = {name: weight.detach().clone() for name, weight in self.weights.items()}
        show(f"{self.settings.name}: step {end}/{len(self.steps)}", measures)

    @torch.no_grad()
    def result(self) -> TrainResult:
        """Put the best epoch's weights back; returns what the epochs brought."""
        for name, weight in self.best_weights.items():
            self.weights[name].copy_(weight)
        self.objective.eval()
        return TrainResult(self.epochs, self.epochs[(self.best or 0) - 1])

    def save(self, path: Path) -> None:
        """Write a checkpoint in the place of the last one."""
        ranks = processes.gather([{"loss": self.loss.cpu(), **_random_state()}])
        if processes.rank() > 0:
            return
        tensors = {f"{kind}/{rank}": tensor for rank, state in enumerate(ranks) for kind, tensor in state.items()}
        for name, weight in self.weights.items():
            tensors[f"weight/{name}"] = weight.detach()
            tensors |= {f"{kind}/{name}": tensor for kind, tensor in self.optimizer.state[weight].items()}
        tensors |= {f"best/{name}": weight for name, weight in self.best_weights.items()}
        with atomic(path) as partial:
            progress = json.dumps({"step": self.step, "epochs": self.epochs})
            save_file(tensors, partial, metadata={"progress": progress})

    @torch.no_grad()
    def load(self, path: Path) -> dict[str, Tensor]:
        """Go back to a checkpoint; returns the random state that belongs to it."""
        with safe_open(path, framework="pt") as file:
            progress = json.loads(file.metadata()["progress"])
            states: dict[str, dict[str, Tensor]] = {}
            for key in file.keys():  # noqa: SIM118 (no mapping)
                kind, _, name = key.partition("/")
                states.setdefault(kind, {})[name] = file.get_tensor(key)
        moments: dict[Tensor, dict[str, Tensor]] = {
            weight: {kind: states[kind][name].to(self.device) for kind in ("step", "exp_avg", "exp_avg_sq")}
            for name, weight in self.weights.items()
        }
        rank = str(processes.rank())
        random = {kind: state[rank] for kind, state in states.items() if kind in ("random", "cuda")}
        self.loss.copy_(states["loss"][rank])  # from here on all is there
        for name, weight in self.weights.items():
            weight.copy_(states["weight"][name])
        self.optimizer.state.update(moments)
        self.step, self.epochs, self.best_weights = progress["step"], progress["epochs"], states.get("best", {})
        return random


def show(name: str, measures: Mapping[str, float]) -> None:
    """Write measures to the log, once however many processes there are."""
    if processes.rank() == 0:
        write(f"{name}: " + ", ".join(f"{measure} {value:.4f}" for measure, value in measures.items()))


def learning_rate(settings: TrainSettings, step: int, steps: int) -> float:
    """The rate of a step, from 0: it rises from 0 over the first twentieth, then falls to 0 along a cosine."""
    warmed = math.ceil(WARM_UP * steps) if steps >= SHORTEST_WARMED else 0
    if step < warmed:
        return settings.learning_rate * (step / warmed)
    return settings.learning_rate * (0.5 * (1 + math.cos(math.pi * ((step - warmed) / (steps - warmed)))))


def computes_in_bf16(params: TrainerParams, device: torch.device, *, wide: bool) -> bool:
    """Whether passes run in bfloat16. `auto` does on accelerators, and for `wide` models on processors that have it."""
    pays = device.type != "cpu" or (wide and processes.has_bf16())
    return params.precision == "bf16" or (params.precision == "auto" and pays)


def kept_by_token(objective: nn.Module, backbone: PreTrainedModel) -> int:
    """Bytes, about, that a pass keeps of a token: in the layers from the first that a gradient goes through on."""
    layers = layers_of(backbone)
    of_layers = {id(weight) for weight in layers.parameters()}
    outside = any(weight.requires_grad and id(weight) not in of_layers for weight in objective.parameters())
    return KEPT * text_config(backbone).hidden_size * (len(layers) - (0 if outside else first_differing(backbone)))


class _Steps(Dataset[list[dict[str, Tensor]]]):
    """This process's pieces of every step of all epochs in order, as tensors."""

    def __init__(self, plan: Plan, epochs: int) -> None:
        self.plan, self.of_epoch = plan, lru_cache(maxsize=2)(plan.steps)
        counts = [len(self.of_epoch(epoch)) for epoch in range(epochs)]
        if not all(counts):
            raise ValueError("nothing to train on: an epoch of the plan has no steps")
        self.ends = list(accumulate(counts))

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, step: int) -> list[dict[str, Tensor]]:
        return [self.plan.collate(piece) for piece in self.pieces(step)[processes.rank() :: processes.count()]]

    def pieces(self, step: int) -> Sequence[Any]:
        """A step's pieces: for each pass in turn, one of every process."""
        epoch = bisect_right(self.ends, step)
        whole = self.of_epoch(epoch)[step - [0, *self.ends][epoch]]
        count = self.plan.passes * processes.count()
        return self.plan.cut(whole, count) if self.plan.cut else [whole] * count


def _random_state() -> dict[str, Tensor]:
    cuda = {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {}
    return {"random": torch.get_rng_state(), **cuda}


def _set_random_state(state: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(state["random"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _fingerprint(objective: nn.Module, steps: _Steps, settings: TrainSettings) -> str:
    """A hash of what a phase starts from; a checkpoint of anything else must not be taken for its own.

    Frozen weights and the loss's own parameters count by the loss of a first piece. It shows neither dropout nor the
    scale of a fresh LoRA, so these are added.
    """
    plan, device = steps.plan, next(objective.parameters()).device
    weights = {
        name: weight.detach().float().cpu().numpy()
        for name, weight in objective.named_parameters()
        if weight.requires_grad
    }
    loras = [(part.scaling, repr(part.lora_dropout)) for part in objective.modules() if hasattr(part, "lora_dropout")]
    with torch.no_grad():
        first = plan.collate(steps.pieces(0)[0])
        loss = float(objective.eval()(**{name: tensor.to(device) for name, tensor in first.items()}))
    arrangement = [steps.ends, plan.passes, processes.count()]
    parts = [settings, arrangement, weights, loras, steps.of_epoch(0), plan.inputs, f"{loss:.5g}"]
    return joblib.hash(parts, coerce_mmap=True)[:16]
