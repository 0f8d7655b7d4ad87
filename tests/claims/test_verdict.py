"""A verdict is the answer's first word, never a substring."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkrec.claims.verdict import canonical, parse_verdict, split_verdict

REST = st.text().filter(lambda text: not text.strip().lower().startswith(("/", "or")))


@pytest.mark.parametrize(
    "text",
    ["Yes", "yes.", "YES - it fits", "**Yes**, because", '"Yes"', "Verdict: Yes", "**Verdict:** Yes.", "> Yes\nit fits",
     "Final answer: **Yes**", "__Yes__ it fits", "Yes\u2014it fits", "- Yes", "(Yes)", "Yes the user would"],
)  # fmt: skip
def test_an_answer_that_begins_with_the_word_yes_is_a_yes(text):
    assert parse_verdict(text) is True


@pytest.mark.parametrize("text", ["No", "No.", "**No**", "no, never", "Answer: No", "\u201cNo\u201d", "No. 3 of 3"])
def test_an_answer_that_begins_with_the_word_no_is_a_no(text):
    assert parse_verdict(text) is False


@pytest.mark.parametrize(
    "text",
    ["", " ", "Nothing", "Not for this user", "Yesterday", "Noah", "None", "Now", "No-one", "Yes-man", "No one would",
     "No doubt they would", "Yes or No: yes", "Yes/No", "No or yes", "The answer is Yes", "I say No", "No\u0301mada",
     "Y\u00e9s", "Verdict", "Verdict Yes", "Answer: maybe", "no_verdict", "No's", "Y e s"],
)  # fmt: skip
def test_anything_else_is_no_verdict(text):
    assert parse_verdict(text) is None


@given(word=st.sampled_from(["Yes", "No", "yes", "NO"]), tail=st.from_regex(r"\A[A-Za-z0-9]", fullmatch=False))
def test_a_longer_word_is_never_a_verdict(word, tail):
    assert parse_verdict(word + tail) is None


@given(
    verdict=st.booleans(),
    markup=st.sampled_from(["", "**", '"', " \n", "Verdict: ", "# "]),
    end=st.sampled_from([". ", ", ", ": ", "\n", "! "]),
    rest=REST.filter(lambda text: not text.strip().lower().startswith(("doubt", "matter", "one", "problem", "question",
                                                                        "wonder"))),
)  # fmt: skip
def test_markup_before_and_text_after_change_nothing(verdict, markup, end, rest):
    assert parse_verdict(markup + ("Yes" if verdict else "No") + end + rest) is verdict


@given(st.text())
def test_any_text_has_a_verdict_or_none_and_keeps_it_in_canonical_form(text):
    parts = split_verdict(text)
    assert parse_verdict(text) == (parts[0] if parts else None)


def test_the_canonical_form_begins_with_the_verdict_and_has_no_markup_around_it():
    assert canonical(*split_verdict("**Verdict:** **No**, the user\n avoids it.")) == "No. The user avoids it."
    assert canonical(*split_verdict("Yes - it **fits**.")) == "Yes. It **fits**."
    assert canonical(*split_verdict("Yes")) == "Yes."
