"""What a reason claims is found in anybody's prose and held against what was shown; worked out by hand."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.claims.rows import LITERAL
from thinkrec.claims.checker import thesaurus_of
from thinkrec.claims.claims import ShownNames
from thinkrec.claims.names import Catalogue
from thinkrec.claims.reading import check_text
from thinkrec.shown import ShownItem, ShownRow
from thinkrec.synthetic import vocabulary as words
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
    text,
    history=HISTORY,
    target=TARGET,
    catalogue=CATALOGUE,
    thesaurus=LITERAL,
):
    return check_text(text, ShownNames(ShownRow(history=history, target=target), thesaurus), catalogue)


def claimed(text):
    return [str(claim) for claim in check(text).claims]


def names(claims):
    return [claim.name for claim in claims]


class TestTheOfflineTeachersGrammar:
    def test_every_sentence_is_read(self):
        text = (
            "Yes. Liked comedy (1 of 1) and war (1 of 2). One such title is Iron Harbour. Against it stands slow, "
            "disliked (1 of 1). This one brings sea, war. It still fits."
        )
        assert " | ".join(claimed(text)) == (
            "liked comedy (1 of 1) | liked war (1 of 2) | liked Iron Harbour | disliked slow (1 of 1) | target sea | "
            "target war"
        )
        assert check(text).agrees(True) and not check(text).agrees(False)

    def test_what_is_counted_is_what_was_shown(self):
        claims = check("No. Disliked war (1 of 2). For it stands comedy, liked (1 of 2).").claims
        assert [(c.name, c.liked, c.disliked, c.target, c.standing) for c in claims] == [
            ("war", 1, 1, True, "unsupported"),
            ("comedy", 1, 0, False, "untrue"),
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
            ("Liked war. One such title is Night.", ["Night"]),
            ("Nothing in the history speaks for it; 3 of 4 titles were disliked.", ["titles"]),
        ],
    )
    def test_what_is_not_so_is_contradicted(self, text, wrong):
        assert names(check(f"Yes. {text}").of("untrue")) == wrong
        assert not check(f"Yes. {text}").true

    def test_a_count_of_all_titles_is_one_claim_however_often_it_is_made(self):
        text = "Yes. 2 of 3 titles were liked. Liked war (1 of 2). 2 of the 3 titles were liked, 1 of 3 were disliked."
        assert [(claim.name, claim.says, claim.count) for claim in check(text).claims] == [
            ("war", "liked", (1, 2)),
            ("titles", "liked", (2, 3)),
            ("titles", "disliked", (1, 3)),
        ]

    def test_what_was_never_shown_is_ungrounded(self):
        text = "No. Disliked heist (1 of 1) and gloom (2 of 2). One such title is Seven Keys. This one is about love."
        assert names(check(text).of("ungrounded")) == ["heist", "gloom", "Seven Keys", "love"]

    def test_its_conclusion_may_not_turn_its_verdict_round(self):
        assert not check("No. Liked war (1 of 2). It fits.").agrees(False)
        assert check("No. Disliked war (1 of 2). It does not fit.").agrees(False)
        assert check("Yes. It doesn't lack war, so it is a good fit.").conclusion is True
        assert check("Liked war.").verdict is None


WORDS = [word for trait in words.TRAITS.values() for synonyms in trait.values() for word in synonyms[:3]]
WORDS += ["drama", "western", "perth", "1990s"]
SHOWN = st.builds(
    ShownItem,
    title=st.sampled_from([f"{one} {two}" for one in ("Amber", "Last", "Salt") for two in ("Bell", "Train", "Wolf")]),
    keywords=st.lists(st.sampled_from(WORDS), unique=True, max_size=6),
    liked=st.booleans(),
)
WORLD = Catalogue([f"{one} {two}" for one in words.TITLE_ADJECTIVES for two in words.TITLE_NOUNS], WORDS)


@given(st.lists(SHOWN, max_size=8), SHOWN, st.sampled_from([None, "Yes", "No"]))
def test_the_offline_teacher_claims_nothing_that_is_not_so(history, target, right):
    target, latest = replace(target, liked=None), {shown.title: shown for shown in history}
    messages = write_question(ShownRow(history=list(latest.values()), target=target))  # nobody rates an item twice
    if right is not None:
        messages += [{"role": "assistant", "content": "?"}, {"role": "user", "content": f"The right one is {right}."}]
    untrue = [
        claim
        for claim in check(answer(messages), list(latest.values()), target, WORLD, thesaurus_of("synthetic")).claims
        if not claim.true
    ]
    assert list(map(str, untrue)) == []


class TestTastes:
    """HISTORY with one war film more that was liked, and one that tells of its place and year."""

    HISTORY = (
        *HISTORY,
        ShownItem(title="Dawn", keywords=["war", "oslo", "1990s", "vendetta"], liked=True),
        ShownItem(title="Dusk", keywords=["ships", "oslo", "1990s", "payback", "oslo opera"], liked=True),
    )

    def standings(self, text, thesaurus=LITERAL):
        names = ShownNames(ShownRow(history=self.HISTORY, target=TARGET), thesaurus, {"oslo"})
        return [claim.standing for claim in check_text(f"Yes. {text}", names, Catalogue([], ["retribution"])).claims]

    @pytest.mark.parametrize(
        ("text", "standing"),
        [
            ("Liked war (2 of 3).", "true"),
            ("Prefers war.", "true"),
            ("Liked ships.", "true"),
            ("Disliked sad (1 of 1).", "unsupported"),  # of one title
            ("Prefers family (1 of 2).", "unsupported"),  # half of them
            ("Disliked war (1 of 3).", "unsupported"),
            ("Avoids sea.", "unsupported"),  # only the target has it
            ("Liked oslo (2 of 2).", "no_taste"),
            ("Liked 1990s (2 of 2).", "no_taste"),
            ("This one brings war.", "true"),
        ],
    )
    def test_a_taste_needs_two_titles_and_most_of_them(self, text, standing):
        assert self.standings(text) == [standing]

    def test_a_place_may_be_told_of_and_a_longer_name_may_hold_one(self):
        assert self.standings("The target lacks oslo.") == ["true"]
        assert self.standings("Liked oslo opera (1 of 1).") == ["unsupported"]

    @pytest.mark.parametrize(
        ("text", "standings"),
        [
            ('Liked "Dusk" for payback.', ["true", "true"]),
            ('Liked payback in "Dusk".', ["true", "true"]),
            ('Liked war in "Dawn" and "Iron Harbour".', ["true"] * 3),
            ('Liked war in "Dawn" and "Dusk".', ["untrue", "true", "true"]),  # Dusk is of no war
            ('Liked "Dawn" for war and "Dusk" for ships and payback.', ["true"] * 5),
            ('Liked "Dawn" for ships.', ["true", "untrue"]),
            ('Disliked "Night" for war.', ["true", "true"]),
            ('Disliked "Dawn" for war.', ["untrue", "untrue"]),
            ('Liked "Dusk" for oslo.', ["true", "no_taste"]),
            ('Liked war (2 of 3) and "Dusk" for payback.', ["true", "true", "true"]),
            ('Liked "Dusk" for payback and war (2 of 3).', ["true", "true", "true"]),  # what is counted is of all
        ],
    )
    def test_or_it_is_said_of_titles_by_their_names(self, text, standings):
        assert self.standings(text) == standings

    def test_a_claim_is_literal_or_by_meaning_whoever_wrote_it(self):
        names = ShownNames(ShownRow(history=self.HISTORY, target=TARGET), thesaurus_of("synthetic-small"))
        checked = check_text("Yes. Liked retribution (2 of 2).", names, Catalogue([], ["retribution"]))
        assert not checked.true and checked.true_by_meaning
        assert list(map(str, checked.claims)) == ["liked retribution (2 of 2) \u2248 vendetta, payback"]
        assert self.standings("Liked retribution (2 of 2).", thesaurus_of("ml-1m")) == ["ungrounded"]

    def test_what_has_a_synonym_of_it_does_not_lack_it(self):
        target = replace(TARGET, keywords=["payback"])
        text, of_world = "No. The target lacks vendetta.", thesaurus_of("synthetic")
        assert check(text, self.HISTORY, target).true
        assert not check(text, self.HISTORY, target, thesaurus=of_world).true_by_meaning


class TestFlips:
    """A true text becomes false in just the claim that rests on what is changed."""

    TEXT = 'Yes. Liked comedy (2 of 2) and war (2 of 3). One such title is "Iron Harbour". This one brings sea, war.'
    HISTORY = (*HISTORY, ShownItem(title="Dawn", keywords=["war", "comedy"], liked=True))

    def wrong(self, history, target):
        return [str(claim) for claim in check(self.TEXT, history, target).claims if not claim.true]

    def test_as_it_is_all_is_true(self):
        assert self.wrong(self.HISTORY, TARGET) == []

    def test_a_label_turned_round(self):
        first, *others = self.HISTORY
        turned = [*self.HISTORY[:3], replace(HISTORY[3], liked=False), self.HISTORY[4]]
        assert self.wrong(turned, TARGET) == ["liked comedy (2 of 2)"]
        flipped = self.wrong([replace(first, liked=False), *others], TARGET)
        assert flipped == ["liked war (2 of 3)", "liked Iron Harbour"]

    def test_a_word_of_the_target_taken_away(self):
        assert self.wrong(self.HISTORY, replace(TARGET, keywords=["sea"])) == ["target war"]
        assert self.wrong(self.HISTORY, replace(TARGET, keywords=["war"])) == ["target sea"]

    def test_a_title_taken_away(self):
        assert self.wrong(self.HISTORY[1:], TARGET) == ["liked war (2 of 3)", "liked Iron Harbour"]


class TestNames:
    def test_words_of_prose_that_are_keywords_of_other_items_are_no_claims(self):
        text = "Yes. The history shows a strong taste, the user's love of a good pace; the tone and the appeal fit."
        assert claimed(text) == []

    def test_one_word_behind_a_title_and_a_colon_is_said_of_it_whoever_knows_the_word(self):
        assert claimed('Yes. They liked "Iron Harbour": zeppelins.') == [
            "liked Iron Harbour",
            "liked zeppelins in Iron Harbour",
        ]
        assert claimed('Yes. They liked "Iron Harbour": it was good.') == ["liked Iron Harbour"]

    def test_a_check_says_where_each_claim_ends(self):
        text = 'Yes. They liked "Iron Harbour": war. 2 of 4 titles were liked.'
        made = check(text)
        assert [text[:end].split()[-1] for end in made.ends] == ["Harbour", "war", "liked"]
        assert len(made.ends) == len(made.claims)

    def test_words_of_titles_and_parts_of_words_are_no_keywords(self):
        assert claimed("Yes. Liked Iron Harbour, overseas warfare and post-war style.") == ["liked Iron Harbour"]

    def test_titles_are_found_in_their_own_case_and_of_one_word_only_if_shown(self):
        assert claimed("Yes. It fits. Iron suits, and Love. Before the rain, seven keys and iron harbour.") == []
        assert claimed("No. One such title is Night.") == ["named Night"]
        assert claimed("Yes. Night falls.") == []  # any sentence could begin so

    def test_a_title_is_known_without_its_subtitle_and_in_quotes_whatever_its_case(self):
        assert claimed("Yes. They liked The Copper Key.") == ["liked The Copper Key: Part Two"]
        assert claimed("Yes. They liked \u201cthe copper key\u201d and 'Iron Harbour' (1987).") == [
            "liked The Copper Key: Part Two",
            "liked Iron Harbour",
        ]

    def test_quoted_names_that_nobody_knows_are_claims_and_quoted_sentences_are_not(self):
        text = (
            'Yes. Liked "Harbour of the Dead". It has a \'feel-good\' air; one could say "The user wants more of it".'
        )
        assert [(str(c), c.standing) for c in check(text).claims] == [("liked Harbour of the Dead", "ungrounded")]

    def test_apostrophes_are_no_quotes(self):
        assert claimed("Yes. The users' and the Captain's wish isn't Seven Keys' plot, it's theirs.") == [
            "named Seven Keys"
        ]

    def test_plurals_and_forms_of_a_word_are_that_word(self):
        assert claimed("Yes. The user liked comedies and film noir.") == ["liked comedy", "liked film-noir"]
        assert check("Yes. The user enjoys \u201csuspense\u201d.").claims == []
        claims = check("Yes. The user enjoys suspense.", catalogue=Catalogue([], ["suspense"])).claims
        assert [(str(claim), claim.standing) for claim in claims] == [("prefers suspense", "ungrounded")]
        claims = check("Yes. Iron Harbour was liked for its suspense.", catalogue=Catalogue([], ["suspense"])).claims
        assert [str(claim) for claim in claims if claim.true_by_meaning]

    def test_nothing_comes_of_nothing(self):
        assert check("", [], ShownItem(title="", keywords=[]), Catalogue([""], ["", "..."])).claims == []
        assert check("No.", catalogue=Catalogue(["No"], ["no"])).claims == []


# What a reader would say that a text claims, and the text.
PROSE = [
    ("liked Iron Harbour | liked suspenseful in Iron Harbour | liked war in Iron Harbour | prefers war | "
     "named Low Tide | target war",
     "Yes. The user liked Iron Harbour, a suspenseful war film set on ships, which suggests an appetite for war "
     "stories. Low Tide is also about war, so it should appeal."),
    ("disliked Quiet Orchard | disliked slow in Quiet Orchard | disliked sad in Quiet Orchard | target slow",
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
    ("liked Iron Harbour | liked war in Iron Harbour | named Low Tide | target sea | target war",
     'Yes. They liked "Iron Harbour": war. This is "Low Tide": sea, war. It fits.'),
    ("avoids slow | prefers war | target war | target slow",
     "No. Taste: dislikes slow; likes war. Fit: this one combines war with slow scenes."),
]  # fmt: skip


@pytest.mark.parametrize(("claims", "text"), PROSE)
def test_free_prose_claims_what_a_reader_would_say(claims, text):
    assert " | ".join(claimed(text)) == claims


@pytest.mark.parametrize("end", ["user", "this", "Liked war. It suits the user", "Quiet", "It still fits the user."])
def test_a_text_may_end_where_a_longer_name_would_go_on(end):
    assert claimed(f"{end} ") == claimed(end)


def test_true_prose_raises_no_alarm():
    claims = [claim for _, text in PROSE for claim in check(text).claims]
    alarms = [str(claim) for claim in claims if claim.standing not in ("true", "unsupported")]
    assert alarms == ["avoids musical", "named Seven Keys"]
    assert {claim.name for claim in claims if claim.standing == "unsupported"} == {
        *("war", "comedy", "ships", "sad", "slow", "family", "sea")  # of these, HISTORY has one, or loves half
    }


@given(st.text(), st.text(), st.text())
def test_no_text_and_no_name_breaks_it(text, title, keyword):
    shown = ShownItem(title=title, keywords=[keyword], liked=True)
    reason = f'Yes. Liked {keyword} (1 of 1). One such title is "{title}". This one has {keyword}. {text}'
    check(reason, [shown], replace(shown, liked=None), Catalogue([title, text], [keyword, text]))
