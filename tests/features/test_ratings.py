"""Ratings are the interactions as flat arrays, and know where each user's rows begin and end."""

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.features.worlds import ratings_of
from thinkrec.features.ratings import Ratings

few = settings(max_examples=50, deadline=None)


def test_ratings_of_a_table_worked_out_by_hand():
    table = pd.DataFrame(
        {
            "user": np.asarray([0, 0, 0, 2, 2], np.int32),
            "item": np.asarray([4, 1, 0, 1, 2], np.int32),
            "label": np.asarray([1, 0, 1, 1, 0], np.int8),
            "timestamp": [5, 5, 9, 1, 2],
        }
    )
    ratings = Ratings.of(table, items=6)
    assert (ratings.users, ratings.items) == (3, 6)  # user 1 and items 3 and 5 are rated by nobody, yet counted
    for name, values in {
        "user": [0, 0, 0, 2, 2],
        "item": [4, 1, 0, 1, 2],
        "label": [1, 0, 1, 1, 0],
        "start": [0, 0, 0, 3, 3],
        "end": [0, 0, 2, 3, 4],
    }.items():
        assert getattr(ratings, name).tolist() == values
        assert getattr(ratings, name).dtype == np.int64


@few
@given(st.data())
def test_bounds_by_user_run_from_the_users_first_row_to_the_last_that_is_given(data):
    user = sorted(data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=20)))
    time = [moment for u in range(5) for moment in sorted(data.draw(st.lists(
        st.integers(0, 3), min_size=user.count(u), max_size=user.count(u))))]  # fmt: skip
    ratings = ratings_of(user, [0] * len(user), [0] * len(user), items=1, time=time)
    rows = data.draw(st.lists(st.sampled_from(range(len(user))), unique=True))
    start, end = ratings.bounds_by_user(np.asarray(rows, np.int64))
    for u in range(ratings.users):
        mine = [row for row in rows if user[row] == u]
        wanted = range(user.index(u), max(mine) + 1) if mine else range(0)
        assert list(range(start[u], end[u])) == list(wanted)
