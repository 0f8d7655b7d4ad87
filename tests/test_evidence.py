"""What a reason names is found, and looked up where the model could have read it; worked out by hand."""

from __future__ import annotations

from thinkrec.evidence import Seen, evidence_of

HISTORY = [
    Seen(title="Iron Harbour", keywords=["war", "ships"], liked=True),
    Seen(title="Quiet Orchard", keywords=["Slow", "sad"], liked=False),
    Seen(title="Night", keywords=["war", "film-noir"], liked=False),
]
TARGET = Seen(title="Low Tide", keywords=["sea", "war"])
TITLES = ["Iron Harbour", "Iron", "Quiet Orchard", "Night", "Low Tide", "Seven Keys", "It"]
KEYWORDS = ["war", "ships", "slow", "sad", "sea", "heist", "film-noir", "noir", "keys"]


def found(reason: str) -> dict[str, tuple[str, bool, int, int, bool]]:
    frame = evidence_of(reason, HISTORY, TARGET, titles=TITLES, keywords=KEYWORDS)
    assert list(frame) == ["kind", "name", "target", "liked", "disliked", "found"]
    return {row[1]: (row[0], *row[2:]) for row in frame.itertuples(index=False, name=None)}


def test_titles_and_keywords_are_counted_where_they_are() -> None:
    assert found("Yes. Liked war (1 of 2). One such title is Iron Harbour. Avoids slow. Low Tide brings sea.") == {
        "Iron Harbour": ("item", False, 1, 0, True),
        "Low Tide": ("item", True, 0, 0, True),
        "war": ("keyword", True, 1, 1, True),
        "slow": ("keyword", False, 0, 1, True),
        "sea": ("keyword", True, 0, 0, True),
    }


def test_what_was_never_shown_is_named_as_such() -> None:
    assert found("No. Disliked heist. One such title is Seven Keys.") == {
        "Seven Keys": ("item", False, 0, 0, False),
        "heist": ("keyword", False, 0, 0, False),
    }


def test_words_of_titles_parts_of_words_and_short_titles_elsewhere_are_nothing() -> None:
    assert found("Yes. It fits. The warm tone of Iron suits; overseas too. Seven Keys.") == {
        "Seven Keys": ("item", False, 0, 0, False)  # and not the keyword keys
    }
    assert list(found("Yes. One such title is Night.")) == ["Night"]  # of one word, but it was shown


def test_the_longer_of_two_names_counts_and_each_once() -> None:
    assert list(found("Film-noir, film-noir and Iron Harbour, never Iron.")) == ["Iron Harbour", "film-noir"]


def test_a_verdict_is_no_evidence_and_an_empty_reason_has_none() -> None:
    assert evidence_of("No.", HISTORY, TARGET, titles=TITLES, keywords=["no"]).empty
    assert evidence_of("", [], TARGET, titles=[], keywords=[]).empty
