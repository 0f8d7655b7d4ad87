"""Every benchmark, one line each: what A and B are, their median seconds, and the median of the ratios B / A.

Machines are noisy, so A and B alternate and only ratios are worth quoting. Run: make bench
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

from thinkrec.features.statistics import causal_statistics
from thinkrec.lm.mixture import MixtureLinear, Router
from thinkrec.text.items import Ragged
from thinkrec.text.stream import batches_by_tokens, collate, make_layout, scoring_windows
from thinkrec.text.vocabulary import Vocabulary

ROUNDS = 5
Pair = tuple[str, Callable[[], object], str, Callable[[], object]]


def ratings(users: int, per_user: int, items: int) -> pd.DataFrame:
    """A table of interactions like the artefact's, all of one split."""
    rng = np.random.default_rng(0)
    rows = users * per_user
    return pd.DataFrame(
        {
            "user": np.repeat(np.arange(users, dtype=np.int32), per_user),
            "item": rng.integers(0, items, rows).astype(np.int32),
            "label": rng.integers(0, 2, rows).astype(np.int8),
            "timestamp": np.tile(np.arange(per_user, dtype=np.int64) * 60, users),
            "split": pd.Categorical(["train"] * rows, categories=["train", "valid", "test"]),
        }
    )


def tiny(layers: int = 4, hidden: int = 96, vocabulary: int = 2000) -> LlamaForCausalLM:
    """A model of the embedded backbone's size."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=8192,
    )
    return LlamaForCausalLM(config).eval()


def stream_or_prompts() -> Pair:
    """One pass over a stream, a verdict at every target, against one prompt per target."""
    table = ratings(users=8, per_user=40, items=100)
    rng = np.random.default_rng(1)
    items = Ragged(rng.integers(10, 2000, 100 * 12).astype(np.int32), np.arange(101, dtype=np.int64) * 12)
    words = Vocabulary(begin=0, end=1, slot=2, no=3, yes=4)
    layout = make_layout(table, items, words, history=10, hide_dislikes=False)
    rows, model = np.arange(len(table)), tiny()

    def run(state: np.ndarray) -> None:
        windows = scoring_windows(layout, rows, state)
        for batch in batches_by_tokens(layout, windows, 8192):
            tensors = collate(layout, batch)
            with torch.inference_mode():
                model.model(
                    input_ids=tensors.input_ids,
                    attention_mask=tensors.attention_mask,
                    position_ids=tensors.position_ids,
                )

    together, apart = np.zeros(len(rows), np.int64), rows
    return "stream", lambda: run(together), "one prompt per target", lambda: run(apart)


def needed_positions() -> Pair:
    """The LM head at one position in fourteen against at all of them."""
    model = tiny()
    hidden = torch.randn(16, 400, 96)
    return "head where needed", lambda: model.lm_head(hidden[:, ::14]), "head everywhere", lambda: model.lm_head(hidden)


def mixture_or_merging() -> Pair:
    """Six experts mixed per sample in one pass against merging each of 32 users' weights in turn."""
    experts, users, width, rank = 6, 32, 96, 8
    base, router = torch.nn.Linear(width, width, bias=False), Router()
    lora = {n + 1: (torch.randn(rank, width), torch.randn(width, rank), 2.0) for n in range(experts)}
    mixture = MixtureLinear(base, lora, router)
    x, router.weights = torch.randn(users, 300, width), torch.rand(users, experts + 1)

    @torch.inference_mode()
    def mixed() -> None:
        mixture(x)

    @torch.inference_mode()
    def merged() -> None:
        for user in range(users):
            delta = sum(s * router.weights[user, n] * b @ a for n, (a, b, s) in lora.items())
            torch.nn.functional.linear(x[user], base.weight + delta)

    return "mixture in one pass", mixed, "one merge per user", merged


def statistics_growth() -> Pair:
    """Causal statistics of 50,000 rows against 200,000: a ratio of 4 means linear in the table."""
    items = pd.DataFrame(
        {
            "title": [f"item {n}" for n in range(2000)],
            "year": pd.array([2000 - n % 50 for n in range(2000)], dtype="Int16"),
            "categories": [[f"c{n % 18}"] for n in range(2000)],
        }
    )
    small, large = ratings(1000, 50, 2000), ratings(4000, 50, 2000)

    def run(table: pd.DataFrame) -> None:
        causal_statistics(table, items, smoothing=5.0, kernel_history=50)

    return "statistics of 50,000 rows", lambda: run(small), "of 200,000 rows", lambda: run(large)


def measure(pair: Pair) -> str:
    """Run A and B in turn and say what came out."""
    name_a, a, name_b, b = pair
    seconds: dict[str, list[float]] = {"a": [], "b": []}
    for turn in range(ROUNDS + 1):
        for key, work in (("a", a), ("b", b)):
            began = time.perf_counter()
            work()
            if turn:  # the first turn warms up
                seconds[key].append(time.perf_counter() - began)
    ratio = statistics.median(y / x for x, y in zip(seconds["a"], seconds["b"], strict=True))
    middle = {key: statistics.median(values) for key, values in seconds.items()}
    return f"{name_a}: {middle['a']:.3f} s; {name_b}: {middle['b']:.3f} s; ratio {ratio:.2f}"


def main() -> None:
    """Run every benchmark."""
    pairs: tuple[Callable[[], Pair], ...] = (
        stream_or_prompts,
        needed_positions,
        mixture_or_merging,
        statistics_growth,
    )

    def lines() -> Iterator[str]:
        for make in tqdm(pairs, desc="benchmarks", disable=None, leave=False):
            yield measure(make())

    for line in list(lines()):
        print(line)


main()
