"""Thinking first: whole users of valid, averages of samples, differences from the verdict-first score."""

import numpy as np
import pytest

from tests.builders import interactions, loaded_model
from thinkrec.evaluation.reason_first import VERDICT_FIRST, measure, sample_users, to_text


@pytest.fixture(scope="module")
def loaded():
    return loaded_model(interactions(3, users=6, rows=20))


def test_users_are_drawn_whole_until_there_are_rows_enough():
    user, rows = np.asarray([0, 0, 0, 1, 1, 2, 2, 2, 2]), np.asarray([1, 2, 3, 4, 6, 7, 8])  # 2 of each, and 3
    for seed in range(5):
        held = sample_users(user, rows, 3, seed=seed)
        assert len(held) in (3, 4, 5)
        assert np.array_equal(held, rows[np.isin(user[rows], user[held])])
    assert np.array_equal(sample_users(user, rows, 100, seed=0), rows)
    assert len(sample_users(user, rows[:0], 3, seed=0)) == 0


def test_every_mode_is_measured_on_the_same_valid_rows(loaded):
    measured = measure(loaded, rows=20, max_new_tokens=5, seed=1)
    held = sample_users(loaded.user, loaded.rows("valid"), 20, seed=1)
    assert (measured["rows"], measured["users"]) == (len(held), len(np.unique(loaded.user[held])))
    assert set(loaded.interactions["split"].to_numpy()[held]) == {"valid"}
    modes = measured["modes"]
    assert list(modes) == [VERDICT_FIRST, "reason_first_1", "reason_first_2", "reason_first_4"]
    assert 0 == modes[VERDICT_FIRST]["tokens"] < modes["reason_first_1"]["tokens"] < modes["reason_first_2"]["tokens"]
    for mode in list(modes)[1:]:
        apart = modes[mode]["auc_difference"]
        assert apart["difference"] == pytest.approx(modes[mode]["auc"] - modes[VERDICT_FIRST]["auc"])
        assert apart["low"] <= apart["high"]
    assert len(to_text(measured).splitlines()) == 1 + len(modes)
    assert measure(loaded, rows=20, max_new_tokens=5, seed=1) == measured
    assert measure(loaded, rows=0, max_new_tokens=5, seed=1) == {}  # no rows cost nothing
