"""What a reason claims is found in anybody's prose and held against what was shown; worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkrec.claims.checker import thesaurus_of
from thinkrec.claims.claims import Check, Claim, ShownNames, Thesaurus
from thinkrec.claims.reading import Catalogue, check_text
from thinkrec.shown import ShownItem, ShownRow
from thinkrec.synthetic import vocabulary as words
from thinkrec.synthetic.synonyms import meaning
from thinkrec.teacher.offline import answer
from thinkrec.teacher.trace_prompts import write_question

HISTORY = [
    ShownItem(title="Iron Harbour", keywords=["war", "ships", "suspenseful"], liked=True),
    ShownItem(title="Quiet Orchard", keywords=["Slow", "sad", "family"], liked=False),
    ShownItem(title="Night", keywords=["war", "film-noir"], liked=False),
    ShownItem(title="The Copper Key: Part Two", keywords=["comedy", "family", "coming of age"], liked=True),
]
TARGET = ShownItem(title="Low Tide", keywords=["sea", "war", "slow"])
TITLES = [*(shown.title for shown in HISTORY), "Low Tide", "Iron", "Seven Keys", "It", "Before the rain", "Love"]
KEYWORDS = [*(word for shown in (*HISTORY, TARGET) for word in shown.keywords)]
KEYWORDS += ["heist", "musical", "love", "pace", "strong", "history", "noir", "keys", "tone", "fit", "taste", "appeal"]
CATALOGUE = Catalogue(TITLES, KEYWORDS)


def check(
    text: str,
    history: Sequence[ShownItem] = HISTORY,
    target: ShownItem = TARGET,
    catalogue: Catalogue = CATALOGUE,
    thesaurus: Thesaurus = str,
) -> Check:
    return check_text(text, ShownNames(ShownRow(history=history, target=target), thesaurus), catalogue)


def claimed(text: str) -> list[str]:
    return [str(claim) for claim in check(text).claims]


def names(claims: Sequence[Claim]) -> list[str]:
    return [claim.name for claim in claims]


class TestTheOfflineTeachersGrammar:
    def test_every_sentence_is_read(self) -> None:
        text = (
            "Yes. Liked comedy (1 of 1) and war (1 of 2). One such title is Iron Harbour. Against it stands slow, "
            "disliked (1 of 1). This one brings sea, war. It still fits."
        )
        assert " | ".join(claimed(text)) == (
            "liked comedy (1 of 1) | liked war (1 of 2) | liked Iron Harbour | disliked slow (1 of 1) | target sea | "
            "target war"
        )
        assert check(text).true and check(text).agrees(True) and not check(text).agrees(False)

    def test_what_is_counted_is_what_was_shown(self) -> None:
        claims = check("No. Disliked war (1 of 2). For it stands comedy, liked (1 of 2).").claims
        assert [(c.name, c.liked, c.disliked, c.target, c.shown, c.contradicted) for c in claims] == [
            ("war", 1, 1, True, True, False),
            ("comedy", 1, 0, False, True, True),
        ]

    @pytest.mark.parametrize(
        ("text", "wrong"),
        [
            ("Liked sad (0 of 1).", ["sad"]),
            ("Liked sea.", ["sea"]),  # no title of the history has it
            ("Prefers sad (1 of 1).", ["sad"]),
            ("Avoids family (2 of 2).", ["family"]),
            ("Avoids comedy.", ["comedy"]),
            ("This one brings war, ships.", ["ships"]),
            ("Liked war (1 of 2). One such title is Night.", ["Night"]),
            ("Nothing in the history speaks for it; 3 of 4 titles were disliked.", ["titles"]),
        ],
    )
    def test_what_is_not_so_is_contradicted(self, text: str, wrong: list[str]) -> None:
        assert names(check(f"Yes. {text}").contradicted) == wrong
        assert not check(f"Yes. {text}").true

    def test_a_count_of_all_titles_is_one_claim_however_often_it_is_made(self) -> None:
        text = "Yes. 2 of 3 titles were liked. Liked war (1 of 2). 2 of the 3 titles were liked, 1 of 3 were disliked."
        assert [(claim.name, claim.says, claim.count) for claim in check(text).claims] == [
            ("war", "liked", (1, 2)),
            ("titles", "liked", (2, 3)),
            ("titles", "disliked", (1, 3)),
        ]

    def test_what_was_never_shown_is_ungrounded(self) -> None:
        text = "No. Disliked heist (1 of 1) and gloom (2 of 2). One such title is Seven Keys. This one is about love."
        assert names(check(text).ungrounded) == ["heist", "gloom", "Seven Keys", "love"]

    def test_synonyms_count_by_the_thesaurus(self) -> None:
        history = [replace(HISTORY[0], keywords=["revenge"]), replace(HISTORY[1], keywords=["payback"])]
        text = "Yes. Liked vendetta (1 of 2)."
        by_meaning = check(text, history, TARGET, Catalogue([], ["vendetta"]), meaning)
        assert by_meaning.true
        assert names(check(text, history, TARGET, Catalogue([], ["vendetta"])).ungrounded) == ["vendetta"]
        assert thesaurus_of("offline") is meaning
        assert thesaurus_of("https://host/v1")("vendetta") == "vendetta"

    def test_its_conclusion_may_not_turn_its_verdict_round(self) -> None:
        assert not check("No. Liked war (1 of 2). It fits.").agrees(False)
        assert check("No. Disliked war (1 of 2). It does not fit.").agrees(False)
        assert check("Yes. It doesn't lack war, so it is a good fit.").conclusion is True
        assert check("Liked war.").verdict is None


WORDS = [word for trait in words.TRAITS.values() for synonyms in trait.values() for word in synonyms[:3]]
WORDS += ["drama", "western", "perth"]
SHOWN = st.builds(
    ShownItem,
    title=st.sampled_from([f"{one} {two}" for one in ("Amber", "Last", "Salt") for two in ("Bell", "Train", "Wolf")]),
    keywords=st.lists(st.sampled_from(WORDS), unique=True, max_size=6),
    liked=st.booleans(),
)
WORLD = Catalogue([f"{one} {two}" for one in words.TITLE_ADJECTIVES for two in words.TITLE_NOUNS], WORDS)


@given(st.lists(SHOWN, max_size=8), SHOWN, st.sampled_from([None, "Yes", "No"]))
def test_the_offline_teacher_claims_nothing_that_is_not_so(
    history: list[ShownItem], target: ShownItem, right: str | None
) -> None:
    target, latest = replace(target, liked=None), {shown.title: shown for shown in history}
    messages = write_question(ShownRow(history=list(latest.values()), target=target))  # nobody rates an item twice
    if right is not None:
        messages += [{"role": "assistant", "content": "?"}, {"role": "user", "content": f"The right one is {right}."}]
    untrue = [
        claim
        for claim in check(answer(messages), list(latest.values()), target, WORLD, meaning).claims
        if not claim.true
    ]
    assert list(map(str, untrue)) == []


class TestFlips:
    """A true text becomes false in just the claim that rests on what is changed."""

    TEXT = 'Yes. Liked comedy (1 of 1) and war (1 of 2). One such title is "Iron Harbour". This one brings sea, war.'

    def wrong(self, history: Sequence[ShownItem], target: ShownItem) -> list[str]:
        return [str(claim) for claim in check(self.TEXT, history, target).claims if not claim.true]

    def test_as_it_is_all_is_true(self) -> None:
        assert self.wrong(HISTORY, TARGET) == []

    def test_a_label_turned_round(self) -> None:
        assert self.wrong([*HISTORY[:3], replace(HISTORY[3], liked=False)], TARGET) == ["liked comedy (1 of 1)"]
        flipped = self.wrong([replace(HISTORY[0], liked=False), *HISTORY[1:]], TARGET)
        assert flipped == ["liked war (1 of 2)", "liked Iron Harbour"]

    def test_a_word_of_the_target_taken_away(self) -> None:
        assert self.wrong(HISTORY, replace(TARGET, keywords=["sea"])) == ["target war"]
        assert self.wrong(HISTORY, replace(TARGET, keywords=["war"])) == ["target sea"]

    def test_a_title_taken_away(self) -> None:
        assert self.wrong(HISTORY[1:], TARGET) == ["liked war (1 of 2)", "liked Iron Harbour"]


class TestNames:
    def test_words_of_prose_that_are_keywords_of_other_items_are_no_claims(self) -> None:
        text = "Yes. The history shows a strong taste, the user's love of a good pace; the tone and the appeal fit."
        assert claimed(text) == []

    def test_words_of_titles_and_parts_of_words_are_no_keywords(self) -> None:
        assert claimed("Yes. Liked Iron Harbour, overseas warfare and post-war style.") == ["liked Iron Harbour"]

    def test_titles_are_found_in_their_own_case_and_of_one_word_only_if_shown(self) -> None:
        assert claimed("Yes. It fits. Iron suits, and Love. Before the rain, seven keys and iron harbour.") == []
        assert claimed("No. One such title is Night.") == ["named Night"]
        assert claimed("Yes. Night falls.") == []  # any sentence could begin so

    def test_a_title_is_known_without_its_subtitle_and_in_quotes_whatever_its_case(self) -> None:
        assert claimed("Yes. They liked The Copper Key.") == ["liked The Copper Key: Part Two"]
        assert claimed("Yes. They liked \u201cthe copper key\u201d and 'Iron Harbour' (1987).") == [
            "liked The Copper Key: Part Two",
            "liked Iron Harbour",
        ]

    def test_quoted_names_that_nobody_knows_are_claims_and_quoted_sentences_are_not(self) -> None:
        text = (
            'Yes. Liked "Harbour of the Dead". It has a \'feel-good\' air; one could say "The user wants more of it".'
        )
        assert [(str(c), c.shown) for c in check(text).claims] == [("liked Harbour of the Dead", False)]

    def test_apostrophes_are_no_quotes(self) -> None:
        assert claimed("Yes. The users' and the Captain's wish isn't Seven Keys' plot, it's theirs.") == [
            "named Seven Keys"
        ]

    def test_plurals_and_forms_of_a_word_are_that_word(self) -> None:
        assert claimed("Yes. The user liked comedies and film noir.") == ["liked comedy", "liked film-noir"]
        assert check("Yes. The user enjoys \u201csuspense\u201d.").claims == []
        claims = check("Yes. The user enjoys suspense.", catalogue=Catalogue([], ["suspense"])).claims
        assert [(claim.name, claim.liked, claim.true) for claim in claims] == [("suspense", 1, True)]

    def test_nothing_comes_of_nothing(self) -> None:
        assert check("", [], ShownItem(title="", keywords=[]), Catalogue([""], ["", "..."])).claims == []
        assert check("No.", catalogue=Catalogue(["No"], ["no"])).claims == []


# What a reader would say that a text claims, and the text.
PROSE = [
    ("liked Iron Harbour | liked suspenseful | liked war | prefers war | named Low Tide | target war",
     "Yes. The user liked Iron Harbour, a suspenseful war film set on ships, which suggests an appetite for war "
     "stories. Low Tide is also about war, so it should appeal."),
    ("disliked Quiet Orchard | disliked slow | disliked sad | target slow",
     "No. The user did not like Quiet Orchard, and its slow, sad mood is a likely reason. The target's slow pace "
     "would not be enjoyed."),
    ("prefers comedy | disliked Night | disliked Quiet Orchard | lacks comedy",
     "No. While the user enjoys comedies, they disliked Night and Quiet Orchard. This film has no comedy in it."),
    ("liked Iron Harbour | disliked Night",
     "Yes. Iron Harbour was liked, but Night was not liked, so war alone decides nothing."),
    ("liked Iron Harbour | disliked Quiet Orchard | prefers ships",
     "Yes. Titles such as *Iron Harbour* (liked) and *Quiet Orchard* (disliked) point to a preference for ships "
     "over family drama."),
    ("disliked slow | disliked sad | named Low Tide",
     "No. They neither liked slow films nor sad ones. Low Tide is slow."),
    ("named sea | named Low Tide",
     "Yes. The user would love the sea of Low Tide."),
    ("lacks ships | lacks comedy | avoids musical",
     "No. The target lacks ships and comedy, and the user avoids musicals."),
    ("liked ships | liked Iron Harbour | target sea",
     "Yes. The history shows a love of ships. For instance, Iron Harbour. This one is about the sea."),
    ("disliked Quiet Orchard",
     "No. Quiet Orchard, which the user disliked, is slow, as is this title."),
    ("avoids sad | prefers war | prefers sea",
     "Yes. Although the user isn't a fan of sad stories, they are drawn to war and to the \u201csea\u201d."),
    ("prefers family | liked The Copper Key: Part Two (1 of 1) | named Seven Keys",
     "Yes. The user seems to enjoy stories of family, having liked The Copper Key (1 of 1); Seven Keys is of the "
     "same kind."),
    ("lacks ships | lacks comedy",
     "No. The target has neither ships nor comedy, and nobody who liked them once would do without."),
    ("avoids sad (1 of 1) | prefers comedy",
     "Yes. The user has shown little interest in sad films (0 of 1 liked), and has never disliked a comedy."),
    ("prefers ships",
     "Yes. They prefer ships to family drama; the target is a break from comedy and about more than the sea."),
    ("target sea | target war | target slow | prefers comedy | prefers ships | avoids slow",
     "No. Target: sea, war, slow. Preferences: comedy, ships. Dislikes: slow."),
    ("avoids slow | prefers war | target war | target slow",
     "No. Taste: dislikes slow; likes war. Fit: this one combines war with slow scenes."),
]  # fmt: skip


@pytest.mark.parametrize(("claims", "text"), PROSE)
def test_free_prose_claims_what_a_reader_would_say(claims: str, text: str) -> None:
    assert " | ".join(claimed(text)) == claims


@pytest.mark.parametrize("end", ["user", "this", "Liked war. It suits the user", "Quiet", "It still fits the user."])
def test_a_text_may_end_where_a_longer_name_would_go_on(end: str) -> None:
    assert claimed(f"{end} ") == claimed(end)


def test_true_prose_raises_no_alarm() -> None:
    alarms = [[str(claim) for claim in check(text).claims if not claim.true] for _, text in PROSE]
    assert [alarm for alarm in alarms if alarm] == [["avoids musical"], ["named Seven Keys"]]


@given(st.text(), st.text(), st.text())
def test_no_text_and_no_name_breaks_it(text: str, title: str, keyword: str) -> None:
    shown = ShownItem(title=title, keywords=[keyword], liked=True)
    reason = f'Yes. Liked {keyword} (1 of 1). One such title is "{title}". This one has {keyword}. {text}'
    check(reason, [shown], replace(shown, liked=None), Catalogue([title, text], [keyword, text]))
