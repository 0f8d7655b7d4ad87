"""Answers equal a loop that recomputes everything for every token, know nothing of their labels, are drawn as meant."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from tests.builders import FAMILIES, Family, interactions, layout_of, loaded_model, recommender, tokenizer
from thinkrec.claims.answers import parse_verdict
from thinkrec.lm.loaded import LoadedModel
from thinkrec.lm.model import RecommenderLM, SoftPrompt
from thinkrec.lm.scoring import score
from thinkrec.reasons.decoding import (
    NUDGE,
    Decoding,
    Judge,
    choose,
    next_of,
    reason_first,
    sentence_ends,
    word_tokens,
    write_answers,
)
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


def add_to_logits(monkeypatch: pytest.MonkeyPatch, model: RecommenderLM, tokens: Sequence[int], amount: float) -> None:
    """Make some tokens likelier, or less likely, wherever the model predicts one."""
    head = model.backbone.get_output_embeddings()
    plain, more = head.forward, torch.zeros(head.out_features).index_fill_(0, torch.tensor(tokens), amount)
    monkeypatch.setattr(head, "forward", lambda hidden: plain(hidden) + more)


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


def loaded(model: RecommenderLM, layout: Layout) -> LoadedModel:
    """The model with these prompts; decoding reads no table."""
    return loaded_model(pd.DataFrame(), model, layout)


def answers(
    model: RecommenderLM, layout: Layout, rows: NDArray[np.int64] | list[int], limit: int = NEW, **sampling: Any
) -> list[str]:
    return write_answers(loaded(model, layout), np.asarray(rows, np.int64), Decoding(max_new_tokens=limit, **sampling))


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


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.5, "top_p": 0.9, "seed": 4}], ids=["greedy", "sampled"])
def test_an_answer_does_not_depend_on_its_batch(model: RecommenderLM, sampling: dict[str, float]) -> None:
    layout = layout_of(interactions(3, users=2))
    rows = list(range(24))
    together = answers(model, layout, rows, **sampling)
    assert together == [answers(model, layout, [row], **sampling)[0] for row in rows]
    assert together == answers(model, layout, rows[::-1], **sampling)[::-1]


def test_seeds_give_other_samples_and_a_low_temperature_the_greedy_answer(
    table: pd.DataFrame, model: RecommenderLM
) -> None:
    layout, rows = layout_of(table), list(range(12))
    greedy = answers(model, layout, rows)
    first, again, other = (answers(model, layout, rows, temperature=2.0, seed=seed) for seed in (1, 1, 2))
    assert first == again and first != other and first != greedy
    assert answers(model, layout, rows, temperature=1e-6) == greedy
    assert answers(model, layout, rows, temperature=2.0, top_p=1e-6) == greedy


def drawn(logits: list[float], count: int = 20_000, **sampling: Any) -> NDArray[np.float64]:
    """How often each token is chosen, over so many rows with the same logits."""
    decoding = Decoding(max_new_tokens=1, seed=1, **sampling)
    nought = np.zeros(count, np.int64)
    chosen = choose(torch.tensor(logits).expand(count, -1), decoding, np.arange(count), nought, nought)
    return np.bincount(chosen.numpy(), minlength=len(logits)) / count


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_tokens_are_drawn_as_often_as_their_probability_says(temperature: float) -> None:
    logits = [0.3, -1.0, 2.0, 0.0, -torch.inf, 1.1]
    expected = (torch.tensor(logits) / temperature).softmax(0).numpy()
    error = np.sqrt(expected * (1 - expected) / 20_000)
    assert (np.abs(drawn(logits, temperature=temperature) - expected) <= 4 * error).all()


def test_top_p_keeps_the_likeliest_tokens_that_reach_it_in_their_proportions() -> None:
    logits = np.log([0.1, 0.5, 0.15, 0.25]).tolist()
    assert drawn(logits, temperature=1.0, top_p=0.74) == pytest.approx([0, 2 / 3, 0, 1 / 3], abs=0.015)
    assert drawn(logits, temperature=1.0, top_p=0.76) == pytest.approx([0, 5 / 9, 1.5 / 9, 2.5 / 9], abs=0.015)
    assert drawn(logits, temperature=1.0, top_p=0.4).tolist() == [0, 1, 0, 0]
    assert drawn(logits, temperature=0.0).tolist() == [0, 1, 0, 0]


def test_an_answers_draws_differ_from_token_to_token() -> None:
    decoding = Decoding(max_new_tokens=2, temperature=1.0)
    nought = np.zeros(50, np.int64)
    first, second = (choose(torch.zeros(50, 1000), decoding, np.arange(50), nought + step, nought) for step in (0, 1))
    assert (first == second).sum() <= 2 and len(set(first.tolist())) > 40


class Dice:
    """A judge by chance, with ties; notes what it is asked, and wants words of one to three tokens, or nothing."""

    WORDS = ("", "a Yes", "low", " ")

    def __init__(self) -> None:
        self.asked: list[tuple[int, str]] = []

    def badness(self, row: int, text: str) -> tuple[int, ...]:
        self.asked.append((row, text))
        return (zlib.crc32(f"{row} {text}".encode()) % 3,)

    def wanted(self, row: int, text: str) -> str:
        return self.WORDS[zlib.crc32(f"{row} {text}".encode()) % 4]


@torch.no_grad()
def naive_best(model: RecommenderLM, layout: Layout, row: int, decoding: Decoding, judge: Judge) -> str:
    """Sentence by sentence, each candidate by itself, the whole sequence anew for every token; without ties."""
    (window,) = layout.scoring_windows(np.asarray([row]), np.zeros(1, np.int64))
    batch = layout.collate([window])
    slot = int(batch.verdicts[0, 1])
    prompt, key = model.embed(batch)[:, : slot + 1], zlib.crc32(batch.input_ids[0, : slot + 1].numpy().tobytes())
    over = {layout.vocabulary.end}

    def sentence(before: list[int], candidate: int, decoding: Decoding) -> list[int]:
        written = list(before)
        while len(written) < decoding.max_new_tokens:
            new = model.backbone.get_input_embeddings()(torch.tensor([written], dtype=torch.int64))
            logits = model.backbone(inputs_embeds=torch.cat([prompt, new], dim=1)).logits[:, -1]
            if candidate in (3, 7):
                logits[0, nudged(written[len(before) :])] += NUDGE
            place = (np.asarray([number]) for number in (key, len(written), candidate))
            written.append(int(choose(logits, decoding, *place)))
            if written[-1] in over or written[-1] % 4:
                break
        return written

    def text(tokens: list[int]) -> str:
        return tokenizer().decode(tokens, skip_special_tokens=True).strip()

    def nudged(since: list[int]) -> list[int]:
        """The next token of the wanted word, or none, by matching tokens as characters."""
        wanted = judge.wanted(row, text(best))
        tokens = tokenizer()(f" {wanted}", add_special_tokens=False)["input_ids"] if wanted else []
        word, sentence = ("".join(map(chr, numbers)) for numbers in (tokens, since))
        if word in sentence:
            return []
        return [tokens[max(size for size in range(len(word)) if sentence.endswith(word[:size]))]]

    best = sentence([], 0, replace(decoding, temperature=0.0))
    while len(best) < decoding.max_new_tokens and best[-1] not in over:
        candidates = [sentence(best, number, decoding) for number in range(decoding.candidates)]
        best = min(candidates, key=lambda tokens: judge.badness(row, text(tokens)))
    return text(best)


@pytest.mark.parametrize("kind", ["stream", "question"])
def test_the_best_sentences_stay_and_candidates_know_nothing_of_each_other(
    table: pd.DataFrame, model: RecommenderLM, kind: Literal["stream", "question"], monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, rows = layout_of(table, layout=kind), np.asarray([5, 23, 0, 12, 17])
    add_to_logits(monkeypatch, model, [layout.vocabulary.end], 1.0)  # some end early, some never
    most = torch.arange(model.backbone.get_output_embeddings().out_features).remainder(4) != 0
    monkeypatch.setattr("thinkrec.reasons.decoding.sentence_ends", lambda *_: most)

    judge = Dice()
    decoding = Decoding(max_new_tokens=12, temperature=1.5, top_p=0.9, seed=4, candidates=9)

    def best(rows: NDArray[np.int64]) -> list[str]:
        return write_answers(loaded(model, layout), rows, decoding, judge=judge)

    together, of_all = best(rows), sorted(judge.asked)
    assert all(together)
    judge.asked.clear()
    assert together == [naive_best(model, layout, row, decoding, judge) for row in rows.tolist()]
    assert of_all == sorted(judge.asked)  # finished answers are left in peace
    assert together == [best(rows[[at]])[0] for at in range(len(rows))]
    monkeypatch.setattr("thinkrec.reasons.decoding.TOGETHER", 2)
    assert together == best(rows)
    assert together != write_answers(loaded(model, layout), rows, decoding)  # without a judge nothing is chosen
    monkeypatch.setattr("thinkrec.reasons.decoding.NUDGE", 0.0)
    assert together != best(rows)


def test_candidates_that_were_not_taken_are_forgotten(
    table: pd.DataFrame, model: RecommenderLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, new, count, seen = layout_of(table), 12, 5, []
    add_to_logits(monkeypatch, model, [layout.vocabulary.end], -100.0)
    every = torch.ones(model.backbone.get_output_embeddings().out_features, dtype=torch.bool)
    monkeypatch.setattr("thinkrec.reasons.decoding.sentence_ends", lambda *_: every)  # sentences of one token
    plain = model.hidden_states
    monkeypatch.setattr(model, "hidden_states", lambda *given: seen.append(given[1].shape[-1]) or plain(*given))
    decoding = Decoding(max_new_tokens=new, temperature=1.5, candidates=count)
    write_answers(loaded(model, layout), np.asarray([23]), decoding, judge=Dice())
    assert max(seen) <= seen[0] + new + count


def test_a_wanted_word_is_data() -> None:
    words = tokenizer()
    assert word_tokens(words, "") == []
    for word in ("Yes", "no Yes", words.eos_token):
        tokens = word_tokens(words, word)
        assert words.decode(tokens) == f" {word}" and words.eos_token_id not in tokens


@pytest.mark.parametrize(
    ("word", "written", "token"),
    [
        ([], [], None),
        ([], [7], None),
        ([7], [], 7),
        ([7], [8], 7),
        ([7], [7], None),
        ([7], [8, 7, 9], None),
        ([7, 8, 9], [7], 8),
        ([7, 8, 9], [7, 8], 9),
        ([7, 8, 9], [8, 7], 8),
        ([7, 8, 9], [7, 9], 7),
        ([7, 8, 9], [1, 7, 8, 9, 1], None),
        ([7, 7, 8], [7, 7, 7], 8),
    ],
)
def test_the_next_token_of_a_word_goes_on_with_it_or_begins_it(
    word: list[int], written: list[int], token: int | None
) -> None:
    assert next_of(word, written) == token


def test_sentences_end_where_a_token_ends_with_a_mark() -> None:
    words = tokenizer()
    ends = sentence_ends(words, 400)
    assert len(ends) == 400 and not ends[len(words) :].any()
    assert ends[words(". ", add_special_tokens=False)["input_ids"][0]]
    assert not ends[words.eos_token_id] and not ends[words(" Yes", add_special_tokens=False)["input_ids"]].any()


def test_the_vocabulary_is_read_once_whatever_is_written(
    table: pd.DataFrame, model: RecommenderLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, longest = tokenizer(), []
    plain = words.batch_decode
    monkeypatch.setattr(words, "batch_decode", lambda ids, **how: longest.append(len(ids)) or plain(ids, **how))
    sentence_ends.cache_clear()
    decoding = Decoding(max_new_tokens=3, temperature=1.0, candidates=2)
    for _ in range(2):
        write_answers(loaded(model, layout_of(table)), np.asarray([5]), decoding, judge=Dice())
    assert longest.count(len(words)) == 1


def test_where_an_answer_begins_with_a_verdict_it_is_the_one_that_the_score_says(
    table: pd.DataFrame, model: RecommenderLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, rows = layout_of(table), np.arange(len(table))
    add_to_logits(monkeypatch, model, layout.vocabulary.verdicts, 100.0)
    said = [parse_verdict(answer) for answer in answers(model, layout, rows, 1)]
    assert said == (score(model, layout, rows) > 0).tolist()
    assert set(said) == {True, False}


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


@torch.no_grad()
def naive_reason_first(model: RecommenderLM, layout: Layout, row: int, limit: int) -> tuple[str, float]:
    """The prompt, a full stop, the reason, the row's own block once more, as one growing sequence; without ties."""
    (window,) = layout.scoring_windows(np.asarray([row]), np.zeros(1, np.int64))
    batch = layout.collate([window])
    slot, own = int(batch.verdicts[0, 1]), layout.blocks(window)[-1].verdict + 1
    prompt = model.embed(batch)[:, : slot + 1]
    embed = model.backbone.get_input_embeddings()
    stop = tokenizer()(".", add_special_tokens=False)["input_ids"]
    embedded, written = torch.cat([prompt, embed(torch.tensor([stop]))], dim=1), []
    while len(written) < limit:
        written.append(int(model.backbone(inputs_embeds=embedded).logits[0, -1].argmax()))
        if written[-1] == layout.vocabulary.end:
            break
        embedded = torch.cat([embedded, embed(torch.tensor([[written[-1]]]))], dim=1)
    embedded = torch.cat([embedded, prompt[:, slot + 1 - own :]], dim=1)
    logits = model.backbone(inputs_embeds=embedded).logits[0, -1]
    words = layout.vocabulary
    return tokenizer().decode(written, skip_special_tokens=True).strip(), float(logits[words.yes] - logits[words.no])


@pytest.mark.parametrize("kind", ["stream", "question"])
def test_reason_first_equals_a_naive_loop_whatever_the_batch(
    table: pd.DataFrame, model: RecommenderLM, kind: Literal["stream", "question"], monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, rows = layout_of(table, layout=kind), np.asarray([5, 23, 0, 12, 17])
    add_to_logits(monkeypatch, model, [layout.vocabulary.end], 1.0)  # some end early, some never
    expected = [naive_reason_first(model, layout, row, NEW) for row in rows.tolist()]
    texts, scores = reason_first(loaded(model, layout), rows, Decoding(max_new_tokens=NEW))
    assert texts == [text for text, _ in expected]
    assert scores == pytest.approx([after for _, after in expected], abs=1e-4)
    assert np.abs(scores - score(model, layout, rows)).max() > 0.01
    assert reason_first(loaded(model, layout), rows[:0], Decoding(max_new_tokens=NEW))[0] == []


@pytest.mark.parametrize("kind", ["stream", "question"])
def test_thinking_first_is_the_same_in_training_as_when_it_is_asked_for(
    model: RecommenderLM, kind: Literal["stream", "question"], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = interactions(3, users=2)  # with ties
    layout, rows = layout_of(table, layout=kind), np.asarray([8, 23, 0, 12, 17])
    end, stop = layout.vocabulary.end, layout.vocabulary.stop
    thoughts = {row: [70 + row, 71, 72 + row][: 1 + row % 3] for row in rows.tolist()}

    def forced(self: Any, _: Decoding, going: torch.Tensor) -> torch.Tensor:
        at = [(self.rows[prompt], int(self.length[prompt, 0])) for prompt in going[:, 0].nonzero()[:, 0].tolist()]
        return torch.tensor([[*thoughts[row], end][written] for row, written in at])

    monkeypatch.setattr("thinkrec.reasons.decoding._Answers.choose", forced)
    _, asked = reason_first(loaded(model, layout), rows, Decoding(max_new_tokens=NEW))
    learned = {row: np.asarray([*stop, *thought, end], np.int32) for row, thought in thoughts.items()}
    taught = replace(layout, reasons=learned, thoughts=learned)
    batch = taught.collate(taught.scoring_windows(rows, np.arange(len(rows))))
    with torch.no_grad():
        read = model(batch).score[batch.reason_first].numpy()
    found = dict(zip(batch.target_rows[batch.reason_first].tolist(), read.tolist(), strict=True))
    assert [found[row] for row in rows.tolist()] == pytest.approx(asked.tolist(), abs=1e-4)
