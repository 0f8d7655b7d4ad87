"""What an accelerator is used for: LoRA training and scoring with language models of real size, random weights.

    python -m benchmarks.cuda
    python -m benchmarks.cuda --model qwen3-0.6b

Random weights take the time that trained ones take, so nothing is downloaded: models are built on the device from
their configuration alone. Prompts are made up, too: items of realistic length, in both layouts. What is timed is the
pipeline's own code. A training step is `layout.collate`, `lm.finetune.Objective` in bfloat16 autocast over a LoRA (r 8,
q_proj and v_proj), its backward pass, and AdamW, as `lm.trainer` does them; scoring is `lm.scoring.score`, a global
adapter and three experts mixed per sample by `lm.mixture`.

Utilisation is the rate of the operations that are really needed over the device's peak. Needed are, per token that is
no padding, 2 operations for every weight of a matrix in the layers to score it, and 4 to train on it (2 forward, 2 to
take the gradient back through the activations; a frozen base needs none for its weights), and as many for the weights
of the LM head at every position that is predicted from. Attention's own products, adapters, norms, whatever is spent on
padding and, with gradient checkpointing, on computing twice are not counted.

Shapes: n interactions, U users, N experts.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is first imported

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import pandas as pd
import torch
import typer
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, PreTrainedModel, Qwen3Config

from thinkrec.features.bank import Features
from thinkrec.lm.adapters import add_expert, add_lora, expert_folder, save_adapter
from thinkrec.lm.finetune import Objective
from thinkrec.lm.mixture import Router, install
from thinkrec.lm.model import RecommenderLM, SlotProjector, SlotValues
from thinkrec.lm.scoring import score
from thinkrec.params import LoraParams, SftParams
from thinkrec.text.items import Ragged
from thinkrec.text.layout import Layout, Window, batches_by_tokens, columns
from thinkrec.text.question import ANSWER, ENTRY, FEATURE, PHRASINGS, STOP, Phrasing, QuestionLayout
from thinkrec.text.stream import StreamLayout
from thinkrec.text.vocabulary import Vocabulary

LayoutName = Literal["stream", "question"]
R = TypeVar("R")

MODELS: dict[str, PreTrainedConfig] = {
    "llama3-8b": LlamaConfig(
        vocab_size=128_256,
        hidden_size=4096,
        intermediate_size=14_336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=8192,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
        tie_word_embeddings=False,
    ),
    "qwen3-0.6b": Qwen3Config(
        vocab_size=151_936,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=40_960,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        tie_word_embeddings=True,
    ),
}
# Dense bfloat16 TFLOP/s by the makers' data sheets. A name fits where all its words are in the device's own.
PEAKS = {
    "A100": 312,
    "A30": 165,
    "A40": 150,
    "B200": 2250,
    "GH200": 989,
    "H100": 989,
    "H100 NVL": 835,
    "H100 PCIe": 756,
    "H200": 989,
    "H200 NVL": 835,
    "L4": 121,
    "L40": 181,
    "L40S": 362,
    "RTX 3090": 71,
    "RTX 4090": 165,
}
PARTIAL = {"MIG", "Laptop", "Max", "D"}  # a name with one of these words is a slower variant's

LORA = LoraParams(r=8, alpha=16, dropout=0.05)
SFT = SftParams(  # the loss as in params.yaml; how long to train is not read here
    recipe="paper",
    epochs=1,
    learning_rate=1e-4,
    weight_decay=0.0,
    batch_rows=128,
    batch_tokens=6000,
    think_share=0.2,
    reason_first=0.0,
    trace_weight_cap=4.0,
    alpha=0.1,
    beta=0.9,
    eta=0.9,
    gamma=0.1,
    pairwise=0.3,
    slot_dropout=0.0,
    patience=1,
)
EXPERTS, EXPERT_LAYERS = 3, 8
HISTORY = 10
ITEMS, ITEM_TOKENS = 3700, (20, 44)  # a title and eight keywords take some thirty tokens
REASON_SHARE, REASON_TOKENS = 0.1, 60  # of the interactions that have a trace, and its length
WORDS = Vocabulary(begin=0, end=1, slot=2, no=3, yes=4)
FIRST_WORD = 10  # ids below have, or may have, a role
PER_USER = 100  # interactions
USERS: dict[LayoutName, int] = {"stream": 64, "question": 10}  # prompts of one target each make more tokens

WARM_UP, STEPS, ROUNDS = 2, 8, 3  # training steps, then passes over all rows to score
MOST_TOKENS, LEAST_TOKENS = 16_384, 2048  # of a training pass
RATE = 1e-4  # AdamW's
TRAINING_GOAL, SCORING_GOAL = 0.45, 0.55  # of the device's peak


@dataclass(frozen=True, slots=True)
class Peak:
    """Operations per second that a device can do at most, and how that is known."""

    rate: float
    source: Literal["data sheet", "measured on a matrix product"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a step or a round did: tokens that are no padding, labels (pairs of user and item), needed operations."""

    tokens: int
    labels: int
    operations: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Medians over steps or rounds, per second, and the most bytes held on the device (None off CUDA)."""

    tokens: float
    labels: float
    operations: float
    memory: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Random interactions as prompts of one layout, with slots, and a model of random weights that is to read them."""

    table: pd.DataFrame
    layout: Layout
    model: RecommenderLM
    cost: Cost


@dataclass(frozen=True, slots=True)
class Cost:
    """The weights that every token is multiplied by, and those that a predicting position is."""

    layers: int
    head: int

    @classmethod
    def of(cls, backbone: PreTrainedModel) -> Cost:
        """Of a model without adapters: the matrices of its layers, and its LM head. Embedding is no product."""
        linear = (module for module in backbone.base_model.modules() if isinstance(module, nn.Linear))
        return cls(sum(one.weight.numel() for one in linear), backbone.get_output_embeddings().weight.numel())

    def work(self, layout: Layout, windows: Sequence[Window], per_weight: int) -> Work:
        """What it takes to score these windows (`per_weight` 2) or to train on them (4, LoRA on a frozen base)."""
        blocks = [block for window in windows for block in (layout.beginning(window), *layout.blocks(window))]
        tokens = sum(len(block.tokens) for block in blocks)
        labels = sum(block.verdict >= 0 for block in blocks)
        predicted = labels + sum(len(block.reason) for block in blocks)
        operations = per_weight * (self.layers * tokens + self.head * predicted)
        return Work(tokens=tokens, labels=labels, operations=operations)


def build(config: PreTrainedConfig, device: torch.device, dtype: torch.dtype = torch.bfloat16) -> PreTrainedModel:
    """A causal LM of random weights (normal, spread .02; norms 1), made where it is to run and nowhere else."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.to_empty(device=device)
    model.tie_weights()  # `to_empty` made two of a shared matrix
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.02)
            else:
                weight.fill_(1)
    # Rotary frequencies are buffers that no checkpoint holds: emptied, they have to be computed again.
    rotary = model.base_model.rotary_emb
    model.base_model.rotary_emb = type(rotary)(config).to(device)
    assert {name.split(".")[0] for name, _ in model.base_model.named_buffers()} == {"rotary_emb"}
    return model.eval()


def make_world(backbone: PreTrainedModel, name: LayoutName, users: int, per_user: int = PER_USER) -> World:
    """`per_user` interactions of each of so many users, about random items; the backbone with slots to fill.

    No two of a user are of one moment, so that no two targets share a prompt of the question layout.
    """
    rng = np.random.default_rng(0)
    rows = users * per_user
    size = backbone.config.vocab_size

    def drawn(count: int) -> NDArray[np.int32]:
        return rng.integers(FIRST_WORD, size, count).astype(np.int32)

    table = pd.DataFrame(
        {
            "user": np.repeat(np.arange(users, dtype=np.int32), per_user),
            "item": rng.integers(0, ITEMS, rows).astype(np.int32),
            "label": rng.integers(0, 2, rows).astype(np.int8),
            "timestamp": np.tile(np.arange(per_user, dtype=np.int64) * 60, users),
        }
    )
    offsets = np.concatenate([[0], np.cumsum(rng.integers(*ITEM_TOKENS, ITEMS))]).astype(np.int64)
    explained = rng.choice(rows, round(REASON_SHARE * rows), replace=False)
    common: dict[str, Any] = {
        **columns(table),
        "items": Ragged(drawn(offsets[-1]), offsets),
        "reasons": {int(row): drawn(REASON_TOKENS) for row in explained},
        "vocabulary": WORDS,
        "history": HISTORY,
        "hide_dislikes": False,
        "soft_tokens": 0,
        "max_tokens": 4096,
    }
    if name == "stream":
        layout: Layout = StreamLayout(**common)
    else:
        common["vocabulary"] = replace(WORDS, lead=tuple(drawn(_length(ANSWER)).tolist()))
        layout = QuestionLayout(
            **common,
            head=(WORDS.begin,),
            words=tuple(
                {part: drawn(_length(text)).tolist() for part, text in _texts(phrasing).items()}
                for phrasing in PHRASINGS
            ),
            user_slot=True,
            item_slots=True,
        )
    values = SlotValues(_features(table, rng), ("user", "item"))
    projector = SlotProjector(values.widths, backbone.config.hidden_size)
    model = RecommenderLM(backbone, layout.vocabulary, values, projector, scored="yes").to(backbone.device)
    return World(table=table, layout=layout, model=model, cost=Cost.of(backbone))


def _texts(phrasing: Phrasing) -> dict[str, str]:
    parts = {name: getattr(phrasing, name) for name in Phrasing.__slots__}
    return {"entry": ENTRY, "feature": FEATURE, "stop": STOP, **parts}


def _length(text: str) -> int:
    """Some number of tokens that a phrase takes: one a word and one for its marks."""
    return 1 + len(text.split())


def _features(table: pd.DataFrame, rng: np.random.Generator, width: int = 64) -> Features:
    """Random vectors in place of those of an ordinary recommender."""
    user, item = table["user"].to_numpy(np.int32), table["item"].to_numpy(np.int32)
    return Features(
        user_bank=rng.normal(size=(int(user.max()) + 1, width)).astype(np.float32),
        item_bank=rng.normal(size=(ITEMS, width)).astype(np.float32),
        item_row=item,
        user_row=user,
        route=user,
        statistics=np.zeros((len(table), 0), np.float32),
        statistic_names=[],
    )


def batch_size(config: PreTrainedConfig, free: int) -> tuple[int, bool]:
    """Tokens of a training pass that `free` bytes beside the weights have room for, and whether to compute them twice.

    A fifth of the room is kept back. Activations are computed once wherever that leaves room for `LEAST_TOKENS`;
    otherwise with gradient checkpointing, which keeps a layer's input and one layer's activations at a time.
    """
    layers, width = config.num_hidden_layers, 2 * config.hidden_size
    inside, logits = layer_bytes(config), logit_bytes(config)
    room = 0.8 * free
    tokens = int(room / (layers * inside + logits))
    if tokens >= LEAST_TOKENS:
        return min(tokens, MOST_TOKENS), False
    return min(max(int(room / (layers * width + inside + logits)), 1), MOST_TOKENS), True


def layer_bytes(config: PreTrainedConfig) -> int:
    """About the most bytes that one layer keeps of one token for the way back, in bfloat16 autocast over a LoRA.

    Per value of the token's vector 20, most of them around two norms (which compute in float32) and before two LoRAs
    (whose dropout keeps its result and its mask); per value of the heads 16 (queries, repeated keys and values,
    attention's result; Qwen3's norms of queries and keys); per value inside the MLP 6.
    """
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 20 * config.hidden_size + 16 * config.num_attention_heads * width + 6 * config.intermediate_size


def logit_bytes(config: PreTrainedConfig) -> int:
    """About the most bytes of logits per token: a quarter of the tokens are predicted, 16 bytes for every word."""
    return 4 * config.vocab_size


def measure_training(world: World, tokens: int, *, recompute: bool = False, steps: int = STEPS) -> Rates:
    """Train a fresh LoRA on text alone, as the `paper` recipe's first phase does, in passes of at most `tokens`.

    Batches are spread over all there are, the longest sequences first, so that memory's peak is met. The LoRA is taken
    out again.
    """
    model, layout = world.model.without_slots(), world.layout.without_slots()
    rows = np.arange(len(world.table), dtype=np.int64)
    windows = layout.training_windows(rows, np.random.default_rng(0))
    batches = list(batches_by_tokens(layout, windows, tokens))
    chosen = np.linspace(0, max(len(batches) - 2, 0), WARM_UP + steps).round().astype(int)  # the last one is not full
    device = model.device
    thinking = float(sum(layout.reasons_shown(window).sum() for window in windows) / len(rows))
    adapted = add_lora(model.backbone, LORA)
    objective = Objective(model, layout.label, thinking, SFT).train()
    weights = [weight for weight in objective.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=RATE, weight_decay=SFT.weight_decay, fused=device.type == "cuda")

    def step(batch: Sequence[Window]) -> None:
        tensors = layout.collate(batch).to(device).tensors()
        with torch.autocast(device.type, torch.bfloat16):
            loss = objective(**tensors)
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    try:
        with _recomputing(model.backbone, recompute):
            done = [batches[index] for index in chosen]
            works = [world.cost.work(layout, batch, 4) for batch in done]
            return _rates(device, [partial(step, batch) for batch in done], works, WARM_UP)
    finally:
        adapted.unload()
        model.eval()


@contextmanager
def _recomputing(backbone: PreTrainedModel, wanted: bool) -> Iterator[None]:
    if wanted:
        backbone.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    try:
        yield
    finally:
        if wanted:
            backbone.activation_checkpointing_disable()


def install_random(model: RecommenderLM) -> Router:
    """Put the mixture of a random global adapter and `EXPERTS` random experts into the model, for good."""
    with TemporaryDirectory() as folder:
        return install(model.backbone, write_adapters(model, Path(folder)))


def measure_scoring(world: World, router: Router, *, rounds: int = ROUNDS) -> Rates:
    """Score every interaction, adapters mixed by random weights, one set per user."""
    table, layout = world.table, world.layout
    route = table["user"].to_numpy()
    routing = np.random.default_rng(0).dirichlet(np.ones(EXPERTS + 1), int(route.max()) + 1).astype(np.float32)
    rows = np.arange(len(table), dtype=np.int64)

    def work() -> None:
        found = score(world.model, layout, rows, router=router, routing=routing, route=route)
        assert np.isfinite(found).all()

    done = world.cost.work(layout, layout.scoring_windows(rows, route.astype(np.int64)), 2)
    return _rates(world.model.device, [work] * (rounds + 1), [done] * (rounds + 1), 1)


def write_adapters(model: RecommenderLM, folder: Path) -> list[Path]:
    """A random global LoRA and, as the `paper` recipe has them, copies that differ from it in the last layers."""
    paths = [folder / "global"]
    adapted = add_lora(model.backbone, LORA)
    _save_random(adapted, paths[0])
    for number in range(1, EXPERTS + 1):
        layers = min(EXPERT_LAYERS, model.backbone.config.num_hidden_layers)
        paths.append(expert_folder(folder, number))
        _save_random(add_expert(model, LORA, layers=layers, global_adapter=paths[0]), paths[-1])
    return paths


def _save_random(adapted: Any, folder: Path) -> None:
    """Draw what trains of a PEFT model, write it as an adapter, and take it out of the backbone."""
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.normal_(0, 0.02)
    save_adapter(adapted, folder, base="")
    adapted.unload()


def _rates(device: torch.device, calls: Sequence[Callable[[], None]], works: Sequence[Work], warm_up: int) -> Rates:
    """Do these one after the other; medians over all but the first `warm_up`."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    times = [_now(device)]
    for call in tqdm(calls, desc="measuring", disable=None, leave=False):
        call()
        times.append(_now(device))
    seconds = [end - begin for begin, end in pairwise(times)]
    pairs = list(zip(works, seconds, strict=True))[warm_up:]
    return Rates(
        tokens=statistics.median(work.tokens / took for work, took in pairs),
        labels=statistics.median(work.labels / took for work, took in pairs),
        operations=statistics.median(work.operations / took for work, took in pairs),
        memory=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
    )


def _now(device: torch.device) -> float:
    """Seconds, once the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def known_peak(name: str) -> float | None:
    """Operations per second of a device by its name, or None if it is none of PEAKS."""
    words = set(name.replace("-", " ").split())
    known = [key for key in PEAKS if set(key.split()) <= words and not words & PARTIAL]
    return PEAKS[max(known, key=len)] * 1e12 if known else None


def measured_peak(device: torch.device, size: int = 8192) -> float:
    """Operations per second of a product of two square bfloat16 matrices: what no model can exceed in practice."""
    one, other = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    out = torch.empty_like(one)

    def multiply() -> None:
        torch.matmul(one, other, out=out)

    work, count = Work(tokens=0, labels=0, operations=2 * size**3), WARM_UP + 10
    return _rates(device, [multiply] * count, [work] * count, WARM_UP).operations


def peak_of(device: torch.device) -> Peak:
    """The device's peak: of the data sheet where its name is known, else measured."""
    known = known_peak(torch.cuda.get_device_name(device))
    if known is not None:
        return Peak(known, "data sheet")
    return Peak(measured_peak(device), "measured on a matrix product")


LINE = "{:<48}{:>10}{:>10}{:>13}{:>8}{:>5}{:>13}"
HEADINGS = ("", "labels/s", "tokens/s", "utilisation", "goal", "met", "peak memory")


def as_line(what: str, rates: Rates, peak: Peak, goal: float) -> str:
    """A line of the table, under HEADINGS."""
    used = rates.operations / peak.rate
    return LINE.format(
        what,
        f"{rates.labels:,.0f}",
        f"{rates.tokens:,.0f}",
        f"{used:.1%}",
        f"≥ {goal:.0%}",
        "yes" if used >= goal else "no",
        "" if rates.memory is None else f"{rates.memory / 2**30:.1f} GiB",
    )


def halving(measure: Callable[[int], R], tokens: int) -> R:
    """What `measure` finds with `tokens`, or with half as many as often as the device runs out of memory.

    Raises:
        OutOfMemoryError: it does so with fewer than `LEAST_TOKENS`, too.
    """
    while True:
        try:
            return measure(tokens)
        except torch.OutOfMemoryError:
            if tokens < LEAST_TOKENS:
                raise
        torch.cuda.empty_cache()  # not inside `except`, which still holds the pass' tensors
        tokens //= 2


def measure_model(
    name: str, backbone: PreTrainedModel, free: int, peak: Peak, users: dict[LayoutName, int] = USERS
) -> Iterator[str]:
    """The lines of one model, with `free` bytes beside it: for each layout LoRA training, then scoring."""
    tokens, recompute = batch_size(backbone.config, free)
    mode = ", checkpointing" if recompute else ""
    worlds = {layout: make_world(backbone, layout, count) for layout, count in users.items()}
    for layout, world in worlds.items():
        rates = halving(partial(measure_training, world, recompute=recompute), tokens)
        yield as_line(f"{name}, {layout}: LoRA training{mode}", rates, peak, TRAINING_GOAL)
    router = install_random(next(iter(worlds.values())).model)  # the worlds' models share the backbone
    for layout, world in worlds.items():
        yield as_line(
            f"{name}, {layout}: scoring, {EXPERTS} experts", measure_scoring(world, router), peak, SCORING_GOAL
        )


class Model(StrEnum):
    """What `--model` takes."""

    LLAMA3_8B = "llama3-8b"
    QWEN3_06B = "qwen3-0.6b"
    ALL = "all"


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    model: Annotated[
        Model, typer.Option(help="Whose shape to measure; its weights are random, nothing is fetched.")
    ] = (Model.ALL),
) -> None:
    """Measure LoRA training and scoring on a CUDA device, and hold their utilisation to the goals.

    Prints a line per model, layout and work: labels/s (user-item pairs), tokens/s without padding, the share of the
    device's bfloat16 peak that goes into operations really needed, the goal for it, and the most memory held. llama3-8b
    needs some 24 GB. Without a CUDA device it says so and is done.
    """
    if not torch.cuda.is_available():
        typer.echo("no CUDA device here, so there is nothing to measure")
        return
    device = torch.device("cuda")
    peak = peak_of(device)
    typer.echo(f"{torch.cuda.get_device_name(device)}: {peak.rate / 1e12:,.0f} TFLOP/s in bfloat16 ({peak.source})")
    typer.echo(LINE.format(*HEADINGS))
    backbone: PreTrainedModel | None
    for name in MODELS if model is Model.ALL else [model.value]:
        try:
            backbone = build(MODELS[name], device)
            for line in measure_model(name, backbone, torch.cuda.mem_get_info(device)[0], peak):
                typer.echo(line)
        except torch.OutOfMemoryError:
            typer.echo(f"{name}: this device has too little memory for it")
        backbone = None
        gc.collect()  # modules refer to each other
        torch.cuda.empty_cache()


if __name__ == "__main__":
    app()
