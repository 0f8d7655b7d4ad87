"""Answers equal a loop that recomputes everything for every token, and know nothing of their labels."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
import torch

from tests.builders import interactions, layout_of, loaded_model, recommender, tokenizer
from thinkrec.claims.answers import parse_verdict
from thinkrec.lm.model import SoftPrompt
from thinkrec.lm.scoring import score
from thinkrec.reasons.decoding import (
    Decoding,
    choose,
    draws_of,
    reason_first,
    write_answers,
)

NEW = 7
ROWS = [5, 23, 0, 12, 17]


@pytest.fixture(scope="module")
def table():
    return interactions(3, users=2, ties=False)


@pytest.fixture(scope="module")
def model(table):
    return recommender(table)


def add_to_logits(monkeypatch, model, tokens, amount):
    """Make some tokens likelier, or less likely, wherever the model predicts one."""
    head = model.backbone.get_output_embeddings()
    plain, more = head.forward, torch.zeros(head.out_features).index_fill_(0, torch.tensor(tokens), amount)
    monkeypatch.setattr(head, "forward", lambda hidden: plain(hidden) + more)


@dataclass(frozen=True)
class Prompt:
    """A row's prompt up to the target's slot, and which of its T tokens an answer sees."""

    embedded: torch.Tensor  # (1, T, D)
    tokens: torch.Tensor  # (T,)
    mask: torch.Tensor  # (T, T)
    seen: torch.Tensor  # (T,): the beginning, the last `history` blocks before the target's, and that
    block: int  # tokens of the target's own block


@torch.no_grad()
def prompt_of(model, layout, row):
    (window,) = layout.scoring_windows(np.asarray([row]), np.zeros(1, np.int64))
    batch, blocks = layout.collate([window]), layout.blocks(window)
    length = int(batch.verdicts[0, 1]) + 1
    unseen = blocks[: -1 - layout.history]
    place = torch.arange(length) - len(layout.beginning(window).tokens)
    return Prompt(
        model.embed(batch)[:, :length],
        batch.input_ids[0, :length],
        batch.attention_mask[0, 0, :length, :length],
        (place < 0) | (place >= sum(len(block.tokens) for block in unseen)),
        blocks[-1].verdict + 1,
    )


@torch.no_grad()
def match_of(model, layout, row):
    """What the match of texts adds to the logit of a row's Yes."""
    batch = layout.collate(layout.scoring_windows(np.asarray([row]), np.zeros(1, np.int64)))
    hidden = model.hidden_states(model.embed(batch), batch.attention_mask, batch.position_ids)
    return float(model.match(hidden, batch))


@torch.no_grad()
def next_logits(model, prompt, written):
    """Logits after a prompt and the embeddings `written` (1, K, D), all of it read anew; only without ties."""
    old, new = len(prompt.seen), written.shape[1]
    mask = torch.zeros(old + new, old + new, dtype=torch.bool)
    mask[:old, :old], mask[old:, :old] = prompt.mask, prompt.seen
    mask[old:, old:] = torch.ones(new, new).tril()
    embedded = torch.cat([prompt.embedded, written], dim=1)
    hidden = model.hidden_states(embedded, mask[None, None], torch.arange(old + new)[None])
    return model.logits(hidden[0, -1:])[0]


@torch.no_grad()
def write_naively(model, layout, prompt, limit, *, match=0.0, first=()):
    """The text after a prompt and these `first` tokens, and the embeddings of all that was written and read."""
    embed = model.backbone.get_input_embeddings()
    read, tokens = embed(torch.tensor([list(first)], dtype=torch.int64)), []
    while len(tokens) < limit:
        logits = next_logits(model, prompt, read)
        logits[layout.vocabulary.yes] += 0.0 if tokens else match
        tokens.append(int(logits.argmax()))
        if tokens[-1] == layout.vocabulary.end:
            break
        read = torch.cat([read, embed(torch.tensor([tokens[-1:]]))], dim=1)
    return text_of(tokens), read


def naive(model, layout, row, limit):
    """An answer without a cache or a batch; only for tables without ties."""
    match = match_of(model, layout, row)
    return write_naively(model, layout, prompt_of(model, layout, row), limit, match=match)[0]


def text_of(tokens):
    return tokenizer().decode(tokens, skip_special_tokens=True).strip()


def answers(model, layout, rows, limit=NEW, **sampling):
    """What a model writes to these prompts; decoding reads no table."""
    judge, decoding = sampling.pop("judge", None), Decoding(max_new_tokens=limit, **sampling)
    return write_answers(loaded_model(pd.DataFrame(), model, layout), np.asarray(rows, np.int64), decoding, judge=judge)


def test_answers_equal_a_naive_loop_without_a_cache(table, model):
    layout = layout_of(table)
    for limit in (1, 3, NEW):  # the most tokens of an answer
        written = answers(model, layout, ROWS, limit)
        assert written == [naive(model, layout, row, limit) for row in ROWS]
    assert len(set(written)) > 1


def test_answers_under_a_soft_prompt_equal_the_naive_loop_too(table):
    model, layout = recommender(table), replace(layout_of(table), soft_tokens=4)
    model.soft_prompt = SoftPrompt(torch.randn(4, 32))
    softened = answers(model, layout, ROWS)
    assert softened == [naive(model, layout, row, NEW) for row in ROWS]
    model.soft_prompt = None
    assert softened != answers(model, layout_of(table), ROWS)


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.5, "top_p": 0.9, "seed": 4}], ids=["greedy", "sampled"])
def test_an_answer_depends_neither_on_its_batch_nor_on_how_attention_is_computed(sampling):
    table = interactions(3, users=2)  # with ties
    model, layout, rows = recommender(table), layout_of(table), list(range(24))
    together = answers(model, layout, rows, **sampling)
    assert together == [answers(model, layout, [row], **sampling)[0] for row in rows]
    assert together == answers(model, layout, rows[::-1], **sampling)[::-1]
    model.backbone.set_attn_implementation("eager")
    assert together == answers(model, layout, rows, **sampling)


def test_seeds_give_other_samples_and_a_low_temperature_the_greedy_answer(table, model):
    layout, rows = layout_of(table), list(range(12))
    greedy = answers(model, layout, rows)
    first, again, other = (answers(model, layout, rows, temperature=2.0, seed=seed) for seed in (1, 1, 2))
    assert first == again and first != other and first != greedy
    for nearly_greedy in ({"temperature": 1e-6}, {"temperature": 2.0, "top_p": 1e-6}):
        assert answers(model, layout, rows, **nearly_greedy) == greedy


def by_chance(row, text):
    """How bad an answer is, by chance and with ties."""
    return (zlib.crc32(f"{row} {text}".encode()) % 3,)


@torch.no_grad()
def naive_best(model, layout, row, decoding):
    """Each candidate by itself, the whole sequence anew for every token."""
    prompt = prompt_of(model, layout, row)
    key = zlib.crc32(prompt.tokens[prompt.seen].numpy().tobytes())

    def candidate(number):
        written, draws = [], draws_of(decoding, key, number)
        while len(written) < decoding.max_new_tokens and written[-1:] != [layout.vocabulary.end]:
            new = model.backbone.get_input_embeddings()(torch.tensor([written], dtype=torch.int64))
            logits = next_logits(model, prompt, new)[None]
            logits[0, layout.vocabulary.yes] += 0.0 if written else match_of(model, layout, row)
            draw = torch.from_numpy(draws[len(written) :][:1, None])
            written.append(int(choose(logits, decoding if written else replace(decoding, temperature=0.0), draw)))
        return text_of(written)

    return min(map(candidate, range(decoding.candidates)), key=lambda text: by_chance(row, text))


@pytest.mark.parametrize("kind", ["stream", "question"])
def test_the_best_answer_stays_and_candidates_know_nothing_of_each_other(table, model, kind, monkeypatch):
    layout = layout_of(table, layout=kind)
    add_to_logits(monkeypatch, model, [layout.vocabulary.end], 1.0)  # some end early, some never
    how = {"temperature": 1.5, "top_p": 0.9, "seed": 4, "candidates": 5}
    together = answers(model, layout, ROWS, 12, judge=by_chance, **how)
    assert all(together)
    assert together == [naive_best(model, layout, row, Decoding(max_new_tokens=12, **how)) for row in ROWS]
    assert together == [answers(model, layout, [row], 12, judge=by_chance, **how)[0] for row in ROWS]
    assert together != answers(model, layout, ROWS, 12, **how)  # without a judge nothing is chosen


def test_where_an_answer_begins_with_a_verdict_it_is_the_one_that_the_score_says(table, model, monkeypatch):
    layout, rows = layout_of(table), np.arange(len(table))
    add_to_logits(monkeypatch, model, layout.vocabulary.verdicts, 100.0)
    verdicts = [parse_verdict(answer) for answer in answers(model, layout, rows, 1)]
    assert verdicts == (score(model, layout, rows) > 0).tolist()
    assert set(verdicts) == {True, False}


@pytest.mark.parametrize("ties", [False, True])
def test_neither_its_own_label_and_reason_nor_those_of_its_second_leak_into_an_answer(model, ties):
    table = interactions(3, users=2, ties=ties)
    layout, rows = layout_of(table), np.arange(len(table))
    blind_to = (
        {row: [row - 1] for row in rows[layout.end < rows].tolist()[:4]} if ties else {4: [4], 11: [11], 20: [20]}
    )
    before = answers(model, layout, list(blind_to))
    for (row, hidden), answer in zip(blind_to.items(), before, strict=True):
        label = table["label"].to_numpy().copy()
        label[hidden] = 1 - label[hidden]
        flipped = layout_of(table.assign(label=label), reasons={hidden[0]: np.asarray([70, 71, 1], np.int32)})
        assert answers(model, flipped, [row]) == [answer]


def test_an_answer_stops_at_the_end_token(table, monkeypatch):
    model, layout = recommender(table), layout_of(table)
    one, three = (answers(model, layout, np.arange(3), limit) for limit in (1, 3))
    head, steps = model.backbone.get_output_embeddings(), 0
    plain = head.forward

    def ending(hidden):
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


@torch.no_grad()
def naive_reason_first(model, layout, row, limit):
    """The prompt, a full stop, the reason, the row's own block once more, as one growing sequence; without ties."""
    prompt = prompt_of(model, layout, row)
    stop = tokenizer()(".", add_special_tokens=False)["input_ids"]
    text, read = write_naively(model, layout, prompt, limit, first=stop)
    logits = next_logits(model, prompt, torch.cat([read, prompt.embedded[:, -prompt.block :]], dim=1))
    score = logits[layout.vocabulary.yes] - logits[layout.vocabulary.no]
    return text, float(score) + match_of(model, layout, row)


@pytest.mark.parametrize("kind", ["stream", "question"])
def test_reason_first_equals_a_naive_loop_whatever_the_batch(table, model, kind, monkeypatch):
    layout, rows = layout_of(table, layout=kind), np.asarray(ROWS)
    add_to_logits(monkeypatch, model, [layout.vocabulary.end], 1.0)  # some end early, some never
    expected = [naive_reason_first(model, layout, row, NEW) for row in rows.tolist()]
    texts, scores = reason_first(loaded_model(pd.DataFrame(), model, layout), rows, Decoding(max_new_tokens=NEW))
    assert texts == [text for text, _ in expected]
    assert scores == pytest.approx([after for _, after in expected], abs=1e-4)
    assert np.abs(scores - score(model, layout, rows)).max() > 0.01
    assert reason_first(loaded_model(pd.DataFrame(), model, layout), rows[:0], Decoding(max_new_tokens=NEW))[0] == []


@pytest.mark.parametrize("kind", ["stream", "question"])
def test_thinking_first_is_the_same_in_training_as_when_it_is_asked_for(model, kind, monkeypatch):
    table = interactions(3, users=2)  # with ties
    layout, rows = layout_of(table, layout=kind), np.asarray([8, 23, 0, 12, 17])
    end, stop = layout.vocabulary.end, layout.vocabulary.stop
    thoughts = {row: [70 + row, 71, 72 + row][: 1 + row % 3] for row in rows.tolist()}

    def forced(self, _decoding, _draws, going):
        at = [(self.rows[prompt], int(self.length[prompt, 0])) for prompt in going[:, 0].nonzero()[:, 0].tolist()]
        return torch.tensor([[*thoughts[row], end][written] for row, written in at])

    monkeypatch.setattr("thinkrec.reasons.decoding.Answers.choose", forced)
    _, asked = reason_first(loaded_model(pd.DataFrame(), model, layout), rows, Decoding(max_new_tokens=NEW))
    learned = {row: np.asarray([*stop, *thought, end], np.int32) for row, thought in thoughts.items()}
    taught = replace(layout, reasons=learned, thoughts=learned)
    batch = taught.collate(taught.scoring_windows(rows, np.arange(len(rows))))
    with torch.no_grad():
        read = model(batch).score[batch.reason_first].numpy()
    read_by_row = dict(zip(batch.target_rows[batch.reason_first].tolist(), read.tolist(), strict=True))
    assert [read_by_row[row] for row in rows.tolist()] == pytest.approx(asked.tolist(), abs=1e-4)
