"""One rule says what a rating row is; columns of text and of numbers are held to it alike."""

import math
from datetime import date, datetime
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkrec.ingest.readers.ratings import LABEL, NEITHER, Scale, cell, check_rows

STARS = Scale(lowest=0.5, highest=5.0)
GOOD = {"user": "u", "item": "i", "rating": 4.0, "timestamp": 1_500_000_000}
MOMENT = 1_500_000_000  # 2017-07-14 02:40:00 UTC


def check(scale=STARS, **values):
    """A good row but for these values as it is read, or what is wrong with it."""
    columns = {role: pa.array([cell(value, role)], pa.string()) for role, value in {**GOOD, **values}.items()}
    table, reasons = check_rows(columns, scale)
    return reasons[0].as_py() or table.to_pylist()[0]


def time_of(value):
    row = check(timestamp=value)
    return row if isinstance(row, str) else row["timestamp"]


SECONDS = [MOMENT, float(MOMENT), str(MOMENT), f" {MOMENT}.0 ", f"{MOMENT}.75", MOMENT + 0.75]
PARTS = [MOMENT * 1000 + 999, f"{MOMENT}999", MOMENT * 10**6 + 999_999, f"{MOMENT}999999999"]
ISO = ["2017-07-14T02:40:00Z", "2017-07-14 02:40:00", "2017-07-14T02:40", "2017-07-14T02:40:00.999+00:00"]


ZONES = [f"2017-07-14 04:40:00{zone}" for zone in ("+02:00", "+02", "+0200", " +02:00")]


@pytest.mark.parametrize("value", [*SECONDS, *PARTS, *ISO, *ZONES, "2017-07-14 02:40:00 UTC"])
def test_seconds_their_parts_and_iso_times_are_one_moment(value):
    assert time_of(value) == MOMENT


def test_milliseconds_begin_where_seconds_would_be_the_year_5138():
    assert time_of(10**11) == 10**8
    assert time_of(10**14) == time_of(10**17) == 10**8
    assert time_of("2017-07-14") == MOMENT - 9600


@pytest.mark.parametrize("value", ["20170714", 20170714, 20170714.0, Decimal(20170714)])
def test_eight_digits_are_a_day(value):
    assert time_of(value) == MOMENT - 9600
    assert time_of("20170231") == NEITHER
    assert time_of(19_700_100) == 19_700_100


@pytest.mark.parametrize(
    ("role", "values", "reason"),
    [
        ("user", [None, "  ", math.nan, "nan", "None", "\\N", "NA"], "no user id"),
        ("item", ["x" * 1001], "item id is over 1000 characters long"),
        (
            "user",
            [["u"], {"id": 1}, True, 2.5, b"\xff", "a\x00b", "a\ud800"],
            "user id is neither plain text nor a whole number",
        ),
        ("rating", [None, "nan", math.inf, "1_0", "٤", 10**400, "1e", "five"], "rating is not a number"),
        ("rating", [0, "5.5"], "rating is not within 0.5 and 5.0"),
        ("timestamp", ["now", "2017-02-30", "14.07.2017", math.nan, math.inf, 1e300, 10**30, True, None], NEITHER),
        ("timestamp", [-1, "-3", "1969-12-31"], "time is negative"),
        ("timestamp", [10**11 - 1, "2100-01-01"], "time is after the year 2099"),
    ],
)
def test_what_is_wrong_with_a_row_is_named(role, values, reason):
    assert {check(**{role: value}) for value in values} == {reason}


def test_the_first_fault_of_a_row_is_named_and_the_rows_around_it_stay():
    rows = {"user": ["a", "", "b"], "item": ["x", None, "x"], "rating": ["1", "9", "2"], "timestamp": ["1", "2", "3"]}
    table, reasons = check_rows({role: pa.array(values) for role, values in rows.items()}, STARS)
    assert reasons.to_pylist() == [None, "no user id", None]
    assert table["user_id"].to_pylist() == ["a", "b"]


@pytest.mark.parametrize(
    ("value", "user"),
    [
        *[(7, "7"), (8.0, "8"), (Decimal(10) ** 37, "1" + "0" * 37), ("9.0", "9"), ("0007", "0007")],
        *[(" é ", "é"), ("e\u0301", "é"), ("é".encode(), "é"), ("x" * 1000,) * 2],
        *[(2.0**53 - 1, "9007199254740991"), (2.0**53, "9.0071992547409920E+15")],  # the second may stand for others
    ],
)
def test_ids_are_text_or_whole_numbers(value, user):
    row = check(user=value)
    assert not isinstance(row, str) and row["user_id"] == user


@pytest.mark.parametrize(
    ("value", "stars"), [(".5", 0.5), ("5.", 5.0), ("1e0", 1.0), ("+3", 3.0), (" 4", 4.0), (True, 1.0), (Decimal(2), 2)]
)
def test_ratings_are_numbers_as_they_are_written(value, stars):
    row = check(rating=value)
    assert not isinstance(row, str) and row["rating"] == stars


@pytest.mark.parametrize(
    ("values", "label"), [([True, "1", "True", "yes", "t"], 1.0), ([0, "0.0", " no", "FALSE", "N"], 0.0)]
)
def test_a_label_is_0_or_1_or_a_word_for_it(values, label):
    rows = [check(LABEL, rating=value) for value in values]
    assert [row if isinstance(row, str) else row["rating"] for row in rows] == [label] * len(values)
    reasons = {check(LABEL, rating=value) for value in (0.5, "liked", None)}
    assert reasons == {"label is neither 0 nor 1, no nor yes, false nor true"}


@given(st.lists(st.tuples(st.none() | st.floats(), st.none() | st.floats() | st.floats(0, 1e19)), min_size=1))
def test_columns_of_numbers_give_what_their_text_gives(rows):
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
    "column",
    [
        pa.array([10**12], pa.timestamp("s")),  # beyond Python's own datetimes
        pa.array([2**63 + 5], pa.uint64()),
        pa.array([-1.5], pa.float16()),
        pa.array([b"x"]),
        pa.array([[1]]),
        pa.nulls(1),
    ],
    ids=lambda column: str(column.type),
)
@pytest.mark.parametrize("role", ["user", "item", "rating", "timestamp"])
def test_a_column_of_any_type_is_read_or_refused_row_by_row(role, column):
    columns = {name: pa.array([value]) for name, value in GOOD.items()}
    table, reasons = check_rows({**columns, role: column}, STARS)
    is_id = role in ("user", "item") and column.type in (pa.uint64(), pa.binary())
    assert len(table) == is_id and (reasons[0].as_py() is None) == is_id


@pytest.mark.parametrize(
    "moment", [pa.array([datetime(2017, 7, 14, 2, 40)], pa.timestamp("us")), pa.array([date(2017, 7, 14)])]
)
def test_moments_and_labels_of_a_typed_file_are_taken_as_they_are(moment):
    typed = {"user": pa.array([3]), "item": pa.array(["a"]).dictionary_encode(), "rating": pa.array([True])}
    table, _ = check_rows({**typed, "timestamp": moment}, LABEL)
    (row,) = table.to_pylist()
    assert row.pop("timestamp") in (MOMENT, MOMENT - 9600)
    assert row == {"user_id": "3", "item_id": "a", "rating": 1.0}
