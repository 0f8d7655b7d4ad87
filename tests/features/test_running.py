"""Running counts: equal to counting by hand, and blind to the present and the future."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinkrec.features.running import log_odds, running_counts, smoothed_rate

few = settings(max_examples=50, deadline=None)
rows_of = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6), st.integers(0, 1)), min_size=1, max_size=30)


@few
@given(rows_of)
def test_counts_are_of_strictly_earlier_rows_with_the_key(rows):
    likes, count = running_counts(*np.array(rows).T)
    for at, (key, time, _) in enumerate(rows):
        earlier = [label for k, t, label in rows if k == key and t < time]
        assert (likes[at], count[at]) == (sum(earlier), len(earlier))


def test_rates_worked_out_by_hand():
    assert smoothed_rate([3, 0], [4, 0], 0.5, smoothing=6.0).tolist() == [0.6, 0.5]
    assert log_odds(0.5) == 0
    assert log_odds(0.8) == pytest.approx(np.log(4))
