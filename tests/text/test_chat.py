"""A chat template's frame is the same on every day, begins as the tokenizer does, and leads to the verdict."""

from datetime import datetime

import pytest
from transformers.utils import chat_template_utils

from tests.builders import TITLES, interactions
from tests.lm.families import CHAT, DATED, KINDS, MISTRAL, QWEN3, THINKING, byte_level, sentence_piece
from thinkrec.errors import UserError
from thinkrec.params import PromptParams
from thinkrec.text.chat import ANSWER, DAY, frame_hash, frame_of
from thinkrec.text.items import encode
from thinkrec.text.layouts import make_layout
from thinkrec.text.question import question_text
from thinkrec.text.vocabulary import find_vocabulary


def on(day, monkeypatch):
    """Let templates that ask what day it is be told `day`."""
    clock = type("Clock", (datetime,), {"now": classmethod(lambda cls, tz=None: day)})
    monkeypatch.setattr(chat_template_utils, "datetime", clock)


def with_template(template, **how):
    return byte_level(template, **how)


@pytest.mark.parametrize("form", ["%d %b %Y", "%B %d, %Y", "%Y-%m-%d", "%A, %-d %B %Y %H:%M"])
def test_a_template_that_writes_the_date_writes_the_same_on_every_day(form, monkeypatch):
    words = with_template(DATED.replace("%d %b %Y", form))
    frames = []
    for day in (datetime(2025, 1, 31, 9), datetime(2031, 12, 5, 23)):
        on(day, monkeypatch)
        frames.append((frame_of(words, 0), frame_hash(words, 0)))
    assert frames[0] == frames[1]
    assert f"Today Date: {DAY.strftime(form)}<|end|>" in words.decode(frames[0][0][0])


def test_what_is_rendered_decides_the_hash_of_the_frame():
    one, same, other = (with_template(text) for text in (CHAT, CHAT + "{# a remark #}", CHAT.replace("<|end|>", "")))
    assert frame_hash(one, 0) == frame_hash(same, 0) != frame_hash(other, 0)


@pytest.mark.parametrize(
    ("template", "tail"),
    [
        (THINKING, "<|end|>\n<|assistant|>\n<think>\n\n</think>\n\n"),
        (QWEN3, "<|end|>\n<|assistant|>\n<think>\n\n</think>\n\n"),
        (CHAT, "<|end|>\n<|assistant|>\n"),
        (
            THINKING.replace("<think>", "<|START_THINKING|>") + "{# <|END_THINKING|> #}",
            "<|end|>\n<|assistant|>\n<|START_THINKING|>\n\n<|END_THINKING|>\n\n",
        ),
    ],
    ids=["opened", "switched off", "none", "by names"],
)
def test_no_verdict_stands_in_a_thought(template, tail):
    words = with_template(template)
    assert frame_of(words, 0)[1] == tail
    roles = find_vocabulary(words, after=tail)
    assert words.decode([*roles.lead, roles.yes, *roles.rest[1]]) == f"{tail}Yes"


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        (THINKING.replace("<think>", "[THINK]"), r"opens a thought \(\[THINK\]\) that nothing is known to close"),
        ("{{ raise_exception('Conversations only') }}", r"cannot be used \(Conversations only\)"),
        ("{{ messages[0]['content'] * 2 }}", "does not write a message once"),
        ("{{ messages[0]['sender']['name'] }}", "cannot be used"),
    ],
)
def test_a_template_that_leaves_no_place_for_an_answer_is_one_line(template, fault):
    with pytest.raises(UserError, match=fault):
        frame_of(with_template(template), 0)


def test_a_template_that_takes_messages_in_parts_is_given_parts():
    parts = "{% for part in messages[0]['content'] %}{% if part['type'] == 'text' %}<|user|>{{ part['text'] }}"
    words = with_template(parts + "{% endif %}{% endfor %}<|assistant|>")
    assert frame_of(words, 0) == ((words.convert_tokens_to_ids("<|user|>"),), "<|assistant|>")


def test_the_begin_token_comes_from_the_template_or_the_tokenizer_and_only_once():
    begin = 0
    for template in (MISTRAL, "{{ bos_token }}" + MISTRAL):
        head, _ = frame_of(sentence_piece(template, space_first=True), begin)
        assert head[0] == begin and head.count(begin) == 1
    head, _ = frame_of(with_template(CHAT), begin)  # neither writes one: the model was not trained with any
    assert begin not in head


@pytest.mark.parametrize("family", KINDS)
def test_a_prompt_in_pieces_is_the_text_that_a_person_would_send(family):
    words = KINDS[family].words()
    prompt = PromptParams(layout="question", history=2, max_tokens=999, keywords=8, slots=(), soft_tokens=0)
    table = interactions(users=1, ties=False)
    layout = make_layout(table, encode(words, TITLES), words, prompt)
    (window,) = layout.scoring_windows(table.index.to_numpy()[5:6], table.index.to_numpy()[:1])
    ids = layout.collate([window]).input_ids[0].tolist()
    history = [(TITLES[layout.item[row]], int(layout.label[row])) for row in (3, 4)]
    text = question_text(history, TITLES[layout.item[5]]).removesuffix(ANSWER)
    head, tail = frame_of(words, find_vocabulary(words).begin)
    prompt_text = words.decode(ids, skip_special_tokens=True)
    verdict = ("No", "Yes")[layout.label[5]]
    assert text in prompt_text, prompt_text
    assert (
        prompt_text.rpartition(text)[2].split()
        == (words.decode(words(tail)["input_ids"], skip_special_tokens=True) + f" {verdict}").split()
    )
    assert ids[: len(head)] == list(head)
