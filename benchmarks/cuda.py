"""How fast a GPU trains and scores with language models of real size: labels and tokens per second, memory.

    python -m benchmarks.cuda --model qwen3-0.6b --tokens 16384
    python -m benchmarks.cuda --model llama3-8b --tokens 4096

Weights are random, since they take the time that trained ones take: models are built on the device from their
configuration alone, and nothing is downloaded. What is timed is the pipeline's own code: a training step of a LoRA
(r 8, q_proj and v_proj) in bfloat16, and scoring with a global adapter and three experts mixed per sample.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is first imported

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, PreTrainedModel, Qwen3Config

from thinkrec.experts.training import add_expert, expert_folder
from thinkrec.features.artefact import Features
from thinkrec.lm.adapters import add_lora, install_mixture, save_adapter
from thinkrec.lm.losses import Objective
from thinkrec.lm.model import RecommenderLM, SlotProjector, SlotValues
from thinkrec.lm.scoring import RowWeights, score
from thinkrec.params import LoraParams, load
from thinkrec.text.items import Ragged
from thinkrec.text.layout import Window, batches_by_tokens
from thinkrec.text.stream import StreamLayout
from thinkrec.text.vocabulary import Vocabulary

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
LORA = LoraParams(r=8, alpha=16, dropout=0.05)
EXPERTS, EXPERT_LAYERS = 3, 8
USERS, PER_USER = 64, 100  # interactions of each
ITEMS, ITEM_TOKENS = 3700, (20, 44)  # a title and eight keywords take some thirty tokens
REASON_SHARE, REASON_TOKENS = 0.1, 60  # of the interactions that have a trace, and its length
WORDS = Vocabulary(begin=0, end=1, slot=2, no=3, yes=4)
FIRST_WORD = 10  # ids below have, or may have, a role
WARM_UP, STEPS = 2, 8  # training steps
ROUNDS = 3  # over all rows to score


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Random interactions as prompts with slots, and a model of random weights that reads them."""

    user: NDArray[np.int64]  # (n,) whose each interaction is
    layout: StreamLayout
    model: RecommenderLM


def count_work(layout: StreamLayout, windows: Sequence[Window]) -> tuple[int, int]:
    """Labels (pairs of user and item) and tokens that are no padding of these windows."""
    blocks = [block for window in windows for block in (layout.beginning(window), *layout.blocks(window))]
    return sum(block.verdict >= 0 for block in blocks), sum(len(block.tokens) for block in blocks)


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


def make_world(backbone: PreTrainedModel, users: int = USERS) -> World:
    """PER_USER interactions of each of so many users, about random items; the backbone with slots to fill."""
    rng = np.random.default_rng(0)
    rows = users * PER_USER
    user = np.repeat(np.arange(users), PER_USER)
    item = rng.integers(0, ITEMS, rows).astype(np.int32)

    def draw(count: int) -> NDArray[np.int32]:
        return rng.integers(FIRST_WORD, backbone.config.vocab_size, count).astype(np.int32)

    offsets = np.concatenate([[0], np.cumsum(rng.integers(*ITEM_TOKENS, ITEMS))]).astype(np.int64)
    explained = rng.choice(rows, round(REASON_SHARE * rows), replace=False)
    layout = StreamLayout(
        timestamp=np.tile(np.arange(PER_USER) * 60, users),
        label=rng.integers(0, 2, rows).astype(np.int8),
        item=item,
        start=user * PER_USER,
        end=np.arange(rows),
        items=Ragged(draw(offsets[-1]), offsets),
        reasons={int(row): draw(REASON_TOKENS) for row in explained},
        vocabulary=WORDS,
        history=10,
        soft_tokens=0,
        max_tokens=4096,
    )
    features = Features(
        user_vectors=rng.normal(size=(users, 64)).astype(np.float32),
        item_vectors=rng.normal(size=(ITEMS, 64)).astype(np.float32),
        item_row=item,
        user_row=user.astype(np.int32),
        state=user.astype(np.int32),
        statistics=np.zeros((rows, 0), np.float32),
        statistic_names=[],
    )
    values = SlotValues(features, ("user", "item"))
    projector = SlotProjector(values.widths, backbone.config.hidden_size)
    return World(
        user=user,
        layout=layout,
        model=RecommenderLM(backbone, WORDS, values, projector, scored="yes").to(backbone.device),
    )


def measure_training(world: World, tokens: int, steps: int = STEPS) -> str:
    """Train a fresh LoRA on text alone, as the `paper` recipe's first phase does, in passes of at most `tokens`."""
    model, layout, params = (
        world.model.with_inputs(world.model.slot_values, None),
        world.layout.without_slots(),
        load().sft,
    )
    device = model.device
    rows = np.arange(len(world.user))
    windows = layout.training_windows(rows, np.random.default_rng(0))
    batches = list(batches_by_tokens(layout, windows, tokens))[: WARM_UP + steps]  # the longest first: memory's peak
    adapted = add_lora(model.backbone, LORA)
    thinking = float(sum(layout.reasons_shown(window).sum() for window in windows) / len(rows))
    objective = Objective(model, layout.label, thinking, params).train()
    weights = [weight for weight in objective.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-4, fused=device.type == "cuda")

    def step(batch: Sequence[Window]) -> None:
        with torch.autocast(device.type, torch.bfloat16):
            loss = objective(**layout.collate(batch).to(device).tensors())
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    calls = [(lambda batch=batch: step(batch), count_work(layout, batch)) for batch in batches]
    line = measure("LoRA training", device, calls, WARM_UP)
    adapted.unload()
    model.eval()
    return line


def measure_scoring(world: World, rounds: int = ROUNDS) -> str:
    """Score every interaction, adapters mixed by random weights, one set per user."""
    with TemporaryDirectory() as folder:
        batch_weights = install_mixture(world.model.backbone, write_adapters(world.model, Path(folder)))
    users = int(world.user.max()) + 1
    routing_weights = np.random.default_rng(0).dirichlet(np.ones(EXPERTS + 1), users).astype(np.float32)
    weights = RowWeights(batch_weights, routing_weights, world.user)
    rows = np.arange(len(world.user))

    def score_all() -> None:
        scores = score(world.model, world.layout, rows, weights)
        assert np.isfinite(scores).all()

    work = count_work(world.layout, world.layout.scoring_windows(rows, world.user))
    return measure(f"scoring, {EXPERTS} experts", world.model.device, [(score_all, work)] * (rounds + 1), 1)


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


def measure(
    what: str, device: torch.device, calls: Sequence[tuple[Callable[[], None], tuple[int, int]]], warm_up: int
) -> str:
    """Do the calls one after the other; a line of medians over all but the first `warm_up`."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    rates = []
    for call, (labels, tokens) in calls:
        began = now(device)
        call()
        took = now(device) - began
        rates.append((labels / took, tokens / took))
    of_labels, of_tokens = (statistics.median(column) for column in zip(*rates[warm_up:], strict=True))
    memory = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0
    return f"{what}: {of_labels:,.0f} labels/s, {of_tokens:,.0f} tokens/s, {memory:.1f} GiB"


def now(device: torch.device) -> float:
    """Seconds, once the device has done all that it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def main(
    model: Annotated[str, typer.Option(help=f"Whose shape to measure: {' or '.join(MODELS)}.")] = "qwen3-0.6b",
    tokens: Annotated[int, typer.Option(help="Of a training pass; as many as memory allows.")] = 4096,
) -> None:
    """Measure LoRA training and scoring on a CUDA device with random weights. llama3-8b needs some 24 GB."""
    if not torch.cuda.is_available():
        typer.echo("no CUDA device here, so there is nothing to measure")
        return
    device = torch.device("cuda")
    typer.echo(f"{model} on {torch.cuda.get_device_name(device)}")
    world = make_world(build(MODELS[model], device))
    typer.echo(measure_training(world, tokens))
    typer.echo(measure_scoring(world))


if __name__ == "__main__":
    typer.run(main)
