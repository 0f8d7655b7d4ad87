"""What the benchmarks run on: random ratings, items with made-up texts, language models of random weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from peft import PeftModel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from thinkrec.features.artefact import Features
from thinkrec.lm.adapters import add_lora
from thinkrec.lm.model import RecommenderLM, SlotProjector, SlotValues
from thinkrec.lm.tiny import build_tokenizer
from thinkrec.params import LoraParams, PromptParams, Slot
from thinkrec.text.items import Ragged, encode
from thinkrec.text.layout import Layout
from thinkrec.text.layouts import make_layout
from thinkrec.text.question import PHRASINGS, question_text

HISTORY = 10  # the paper's, and the default's
VOCABULARY = 2000
ITEMS = 3700  # MovieLens 1M has 3,706
GENRES = 18
TITLE, KEYWORDS = 3, 8  # words of a title, keywords of an item
DAY = 86_400


@dataclass(frozen=True, slots=True)
class Shape:
    """A language model's size."""

    hidden: int
    layers: int = 4
    vocabulary: int = VOCABULARY

    def __str__(self) -> str:
        return f"{self.layers} x {self.hidden}"


SHAPES = (Shape(96), Shape(256))  # the tiny backbone, and a wider one


def ratings(counts: NDArray[np.integer]) -> pd.DataFrame:
    """`counts[u]` interactions of each user u, as in the artefact: popular items often, three hours a user, ties."""
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    popularity = 1 / np.arange(1, ITEMS + 1) ** 0.8
    began = rng.integers(0, 900 * DAY, len(counts))
    time = began[user] + rng.integers(0, DAY // 8, len(user)) // 20 * 20
    return pd.DataFrame(
        {
            "user": user,
            "item": rng.choice(ITEMS, len(user), p=popularity / popularity.sum()).astype(np.int32),
            "label": rng.integers(0, 2, len(user), dtype=np.int8),
            "timestamp": time[np.lexsort((time, user))].astype(np.int64),
        }
    )


def rated(rows: int, users: int, *, least: int) -> NDArray[np.int64]:
    """How much each user rated, `rows` in all: at least so many, some very many."""
    weight = np.random.default_rng(0).lognormal(0, 1.2, users)
    counts = least + (weight / weight.sum() * (rows - least * users)).astype(np.int64)
    counts[np.argmax(counts)] += rows - counts.sum()
    return counts


@cache
def words() -> NDArray[np.str_]:
    """Some thousand made-up words."""
    rng = np.random.default_rng(0)
    return np.asarray(["".join(rng.choice(list("aeioulmnrstk"), rng.integers(3, 9))) for _ in range(4000)])


def item_table() -> pd.DataFrame:
    """Items with title, year and categories, as features read them."""
    rng = np.random.default_rng(0)
    often = 1 / np.arange(10, 10 + len(words())) ** 0.8
    drawn = rng.choice(words(), (ITEMS, TITLE), p=often / often.sum())
    return pd.DataFrame(
        {
            "title": [" ".join(row) for row in drawn],
            "year": pd.array(1930 + rng.integers(0, 71, ITEMS), dtype="Int16"),
            "categories": [
                list(rng.choice(GENRES, rng.integers(1, 4), replace=False).astype(str)) for _ in range(ITEMS)
            ],
        }
    )


@cache
def item_texts() -> list[str]:
    """`title: keyword, keyword`, as prompts show it."""
    rng = np.random.default_rng(1)
    return [
        f"{title}: {', '.join(rng.choice(words()[:400], KEYWORDS, replace=False))}" for title in item_table()["title"]
    ]


@cache
def tokenizer() -> PreTrainedTokenizerBase:
    """Learned from the items' texts and the question layout's own words."""
    asked = [question_text([("", 0), ("", 1)], "", phrasing) for phrasing in range(len(PHRASINGS))]
    return build_tokenizer([*item_texts(), *asked * 500], VOCABULARY)


@cache
def item_tokens() -> Ragged:
    """The tokens of the items' texts."""
    return encode(tokenizer(), item_texts())


def layout_of(
    table: pd.DataFrame, name: Literal["stream", "question"] = "stream", *, slots: tuple[Slot, ...] = ()
) -> Layout:
    """A layout of a table: of text only, or with places for features."""
    prompt = PromptParams(layout=name, history=HISTORY, max_tokens=4096, keywords=KEYWORDS, slots=slots, soft_tokens=0)
    return make_layout(table, item_tokens(), tokenizer(), prompt)


def causal_lm(shape: Shape) -> PreTrainedModel:
    """A language model of random weights."""
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=shape.vocabulary,
            hidden_size=shape.hidden,
            intermediate_size=2 * shape.hidden,
            num_hidden_layers=shape.layers,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=8192,
            tie_word_embeddings=True,
            bos_token_id=tokenizer().bos_token_id,
            eos_token_id=tokenizer().eos_token_id,
            pad_token_id=tokenizer().pad_token_id,
        )
    ).eval()


def with_lora(backbone: PreTrainedModel, *, seed: int = 0, layers: int | None = None) -> PeftModel:
    """A LoRA of the paper's size put into the last `layers` (all), in place, B no longer zero; returns its handle."""
    adapted = add_lora(backbone, LoraParams(r=8, alpha=16, dropout=0.0), layers=layers)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.02)
    return adapted


def recommender(
    table: pd.DataFrame, layout: Layout, backbone: PreTrainedModel, *, slots: tuple[Slot, ...] = ()
) -> RecommenderLM:
    """`backbone` as a recommender for prompts of `layout`: of text only, or with slots filled from random features."""
    rng = np.random.default_rng(0)
    user, item = table["user"].to_numpy(np.int32), table["item"].to_numpy(np.int32)
    features = Features(
        user_vectors=rng.normal(size=(int(user.max()) + 1, 16)).astype(np.float32),
        item_vectors=rng.normal(size=(ITEMS, 16)).astype(np.float32),
        item_row=item,
        user_row=user,
        state=user,
        statistics=rng.normal(size=(len(table), 17)).astype(np.float32),
        statistic_names=[f"s{n}" for n in range(17)],
    )
    values = SlotValues(features, slots)
    projector = SlotProjector(values.widths, backbone.config.hidden_size) if slots else None
    return RecommenderLM(backbone, layout.vocabulary, values, projector).eval()
