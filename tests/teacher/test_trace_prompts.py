"""Prompts: what a question shows, and that metadata cannot step out of its block."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.claims.rows import item
from thinkrec.claims.answers import read_parts
from thinkrec.shown import LONGEST_KEYWORD, LONGEST_TITLE, ShownRow
from thinkrec.teacher.offline import _CORRECTION
from thinkrec.teacher.trace_prompts import FAULTS, REFLECTIONS, SYSTEM, write_follow_up, write_question

TARGET = item("Dusk", "war")


def asked(*history):
    """The lines of the question about TARGET after this history."""
    return write_question(ShownRow(history=history, target=TARGET))[1]["content"].splitlines()


def test_a_question_by_hand():
    assert asked(item("Noon", "love", liked=False)) == [
        "<history>",
        '{"title": "Noon", "keywords": ["love"], "verdict": "disliked"}',
        "</history>",
        "<target>",
        '{"title": "Dusk", "keywords": ["war"]}',
        "</target>",
        "Would the user like the target? Answer with the four labelled lines, the verdict first.",
    ]


@given(st.text(), st.lists(st.text(), max_size=3))
def test_any_item_is_one_line_of_json_without_angle_brackets(title, keywords):
    lines = asked(item(title, *keywords, liked=True))
    assert len(lines) == 7
    assert not set(lines[1]) & set("<>")
    shown = json.loads(lines[1])
    assert len(shown["title"]) <= LONGEST_TITLE and all(len(word) <= LONGEST_KEYWORD for word in shown["keywords"])


def test_an_ordinary_title_survives_unchanged():
    assert json.loads(asked(item("Amélie <3", liked=True))[1])["title"] == "Amélie <3"


def test_reflections_are_used_in_turn_and_name_the_right_verdict_only():
    texts = [write_follow_up("wrong_verdict", label=True, turn=turn)["content"] for turn in range(1, 6)]
    assert len(set(texts)) == len(REFLECTIONS) >= 4
    assert texts[0] == texts[4]
    assert all("Yes" in text and "No" not in text.replace("Not", "") for text in texts)


def test_the_form_that_is_asked_for_is_the_form_that_is_read():
    form = [line for line in SYSTEM.splitlines() if re.match(r"\w+: ", line)]
    assert list(read_parts("\n".join(["Verdict: Yes", *form[1:]]))) == ["history", "taste", "fit"]


@pytest.mark.parametrize("fault", sorted({*FAULTS} - {"wrong_verdict", "duplicate"}))
def test_only_a_wrong_verdict_is_answered_with_the_right_one(fault):
    assert write_follow_up(fault, label=True, turn=1) == write_follow_up(fault, label=False, turn=1)
    assert _CORRECTION.search(write_follow_up(fault, label=True, turn=1)["content"]) is None
