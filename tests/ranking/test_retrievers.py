"""Whom a protocol asks about, and models of the whole catalogue, on tables of a few rows."""

import numpy as np
import pandas as pd
import pytest

from thinkrec.errors import UserError
from thinkrec.ranking.protocols import make_questions, sample_users
from thinkrec.ranking.retrievers import count_together, ease, item_knn, likes_before, popularity

ITEMS = 6


def table(*rows):
    """Interactions from (user, item, label, timestamp, split)."""
    frame = pd.DataFrame(rows, columns=["user", "item", "label", "timestamp", "split"])
    return frame.sort_values(["user", "timestamp"], kind="stable", ignore_index=True)


INTERACTIONS = table(
    (0, 0, 1, 10, "train"),
    (0, 1, 0, 50, "test"),  # sets the moment, though it is not liked
    (0, 2, 1, 50, "test"),
    (0, 3, 1, 60, "test"),
    (1, 0, 1, 20, "train"),
    (1, 1, 1, 40, "valid"),
    (2, 4, 1, 45, "valid"),
    (2, 5, 0, 55, "test"),  # likes nothing of test
    (3, 2, 1, 52, "test"),  # without history
)


class TestProtocols:
    def test_temporal_asks_as_of_the_first_row_of_the_split(self):
        questions, rows = make_questions(INTERACTIONS, "temporal", "test")
        assert INTERACTIONS["user"].iloc[questions.row].tolist() == [0, 3]
        assert INTERACTIONS["timestamp"].iloc[questions.row].tolist() == [50, 52]
        assert (questions.end - questions.start).tolist() == [1, 0]
        assert list(zip(questions.user, questions.item, questions.liked, strict=True)) == [
            (0, 1, False), (0, 2, True), (0, 3, True), (1, 2, True),
        ]  # fmt: skip
        assert INTERACTIONS["split"].iloc[rows].unique().tolist() == ["train"]

    def test_candidates_are_what_the_user_had_not_rated(self):
        questions, _ = make_questions(INTERACTIONS, "temporal", "test")
        ranked = questions.candidates(INTERACTIONS, ITEMS)
        assert [np.flatnonzero(row).tolist() for row in ranked] == [[1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]]

    def test_leave_last_out_finds_last_likes_that_no_model_was_fitted_on(self):
        questions, rows = make_questions(INTERACTIONS, "leave-last-out", "test")
        asked = INTERACTIONS.iloc[questions.row]
        assert list(zip(asked["user"], asked["item"], strict=True)) == [(0, 3), (1, 1), (2, 4), (3, 2)]
        assert questions.item.tolist() == [3, 1, 4, 2] and questions.liked.all()
        fitted = INTERACTIONS.iloc[rows]
        assert fitted["user"].tolist() == [0, 0, 0, 1] and (fitted["timestamp"] < 60).all()

    def test_leave_last_out_leaves_out_whose_last_like_is_in_train(self):
        questions, _ = make_questions(table((0, 0, 1, 1, "train"), (1, 0, 1, 9, "test")), "leave-last-out", "test")
        assert questions.row.tolist() == [1]

    def test_nobody_to_ask_about_is_one_line(self):
        with pytest.raises(UserError, match="no user to ask about"):
            make_questions(INTERACTIONS[INTERACTIONS["split"] == "train"], "temporal", "test")

    def test_a_sample_is_of_whole_users_and_follows_the_seed(self):
        questions, _ = make_questions(INTERACTIONS, "leave-last-out", "test")
        some = sample_users(questions, 2, seed=1)
        again = sample_users(questions, 2, seed=1)
        assert some.row.tolist() == again.row.tolist() and len(some.row) == 2
        items = dict(zip(questions.row, questions.item, strict=True))
        assert some.item.tolist() == [items[row] for row in some.row]
        assert sample_users(questions, 9, seed=1) is questions


class TestModels:
    def test_popularity_counts_likes_strictly_before_the_moment_and_within_the_time(self):
        questions, _ = make_questions(INTERACTIONS, "temporal", "test")
        assert popularity(INTERACTIONS, ITEMS, np.inf)(questions).tolist() == [
            [2, 1, 0, 0, 1, 0],
            [2, 1, 1, 0, 1, 0],
        ]
        assert popularity(INTERACTIONS, ITEMS, 8)(questions)[1].tolist() == [0, 0, 1, 0, 1, 0]

    def test_nothing_from_the_moment_on_changes_what_is_known_of_a_user(self):
        questions, _ = make_questions(INTERACTIONS, "temporal", "test")
        changed = INTERACTIONS.copy()
        changed.loc[changed["timestamp"] >= 50, "label"] ^= 1
        for scorer in (likes_before, lambda rows, asked, items: popularity(rows, items, np.inf)(asked)):
            first = [scorer(rows, questions, ITEMS)[0].tolist() for rows in (INTERACTIONS, changed)]
            assert first[0] == first[1]

    def test_ease_is_a_ridge_regression_of_every_item_on_the_others(self):
        generator = np.random.default_rng(0)
        liked = (generator.random((40, ITEMS)) < 0.4).astype(np.float64)
        user, item = np.nonzero(np.ones_like(liked))
        together = count_together(pd.DataFrame({"user": user, "item": item, "label": liked[user, item]}), ITEMS)
        np.testing.assert_allclose(together, liked.T @ liked)
        weights = ease(together, 3.0)
        for target in range(ITEMS):
            others = np.delete(np.arange(ITEMS), target)
            x = liked[:, others]
            expected = np.linalg.solve(x.T @ x + 3.0 * np.eye(len(others)), x.T @ liked[:, target])
            np.testing.assert_allclose(weights[others, target], expected, rtol=1e-4)
            assert weights[target, target] == 0

    def test_neighbours_weigh_by_the_cosine_and_only_the_nearest_count(self):
        liked = np.asarray([[1, 1, 0], [1, 1, 1], [0, 0, 1], [1, 0, 0]])
        weights = item_knn((liked.T @ liked).astype(np.float64), 1)
        cosine = 2 / np.sqrt(3 * 2)
        np.testing.assert_allclose(weights[:, 0], [0, cosine, 0])  # of the first item the second is nearest
        np.testing.assert_allclose(weights[:, 2], [0, 1 / 2, 0])
