"""What a rating row must be, whatever file it comes from.

Two spellings of one rule: `row` looks at one row and says what is wrong with it; `table` looks at many at once, some
hundred times faster, and gives up where it meets anything that is not plainly good. What `table` takes, `row` takes,
with the same values (tests hold them to it).

A time is seconds since 1970 UTC, milliseconds, micro- or nanoseconds, or ISO 8601, UTC where it names no zone; parts of
a second are dropped. A number of 10^11 or more is milliseconds: as seconds it would be the year 5138, and ten to the
eleventh millisecond passed in March 1973. So with 10^14 microseconds, and 10^17 nanoseconds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from thinkrec.ingest.raw import IDS, RATINGS, SPLIT

LONGEST_ID = 1000  # characters: a longer one is a text that slipped into its column
# A number so large counts so many parts of a second.
PARTS = ((10**17, 10**9), (10**14, 10**6), (10**11, 10**3))
LATEST = 4_102_444_800  # 2100-01-01
NEITHER = "time is neither seconds since 1970 (or milliseconds) nor ISO 8601"
LABELS = {"yes": "1", "true": "1", "no": "0", "false": "0"}  # words, as small letters

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)
_SECONDS = re.compile(r"[+-]?\d{1,19}(?:\.\d*)?", re.ASCII)
_ISO = r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:\d\d)?)?"
_UNSEEN = r"[\x00-\x1f\x7f-\x9f]"
_ISO_TIME, _UNSEEN_CHARACTER = re.compile(_ISO, re.ASCII), re.compile(_UNSEEN[:-1] + "\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """What a rating may be: a number from `lowest` to `highest`, or, as a label, 0 or 1, or a word of `LABELS`."""

    lowest: float = -math.inf
    highest: float = math.inf
    label: bool = False


LABEL = Scale(lowest=0.0, highest=1.0, label=True)


class Row(NamedTuple):
    """A good rating row."""

    user: str
    item: str
    rating: float
    timestamp: int
    split: str | None


def row(values: Mapping[str, Any], scale: Scale) -> Row | str:
    """The row of some values by role (user, item, rating, timestamp, and split or not), or what is wrong with it."""
    ids = {}
    for role in ("user", "item"):
        ids[role] = _id(values[role])
        if ids[role] is None:
            return f"no {role} id"
        if len(ids[role] or "") > LONGEST_ID:
            return f"{role} id is over {LONGEST_ID} characters long"
        if _UNSEEN_CHARACTER.search(ids[role] or ""):
            return f"{role} id holds control characters"
    given = values["rating"]
    if scale.label and isinstance(given, str):
        given = LABELS.get(given.strip().lower(), given)
    rating = _number(given)
    if scale.label and rating not in (0.0, 1.0):
        return "label is neither 0 nor 1, no nor yes, false nor true"
    if rating is None:
        return "rating is not a number"
    if not scale.lowest <= rating <= scale.highest:
        return f"rating is not within {scale.lowest} and {scale.highest}"
    seconds = _seconds(values["timestamp"])
    if seconds is None:
        return NEITHER
    if seconds < 0:
        return "time is negative"
    if seconds >= LATEST:
        return "time is after the year 2099"
    split = _id(values["split"]) or "" if "split" in values else None
    return Row(ids["user"] or "", ids["item"] or "", rating, seconds, split)


def table(columns: Mapping[str, pa.Array], scale: Scale) -> pa.Table | None:
    """The rows of whole columns by role, in the schema `raw.RATINGS`; None unless all of them are plainly good."""
    try:
        made = {
            "user_id": _ids(columns["user"]),
            "item_id": _ids(columns["item"]),
            "rating": _ratings(columns["rating"], scale),
            "timestamp": _times(columns["timestamp"]),
        }
        if "split" in columns:
            made["split"] = _ids(columns["split"])
    except (ValueError, TypeError, OverflowError, pa.ArrowException):
        return None
    return pa.table(made, schema=schema("split" in columns))


def as_table(rows: list[Row], *, split: bool) -> pa.Table:
    """Good rows in the schema `raw.RATINGS`."""
    user, item, rating, timestamp, splits = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    made = {
        "user_id": pa.array(user, pa.string()).dictionary_encode(),
        "item_id": pa.array(item, pa.string()).dictionary_encode(),
        "rating": pa.array(rating, pa.float64()).cast(pa.float32()),
        "timestamp": pa.array(timestamp, pa.int64()),
    }
    if split:
        made["split"] = pa.array(splits, pa.string()).dictionary_encode()
    return pa.table(made, schema=schema(split))


def schema(split: bool) -> pa.Schema:
    """The schema of a chunk's rows."""
    return RATINGS.append(SPLIT) if split else RATINGS


def _id(value: Any) -> str | None:
    """An id as text, None where there is none."""
    match value:
        case str():
            return value.strip() or None
        case int() if not isinstance(value, bool):
            return str(value)
        case float() if value.is_integer():
            return str(int(value))
        case _:
            return None


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        value = value.strip()
        value = float(value) if _NUMBER.fullmatch(value) else None
    if not isinstance(value, (bool, int, float, Decimal)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if abs(number) < 3e38 else None  # float32, and never nan


def _seconds(value: Any) -> int | None:
    match value:
        case str():
            value = value.strip()
            if _SECONDS.fullmatch(value):
                return _from_number(int(value.partition(".")[0]))
            if not _ISO_TIME.fullmatch(value):
                return None
            try:
                return _seconds(datetime.fromisoformat(value))
            except ValueError:
                return None
        case bool():
            return None
        case int():
            return _from_number(value)
        case float() if math.isfinite(value):
            return _from_number(math.floor(value))
        case datetime():
            return math.floor((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())
        case date():
            return int(datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp())
        case _:
            return None


def _from_number(number: int) -> int:
    return number // next((parts for least, parts in PARTS if number >= least), 1)


def _all(condition: pa.Array) -> None:
    if not pc.all(condition, skip_nulls=False, min_count=0).as_py():
        raise ValueError("not plainly good")


def _ids(array: pa.Array) -> pa.Array:
    if pa.types.is_integer(array.type):
        array = array.cast(pa.string())
    if not pa.types.is_dictionary(array.type):
        array = array.cast(pa.string()).dictionary_encode() if _is_text(array.type) else _refuse(array)
    array = array.cast(IDS)
    names = array.dictionary
    if array.null_count or names.null_count:
        raise ValueError("an id is missing")
    _all(pc.and_(pc.equal(names, pc.utf8_trim_whitespace(names)), pc.not_equal(names, "")))
    _all(pc.less_equal(pc.utf8_length(names), LONGEST_ID))
    _all(pc.invert(pc.match_substring_regex(names, _UNSEEN)))
    return array


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _refuse(array: pa.Array) -> pa.Array:
    raise TypeError(f"ids are {array.type}")


def _ratings(array: pa.Array, scale: Scale) -> pa.Array:
    if scale.label and _is_text(array.type):
        array = pc.utf8_lower(array)
        for word, label in LABELS.items():
            array = pc.if_else(pc.equal(array, word), label, array)
    array = array.cast(pa.float64())
    _all(pc.less(pc.abs(array), 3e38))
    if scale.label:
        _all(pc.or_(pc.equal(array, 0.0), pc.equal(array, 1.0)))
    _all(pc.and_(pc.less_equal(scale.lowest, array), pc.less_equal(array, scale.highest)))
    return array.cast(pa.float32())


def _times(array: pa.Array) -> pa.Array:
    if pa.types.is_timestamp(array.type) or pa.types.is_date(array.type):
        array = pc.cast(array, pa.timestamp("s", tz=getattr(array.type, "tz", None)), safe=False).cast(pa.int64())
    elif _is_text(array.type):
        array = _parsed_times(array)
    elif pa.types.is_floating(array.type):
        array = _scaled(pc.floor(array).cast(pa.int64()))
    elif pa.types.is_integer(array.type):
        array = _scaled(array.cast(pa.int64()))
    else:
        raise TypeError(f"times are {array.type}")
    _all(pc.and_(pc.less_equal(0, array), pc.less(array, LATEST)))
    return array


def _scaled(array: pa.Array) -> pa.Array:
    largest = pc.max(array).as_py()
    if largest is None or largest < PARTS[-1][0]:
        return array
    parts = pa.scalar(1, pa.int64())
    for least, count in reversed(PARTS):
        parts = pc.if_else(pc.greater_equal(array, least), count, parts)
    return pc.divide(array, parts)


def _parsed_times(array: pa.Array) -> pa.Array:
    try:
        return _scaled(pc.replace_substring_regex(array, r"\.\d*$", "").cast(pa.int64()))
    except pa.ArrowInvalid:
        _all(pc.match_substring_regex(array, f"^{_ISO}$"))
        moments = pd.to_datetime(pd.Series(array.to_pandas()), format="ISO8601", utc=True)
        return pa.array(moments).cast(pa.timestamp("s", tz="UTC"), safe=False).cast(pa.int64())
