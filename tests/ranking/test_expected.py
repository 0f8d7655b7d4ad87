"""Metrics of a full ranking against every order of its ties, and by hand."""

from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkrec.ranking.expected import KS, METRICS, find_places, first_items, rank_fusion, ranking_metrics
from thinkrec.ranking.lists import describe_lists


def metrics_of(scores, positives, candidate=None):
    """METRICS of one user."""
    score = np.asarray([scores], np.float64)
    ranked = np.ones(score.shape, bool) if candidate is None else np.asarray([candidate], bool)
    user, item = np.zeros(len(positives), np.int64), np.asarray(positives)
    return {name: value[0] for name, value in ranking_metrics(user, *find_places(score, ranked, user, item), 1).items()}


def metrics_of_order(order, positives):
    """The same of one order without ties, straight from the definitions."""
    hits = np.isin(order, positives)
    discount = 1 / np.log2(np.arange(len(order)) + 2)
    values = {}
    for k in KS:
        first = np.flatnonzero(hits[:k])
        ideal = discount[: min(k, len(positives))].sum()
        values |= {
            f"hr@{k}": float(hits[:k].any()),
            f"recall@{k}": hits[:k].sum() / len(positives),
            f"ndcg@{k}": (hits * discount)[:k].sum() / ideal,
            f"mrr@{k}": 1 / (first[0] + 1) if len(first) else 0.0,
        }
    return values


class TestMetrics:
    @given(st.lists(st.integers(0, 2), min_size=1, max_size=6), st.data())
    def test_ties_count_as_the_mean_over_all_their_orders(self, scores, data):
        positives = sorted(data.draw(st.sets(st.integers(0, len(scores) - 1), min_size=1)))
        orders = [
            order
            for order in permutations(range(len(scores)))
            if all(scores[a] >= scores[b] for a, b in pairwise(order))
        ]
        every = [metrics_of_order(np.asarray(order), positives) for order in orders]
        measured = metrics_of(scores, positives)
        assert list(measured) == METRICS
        for name in METRICS:
            assert measured[name] == pytest.approx(np.mean([values[name] for values in every])), name

    def test_by_hand(self):
        values = metrics_of([9, 8, 7, 6, 5, 4], [1, 4, 5])
        assert [values[f"hr@{k}"] for k in (1, 5)] == [0, 1]
        assert [values[f"recall@{k}"] for k in (1, 5, 10)] == pytest.approx([0, 2 / 3, 1])
        assert values["mrr@10"] == 0.5
        gained = (1 / np.log2(3) + 1 / np.log2(6)) / (1 + 1 / np.log2(3) + 1 / 2)
        assert values["ndcg@5"] == pytest.approx(gained)

    def test_what_was_rated_before_takes_no_place(self):
        whole = metrics_of([9, 8, 1], [1], candidate=[False, True, True])
        assert whole["hr@1"] == whole["ndcg@1"] == 1

    def test_a_model_that_knows_nothing_scores_as_chance(self):
        values = metrics_of(np.zeros(600), [3, 500, 77])
        assert values["recall@10"] == pytest.approx(10 / 600)
        assert values["hr@1"] == values["mrr@1"] == pytest.approx(3 / 600)

    def test_users_do_not_mix(self):
        score = np.asarray([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
        user, item = np.asarray([0, 1]), np.asarray([0, 0])
        values = ranking_metrics(user, *find_places(score, np.ones((2, 3), bool), user, item), 2)
        assert values["hr@1"].tolist() == [1, 0]
        assert values["mrr@5"].tolist() == pytest.approx([1, 1 / 3])


class TestLists:
    def test_first_items_are_candidates_best_first_and_equal_ones_in_the_given_order(self):
        score = np.asarray([[1.0, 5.0, 5.0, 9.0], [0.0, 0.0, 0.0, 0.0]])
        candidate = np.asarray([[True, True, True, False], [False, True, False, False]])
        first = first_items(score, candidate, 2, np.asarray([[2.0, 1.0, 0.0, 3.0]] * 2))
        assert first.tolist() == [[2, 1], [1, -1]]

    def test_fused_ranks_by_hand(self):
        fused = rank_fusion(np.asarray([[3.0, 2.0, 2.0]]), np.asarray([[1.0, 2.0, -np.inf]]))
        np.testing.assert_allclose(fused, [[1 / 61 + 1 / 62, 1 / 62 + 1 / 61, 1 / 62 + 1 / 63]])

    def test_what_lists_are_like_by_hand(self):
        lists = np.asarray([[0, 1], [0, -1]])
        measured = describe_lists(lists, popularity=np.asarray([3, 0, 7, 7]), raters=7)
        assert measured["coverage"] == 0.5
        assert measured["gini"] == pytest.approx((0 * -3 + 0 * -1 + 1 * 1 + 2 * 3) / (4 * 3))
        assert measured["popularity"] == 2
        assert measured["novelty"] == pytest.approx((1 + 1 + 3) / 3)
        assert measured["new_items"] == pytest.approx(1 / 3)

    @pytest.mark.parametrize(("lists", "gini"), [([[0], [1], [2], [3]], 0.0), ([[2], [2], [2], [2]], 0.75)])
    def test_gini_goes_from_all_alike_to_one_for_all(self, lists, gini):
        assert describe_lists(np.asarray(lists), np.ones(4, np.int64), 1)["gini"] == pytest.approx(gini)
