"""Of several versions the least untrue is best, then the one that names what pulls hardest; worked out by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from tests.claims.rows import checker_of, item
from thinkrec.reasons.judging import SHRINKAGE, ReasonJudge, Tastes, badness, broken, passed_over, wanted
from thinkrec.shown import ShownRow

HISTORY = [
    item("Iron Harbour", "war", "ships", liked=True),
    item("Quiet Orchard", "Slow", "sad", liked=False),
    item("Night", "war", "noir", liked=False),
    item("Dawn", "war", liked=True),
]
TARGET = item("Low Tide", "sea", "war", "Slow")
CHECKER = checker_of(ShownRow(history=HISTORY, target=TARGET), keywords=["gloom"])
PULLS = {"sea": 0.5, "war": 0.2, "slow": -0.9}


def checked(text):
    return CHECKER.check(0, text)


@pytest.mark.parametrize(
    ("pulls", "from_best_to_worst"),
    [
        (
            {},  # the less is untrue and the more is said the better
            {
                "Yes. Liked war (2 of 3). This one brings war. It fits.": (0, 0, 0, 0, -2),
                "Yes. Liked war (2 of 3). It fits.": (0, 0, 0, 0, -1),
                "Yes. It fits.": (0, 0, 0, 0, 0),
                "Yes. Liked war (2 of 3). This one brings war. It does not fit.": (0, 1, 0, 0, -2),
                "Yes. Liked war (2 of 2). It fits.": (0, 1, 0, 0, 0),
                "Yes. Liked war (2 of 2) and gloom (1 of 1). It does not fit.": (0, 3, 0, 0, 0),
            },
        ),
        (
            PULLS,  # what is passed over counts after what is untrue and before how much is said; what is broken first
            {
                "Yes. This one brings sea, war. It fits.": (0, 0, 0, 1, -2),
                "Yes. This one brings sea. It fits.": (0, 0, 0, 3, -1),
                "Yes. Liked war (2 of 3). This one brings war. It fits.": (0, 0, 1, 3, -2),
                "Yes. It fits.": (0, 0, 3, 3, 0),
                "Yes. Liked gloom (1 of 1). This one brings sea, war. It fits.": (0, 1, 0, 1, -2),
                "Yes. Liked war (2 of 2). It fits.": (0, 1, 1, 3, 0),
                "Yes. This one brings sea, sea. It fits.": (1, 0, 0, 3, -1),
            },
        ),
    ],
)
def test_badness_by_hand(pulls, from_best_to_worst):
    bad = {text: badness(text, checked(text), pulls) for text in from_best_to_worst}
    assert bad == from_best_to_worst
    assert list(bad.values()) == sorted(bad.values())


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ('Yes. Liked "Iron Harbour". This one brings sea. It fits.', 0),
        ('Yes. Liked "Iron. This one brings sea. It fits.', 1),
        ("Yes. Liked war (2 of 3). This one brings war. It fits.", 0),  # in two sentences
        ("Yes. This one brings sea, war, Sea. It fits.", 1),
        ("Yes. This one brings seas, sea-shanties (1 of 1), chelsea. It fits.", 0),
        ('Yes. This one brings slow, slow, slow "fun. It fits.', 3),
        ("Yes. This one is fit, fit. It fits.", 0),  # no keyword
        ("Yes. war. It fits.", 1),
        ("Yes. This one brings sea. Against it: disliked", 1),
    ],
)
def test_broken_are_quotations_and_sentences_without_end_or_beginning_and_keywords_named_again(text, count):
    assert broken(text, PULLS) == count


class TestPassedOver:
    @pytest.mark.parametrize(
        ("text", "counts"),
        [
            ("Yes. This one brings sea.", (0, 3)),
            ("Yes. This one brings war and sea.", (0, 1)),
            ("Yes. Liked war (2 of 3). This one brings slow.", (1, 2)),
            ("Yes. Against it stands slow, disliked (1 of 1).", (3, 3)),  # named, but not in favour of the verdict
            ("Yes. Liked gloom (1 of 1).", (3, 3)),  # not of the target
            ("No. Disliked slow (1 of 1).", (0, 3)),
            ("No. For it stands war, liked (1 of 2). The target has war.", (1, 3)),
            ("No. Disliked sad (1 of 1).", (3, 3)),
            ("Who knows. This one brings sea.", (3, 3)),
        ],
    )
    def test_it_is_what_pulls_harder_towards_the_verdict(self, text, counts):
        assert passed_over(checked(text), PULLS) == counts

    def test_where_nothing_pulls_any_keyword_will_do(self):
        nothing = dict.fromkeys(PULLS, 0.0)
        assert passed_over(checked("Yes. This one brings slow, war."), nothing) == (0, 0)
        assert passed_over(checked("Yes. It fits."), {}) == (0, 0)


class TestWanted:
    @pytest.mark.parametrize(
        ("text", "word"),
        [
            ("Yes.", "sea"),
            ("Yes. Liked war (1 of 2).", "sea"),
            ("Yes. This one brings sea.", "war"),
            ("Yes. This one brings sea and war.", ""),  # what is left pulls away
            ("No.", "slow"),
            ("No. This one brings slow.", ""),
            ("Who knows.", ""),
        ],
    )
    def test_it_is_what_pulls_hardest_of_what_is_not_named(self, text, word):
        assert wanted(checked(text), PULLS) == word

    def test_nothing_is_wanted_where_nothing_pulls(self):
        assert wanted(checked("Yes."), dict.fromkeys(PULLS, 0.0)) == wanted(checked("Yes."), {}) == ""


class TestTastes:
    ITEMS = np.asarray([[2.0, 0.0], [0.0, 4.0], [4.0, 2.0], [0.0, 0.0]], np.float32)  # the last was never seen
    KEYWORDS = (["war", "War"], ["sea", "war"], ["sea"], ["gloom", "sea"])

    def test_keywords_pull_as_the_items_do_that_have_them(self):
        # The known items' mean is (2, 2). war: (0, -2) + (-2, 2); sea: (-2, 2) + (2, 0).
        user = np.asarray([3.0, 1.0], np.float32)
        pulls = Tastes(self.ITEMS, self.KEYWORDS).pulls(user, ["War", "sea", "gloom", "new"])
        shrunk = 2 + SHRINKAGE
        assert pulls == pytest.approx({"war": -6 / shrunk, "sea": 2 / shrunk, "gloom": 0, "new": 0})

    def test_of_features_the_fit_on_all_of_train_counts_and_none_where_the_model_is_told_none(self):
        vectors = np.concatenate([self.ITEMS, 9 * self.ITEMS])  # a fold's vectors come after
        features = SimpleNamespace(item_vectors=vectors)
        user = np.asarray([3.0, 1.0], np.float32)
        told = Tastes.of(features, self.KEYWORDS, ["user", "item"]).pulls(user, ["war"])
        assert told == Tastes(self.ITEMS, self.KEYWORDS).pulls(user, ["war"])
        assert Tastes.of(features, self.KEYWORDS, []).pulls(user, ["war", "sea"]) == {"war": 0.0, "sea": 0.0}

    def test_nothing_known_pulls_nowhere(self):
        nobody = np.zeros(2, np.float32)
        assert Tastes(self.ITEMS, self.KEYWORDS).pulls(nobody, ["war"]) == {"war": 0.0}
        assert Tastes(0 * self.ITEMS, self.KEYWORDS).pulls(nobody + 1, ["war"]) == {"war": 0.0}


def test_a_judge_knows_the_rows_user():
    class Told(Tastes):
        def pulls(self, user_d, keywords):
            return {word.lower(): float(user_d[0]) * PULLS[word.lower()] for word in keywords}

    users = np.asarray([[1.0], [-1.0]], np.float32)
    features = SimpleNamespace(user_vectors_of=lambda rows: users[rows])
    told = Told(TestTastes.ITEMS, TestTastes.KEYWORDS)
    judge = ReasonJudge(checker=CHECKER, tastes=told, features=features)
    text = "Yes. This one brings sea. It fits."
    assert [judge.badness(row, text) for row in (0, 1)] == [(0, 0, 0, 3, -1), (0, 0, 2, 3, -1)]
    assert [judge.wanted(row, "Yes.") for row in (0, 1)] == ["sea", "slow"]
