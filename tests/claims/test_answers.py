"""The form of an answer: a verdict is its first word, labels are read by rule, whatever markup is around them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkrec.claims.answers import (
    PARTS,
    parse_verdict,
    read_parts,
    split_verdict,
    trace_text,
    write_answer,
)

REST = st.text().filter(lambda text: not text.strip().lower().startswith(("/", "or")))


@pytest.mark.parametrize(
    "text",
    ["Yes", "yes.", "YES - it fits", "**Yes**, because", '"Yes"', "Verdict: Yes", "**Verdict:** Yes.", "> Yes\nit fits",
     "Final answer: **Yes**", "__Yes__ it fits", "Yes\u2014it fits", "- Yes", "(Yes)", "Yes the user would",
     "Yes. They like bleak films, but no. comedies"],
)  # fmt: skip
def test_an_answer_that_begins_with_the_word_yes_is_a_yes(text):
    assert parse_verdict(text) is True


@pytest.mark.parametrize("text", ["No", "No.", "**No**", "no, never", "Answer: No", "\u201cNo\u201d", "No... 3 of 3",
                                  "Verdict = No", "The answer is: **No**", "No the user would not",
                                  "No (war)"])  # fmt: skip
def test_an_answer_that_begins_with_the_word_no_is_a_no(text):
    assert parse_verdict(text) is False


@pytest.mark.parametrize(
    "text",
    ["", " ", "Nothing", "Not for this user", "Yesterday", "Noah", "None", "Now", "No-one", "Yes-man", "No one would",
     "No doubt they would", "Yes or No: yes", "Yes/No", "No or yes", "I say No", "No\u0301mada",
     "Y\u00e9s", "Verdict", "Verdict Yes", "Answer: maybe", "no_verdict", "No's", "Y e s"],
)  # fmt: skip
def test_anything_else_is_no_verdict(text):
    assert parse_verdict(text) is None


@pytest.mark.parametrize(
    "text",
    ["No Way Out fits this user. Yes.", "Yes Sir is not for them: No.", "No Name on the Bullet would please them.",
     "Verdict: No Way Out fits. Yes", '"No Way Out" fits. Yes', "No. 3 of the list is war, so Yes", "No less than war",
     "No, Honestly fits them: Yes.", "No (1998) is theirs, so the answer is Yes.", "No\nYes", "Yes. No, wait.",
     "<answer>No Way Out</answer>", "<answer>Yes</answer> or <answer>No</answer>",
     "<answer>Yes</answer><answer>No</answer> War.", '{"verdict": "No Way Out"}', "Verdict: Yes, but ultimately No.",
     "No. Wait, actually yes.", "Answer: Yes\n**Verdict:** No\nWar.", "Yes. War.\n\nOn second thought, no."],
)  # fmt: skip
def test_a_title_or_a_verdict_taken_back_is_no_verdict(text):
    assert split_verdict(text) == (None, text)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [("<answer>Yes</answer>\nWar.", (True, "War.")), ("War. <verdict> No </verdict>", (False, "War.")),
     (r"Answer: \boxed{Yes}", (True, "")), (r"War. $\boxed{\text{No}}$.", (False, "War.")),
     ('{"verdict": "Yes"}', (True, "")), ('```json\n{"answer": false, "fit": "War."}\n```', (False, "Fit: War.")),
     (r"\(\boxed{\textbf{No}}\) War.", (False, "War.")), ("### Verdict\nYes\nWar.", (True, "War.")),
     ("\u25c1think\u25b7No\u25c1/think\u25b7Yes", (True, "")),
     ("<|channel|>analysis<|message|>No<|end|><|channel|>final<|message|>Yes", (True, "")),
     ("<thinking>No?</thinking>\nYes. War.", (True, "War.")), ("Yes or No?</think>Verdict: No", (False, "")),
     ('Yes. Liked "Sand", "No".', (True, 'Liked "Sand", "No".')), ("Yes, no doubt", (True, "no doubt"))],
)  # fmt: skip
def test_a_verdict_is_read_from_the_marks_that_models_give_it(text, verdict):
    assert split_verdict(text) == verdict


def test_an_answer_in_json_has_its_parts():
    assert read_parts('{"Verdict": "Yes", "History": "a", "taste": "b", "fit": "c"}') == {
        "history": "A.", "taste": "B.", "fit": "C."
    }  # fmt: skip


@given(word=st.sampled_from(["Yes", "No", "yes", "NO"]), tail=st.from_regex(r"\A[A-Za-z0-9]", fullmatch=False))
def test_a_longer_word_is_never_a_verdict(word, tail):
    assert parse_verdict(word + tail) is None


@given(
    verdict=st.booleans(),
    markup=st.sampled_from(["", "**", '"', " \n", "Verdict: ", "# "]),
    end=st.sampled_from([". ", ", ", ": ", "\n", "! "]),
    rest=REST.filter(lambda text: not re.search(r"yes|no|\A\s*[0-9]", text, re.IGNORECASE)),
)
def test_markup_before_and_text_after_change_nothing(verdict, markup, end, rest):
    assert parse_verdict(markup + ("Yes" if verdict else "No") + end + rest) is verdict


@given(st.text())
def test_a_text_without_a_verdict_is_all_explanation(text):
    verdict, explanation = split_verdict(text)
    assert verdict is not None or explanation == text


def test_the_markup_between_a_verdict_and_its_explanation_is_in_neither():
    assert split_verdict("**Verdict:** **No**, the user\n avoids it.") == (False, "the user\n avoids it.")
    assert split_verdict("Yes - it **fits**.") == (True, "it **fits**.")
    assert split_verdict("Yes") == (True, "")


PARTS_READ = {"history": "Liked war films.", "taste": "Prefers bleak ones.", "fit": "It is bleak."}


@pytest.mark.parametrize(
    "answer",
    [
        "Verdict: Yes\nHistory: Liked war films.\nTaste: Prefers bleak ones.\nFit: It is bleak.",
        "Yes\nHistory: liked war films\nTaste: prefers bleak ones\nFit: it is bleak",
        "VERDICT: YES\n\nHISTORY: Liked war films.\n\nTASTE: Prefers bleak ones.\n\nFIT: It is bleak.",
        "**Verdict:** Yes\n**History:** Liked **war** films.\n**Taste**: Prefers bleak ones.\n*Fit:* It is bleak.",
        "1. Verdict: Yes\n2. History: Liked war films.\n3) **Taste:** Prefers bleak ones.\n(4) Fit: It is bleak.",
        "- Verdict: Yes\n- History: Liked war films.\n- Taste: Prefers bleak ones.\n- Fit: It is bleak.",
        "## Verdict: Yes\n## History\n- Liked\n- war films\n\n## Taste\nPrefers bleak\nones.\n"
        "---\n## Fit\nIt is bleak.",
        "```\nVerdict: Yes\nHistory: Liked war films.\nTaste: Prefers bleak ones.\nFit: It is bleak.\n```",
        "Verdict: Yes, they would.\nFit: It is bleak.\nTaste: Prefers bleak ones.\nHistory: Liked war films.",
        "Verdict: Yes\nWhat the history shows: Liked war films.\nUser’s preferences – Prefers bleak ones.\n"
        "How the target fits\uff1a It is bleak.",
    ],
)
def test_labels_are_read_whatever_surrounds_them(answer):
    assert parse_verdict(answer) is True
    assert read_parts(answer) == PARTS_READ
    assert trace_text(True, read_parts(answer)) == "Yes. Liked war films. Prefers bleak ones. It is bleak."


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("", "History is missing"),
        ("Yes. Because of war.", "History is missing"),
        ("Verdict: Yes\nHistory: War.\nFit: It fits.", "Taste is missing"),
        ("Verdict: Yes\nHistory: War.\nTaste: **\nFit: It fits.", "Taste is empty"),
        ("Verdict: Yes\nHistory: War.\nTaste: War.\nHistory: Love.\nFit: It fits.", "History is given twice"),
        ("Verdict: Yes\nHistory: War.\nTaste: War.\nFit: It fits.\nVerdict: No", "Verdict is given twice"),
        ("Yes.\nVerdict: No\nHistory: War.\nTaste: War.\nFit: It fits.", "Verdict is given twice"),
        ("Verdict: Yes\nHistory shows war.\nTaste: War.\nFit: It fits.", "History is missing"),
    ],
)
def test_what_is_missing_or_twice_there_is_named(answer, fault):
    with pytest.raises(ValueError, match=fault):
        read_parts(answer)


def test_a_keyword_alone_on_a_line_is_no_label():
    text = "Verdict: Yes\nHistory: Liked\n- history\n- taste\nTaste: War.\nFit: It fits."
    assert read_parts(text)["history"] == "Liked history taste."


SENTENCE = st.from_regex(r"[A-Z][a-z]{1,8}( [a-z]{1,8}){0,6}\.", fullmatch=True)


@given(st.booleans(), st.tuples(SENTENCE, SENTENCE, SENTENCE))
def test_what_is_written_is_read(verdict, sentences):
    parts = dict(zip(PARTS, sentences, strict=True))
    answer = write_answer(verdict, parts)
    assert parse_verdict(answer) is verdict
    assert read_parts(answer) == parts


@given(st.text(alphabet=st.sampled_from("VerdictHsoyTaFi:*#-. \n`1_")))
def test_any_text_is_read_or_refused_in_one_line(text):
    try:
        assert all("\n" not in part and part for part in read_parts(text).values())
    except ValueError as fault:
        assert "\n" not in str(fault)
