"""Generated answers equal a loop that recomputes everything for every token, and know nothing of the target's label."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from tests.builders import FAMILIES, Family, interactions, layout_of, recommender, tokenizer
from thinkrec.lm.generation import generate
from thinkrec.lm.model import RecommenderLM, SoftPrompt
from thinkrec.text.layout import Layout

NEW = 7


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return interactions(3, users=2, ties=False)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return request.param


@pytest.fixture(scope="module")
def model(table: pd.DataFrame, family: Family) -> RecommenderLM:
    return recommender(table, family)


@torch.no_grad()
def naive(model: RecommenderLM, layout: Layout, row: int, limit: int) -> str:
    """Up to the target's slot and then token by token, the whole sequence anew each time; without ties it is text."""
    (window,) = layout.scoring_windows(np.asarray([row]), np.zeros(1, np.int64))
    batch = layout.collate([window])
    slot = int(batch.verdicts[0, 1])
    embedded = model.embed(batch)[:, : slot + 1]
    written: list[int] = []
    while len(written) < limit:
        written.append(int(model.backbone(inputs_embeds=embedded).logits[0, -1].argmax()))
        if written[-1] == layout.vocabulary.end:
            break
        new = model.backbone.get_input_embeddings()(torch.tensor([[written[-1]]]))
        embedded = torch.cat([embedded, new], dim=1)
    return tokenizer().decode(written, skip_special_tokens=True).strip()


def answers(model: RecommenderLM, layout: Layout, rows: NDArray[np.int64] | list[int], limit: int = NEW) -> list[str]:
    return generate(model, tokenizer(), layout, np.asarray(rows, np.int64), max_new_tokens=limit)


def test_answers_equal_a_naive_loop_without_a_cache(table: pd.DataFrame, model: RecommenderLM) -> None:
    layout = layout_of(table)
    rows = [0, 5, 23, 12, 17]
    assert answers(model, layout, rows) == [naive(model, layout, row, NEW) for row in rows]
    assert len(set(answers(model, layout, rows))) > 1


def test_answers_under_a_soft_prompt_equal_the_naive_loop_too(table: pd.DataFrame, family: Family) -> None:
    model, layout, rows = recommender(table, family), replace(layout_of(table), soft_tokens=4), [0, 5, 23, 12, 17]
    model.soft_prompt = SoftPrompt(torch.randn(4, 32))
    softened = answers(model, layout, rows)
    assert softened == [naive(model, layout, row, NEW) for row in rows]
    model.soft_prompt = None
    assert softened != answers(model, layout_of(table), rows)


def test_eager_attention_gives_the_same_answers(family: Family) -> None:
    table = interactions(3, users=2)  # with ties
    model, rows = recommender(table, family), np.arange(len(table))
    before = answers(model, layout_of(table), rows)
    model.backbone.set_attn_implementation("eager")
    assert answers(model, layout_of(table), rows) == before


def test_an_answer_does_not_depend_on_its_batch(model: RecommenderLM) -> None:
    layout = layout_of(interactions(3, users=2))
    rows = list(range(24))
    together = answers(model, layout, rows)
    assert together == [answers(model, layout, [row])[0] for row in rows]
    assert together == answers(model, layout, rows[::-1])[::-1]


def test_the_targets_label_and_its_reason_do_not_leak(table: pd.DataFrame, model: RecommenderLM) -> None:
    rows = np.arange(len(table))
    before = answers(model, layout_of(table), rows)
    for row in (4, 11, 20):
        label = table["label"].to_numpy().copy()
        label[row] = 1 - label[row]
        flipped = layout_of(table.assign(label=label), reasons={row: np.asarray([70, 71, 1], np.int32)})
        assert answers(model, flipped, [row]) == [before[row]]


def test_an_answer_has_at_most_the_tokens_allowed(table: pd.DataFrame, model: RecommenderLM) -> None:
    layout = layout_of(table)
    for limit in (1, 3):
        assert answers(model, layout, [5], limit) == [naive(model, layout, 5, limit)]


def test_an_answer_stops_at_the_end_token(table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    model, layout = recommender(table), layout_of(table)
    one, three = (answers(model, layout, np.arange(3), limit) for limit in (1, 3))
    head, steps = model.backbone.get_output_embeddings(), 0
    plain = head.forward

    def ending(hidden: torch.Tensor) -> torch.Tensor:
        """Logits that end one answer at its second token and the others at their fourth."""
        nonlocal steps
        steps += 1
        logits = plain(hidden)
        if steps in (2, 4):
            logits[: 1 if steps == 2 else None, layout.vocabulary.end] = torch.inf
        return logits

    monkeypatch.setattr(head, "forward", ending)
    cut = answers(model, layout, np.arange(3), 50)
    assert steps == 4  # nobody was left to write on
    assert sum(text == short for text, short in zip(cut, one, strict=True)) == 1
    assert sum(text == long for text, long in zip(cut, three, strict=True)) == 2


def test_tied_rows_do_not_read_each_others_verdicts(model: RecommenderLM) -> None:
    table = interactions(3, users=2)
    layout = layout_of(table)
    tied = np.flatnonzero(layout.end < np.arange(len(table)))
    before = answers(model, layout, tied)
    for row, answer in zip(tied.tolist()[:4], before, strict=False):
        label = table["label"].to_numpy().copy()
        label[row - 1] = 1 - label[row - 1]
        assert answers(model, layout_of(table.assign(label=label)), [row]) == [answer]
