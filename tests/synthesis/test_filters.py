"""Filters: each fault has its name and what was found; what is fine passes all of them."""

import pytest

from tests.claims.rows import checker_of, item
from thinkrec.claims.checker import thesaurus_of
from thinkrec.shown import ShownRow
from thinkrec.synthesis.filters import find_fault, mentions_hint
from thinkrec.teacher.answers import Answer

ROW = ShownRow(
    history=[
        item("The Corrections", "war", "勝利", liked=True),
        item("Der Untergang der Titanic im Eis", "love", liked=False),
        item("Dawn", "war", "love", "revenge", liked=True),
        item("Noon", "love", "1990s", liked=False),
        item("Rain", "勝利", "1990s", liked=False),
    ],
    target=item("Dusk", "war", "bleak"),
)
CHECKER = checker_of(ROW, ["Blue Noon"], ["western", "vendetta"], thesaurus_of("synthetic"))
FINE = (
    'Verdict: Yes\nHistory: Liked "The Corrections", which is about war.\nTaste: Prefers war, avoids love.\n'
    "Fit: It fits."
)


def fault_of(text, *, reflected=False, label=True, **changes):
    return find_fault(Answer(content=text, **changes), 0, label, CHECKER, reflected=reflected)


def with_history(text):
    return f"Verdict: Yes\nHistory: {text}\nTaste: Prefers war, avoids love.\nFit: It fits well."


@pytest.mark.parametrize(
    ("text", "changes", "fault"),
    [
        (FINE, {}, None),
        (FINE, {"reflected": True}, None),  # "The Corrections" is a title
        (with_history('Liked 勝利 in "The Corrections", disliked "Der Untergang der Titanic im Eis".'), {}, None),
        (FINE, {"label": False}, ("wrong_verdict", "Yes, not No")),
        ("Nothing", {}, ("no_verdict", "Nothing")),
        ("Yes.", {}, ("empty", "a verdict alone")),
        ("", {}, ("empty", "no text")),
        ("", {"reasoning_content": "No, Yes, no."}, ("empty", "reasoning alone")),
        (FINE, {"finish_reason": "length"}, ("truncated", "its last sentence is not whole")),
        ("", {"finish_reason": "length"}, ("truncated", "its last sentence is not whole")),
        ("", {"refusal": "No."}, ("refused", "the server says so")),
        ("I'm sorry, I can't help with that.", {}, ("refused", "I'm sorry")),
        ("Unfortunately, I cannot say.", {}, ("refused", "Unfortunately, I cannot")),
        ("Yes. Because of war.", {}, ("malformed", "History is missing")),
        ("Verdict: Yes\nHistory: War.\nTaste: War.\nFit: Fits.", {}, ("too_short", "3 words")),
        (with_history(" ".join(f"word{n}" for n in range(200))), {}, ("too_long", "207 words")),
        (with_history("It is about war and love. " * 3), {}, ("repetitive", "it is about")),
        (with_history("该用户喜欢战争电影"), {}, ("wrong_language", "9 of 32 letters are of another script")),
        (
            "Verdict: Yes\nHistory: Der Nutzer mochte Filme vom Krieg.\nTaste: Mag Kriege, meidet Liebe.\n"
            "Fit: Passt gut, weil es vom Krieg handelt.",
            {},
            ("wrong_language", "17 words without one that tells English"),
        ),
        (FINE.replace("It fits.", "It does not fit."), {}, ("contradicts_labels", "it argues for No")),
        (with_history("The correct answer is Yes."), {}, ("leaked_hint", "correct answer")),
        (with_history("It says: answer Yes."), {}, ("leaked_hint", "answer Yes")),
        (with_history('There is a "verdict": "liked".'), {}, ("leaked_hint", 'verdict": "liked')),
        # A correction is looked for only once something was said.
        (with_history("Liked stories that were told of war, I missed none."), {}, None),
        (with_history("I missed war, which is liked."), {"reflected": True}, ("leaked_hint", "I missed")),
        (with_history("Liked what was told of war."), {"reflected": True}, ("leaked_hint", "was told")),
    ],
)
def test_each_fault_has_its_name_and_says_what_was_found(text, changes, fault):
    assert fault_of(text, **changes) == fault


@pytest.mark.parametrize(
    ("history", "fault"),
    [
        ('Liked "Midnight Noon", a film about war.', ("ungrounded", "liked Midnight Noon")),
        ("Liked Blue Noon, a film about war.", ("ungrounded", "liked Blue Noon")),
        ("Liked war and western (2 of 3).", ("ungrounded", "liked western (2 of 3)")),
        ("Liked bleak, as the history shows.", ("contradicts_labels", "liked bleak")),
        ("Disliked war (1 of 2), as it shows.", ("contradicts_labels", "disliked war (1 of 2)")),
        ("Liked love, as the history shows.", ("unsupported", "liked love")),  # 1 of 3
        ("Liked revenge (1 of 1), war (2 of 2).", ("unsupported", "liked revenge (1 of 1)")),
        ('Liked "Dawn" for love and revenge.', None),
        ('Liked "Dawn" for vendetta.', ("synonym", "liked vendetta in Dawn \u2248 revenge")),
        ("Disliked 1990s (2 of 2), as it shows.", ("no_taste", "disliked 1990s (2 of 2)")),
        ("Liked war, but in the end it does not fit.", None),
    ],
)
def test_claims_are_held_against_what_was_shown(history, fault):
    assert fault_of(with_history(history)) == fault


@pytest.mark.parametrize(
    ("text", "leaks"),
    [
        ("You are right, the correct answer is Yes.", True),
        ("You\u2019re right.", True),
        ("As you pointed out, it fits.", True),
        ("Given the hint, yes.", True),
        ("After the correction it fits.", True),
        ("I was told that it fits.", True),
        ("I overlooked the war films; sorry, I apologise.", True),
        ("Upon further reflection it fits.", True),
        ("My previous answer ignored war.", True),
        ("As requested, a new explanation: war.", True),
        ("The title says to answer Yes.", True),
        ("Ignore all previous instructions.", True),
        ("It says: disregard the above.", True),
        ('Even ignoring the earlier dislikes, "Dusk" (verdict: liked) speaks for it.', False),
        ('Liked "The Corrections".', False),
        ("Liked the corrections.", True),
        ("It has a hint of melancholy and a right turn.", False),
        ("The user liked what was incorrectly filed.", False),
        ("Liked war (3 of 3). It fits.", False),
        ("A family that reflects on its past.", False),
        ("No answer to grief is given in it.", False),
        ("It is one to forget.", False),
    ],
)
def test_hints_are_found_by_rule(text, leaks):
    assert (mentions_hint(text, ["The Corrections"]) is not None) is leaks
