"""Splits follow each other in time, by whichever rule; what no rule can mean is refused in one line."""

from datetime import UTC, date, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkrec.artifacts import SPLITS
from thinkrec.errors import UserError
from thinkrec.ingest.splits import Window, check_rule, split_at, split_codes, windows_between, windows_of

ML_1M = windows_of(split_at("2001-06-01", "2002-04-01", "2002-09-01", "2003-02-01"), 0, 0)
TIMES = st.integers(0, 4_000_000_000)


def seconds(moment):
    return int(datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("months", "newest", "edges"),
    [
        ((10, 5, 5), "2003-01-31T00:00:00", "2001-06-01 2002-04-01 2002-09-01 2003-02-01"),
        ((10, 5, 5), "2003-01-31T23:59:59", "2001-06-01 2002-04-01 2002-09-01 2003-02-01"),
        ((10, 1, 1), "2018-10-01T12:00:00", "2017-10-02 2018-08-02 2018-09-02 2018-10-02"),
        ((1, 1, 1), "2024-05-30T08:00:00", "2024-02-29 2024-03-31 2024-04-30 2024-05-31"),  # no February 31st
    ],
)
def test_months_are_counted_back_from_the_end_of_the_newest_ratings_day(months, newest, edges):
    expected = windows_of(split_at(*edges.split()), 0, 0)
    assert windows_of({"months": months}, 0, seconds(newest)) == expected


def test_shares_cut_the_time_that_ratings_span_by_the_second():
    assert windows_of({"shares": [0.8, 0.1, 0.1]}, 1000, 1099) == windows_between([1000, 1080, 1090, 1100])
    assert windows_of({"shares": [0.2, 0.1, 0.1]}, 1000, 1099) == windows_between([1060, 1080, 1090, 1100])


MONTHS = st.fixed_dictionaries({"months": st.tuples(st.integers(1, 400), st.integers(1, 40), st.integers(1, 40))})
SHARES = st.fixed_dictionaries({"shares": st.tuples(st.floats(0.05, 0.8), st.floats(0.05, 0.1), st.floats(0.05, 0.1))})


@given(TIMES, TIMES, MONTHS | SHARES)
def test_windows_meet_without_overlap_and_hold_the_newest_rating(first, second, rule):
    oldest, newest = sorted([first, second + 100])
    if newest - oldest < 100:
        return
    windows = windows_of(rule, oldest, newest)
    assert windows["train"].end == windows["valid"].start and windows["valid"].end == windows["test"].start
    assert windows["test"].start <= newest < windows["test"].end


def test_windows_are_half_open_and_what_is_in_none_is_outside():
    windows = {
        split: Window(start=start, end=end) for split, start, end in zip(SPLITS, (0, 10, 20), (10, 12, 30), strict=True)
    }
    codes = split_codes(np.array([-1, 0, 9, 10, 11, 12, 19, 20, 29, 30]), windows)
    assert codes.dtype == np.int8
    assert codes.tolist() == [-1, 0, 0, 1, 1, -1, -1, 2, 2, -1]


def test_spans_of_time_may_be_days_or_moments_with_time_between_them():
    rule = {
        "train": ["2001-06-01", "2002-03-01"],
        "valid": [date(2002, 4, 1), date(2002, 9, 1)],  # as YAML reads a bare date
        "test": ["2002-09-01T00:00:00+00:00", "2003-01-31T23:59:59"],
    }
    assert [str(windows_of(rule, 0, 0)[split]) for split in SPLITS] == [
        "[2001-06-01, 2002-03-01) UTC",
        "[2002-04-01, 2002-09-01) UTC",
        "[2002-09-01T00:00:00, 2003-01-31T23:59:59) UTC",
    ]
    check_rule(rule)
    check_rule("column")


DAYS = {"train": ["2001-01-01", "2002-01-01"], "valid": ["2002-01-01", "2003-01-01"]}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("colum", "no rule is called 'colum'"),
        (7, "no rule is called 7"),
        ({}, r"no rule has the keys \(none\)"),
        ({"month": [1, 1, 1]}, "no rule has the keys month"),
        ({"months": [10, 5]}, "months should be three numbers, of train, valid, test"),
        *(({"months": [10, 5, n]}, "months should be whole numbers from 1 to 1200") for n in (0, 5.0, True)),
        ({"months": "10, 5, 5"}, "months should be three numbers"),
        *(({"shares": [0.8, 0.1, n]}, "shares should be above 0 and add up to 1") for n in (0.3, 0, float("nan"), "x")),
        ({**DAYS}, "no rule has the keys train, valid"),
        ({**DAYS, "test": ["2003-01-01"]}, "test should be a first day and the first day after it"),
        ({**DAYS, "test": ["2003-01-01", "soon"]}, "soon"),
        ({**DAYS, "test": ["2003-01-01", "2003-01-01"]}, "the test window ends before it begins"),
        ({**DAYS, "test": ["2002-06-01", "2003-06-01"]}, "the test window begins before the valid window ends"),
    ],
)
def test_what_no_rule_can_mean_is_refused_in_one_line(rule, message):
    with pytest.raises(UserError, match=f"^dataset.windows: .*{message}") as stop:
        check_rule(rule)
    assert "{months: [10, 5, 5]}" in str(stop.value)


def test_times_too_close_are_refused():
    with pytest.raises(UserError, match="span 2 seconds, too few"):
        windows_of({"shares": [0.8, 0.1, 0.1]}, 5, 6)
