"""Keywords: what the cleaning lets through, and what the TF-IDF extractor makes of metadata."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.synthesis.worlds import items_of
from thinkrec.claims.cleaning import MOST_KEYWORDS, clean_keywords
from thinkrec.synthesis.keywords import extract_keywords


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
    ],
)
def test_only_keywords_pass(words, kept):
    assert clean_keywords(words, 10) == kept


def test_half_a_tag_leaves_no_bracket():
    assert clean_keywords(["wild<west"], 1) == ["wild west"]


def test_the_limit_counts_what_is_kept():
    assert clean_keywords(["the", "war", "WAR", "peace", "love"], 2) == ["war", "peace"]
    assert clean_keywords(["war"], 0) == []


@given(st.lists(st.one_of(st.text(), st.sampled_from(["war", "Wars", "the", "price", "1999"]))), st.integers(0, 10))
def test_cleaning_is_bounded_and_done_in_one_go(words, limit):
    kept = clean_keywords(words, limit)
    assert len(kept) <= limit
    assert clean_keywords(kept, limit) == kept
    assert all(word.splitlines() == [word] and not set(word) & set("<>") for word in kept)


def test_a_small_corpus_by_hand():
    items = items_of(
        ("Dusk", None, ["Drama"], "A tale of revenge. Brand: Acme. Price: $9.99. Visit www.acme.com today."),
        ("Dawn", None, ["Drama", "War"], "A tale of <b>hope</b> &amp; mercy."),
        ("Noon", None, [], ""),
    )
    keywords, stats = extract_keywords(items)
    # "tale" is in two of three documents, so it weighs less than what is in one; a title serves where all else fails.
    assert keywords["keywords"].tolist() == [
        ["drama", "revenge", "tale"],
        ["drama", "war", "hope", "mercy", "tale"],
        ["noon"],
    ]
    assert stats == {"items": 3, "items_without_keywords": 0, "mean_keywords": 3.0, "vocabulary": 7}


def test_without_a_description_genres_and_the_decade_remain():
    items = items_of(("The Long Goodbye", 1973, ["Crime", "Film-Noir"], ""), ("M", None, [], ""))
    keywords, stats = extract_keywords(items)
    assert keywords["keywords"].tolist() == [["crime", "film-noir", "1970s"], []]
    assert stats["items_without_keywords"] == 1


def test_in_a_large_corpus_neither_the_rarest_nor_the_commonest_words_are_keywords():
    rows = [
        ("Title", None, ["Books", "Crime" if n % 2 else "War"], f"story {'vengeance' if n < 6 else ''} solo{'x' * n}")
        for n in range(120)
    ]
    keywords, _ = extract_keywords(items_of(*rows))
    assert keywords["keywords"][[0, 7]].tolist() == [["war", "vengeance"], ["crime"]]


def test_names_come_after_what_an_item_is_about():
    items = items_of(("Dusk", None, [], "Shot in Lisbon, it is bleak."), ("Dawn", None, [], "A bleak and bleak tale."))
    words = extract_keywords(items)[0]["keywords"][0]
    assert words.index("bleak") < words.index("lisbon")


def test_no_items_make_no_keywords():
    keywords, stats = extract_keywords(items_of())
    assert (len(keywords), stats["mean_keywords"]) == (0, 0)


@given(st.lists(st.tuples(st.text(max_size=20), st.text(max_size=60)), max_size=6))
def test_any_metadata_gives_bounded_clean_deterministic_keywords(texts):
    items = items_of(*((title, 1999, ["Drama"], text) for title, text in texts))
    first, again = (extract_keywords(items)[0]["keywords"].tolist() for _ in range(2))
    assert first == again
    for words in first:
        assert len(words) <= MOST_KEYWORDS
        assert clean_keywords(words, MOST_KEYWORDS) == words
