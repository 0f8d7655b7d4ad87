"""One rule says what a rating row is; columns of text and of numbers are held to it alike."""

from __future__ import annotations

import math
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkrec.ingest.readers.rows import LABEL, NEITHER, Scale, cell, check_rows

STARS = Scale(lowest=0.5, highest=5.0)
GOOD = {"user": "u", "item": "i", "rating": 4.0, "timestamp": 1_500_000_000}
MOMENT = 1_500_000_000  # 2017-07-14 02:40:00 UTC


def check(scale: Scale = STARS, **values: Any) -> dict[str, Any] | str:
    """A good row but for these values as it is read, or what is wrong with it."""
    columns = {role: pa.array([cell(value, role)], pa.string()) for role, value in {**GOOD, **values}.items()}
    table, reasons = check_rows(columns, scale)
    return reasons[0].as_py() or table.to_pylist()[0]


def time_of(value: Any) -> Any:
    row = check(timestamp=value)
    return row if isinstance(row, str) else row["timestamp"]


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
    ],
)
def test_seconds_their_parts_and_iso_times_are_one_moment(value: Any) -> None:
    assert time_of(value) == MOMENT


def test_milliseconds_begin_where_seconds_would_be_the_year_5138() -> None:
    assert time_of(10**11) == 10**8
    assert time_of(10**11 - 1) == "time is after the year 2099"
    assert time_of(10**14) == time_of(10**17) == 10**8
    assert time_of("2017-07-14") == MOMENT - 9600


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
        ("timestamp", 1e300, NEITHER),
        ("timestamp", True, NEITHER),
        ("timestamp", None, NEITHER),
        ("timestamp", -1, "time is negative"),
        ("timestamp", "1969-12-31", "time is negative"),
        ("timestamp", 10**30, NEITHER),
    ],
)
def test_what_is_wrong_with_a_row_is_named(role: str, value: Any, reason: str) -> None:
    assert check(**{role: value}) == reason


def test_the_first_fault_of_a_row_is_named_and_the_rows_around_it_stay() -> None:
    rows = {"user": ["a", "", "b"], "item": ["x", None, "x"], "rating": ["1", "9", "2"], "timestamp": ["1", "2", "3"]}
    table, reasons = check_rows({role: pa.array(values) for role, values in rows.items()}, STARS)
    assert reasons.to_pylist() == [None, "no user id", None]
    assert table["user_id"].to_pylist() == ["a", "b"]


@pytest.mark.parametrize(("value", "user"), [(7, "7"), (8.0, "8"), (" é ", "é"), ("0007", "0007"), ("x" * 1000,) * 2])
def test_ids_are_text_or_whole_numbers(value: Any, user: str) -> None:
    row = check(user=value)
    assert not isinstance(row, str) and row["user_id"] == user


@pytest.mark.parametrize(
    ("value", "stars"), [(".5", 0.5), ("5.", 5.0), ("1e0", 1.0), ("+3", 3.0), (" 4", 4.0), (True, 1.0), (Decimal(2), 2)]
)
def test_ratings_are_numbers_as_they_are_written(value: Any, stars: float) -> None:
    row = check(rating=value)
    assert not isinstance(row, str) and row["rating"] == stars


@pytest.mark.parametrize(
    ("value", "liked"), [(True, 1.0), (0, 0.0), ("1", 1.0), ("0.0", 0.0), ("True", 1.0), (" no", 0.0)]
)
def test_a_label_is_0_or_1_or_a_word_for_it(value: Any, liked: float) -> None:
    row = check(LABEL, rating=value)
    assert not isinstance(row, str) and row["rating"] == liked


@pytest.mark.parametrize("value", [0.5, "liked", None])
def test_what_is_no_label_is_named(value: Any) -> None:
    assert check(LABEL, rating=value) == "label is neither 0 nor 1, no nor yes, false nor true"


@given(st.lists(st.tuples(st.none() | st.floats(), st.none() | st.floats() | st.floats(0, 1e19)), min_size=1))
def test_columns_of_numbers_give_what_their_text_gives(rows: list[tuple[float | None, float | None]]) -> None:
    ratings, times = zip(*rows, strict=True)
    typed = {
        "user": pa.array(range(len(rows))),
        "item": pa.array([8.0] * len(rows)),
        "rating": pa.array(ratings, pa.float64()),
        "timestamp": pa.array(times, pa.float64()),
    }
    text = {role: pa.array([cell(v, role) for v in values.to_pylist()], pa.string()) for role, values in typed.items()}
    (table, reasons), (text_table, text_reasons) = (check_rows(columns, STARS) for columns in (typed, text))
    assert reasons.to_pylist() == text_reasons.to_pylist()
    assert table.to_pylist() == text_table.to_pylist() and table.schema == text_table.schema


@pytest.mark.parametrize(
    "moment", [pa.array([datetime(2017, 7, 14, 2, 40)], pa.timestamp("us")), pa.array([date(2017, 7, 14)])]
)
def test_moments_and_labels_of_a_typed_file_are_taken_as_they_are(moment: pa.Array) -> None:
    typed = {"user": pa.array([3]), "item": pa.array(["a"]).dictionary_encode(), "rating": pa.array([True])}
    table, _ = check_rows({**typed, "timestamp": moment}, LABEL)
    (row,) = table.to_pylist()
    assert row.pop("timestamp") in (MOMENT, MOMENT - 9600)
    assert row == {"user_id": "3", "item_id": "a", "rating": 1.0}
