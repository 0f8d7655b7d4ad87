"""Reason metrics: identity, difference, the verdict's honesty, and rows without a reference."""

import math
from types import SimpleNamespace
from unittest import mock

import nltk.corpus
import numpy as np
import pandas as pd
import pytest

from tests.claims.rows import checker_of, item
from thinkrec.claims.claims import Thesaurus
from thinkrec.evaluation.reasons import (
    bleu,
    meteor_exact_stem,
    meteor_wordnet,
    rouge_l,
    score_claims,
    score_reasons,
    score_truth,
    words,
)
from thinkrec.shown import ShownRow

TEXT = "Yes. The user liked slow dramas before, and this is one."


def reasons(*rows):
    return pd.DataFrame(rows, columns=["row", "label", "probability", "reason", "teacher"])


def test_words_are_lower_case_without_punctuation():
    assert words("Don't -- it\u2019s a *Film noir*!") == ["don't", "it\u2019s", "a", "film", "noir"]


def test_likeness_is_full_for_the_same_text_and_none_for_another():
    assert rouge_l(TEXT, TEXT) == bleu([TEXT], [TEXT]) == 1
    assert meteor_exact_stem(TEXT, TEXT) > 0.99  # METEOR's penalty for one unbroken run is never quite 0
    assert rouge_l("purple", TEXT) == meteor_exact_stem("purple", TEXT) == 0
    assert meteor_exact_stem("likes dramas", "liked drama") > 0.9  # it matches stems
    assert meteor_exact_stem("movie", "film") == 0  # but knows no synonyms
    # The common subsequence is "the dog": recall 2/4, precision 2/3.
    assert rouge_l("the sad dog", "the big old dog") == pytest.approx(2 * (2 / 4) * (2 / 3) / (2 / 4 + 2 / 3))


def test_a_verdict_agrees_with_its_score_or_counts_against_it():
    frame = reasons(
        (0, 1, 0.9, "Yes. Good.", None),
        (1, 1, 0.2, "No. Bad.", None),
        (2, 0, 0.2, "Yes. Good.", None),
        (3, 0, 0.2, "Nothing speaks for it.", None),
    )
    scores = score_reasons(frame)
    assert (scores["agreement"], scores["verdict_share"], scores["accuracy"]) == (0.5, 0.75, 0.25)
    assert scores["distinct_share"] == 0.75
    assert scores["words"] == (2 + 2 + 2 + 4) / 4


def test_rows_without_a_teachers_text_count_for_agreement_only():
    alone = score_reasons(reasons((0, 1, 0.9, TEXT, TEXT)))
    joined = score_reasons(reasons((0, 1, 0.9, TEXT, TEXT), (1, 0, 0.1, "No. Purple.", None), (2, 0, 0.1, "", "")))
    for name in ("meteor_exact_stem", "rouge_l", "bleu"):
        assert joined[name] == alone[name]
    assert (joined["with_teacher"], joined["rows"]) == (1, 3)
    assert joined["agreement"] == joined["non_empty_share"] == pytest.approx(2 / 3)


def test_no_reasons_at_all_is_nan_not_an_error():
    scores = score_reasons(reasons())
    assert scores["rows"] == 0
    assert all(math.isnan(scores[name]) for name in ("meteor_exact_stem", "rouge_l", "bleu", "agreement"))


def test_claims_are_counted_of_claims_and_of_reasons_ours_beside_the_teachers():
    def read(row):
        history = [item("Iron Harbour", "war", liked=row == 0), item("Night", "conflict", liked=True)]
        return ShownRow(history=history, target=item("Low Tide", "sea"))

    frame = reasons(
        (0, 1, 0.9, "Yes. Liked war (2 of 2). This one brings sea. It fits.", 'Yes. Liked "Iron Harbour". It fits.'),
        (1, 0, 0.1, "No. Liked war (1 of 1). This one brings war, heist. It fits.", None),
        (2, 0, 0.1, "No. Nothing at all.", ""),
        (3, 0, 0.1, None, None),
    )
    thesaurus = Thesaurus("war", lambda word: "war" if word == "conflict" else word)
    scores = score_claims(frame, checker_of(read, keywords=["heist"], thesaurus=thesaurus))
    # Row 0: two titles of war are so by meaning alone. Row 1: heist was never shown, war not liked nor in the target.
    assert scores["ours"] == {
        "reasons": 3,
        "claims": 5,
        "wholly_true_share": {"literally": 0, "by_meaning": 1 / 3},
        "claims_true_share": {"literally": 1 / 5, "by_meaning": 2 / 5},
        "target_true_share": {"literally": 1 / 3, "by_meaning": 1 / 3},
        "history_true_share": {"literally": 0, "by_meaning": 1 / 2},
        "synonym_share": 1 / 5,
        "ungrounded_share": 1 / 5,
        "no_taste_share": 0,
        "unsupported_share": 0,
        "untrue_share": 2 / 5,
        "own_conclusion_share": 1 / 2,
    }
    assert (scores["teacher"]["reasons"], scores["teacher"]["claims_true_share"]["literally"]) == (1, 1)
    assert math.isnan(scores["teacher"]["target_true_share"]["literally"])


def test_a_text_names_the_true_reason_by_any_of_its_words():
    # Four things, two of them traits: revenge and irony.
    target = item("Low Tide", "vengeance", "payback", "Drama", "wry", "lima")
    checker = checker_of(ShownRow(history=[], target=target))
    frame = reasons(
        (0, 1, 0.9, "Yes. Liked Retribution (1 of 1), lima (1 of 1).", "Yes. The target has wry."),
        (1, 1, 0.9, "Yes. Liked drama.", None),
        (2, 0, 0.1, "No. It is slow.", ""),
        (3, 0, 0.1, "No. Wry.", None),
    )
    truth = ["theme:revenge", "tone:ironic", "pace:slow", "quality"]
    scores = score_truth(frame, truth, checker, np.arange(4), seed=0)
    assert scores["ours"] == {
        "reasons": 3,  # quality is no trait
        "named_share": 2 / 3,
        "by_chance": pytest.approx((2 / 4 + 1 / 4 + 0) / 3),
        "by_chance_of_traits": pytest.approx((1 / 2 + 0 + 0) / 3),
        "shown_share": 2 / 3,
        "lead": {"value": 1 / 2, "low": 0.0, "high": 1.0},  # users' own are 1/2, 0 and 1
    }
    assert (scores["teacher"]["reasons"], scores["teacher"]["named_share"]) == (1, 0)
    assert scores["teacher"]["lead"] == {"value": -0.5, "low": -0.5, "high": -0.5}  # irony, where revenge was true
    nobody = score_truth(frame, ["", "", "", "quality"], checker, np.arange(4), seed=0)["ours"]
    assert nobody["reasons"] == 0 and all(math.isnan(value) for value in nobody["lead"].values())
    assert score_truth(frame, [], checker, np.arange(4), seed=0) == {}  # where nobody knows


def test_meteor_counts_synonyms_where_wordnet_is_and_is_not_computed_elsewhere(monkeypatch):
    synset = SimpleNamespace(lemmas=lambda: [SimpleNamespace(name=lambda: "hound")])
    present = SimpleNamespace(ensure_loaded=lambda: None, synsets=lambda word: [synset] if word == "dog" else [])
    monkeypatch.setattr(nltk.corpus, "wordnet", present)
    assert meteor_wordnet(["dog"], ["hound"]) == meteor_exact_stem("dog", "dog") > 0
    missing = SimpleNamespace(ensure_loaded=mock.Mock(side_effect=LookupError))
    monkeypatch.setattr(nltk.corpus, "wordnet", missing)
    assert math.isnan(meteor_wordnet(["dog"], ["hound"]))
