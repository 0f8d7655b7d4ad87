"""Benchmarks: the pieces that figures are made of, at tiny sizes and on the CPU; nothing here depends on a clock."""

import numpy as np
import pytest

from benchmarks.measure import STATUS, Goal, Line, Timing, as_text, faster, in_child, in_turn, peak_growth, rates
from benchmarks.scoring import operations
from benchmarks.worlds import HISTORY, VOCABULARY, Shape, causal_lm, layout_of, ratings, recommender


def test_needed_operations_by_hand():
    table = ratings(np.full(2, HISTORY + 1))
    table["timestamp"] = np.tile(np.arange(HISTORY + 1), 2)
    layout = layout_of(table)
    model = recommender(table, layout, causal_lm(Shape(32, layers=2)))
    rows = np.asarray([HISTORY, 2 * HISTORY + 1])  # the last of each user, after the whole history
    windows = layout.scoring_windows(rows, np.zeros(2, np.int64))
    weights, attention = operations(model, layout, [windows])
    tokens = layout.lengths(windows)
    assert tokens[0] != tokens[1]  # so that one of them is padded
    per_token = 2 * (4 * 32 * 32 + 3 * 32 * 64)  # two layers: q, k, v, o and the three of the MLP
    assert weights == 2 * per_token * tokens.sum() + 2 * 2 * 32 * VOCABULARY
    assert attention == 4 * 2 * 32 * sum(n * (n + 1) / 2 for n in tokens.tolist())  # causal, nothing hidden


def test_a_and_b_run_in_turn_after_a_round_that_warms_up():
    calls = []
    timing = in_turn(lambda: calls.append("a"), lambda: calls.append("b"), rounds=3)
    assert "".join(calls) == "abababab"
    assert timing.a > 0 and timing.b > 0


def test_ratios_are_told_as_goals_are_stated():
    timing = Timing(a=2.0, b=6.0, ratio=3.0)
    assert faster("", "", timing, Goal("at least", 3)).ratio == 3
    assert faster("", "", timing, Goal("at most", 1)).ratio == pytest.approx(1 / 3)
    line = rates("", "", timing, (40, 10), "labels", Goal("at least", 13))
    assert line.measured == "20 labels/s" and line.other == "2 labels/s"
    assert line.ratio == 12 and line.verdict == "no"


def test_the_table_says_what_was_not_measured():
    met = Line(what="a", against="b", measured="1 s", other="2 s", ratio=2.0, goal=Goal("at least", 1.5))
    missing = Line(what="c", against="d", measured="", other="not measured: why", goal=Goal("at least", 1))
    text = as_text([met, missing]).splitlines()
    assert text[1].split() == ["a", "b", "1", "s", "2", "s", "2.00", "≥", "1.5", "yes"]
    assert "not measured: why" in text[2] and "yes" not in text[2] and "no " not in text[2].replace("not", "")


def take_64_megabytes():
    np.ones(64 * 2**20, np.uint8)


def do_nothing():
    pass


@pytest.mark.skipif(not STATUS.exists(), reason="needs Linux")
def test_peak_memory_counts_what_was_freed_again():
    grown = in_child(peak_growth, take_64_megabytes)  # here others free memory meanwhile
    assert grown is not None and 60 * 2**20 < grown < 100 * 2**20
    idle = in_child(peak_growth, do_nothing)
    assert idle is not None and idle < 20 * 2**20
