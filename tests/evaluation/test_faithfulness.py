"""Interventions: what is cited is what claims are about, controls are as many, nothing else of a row changes."""

import math

import numpy as np
import pandas as pd
import pytest

from tests.builders import TITLES, interactions, item_tokens, layout_of, loaded_model, tokenizer
from tests.claims.rows import LITERAL, checker_of, item
from thinkrec.claims.checker import Checker
from thinkrec.claims.claims import Thesaurus
from thinkrec.evaluation.faithfulness import (
    Change,
    compare_sides,
    draw_matched,
    find_cited,
    interventions,
    score_changed,
)
from thinkrec.lm.scoring import score
from thinkrec.params import PromptParams
from thinkrec.shown import ShownRow
from thinkrec.text.items import encode

SAME = 1e-5
HISTORY = [
    item("Iron Harbour", "war", "ships", liked=True),
    item("Low Tide", "sea", liked=False),
    item("Paper Moons", "comic", liked=True),
]
ROW = ShownRow(history=HISTORY, target=item("Winter Line", "vendetta", "war", "spies"))


@pytest.fixture(scope="module", params=["stream", "question"])
def loaded(request):
    table = interactions(3, users=4)
    return loaded_model(table, layout=layout_of(table, layout=request.param))


def scores(loaded, rows):
    return loaded.score(np.asarray(rows))


def test_what_is_cited_worked_out_by_hand():
    def of(text):
        checker = checker_of(ROW, thesaurus=Thesaurus("war", lambda word: "war" if word == "vendetta" else word))
        citation = find_cited(checker, 9, text)
        return citation.of_history.tolist(), citation.of_keywords.tolist()

    assert of("Yes. Liked war in Iron Harbour. It fits.") == ([True, False, False], [False, True, False])
    assert of("Yes. Liked vendetta in Iron Harbour.") == ([True, False, False], [True, True, False])  # by meaning
    assert of('No. Disliked "Low Tide". It does not fit.') == ([False, True, False], [False] * 3)
    assert of("Yes. The target has spies.") == ([False] * 3, [False, False, True])
    assert of("Yes. The target has war.") == (
        [False] * 3,
        [False, True, False],
    )  # no point of the history's
    assert of("Yes. Winter Line it is: 2 of 3 titles were liked.") == ([False] * 3, [False] * 3)
    assert of("Yes. The target lacks comic.") == ([False] * 3, [False] * 3)  # what is missing cannot be taken away


def test_a_claim_about_all_titles_is_about_none_in_particular():
    (claim,) = checker_of(ROW).check(0, "Yes. 2 of 3 titles were liked.").claims
    assert (claim.liked, list(claim.history)) == (2, [])


def test_controls_are_as_many_of_every_kind():
    rng = np.random.default_rng(0)
    for _ in range(20):
        cited, kind = rng.random(12) < 0.4, rng.integers(0, 2, 12)
        inside, outside = draw_matched(cited, kind, rng)
        assert cited[inside].all() and not cited[outside].any()
        for value in (0, 1):
            most = min((cited & (kind == value)).sum(), (~cited & (kind == value)).sum())
            assert (kind[inside] == value).sum() == (kind[outside] == value).sum() == most
    assert [len(side) for side in draw_matched(np.ones(3, bool), np.zeros(3), rng)] == [0, 0]


def test_unchanged_views_score_as_the_table_does(loaded):
    rows = list(range(len(loaded.interactions)))
    same = score_changed(loaded, [Change(row=row) for row in rows])
    assert np.abs(same - scores(loaded, rows)).max() < SAME


def test_a_flipped_row_is_a_table_with_another_label_and_slots_as_they_were(loaded):
    for row in np.flatnonzero(loaded.layout.end > loaded.layout.start)[[2, 9, 20]].tolist():
        past = int(loaded.layout.end[row]) - 1
        label = loaded.interactions["label"].to_numpy().copy()
        label[past] = 1 - label[past]
        other = loaded.layout.over(loaded.interactions.assign(label=label))
        (flipped,) = score_changed(loaded, [Change(row=row, flipped=[past])])
        assert flipped == pytest.approx(score(loaded.model, other, np.asarray([row]))[0], abs=SAME)
        assert abs(flipped - scores(loaded, [row])[0]) > 100 * SAME


def test_without_its_whole_history_a_row_scores_as_its_users_first(loaded):
    (dropped,) = score_changed(loaded, [Change(row=23, dropped=range(23))])
    lonely = loaded.interactions.assign(user=np.arange(len(loaded.interactions)))
    assert dropped == pytest.approx(score(loaded.model, loaded.layout.over(lonely), np.asarray([23]))[0], abs=SAME)
    assert abs(dropped - scores(loaded, [23])[0]) > 100 * SAME


def test_a_masked_target_is_read_with_its_new_text_and_no_other_row_is(loaded):
    rows = [11, 23]
    title = TITLES[int(loaded.layout.item[11])]
    same, other = (
        score_changed(loaded, [Change(row=11, text=text), Change(row=23)]) for text in (title, "Seven Keys: wit")
    )
    assert np.abs(same - scores(loaded, rows)).max() < SAME
    assert other[1] == pytest.approx(same[1], abs=SAME) and abs(other[0] - same[0]) > 100 * SAME
    assert np.array_equal(item_tokens()[int(loaded.layout.item[11])], encode(tokenizer(), [title])[0])


def test_pairs_are_compared_by_hand():
    cited, control = np.asarray([0.5, 0.1, 0.4]), np.asarray([0.2, 0.2, 0.4])
    assert compare_sides(np.asarray([4, 4, 7]), cited, control, seed=0) == pytest.approx(
        {
            "pairs": 3,
            "cited": 1 / 3,
            "control": 0.8 / 3,
            "difference": 0.2 / 3,
            **{"low": 0, "high": 0.1},  # user 7 alone, user 4 alone
            "cited_more_share": 1 / 3,
        },
        abs=1e-9,
    )


def test_interventions_are_in_pairs_and_reasons_that_cite_nothing_have_none(loaded):
    items = pd.DataFrame({"title": [title.split(":")[0] for title in TITLES], "categories": "", "description": ""})
    keywords = pd.DataFrame({"keywords": [title.partition(": ")[2].split(", ") for title in TITLES]})
    prompt = PromptParams(layout="stream", history=3, max_tokens=2048, keywords=8, slots=("user",), soft_tokens=0)
    checker = Checker(loaded.interactions, items, keywords, prompt, LITERAL)
    rows = [int(row) for row in np.flatnonzero(loaded.layout.end - loaded.layout.start >= 3)]

    def measure(texts):
        return interventions(loaded, pd.DataFrame({"row": rows, "reason": texts}), checker, seed=1)

    texts = [f'Yes. "{checker.shown(row).history[0].title}" was liked.' for row in rows]
    one, two = measure(texts), measure(texts)
    assert one["flip"]["pairs"] > 0 and one["flip"]["cited"] > 0 and one["mask"]["pairs"] == 0
    assert (one["flip"], one["drop"]) == (two["flip"], two["drop"])
    none = measure(["Yes. So be it."] * len(rows))
    assert [figures["pairs"] for figures in none.values()] == [0, 0, 0]
    assert all(math.isnan(none["flip"][name]) for name in ("changed", "cited", "low", "cited_more_share"))
