"""One rule says what a rating row is; whole columns are held to it as single rows are."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkrec.ingest.readers.rows import LABEL, NEITHER, Row, Scale, as_table, row, table

STARS = Scale(lowest=0.5, highest=5.0)
GOOD = {"user": "u", "item": "i", "rating": 4.0, "timestamp": 1_500_000_000}
MOMENT = 1_500_000_000  # 2017-07-14 02:40:00 UTC


def time_of(value: Any) -> int | str:
    found = row({**GOOD, "timestamp": value}, STARS)
    return found if isinstance(found, str) else found.timestamp


@pytest.mark.parametrize(
    "value",
    [
        MOMENT,
        float(MOMENT),
        str(MOMENT),
        f" {MOMENT}.0 ",
        f"{MOMENT}.75",
        MOMENT + 0.75,
        MOMENT * 1000 + 999,  # milliseconds
        f"{MOMENT}999",
        MOMENT * 10**6 + 999_999,
        f"{MOMENT}999999999",
        "2017-07-14T02:40:00Z",
        "2017-07-14 02:40:00",
        "2017-07-14T02:40",
        "2017-07-14T02:40:00.999+00:00",
        "2017-07-14T04:40:00+02:00",
        datetime(2017, 7, 14, 2, 40, tzinfo=UTC),
        datetime(2017, 7, 14, 2, 40, 0, 5),
    ],
)
def test_seconds_their_parts_and_iso_times_are_one_moment(value: Any) -> None:
    assert time_of(value) == MOMENT


def test_milliseconds_begin_where_seconds_would_be_the_year_5138() -> None:
    assert time_of(10**11) == 10**8
    assert time_of(10**11 - 1) == "time is after the year 2099"
    assert time_of(10**14) == time_of(10**17) == 10**8
    assert time_of("2017-07-14") == time_of(date(2017, 7, 14)) == MOMENT - 9600


@pytest.mark.parametrize(
    ("role", "value", "reason"),
    [
        ("user", None, "no user id"),
        ("user", "  ", "no user id"),
        ("user", math.nan, "no user id"),
        ("user", ["u"], "no user id"),
        ("item", True, "no item id"),
        ("item", "x" * 1001, "item id is over 1000 characters long"),
        ("item", "a\x00b", "item id holds control characters"),
        ("user", "a\ud800", "user id holds control characters"),
        ("rating", None, "rating is not a number"),
        ("rating", "nan", "rating is not a number"),
        ("rating", math.inf, "rating is not a number"),
        ("rating", "1_0", "rating is not a number"),
        ("rating", "٤", "rating is not a number"),
        ("rating", 10**400, "rating is not a number"),
        ("rating", 0, "rating is not within 0.5 and 5.0"),
        ("timestamp", "now", NEITHER),
        ("timestamp", "2017-02-30", NEITHER),
        ("timestamp", "14.07.2017", NEITHER),
        ("timestamp", math.nan, NEITHER),
        ("timestamp", math.inf, NEITHER),
        ("timestamp", 1e300, "time is after the year 2099"),
        ("timestamp", True, NEITHER),
        ("timestamp", None, NEITHER),
        ("timestamp", -1, "time is negative"),
        ("timestamp", "1969-12-31", "time is negative"),
        ("timestamp", 10**30, "time is after the year 2099"),
    ],
)
def test_what_is_wrong_with_a_row_is_named(role: str, value: Any, reason: str) -> None:
    assert row({**GOOD, role: value}, STARS) == reason


def test_ids_are_text_or_whole_numbers() -> None:
    found = row({**GOOD, "user": 7, "item": 8.0}, STARS)
    assert isinstance(found, Row)
    assert (found.user, found.item) == ("7", "8")


@pytest.mark.parametrize(
    ("value", "liked"), [(True, 1.0), (0, 0.0), ("1", 1.0), ("0.0", 0.0), ("True", 1.0), (" no", 0.0)]
)
def test_a_label_is_0_or_1_or_a_word_for_it(value: Any, liked: float) -> None:
    found = row({**GOOD, "rating": value}, LABEL)
    assert isinstance(found, Row)
    assert found.rating == liked


@pytest.mark.parametrize("value", [0.5, "liked", None])
def test_what_is_no_label_is_named(value: Any) -> None:
    assert row({**GOOD, "rating": value}, LABEL) == "label is neither 0 nor 1, no nor yes, false nor true"


IDS = st.sampled_from(["1", "x" * 1000, "x" * 1001, "u2", "0007", "é", " 3", "", "a b", "\t", "x\x01"]) | st.integers(
    -5, 10**12
).map(str)
NUMBERS = st.sampled_from(
    ["5", "4.5", ".5", "5.", "0", "-1", "1e0", "nan", "inf", "", "five", "+3", " 4", "1_0", "1", "Yes", "FALSE", " no"]
)
TIMES = st.sampled_from(
    ["0", "991353600", "1500000000999", "1500000000999999", "-3", "9.5", "-0.5", "9.0", "9.", "", "now", "2017",
     "2017-07-14", "2017-07-14 02:40:00",
     "2017-07-14T02:40:00Z", "2017-13-01", "99999999999999999999", " 12", "0012"]
)  # fmt: skip


@given(st.lists(st.tuples(IDS, IDS, NUMBERS, TIMES), min_size=1, max_size=4), st.sampled_from([STARS, LABEL]))
def test_what_whole_columns_give_single_rows_give_too(cells: list[tuple[str, ...]], scale: Scale) -> None:
    roles = ("user", "item", "rating", "timestamp")
    whole = table({role: pa.array(column) for role, column in zip(roles, zip(*cells, strict=True), strict=True)}, scale)
    single = [row(dict(zip(roles, cell, strict=True)), scale) for cell in cells]
    if whole is not None:
        assert not [found for found in single if isinstance(found, str)]
        expected = as_table([found for found in single if isinstance(found, Row)], split=False)
        assert whole.to_pylist() == expected.to_pylist()
        assert whole.schema == expected.schema


@pytest.mark.parametrize("times", [["991353600", "12"], ["1500000000999", "0"], ["2017-07-14", "2017-07-14"]])
def test_plainly_good_columns_are_taken_whole(times: list[str]) -> None:
    text = {"user": ["1", "u"], "item": ["é", "2"], "rating": ["5", "0.5"], "timestamp": times}
    assert table({role: pa.array(values) for role, values in text.items()}, STARS) is not None


def test_typed_columns_are_taken_whole() -> None:
    moments = pa.array([datetime(2017, 7, 14, 2, 40)], pa.timestamp("us"))
    typed = {"user": pa.array([3]), "item": pa.array(["a"]), "rating": pa.array([True]), "timestamp": moments}
    found = table(typed, LABEL)
    assert found is not None
    assert found.to_pylist() == [{"user_id": "3", "item_id": "a", "rating": 1.0, "timestamp": MOMENT}]


def test_columns_with_a_missing_value_are_not() -> None:
    assert table({**{role: pa.array([1]) for role in GOOD}, "rating": pa.array([None], pa.float64())}, STARS) is None
