"""What the benchmark of a GPU says is what it did. Its parts run on the processor, with tiny models."""

import re

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3Config
from typer.testing import CliRunner

from benchmarks import cuda
from tests.builders import FAMILIES
from thinkrec.lm.adapters import MixtureLinear

CPU = torch.device("cpu")
LINE = re.compile(r"[^:]+: [\d,]+ labels/s, [\d,]+ tokens/s, 0.0 GiB")


def tiny(family="llama", *, tied=True, layers=2):
    shape = {
        "vocab_size": 300,
        "hidden_size": 32,
        "intermediate_size": 96,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": tied,
    }
    return LlamaConfig(**shape) if family == "llama" else Qwen3Config(**shape, head_dim=16)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_built_from_meta_is_an_ordinary_one_of_the_same_weights(family, tied):
    config = tiny(family, tied=tied)
    built = cuda.build(config, CPU, torch.float32)
    ordinary = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    ordinary.load_state_dict(built.state_dict())
    tokens = torch.randint(300, (2, 50), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(built(tokens).logits, ordinary(tokens).logits)


def test_padding_is_no_work():
    world = cuda.make_world(cuda.build(tiny(), CPU), users=2)
    windows = world.layout.scoring_windows(np.arange(len(world.user)), world.user)
    batch = world.layout.collate(windows)
    alone = sum(world.layout.collate([window]).input_ids.numel() for window in windows)
    assert alone < batch.input_ids.numel(), "nothing is padded"
    assert cuda.count_work(world.layout, windows) == (200, alone)


def test_training_is_measured_and_leaves_the_model_as_it_was():
    backbone = cuda.build(tiny(), CPU)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    assert LINE.fullmatch(cuda.measure_training(cuda.make_world(backbone, users=2), 1000, steps=1))
    after = backbone.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_scoring_is_measured_with_every_expert_in_the_mixture():
    backbone = cuda.build(tiny(layers=10), CPU)
    assert LINE.fullmatch(cuda.measure_scoring(cuda.make_world(backbone, users=1), rounds=1))
    mixed = [module for module in backbone.modules() if isinstance(module, MixtureLinear)]
    # Below the last 8 layers the experts are the global adapter: computed once. q and v in every layer.
    assert sorted((len(one.down), one.shared) for one in mixed) == [(8, True)] * 4 + [(4 * 8, False)] * 16


def test_without_a_device_one_line_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    app = cuda.typer.Typer()
    app.command()(cuda.main)
    done = CliRunner().invoke(app, [])
    assert (done.exit_code, done.stdout) == (0, "no CUDA device here, so there is nothing to measure\n")
