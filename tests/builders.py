"""Small worlds that tests share: an interactions table with ties, random features, tiny models of two families."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from peft import LoraConfig, get_peft_model
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from thinkrec.features.artefact import Features
from thinkrec.ingest.catalogue import DATASETS
from thinkrec.ingest.splits import windows_of
from thinkrec.lm.adapters import BatchWeights
from thinkrec.lm.loaded import LoadedModel
from thinkrec.lm.model import RecommenderLM, SlotProjector, SlotValues, TextMatch
from thinkrec.lm.recipes import RECIPES
from thinkrec.lm.tiny import build_tokenizer
from thinkrec.params import PromptParams, Slot
from thinkrec.text.items import Ragged, encode
from thinkrec.text.layout import Layout
from thinkrec.text.layouts import make_layout
from thinkrec.text.vocabulary import find_vocabulary

Family = Literal["llama", "qwen3"]
FAMILIES: tuple[Family, ...] = ("llama", "qwen3")
SLOTS: tuple[Slot, ...] = ("user", "item", "statistics")
ITEMS = 8
TITLES = [
    "Iron Harbour: ships, war",
    "Quiet Orchard",
    "The Glass Bridge: slow, sad, rain",
    "Night Market: food",
    "Seven Keys: puzzle, heist, wit",
    "Low Tide: sea",
    "Paper Moons: comic",
    "Winter Line: trains, spies",
]
REASON = "The tone is right and the pace suits."


def interactions(seed: int = 0, *, users: int = 3, rows: int = 12, ties: bool = True) -> pd.DataFrame:
    """`rows` interactions of each user, train then valid then test by time; with `ties`, moments hold some three."""
    rng = np.random.default_rng(seed)
    total = users * rows
    moments = max(2, rows // 3) if ties else None
    time = [
        np.sort(rng.integers(0, moments, rows)) if moments else np.sort(rng.choice(10 * rows, rows, replace=False))
        for _ in range(users)
    ]
    timestamp = np.concatenate(time).astype(np.int64)
    share = timestamp / (timestamp.max() + 1)
    return pd.DataFrame(
        {
            "user": np.repeat(np.arange(users), rows).astype(np.int32),
            "item": rng.integers(0, ITEMS, total).astype(np.int32),
            "label": rng.integers(0, 2, total).astype(np.int8),
            "timestamp": timestamp,
            "split": np.select([share < 0.5, share < 0.75], ["train", "valid"], "test"),
        }
    )


def item_table() -> pd.DataFrame:
    """The items that TITLES name, in the columns that features read."""
    genres = [["war"], ["drama"], ["drama", "sad"], ["food"], ["heist", "comic"], ["drama", "war"], ["comic"], []]
    return pd.DataFrame(
        {
            "title": [title.split(":")[0] for title in TITLES],
            "year": np.asarray([1990, 1991, 2000, np.nan, 1996, 1990, 2005, 1984]),
            "categories": genres,
            "description": TITLES,
            "keywords": [[*genre, "any"] for genre in genres],
        }
    )


def features_of(table: pd.DataFrame, *, seed: int = 0) -> Features:
    """Random features of the right shapes."""
    rng = np.random.default_rng(seed)
    count = len(table)
    users = int(table["user"].max()) + 1
    return Features(
        user_vectors=rng.normal(size=(users, 4)).astype(np.float32),
        item_vectors=rng.normal(size=(ITEMS, 4)).astype(np.float32),
        user_row=table["user"].to_numpy(np.int32),
        state=table["user"].to_numpy(np.int32),
        item_row=table["item"].to_numpy(np.int32),
        statistics=rng.normal(size=(count, 3)).astype(np.float32),
        statistic_names=["a", "b", "c"],
    )


@cache
def tokenizer() -> PreTrainedTokenizerBase:
    """A byte-level tokenizer learned from a few texts."""
    return build_tokenizer([*TITLES, REASON], 320)


@cache
def item_tokens() -> Ragged:
    """The tokens of TITLES."""
    return encode(tokenizer(), TITLES)


def causal_lm(family: Family = "llama", *, layers: int = 2, seed: int = 0) -> PreTrainedModel:
    """A random model, its weights large enough that every token it sees matters."""
    torch.manual_seed(seed)
    words = tokenizer()
    shape = {
        "vocab_size": len(words),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "initializer_range": 0.15,
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
        "tie_word_embeddings": True,
    }
    if family == "llama":
        return LlamaForCausalLM(LlamaConfig(**shape)).eval()
    return Qwen3ForCausalLM(Qwen3Config(**shape, head_dim=8)).eval()


def layout_of(
    table: pd.DataFrame,
    *,
    history: int = 3,
    reasons: Mapping[int, NDArray[np.int32]] | None = None,
    layout: Literal["stream", "question"] = "stream",
    slots: tuple[Slot, ...] = SLOTS,
    max_tokens: int = 2048,
) -> Layout:
    """The layout of a table, the stream layout unless said otherwise."""
    prompt = PromptParams(
        layout=layout,
        history=history,
        max_tokens=max_tokens,
        keywords=8,
        slots=slots,
        soft_tokens=0,
    )
    return make_layout(table, item_tokens(), tokenizer(), prompt, reasons=reasons)


def recommender(
    table: pd.DataFrame,
    family: Family = "llama",
    *,
    layers: int = 2,
    slots: tuple[Slot, ...] = SLOTS,
    dropout: float = 0.0,
    seed: int = 0,
    match: bool = True,
) -> RecommenderLM:
    """A tiny model: slots filled from random features (without `slots`, text only) and a random match of texts."""
    backbone = causal_lm(family, layers=layers, seed=seed)
    values = SlotValues(features_of(table, seed=seed), slots)
    projector = None
    if slots:
        projector = SlotProjector(values.widths, 32, dropout=dropout)
        projector.fit_scale(values(np.arange(len(table))))
    texts = TextMatch(32, 8, dropout=dropout) if match else None
    return RecommenderLM(backbone, find_vocabulary(tokenizer()), values, projector, match=texts).eval()


def write_movielens(folder: Path, *, bad: int = 0) -> Path:
    """A hand-made ml-1m folder, likes by item: 3 of 43 movies have no metadata, some users and items come late."""
    rng = np.random.default_rng(5)
    windows = windows_of(DATASETS["ml-1m"].windows, 0, 0)
    lines = []
    for window, users, items in zip(windows.values(), (24, 28, 30), (36, 40, 43), strict=True):
        for user in range(1, users + 1):
            chosen = rng.choice(np.arange(1, items + 1), 12 if window is windows["train"] else 4, replace=False)
            for item in {*chosen.tolist(), items - user % 4}:  # the last ones surely among them
                stars = 5 if rng.random() < (0.8 if item % 2 else 0.2) else 2
                lines.append(f"{user}::{item}::{stars}::{rng.integers(window.start, window.end)}")
    lines[7:7] = ["1::2::many::991353600"] * bad
    folder.mkdir()
    (folder / "ratings.dat").write_text("\n".join(lines) + "\n", encoding="latin-1")
    genres = ("Drama", "Comedy|Crime", "Film-Noir")
    movies = [f"{item}::Caf\xe9 {item}, The (19{item + 50})::{genres[item % 3]}" for item in range(1, 41)]
    (folder / "movies.dat").write_text("\n".join([*movies, "broken"]) + "\n", encoding="latin-1")
    return folder


def loaded_model(
    table: pd.DataFrame,
    model: RecommenderLM | None = None,
    layout: Layout | None = None,
    *,
    batch_weights: BatchWeights | None = None,
    routing_weights: NDArray[np.float32] | None = None,
    root: Path = Path(),
) -> LoadedModel:
    """A tiny model with what a stage needs around it; of the `compact` recipe, without a mixture unless given one."""
    model = recommender(table) if model is None else model
    return LoadedModel(
        root=root,
        interactions=table,
        features=model.slot_values.features,
        tokenizer=tokenizer(),
        layout=layout_of(table) if layout is None else layout,
        model=model,
        recipe=RECIPES["compact"],
        base=Path("out/sft/model"),
        adapter=None,
        provenance={},
        batch_weights=batch_weights,
        routing_weights=routing_weights,
    )


def write_random_adapter(folder: Path, seed: int) -> Path:
    """A LoRA on disk for `causal_lm`, strong enough to turn verdicts."""
    config = LoraConfig(r=4, lora_alpha=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    adapter = get_peft_model(causal_lm(), config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in adapter.named_parameters():
            if "lora_" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.5)
    adapter.save_pretrained(str(folder))
    return folder
