"""Keywords: what the cleaning lets through, and what the TF-IDF extractor makes of metadata."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.synthesis.worlds import items_of
from thinkrec.claims.cleaning import MOST_KEYWORDS, clean_keywords
from thinkrec.synthesis.keywords import extract_keywords, keyword_stats


def extract(*rows):
    """The keywords of each item of (title, year, categories, description)."""
    return extract_keywords(items_of(*rows))["keywords"].tolist()


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["Revenge", "the", "bleak"], ["revenge", "bleak"]),
        (["brand", "Price", "visit www.shop.com", "brand: Acme"], []),
        (["1999", "12%", "3.5", "$9.99", "1990s", "1st"], ["1990s"]),
        (["tv", "of", "3d", "ox", "war"], ["war"]),
        (["story", "Stories", "STORY", "movie", "movies", "box", "boxes", "glass"], ["story", "movie", "box", "glass"]),
        (["<b>dark</b>", "&amp;", "**wry**", "http://x.y/z", "me@there.org"], ["dark", "wry"]),
        (["coming of age", "of the", "Sci-Fi", "children's"], ["coming of age", "sci-fi", "children's"]),
        (["(no genres listed)", "n/a", "unknown"], []),
        (["wild<west"], ["wild west"]),
    ],
)
def test_only_keywords_pass(words, kept):
    assert clean_keywords(words, 10) == kept


def test_the_limit_counts_what_is_kept():
    assert clean_keywords(["the", "war", "WAR", "peace", "love"], 2) == ["war", "peace"]


@given(st.lists(st.one_of(st.text(), st.sampled_from(["war", "Wars", "the", "price", "1999"]))), st.integers(0, 10))
def test_cleaning_is_bounded_and_done_in_one_go(words, limit):
    kept = clean_keywords(words, limit)
    assert len(kept) <= limit
    assert clean_keywords(kept, limit) == kept
    assert all(word.splitlines() == [word] and not set(word) & set("<>") for word in kept)


@pytest.mark.parametrize(
    ("rows", "keywords"),
    [
        (
            # "tale" is in two of three documents, so it weighs less than what is in one; a title serves where all else
            # fails.
            [
                ("Dusk", None, ["Drama"], "A tale of revenge. Brand: Acme. Price: $9.99. Visit www.acme.com today."),
                ("Dawn", None, ["Drama", "War"], "A tale of <b>hope</b> &amp; mercy."),
                ("Noon", None, [], ""),
            ],
            [["drama", "revenge", "tale"], ["drama", "war", "hope", "mercy", "tale"], ["noon"]],
        ),
        (  # without a description, genres and the decade remain
            [("The Long Goodbye", 1973, ["Crime", "Film-Noir"], ""), ("M", None, [], "")],
            [["crime", "film-noir", "1970s"], []],
        ),
        (  # names come after what an item is about
            [("Dusk", None, [], "It is bleak in Aarhus."), ("Dawn", None, [], "A bleak and bleak tale.")],
            [["bleak", "aarhus"], ["bleak", "tale"]],
        ),
        ([], []),
    ],
)
def test_a_small_corpus_by_hand(rows, keywords):
    assert extract(*rows) == keywords


def test_keywords_are_counted():
    counts = {"items": 3, "items_without_keywords": 1, "mean_keywords": 1.0, "vocabulary": 2}
    assert keyword_stats([["war", "love"], ["war"], []]) == counts
    assert keyword_stats([])["mean_keywords"] == 0


def test_in_a_large_corpus_neither_the_rarest_nor_the_commonest_words_are_keywords():
    rows = [
        ("Title", None, ["Books", "Crime" if n % 2 else "War"], f"story {'vengeance' if n < 6 else ''} solo{'x' * n}")
        for n in range(120)
    ]
    assert extract(*rows)[:8:7] == [["war", "vengeance"], ["crime"]]


@given(st.lists(st.tuples(st.text(max_size=20), st.text(max_size=60)), max_size=6))
def test_any_metadata_gives_bounded_clean_deterministic_keywords(texts):
    rows = [(title, 1999, ["Drama"], text) for title, text in texts]
    lists = extract(*rows)
    assert lists == extract(*rows)
    for words in lists:
        assert len(words) <= MOST_KEYWORDS
        assert clean_keywords(words, MOST_KEYWORDS) == words
