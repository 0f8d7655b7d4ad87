"""What rows show: teacher, student and check see the same titles and keywords, and nothing of the future."""

import json
import unicodedata

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.claims.rows import LITERAL
from thinkrec.claims.checker import Checker
from thinkrec.params import PromptParams
from thinkrec.shown import LONGEST_KEYWORD, LONGEST_TITLE, one_line
from thinkrec.teacher.trace_prompts import write_question
from thinkrec.text.items import item_texts

PROMPT = PromptParams(layout="stream", history=2, max_tokens=2048, keywords=2, slots=(), soft_tokens=0)
INTERACTIONS = pd.DataFrame({"user": [0] * 4, "item": [0, 1, 2, 3], "label": [1, 0, 1, 0], "timestamp": [1, 2, 3, 3]})
TITLES = ["Night", "Iron Harbour", "Seven Keys", "Low Tide"]
DESCRIPTIONS = ["", "At sea. War off Lisbon.", "", None]
KEYWORDS = [["war", "noir", "heist"], ["sea"], ["keys", "war"], []]


def checker(titles=TITLES, **prompt):
    items = pd.DataFrame({"title": titles, "categories": [[]] * 4, "description": DESCRIPTIONS})
    keywords = pd.DataFrame({"keywords": KEYWORDS})
    return Checker(INTERACTIONS, items, keywords, PROMPT.model_copy(update=prompt), LITERAL)


def test_a_row_shows_the_last_strictly_earlier_items_and_their_first_keywords():
    row = checker().shown(3)
    assert [(item.title, item.liked) for item in row.history] == [("Night", True), ("Iron Harbour", False)]
    assert [list(item.keywords) for item in row.items] == [["war", "noir"], ["sea"], []]
    assert checker(history=1).history_rows(3).tolist() == [1]


def test_a_keyword_that_is_known_and_not_shown_is_a_claim_without_ground():
    (claim,) = checker().check(3, "Yes. Liked heist.").claims
    assert (claim.name, claim.standing) == ("heist", "ungrounded")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("text", ['Yes. Liked "Café Noël" (1 of 1).', "Liked Café Noël."])
def test_a_name_is_the_same_in_composed_and_decomposed_letters(form, text):
    titles = [unicodedata.normalize(form, "Café Noël"), *TITLES[1:]]
    for written in ("NFC", "NFD"):
        (claim, *_) = checker(titles).check(3, unicodedata.normalize(written, text)).claims
        assert (claim.kind, claim.true) == ("item", True)


def test_another_table_is_read_with_the_same_items():
    turned = INTERACTIONS.assign(label=1 - INTERACTIONS["label"])
    text = "Yes. Liked Iron Harbour."
    first = checker()
    assert not first.check(3, text).true and first.over(turned).check(3, text).true
    assert not first.check(3, text).true


@pytest.mark.parametrize("length", [LONGEST_TITLE - 1, LONGEST_TITLE, LONGEST_TITLE + 1, 3 * LONGEST_TITLE])
def test_a_long_title_quoted_as_student_or_teacher_see_it_is_a_true_claim(length):
    titles = [("Iron Harbour " * length)[:length], *TITLES[1:]]
    as_student = item_texts(pd.DataFrame({"title": titles}), pd.DataFrame({"keywords": KEYWORDS}), 0)[0]
    data = write_question(checker(titles).shown(3))[1]["content"].splitlines()[1]
    as_teacher = json.loads(data)["title"]
    assert as_student == f'"{as_teacher}"'
    checked = checker(titles).check(3, f"Yes. Liked {as_student}.")
    assert [claim.name for claim in checked.claims] == [as_teacher] and checked.true


@given(st.text(), st.sampled_from([LONGEST_KEYWORD, LONGEST_TITLE]))
def test_a_shown_name_is_one_short_line_and_shown_again_the_same(text, longest):
    line = one_line(text, longest)
    assert len(line) <= longest and len(line.splitlines()) <= 1
    assert one_line(line, longest) == line


def test_words_that_descriptions_write_as_names_are_no_tastes():
    oslo = [["war", "lisbon"], ["war", "lisbon"], ["keys", "war"], []]
    items = pd.DataFrame({"title": TITLES, "categories": [["War"]] * 4, "description": DESCRIPTIONS})
    liked = INTERACTIONS.assign(label=1)
    made = Checker(liked, items, pd.DataFrame({"keywords": oslo}), PROMPT, LITERAL)
    claims = made.check(3, "Yes. Liked lisbon (2 of 2), war (2 of 2).").claims
    assert [(claim.name, claim.standing) for claim in claims] == [("lisbon", "no_taste"), ("war", "true")]


@pytest.mark.parametrize(
    ("name", "standing"), [("Hamlet (1948)", "true"), ("Hamlet (1996)", "untrue"), ("Hamlet", None)]
)
def test_of_two_items_with_one_short_title_only_the_whole_one_is_a_name(name: str, standing: str | None) -> None:
    claims = checker(["Hamlet (1948)", "Hamlet (1996)", *TITLES[2:]]).check(3, f'Yes. Liked "{name}".').claims
    assert [claim.standing for claim in claims if claim.standing != "ungrounded"] == ([standing] if standing else [])
