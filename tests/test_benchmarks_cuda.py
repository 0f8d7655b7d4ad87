"""What the benchmark of an accelerator says is what it did. Its parts run on the processor, with tiny models."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, Qwen3Config
from typer.testing import CliRunner

from benchmarks import cuda
from benchmarks.cuda import LayoutName, Peak, Rates
from tests.builders import FAMILIES, Family
from thinkrec.lm.adapters import add_lora
from thinkrec.lm.finetune import Objective
from thinkrec.lm.mixture import MixtureLinear
from thinkrec.lm.scoring import score
from thinkrec.text.items import Ragged
from thinkrec.text.layout import Window
from thinkrec.text.stream import StreamLayout

pytestmark = pytest.mark.integration

CPU = torch.device("cpu")
LAYOUTS: tuple[LayoutName, ...] = ("stream", "question")


def tiny(family: Family = "llama", *, tied: bool = True, layers: int = 2, hidden: int = 32) -> PreTrainedConfig:
    shape = {
        "vocab_size": 300,
        "hidden_size": hidden,
        "intermediate_size": 3 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": tied,
    }
    return LlamaConfig(**shape) if family == "llama" else Qwen3Config(**shape, head_dim=hidden // 2)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_built_from_meta_is_an_ordinary_one_of_the_same_weights(family: Family, tied: bool) -> None:
    config = tiny(family, tied=tied)
    built = cuda.build(config, CPU, torch.float32)
    ordinary = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    ordinary.load_state_dict(built.state_dict())
    tokens = torch.randint(300, (2, 50), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(built(tokens).logits, ordinary(tokens).logits)
    assert sum(weight.numel() for weight in built.parameters()) == sum(w.numel() for w in ordinary.parameters())


def test_operations_are_those_counted_by_hand() -> None:
    backbone = cuda.build(
        LlamaConfig(
            vocab_size=50,
            hidden_size=8,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
        ),
        CPU,
    )
    cost = cuda.Cost.of(backbone)
    # q and o 8 x 8, k and v 4 x 8, three of 8 x 16; the head 50 x 8.
    assert (cost.layers, cost.head) == (2 * 64 + 2 * 32 + 3 * 128, 400)
    layout = StreamLayout(
        timestamp=np.asarray([0, 1]),
        label=np.asarray([1, 0], np.int8),
        item=np.asarray([0, 1], np.int32),
        start=np.asarray([0, 0]),
        end=np.asarray([0, 1]),
        items=Ragged(np.arange(10, 18, dtype=np.int32), np.asarray([0, 3, 8])),
        reasons={1: np.asarray([20, 21, 22, 1], np.int32)},
        vocabulary=cuda.WORDS,
        history=10,
        hide_dislikes=False,
        soft_tokens=0,
        max_tokens=100,
    )
    window = Window(np.asarray([0, 1]), np.asarray([True, True]))
    work = cost.work(layout, [window, window], 4)
    # A begin token, (3 + slot + verdict), (5 + slot + verdict + 4 of a reason); predicted: 2 verdicts, the 4.
    assert (work.tokens, work.labels) == (2 * 17, 2 * 2)
    assert work.operations == 2 * 4 * (576 * 17 + 400 * 6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_padding_is_no_work_and_every_prediction_is(layout: LayoutName) -> None:
    world = cuda.make_world(cuda.build(tiny(), CPU), layout, users=2, per_user=15)
    windows = world.layout.training_windows(np.arange(30), np.random.default_rng(0))
    batch = world.layout.collate(windows)
    alone = sum(world.layout.collate([window]).input_ids.numel() for window in windows)
    assert alone < batch.input_ids.numel(), "nothing is padded"
    work, cost = world.cost.work(world.layout, windows, 2), world.cost
    assert (work.tokens, work.labels) == (alone, 30)
    assert work.operations == 2 * (cost.layers * alone + cost.head * (len(batch.verdicts) + len(batch.reasons)))
    assert len(batch.reasons)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("recompute", [False, True])
def test_training_is_measured_and_leaves_the_model_as_it_was(layout: LayoutName, recompute: bool) -> None:
    backbone = cuda.build(tiny(), CPU)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    world = cuda.make_world(backbone, layout, users=2, per_user=15)
    passes = []
    backbone.model.layers[0].input_layernorm.register_forward_hook(lambda *_: passes.append(None))
    rates = cuda.measure_training(world, 1000, recompute=recompute, steps=2)
    assert len(passes) == (cuda.WARM_UP + 2) * (2 if recompute else 1)
    assert rates.labels > 0 and rates.tokens > rates.labels and rates.memory is None
    assert rates.operations > 4 * world.cost.layers * rates.tokens * 0.9
    after = backbone.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_scoring_is_measured_with_every_expert_in_the_mixture(layout: LayoutName) -> None:
    backbone = cuda.build(tiny(layers=10), CPU)
    world = cuda.make_world(backbone, layout, users=2, per_user=15)
    rows = np.arange(30)
    alone = score(world.model, world.layout, rows)
    router = cuda.install_random(world.model)
    mixed = [module for module in backbone.modules() if isinstance(module, MixtureLinear)]
    # Below the last 8 layers the experts are the global adapter: computed once. q and v in every layer.
    assert sorted((len(one.down), one.shared) for one in mixed) == [(8, True)] * 4 + [(4 * 8, False)] * 16
    rates = cuda.measure_scoring(world, router, rounds=2)
    work = world.cost.work(world.layout, world.layout.scoring_windows(rows, rows // 15), 2)
    assert work.labels == 30
    assert rates.labels / rates.tokens == pytest.approx(work.labels / work.tokens)
    assert rates.operations / rates.labels == pytest.approx(work.operations / work.labels)
    assert rates.operations > 0
    routing, route = np.eye(4, dtype=np.float32)[[1, 2]], rows // 15
    assert np.abs(score(world.model, world.layout, rows, router=router, routing=routing, route=route) - alone).max() > 0


def test_a_model_makes_a_line_for_each_layout_and_work() -> None:
    users: dict[LayoutName, int] = {"stream": 1, "question": 1}
    peak = Peak(1e9, "data sheet")
    lines = list(cuda.measure_model("tiny", cuda.build(tiny(), CPU), 3 * 10**7, peak, users))
    heads = [line[: line.index("  ")] for line in lines]
    assert heads == [
        "tiny, stream: LoRA training",
        "tiny, question: LoRA training",
        "tiny, stream: scoring, 3 experts",
        "tiny, question: scoring, 3 experts",
    ]


def test_a_goal_is_met_from_its_bound_on() -> None:
    peak = Peak(1000.0, "data sheet")
    cells = [
        cuda.as_line("x", Rates(tokens=1e5, labels=2e3, operations=rate, memory=3 * 2**30), peak, 0.45).split()
        for rate in (450.0, 449.0)
    ]
    assert cells[0] == ["x", "2,000", "100,000", "45.0%", "≥", "45%", "yes", "3.0", "GiB"]
    assert cells[1][-3] == "no"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_layer_keeps_no_more_than_the_batch_size_reckons_with(family: Family) -> None:
    def kept(layers: int) -> float:
        """Bytes per token that a forward pass in training keeps for the way back, weights left out."""
        backbone = cuda.build(tiny(family, layers=layers, hidden=256), CPU)
        world = cuda.make_world(backbone, "stream", users=1, per_user=6)
        add_lora(backbone, cuda.LORA)
        objective = Objective(world.model.without_slots(), world.layout.label, 0.1, cuda.SFT).train()
        weights = {weight.untyped_storage().data_ptr() for weight in objective.parameters()}
        found: dict[int, Tensor] = {}

        def pack(tensor: Tensor) -> Tensor:
            if tensor.untyped_storage().data_ptr() not in weights:
                found[tensor.untyped_storage().data_ptr()] = tensor  # held, or its place is given to another
            return tensor

        batch = world.layout.collate([Window(np.arange(6), np.ones(6, bool))])
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x), torch.autocast("cpu", torch.bfloat16):
            objective(**batch.tensors())
        return sum(tensor.untyped_storage().nbytes() for tensor in found.values()) / batch.input_ids.numel()

    reckoned = cuda.layer_bytes(tiny(family, hidden=256))
    assert 0.6 * reckoned < (kept(3) - kept(1)) / 2 < 1.05 * reckoned


@pytest.mark.parametrize(
    ("name", "free", "recompute"),
    [("llama3-8b", 120, False), ("llama3-8b", 60, False), ("llama3-8b", 8, True), ("qwen3-0.6b", 22, False)],
)
def test_passes_are_as_large_as_memory_allows(name: str, free: int, recompute: bool) -> None:
    tokens, computed_twice = cuda.batch_size(cuda.MODELS[name], free * 10**9)
    assert computed_twice == recompute
    assert cuda.LEAST_TOKENS <= tokens <= cuda.MOST_TOKENS
    assert cuda.batch_size(cuda.MODELS[name], 10**12) == (cuda.MOST_TOKENS, False)


def test_a_pass_that_does_not_fit_is_halved_until_it_does() -> None:
    asked = []

    def measure(tokens: int) -> int:
        asked.append(tokens)
        if tokens > bound:
            raise torch.OutOfMemoryError
        return tokens

    bound = 3000
    assert cuda.halving(measure, 10_000) == 2500 and asked == [10_000, 5000, 2500]
    bound = 0
    with pytest.raises(torch.OutOfMemoryError):
        cuda.halving(measure, 10_000)


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA L40S", 362),
        ("NVIDIA GeForce RTX 4090", 165),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA GeForce GTX 1080", None),
    ],
)
def test_a_device_is_known_by_its_whole_name(name: str, tera: int | None) -> None:
    assert cuda.known_peak(name) == (None if tera is None else tera * 1e12)


def test_a_peak_that_is_not_known_is_measured() -> None:
    assert cuda.measured_peak(CPU, size=64) > 0


def test_without_a_device_one_line_says_so() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.cuda"],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.splitlines()) == (0, ["no CUDA device here, so there is nothing to measure"])


def test_help_names_the_models_and_what_is_printed() -> None:
    shown = CliRunner().invoke(cuda.app, ["--help"], env={"COLUMNS": "120"})
    assert shown.exit_code == 0
    assert all(word in shown.stdout for word in (*cuda.MODELS, "labels/s", "CUDA"))
