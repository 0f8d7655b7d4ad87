"""Ratings of a file in any format: one rule on whole columns says what a row must be, and why one at fault is not.

Columns are text, or typed as a parquet or JSON file has them; `cell` makes text of what is neither. A time is seconds
since 1970 UTC, milliseconds, micro- or nanoseconds, ISO 8601, UTC where it names no zone, or as Goodreads writes it
("Fri Apr 19 08:15:15 -0700 2013"); parts of a second are dropped. A number of 10^11 or more is milliseconds: as seconds
it would be the year 5138, and ten to the eleventh millisecond passed in March 1973. So with 10^14 microseconds, and
10^17 nanoseconds. Eight digits that are a day are that day: 20200131, as seconds, would be of August 1970.

Shapes: columns and reasons are of n rows; a reason is null where nothing is wrong.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from thinkrec.ingest.clean import MISSING, WHOLE, plain_id
from thinkrec.ingest.raw import IDS, RATINGS, SPLIT, Chunk, Part
from thinkrec.ingest.readers.records import Block, Format

LONGEST_ID = 1000  # characters: a longer one is a text that slipped into its column
LARGEST = 3e38  # of a rating, which becomes a float32
UNITS = ((10**17, 10**9), (10**14, 10**6), (10**11, 10**3))  # from this number on, so many make a second
LATEST = 4_102_444_800  # 2100-01-01
DAYS = (19_700_101, 20_991_231)  # the first and the last that eight digits may be
YES, NO = ("yes", "true", "y", "t"), ("no", "false", "n", "f")  # labels as words, in small letters
NEITHER = "time is neither seconds since 1970 (or milliseconds) nor ISO 8601"

_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?$"
_SECONDS = r"^-?(\d{1,18}|[1-8]\d{18})(\.\d*)?$"  # that an int64 holds
_ISO = r"^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?( ?(Z|[+-]\d\d(:?\d\d)?))?)?$"
# "Fri Apr 19 08:15:15 -0700 2013", as Goodreads and older interfaces of websites write it.
_DATED = r"^[A-Z][a-z]{2} [A-Z][a-z]{2} \d\d \d\d:\d\d:\d\d [+-]\d{4} \d{4}$"
_WRITTEN = {_ISO: "ISO8601", _DATED: "%a %b %d %H:%M:%S %z %Y"}
_UNSEEN = r"[\x00-\x1f\x7f-\x9f]"
_BY_CELL = (pa.types.is_floating, pa.types.is_decimal, pa.types.is_binary, pa.types.is_large_binary)
_SURROGATE = re.compile("[\ud800-\udfff]")  # which no table can hold


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """What a rating may be: a number from `lowest` to `highest`, or, as a label, 0 or 1, or a word of `YES` or `NO`."""

    lowest: float = -math.inf
    highest: float = math.inf
    label: bool = False


LABEL = Scale(lowest=0.0, highest=1.0, label=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class RatingFile:
    """How to read ratings from a file: its format, its name of each role, and what a rating may be.

    Rows whose rating is `unrated` are no ratings, and passed over: what a reader has put on a shelf and not judged.
    """

    format: Format
    columns: Mapping[str, str]
    scale: Scale
    unrated: str | None = None

    def read(self, part: Part) -> Iterator[Chunk]:
        """The ratings of a part, in chunks of bounded size."""
        lines_before = 0
        for block in self.format.blocks(part, list(self.columns.values())):
            yield self._read_columns(block) or self._read_records(block, part, lines_before)
            lines_before += block.lines

    def _read_columns(self, block: Block) -> Chunk | None:
        """A block as whole columns; None unless all its rows are good."""
        columns = block.columns() if self.unrated is None else None
        if columns is None:
            return None
        table, reasons = check_rows({role: columns[name] for role, name in self.columns.items()}, self.scale)
        return Chunk(table=table, rows=len(table), lines=block.lines) if len(table) == len(reasons) else None

    def _read_records(self, block: Block, part: Part, lines_before: int) -> Chunk:
        """A block record by record, so that each malformed row gets its line and reason."""
        rating = self.columns["rating"]
        records = [
            record
            for record in block.records()
            if isinstance(record.values, str) or str(record.values.get(rating)) != self.unrated
        ]
        reasons: dict[int, str | None] = {r.row: r.values for r in records if isinstance(r.values, str)}
        readable = {r.row: r.values for r in records if not isinstance(r.values, str)}
        columns = {
            role: pa.array([cell(values.get(name), role) for values in readable.values()], pa.string())
            for role, name in self.columns.items()
        }
        table, wrong = check_rows(columns, self.scale)
        reasons.update(zip(readable, wrong.to_pylist(), strict=True))
        faults = [r.fault(part, reason, lines_before) for r in records if (reason := reasons[r.row])]
        return Chunk(table=table, faults=faults, rows=len(records), lines=block.lines)


def check_rows(columns: Mapping[str, pa.Array], scale: Scale) -> tuple[pa.Table, pa.Array]:
    """The good rows of columns by role (user, item, rating, timestamp, perhaps split), and what is wrong with any."""
    user, no_user = _check_ids(columns["user"], "user")
    item, no_item = _check_ids(columns["item"], "item")
    rating, no_rating = _check_ratings(columns["rating"], scale)
    seconds, no_time = _check_times(columns["timestamp"])
    reason = pc.coalesce(no_user, no_item, no_rating, no_time)
    table = pa.table([user, item, rating, seconds], schema=RATINGS)
    if "split" in columns:
        table = table.append_column(SPLIT, _as_text(columns["split"], "split").fill_null("").dictionary_encode())
    return table if reason.null_count == len(reason) else table.filter(pc.is_null(reason)), reason


def cell(value: Any, role: str) -> str | None:
    """A single value as the text that `check_rows` reads; None where there is none, or one of no use for its role.

    An id that is something else (a list, an object, a fraction) becomes a control character, which no id may hold.
    """
    other = "\0" if role in ("user", "item") and value is not None and value == value else None
    match value:
        case bytes():
            return cell(value.decode("utf-8", "surrogateescape"), role)
        case str():
            return _SURROGATE.sub("\0", value)
        case bool():
            return str(int(value)) if role == "rating" else other
        case int():
            return str(value)
        case float() | Decimal() if role == "rating":
            return str(float(value))
        case float() if other and 2**53 <= abs(value) < math.inf:
            return f"{value:.16E}"  # which several whole numbers may have become: `dataset.ROUNDED`
        case float() | Decimal() if math.isfinite(value) and (role == "timestamp" or value == math.floor(value)):
            return str(math.floor(value))
        case _:
            return other


def _check_ids(array: pa.Array, role: str) -> tuple[pa.Array, pa.Array]:
    ids = _as_text(array, role).dictionary_encode()
    names = ids.dictionary  # each id once, far fewer than rows
    if pc.any(pc.match_substring_regex(names, f"[^ -~]|{WHOLE}")).as_py():
        ids = pa.array(map(plain_id, names.to_pylist()), pa.string()).take(ids.indices).dictionary_encode()
        names = ids.dictionary
    reasons = _first_reason(
        {
            f"no {role} id": pc.is_in(names, pa.array(["", *MISSING])),
            f"{role} id is over {LONGEST_ID} characters long": pc.greater(pc.utf8_length(names), LONGEST_ID),
            f"{role} id is neither plain text nor a whole number": pc.match_substring_regex(names, _UNSEEN),
        }
    )
    return ids.cast(IDS), pc.if_else(pc.is_null(ids), f"no {role} id", reasons.take(ids.indices))


def _check_ratings(array: pa.Array, scale: Scale) -> tuple[pa.Array, pa.Array]:
    if not (_is_number(array.type) or pa.types.is_boolean(array.type)):
        array = _as_text(array, "rating")
        if scale.label:
            array = pc.utf8_lower(array)
            for label, words in (("1", YES), ("0", NO)):
                array = pc.if_else(pc.is_in(array, pa.array(words)), label, array)
        array = _where(pc.match_substring_regex(array, _NUMBER), array)
    rating = array.cast(pa.float64(), safe=False)  # whole numbers beyond 2^53 are rounded
    rating = _where(pc.less(pc.abs(rating), LARGEST), rating)  # nan is less than nothing
    if scale.label:
        allowed = pc.or_(pc.equal(rating, 0.0), pc.equal(rating, 1.0)).fill_null(False)
        reasons = {"label is neither 0 nor 1, no nor yes, false nor true": pc.invert(allowed)}
    else:
        outside = pc.or_(pc.less(rating, scale.lowest), pc.greater(rating, scale.highest))
        reasons = {
            "rating is not a number": pc.is_null(rating),
            f"rating is not within {scale.lowest} and {scale.highest}": outside,
        }
    return rating.cast(pa.float32()), _first_reason(reasons)


def _check_times(array: pa.Array) -> tuple[pa.Array, pa.Array]:
    if pa.types.is_timestamp(array.type) or pa.types.is_date(array.type):
        seconds = pc.cast(array, pa.timestamp("s", tz=getattr(array.type, "tz", None)), safe=False).cast(pa.int64())
    elif pa.types.is_integer(array.type):
        seconds = _to_seconds(pc.cast(array, pa.int64(), safe=False))
    elif pa.types.is_floating(array.type):
        array = array.cast(pa.float64())
        seconds = _to_seconds(_where(pc.less(pc.abs(array), 9e18), pc.floor(array)).cast(pa.int64()))
    else:
        seconds = _parse_times(_as_text(array, "timestamp"))
    return seconds, _first_reason(
        {
            NEITHER: pc.is_null(seconds),
            "time is negative": pc.less(seconds, 0),
            "time is after the year 2099": pc.greater_equal(seconds, LATEST),
        }
    )


def _parse_times(text: pa.Array) -> pa.Array:
    """Seconds of texts, null where one is no time."""
    is_number = pc.match_substring_regex(text, _SECONDS)
    whole = pc.replace_substring_regex(_where(is_number, text), r"\..*$", "")
    seconds = _to_seconds(whole.cast(pa.int64()))
    text = pc.replace_substring_regex(text, " ?UTC$", "Z")
    for pattern, format in _WRITTEN.items():
        is_written = pc.match_substring_regex(text, pattern)
        if pc.any(is_written).as_py():
            seconds = pc.coalesce(seconds, _moments(pd.Series(_where(is_written, text).to_pandas()), format))
    return seconds


def _moments(texts: pd.Series, format: str) -> pa.Array:
    """Seconds of texts in a format of `pd.to_datetime`, null where one is not in it."""
    moments = pd.to_datetime(texts, format=format, utc=True, errors="coerce")
    return pa.array(moments).cast(pa.timestamp("s", tz="UTC"), safe=False).cast(pa.int64())


def _to_seconds(number: pa.Array) -> pa.Array:
    largest = pc.max(number).as_py()
    if largest is None or largest < DAYS[0]:
        return number
    is_day = pc.and_(pc.greater_equal(number, DAYS[0]), pc.less_equal(number, DAYS[1]))
    if pc.any(is_day).as_py():
        digits = pd.Series(_where(is_day, number).cast(pa.string()).to_pandas())
        number = pc.if_else(is_day, _moments(digits, "%Y%m%d"), number)
    unit = pa.scalar(1, pa.int64())
    for least, count in reversed(UNITS):
        unit = pc.if_else(pc.greater_equal(number, least), count, unit)
    return pc.divide(number, unit)


def _as_text(array: pa.Array, role: str) -> pa.Array:
    """The column as trimmed text, null where a value cannot be of its role."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    is_text = pa.types.is_string(array.type) or pa.types.is_large_string(array.type)
    if any(is_kind(array.type) for is_kind in _BY_CELL):
        array = pa.array([cell(value, role) for value in array.to_pylist()], pa.string())
    elif not (is_text or pa.types.is_string_view(array.type) or pa.types.is_integer(array.type)):
        array = pa.nulls(len(array), pa.string())
    return pc.utf8_trim_whitespace(array.cast(pa.string()))


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _where(condition: pa.Array, array: pa.Array) -> pa.Array:
    """The values where a condition holds, null elsewhere."""
    return pc.if_else(condition.fill_null(False), array, pa.scalar(None, array.type))


def _first_reason(conditions: Mapping[str, pa.Array]) -> pa.Array:
    """The first of these reasons whose condition holds, by row."""
    return pc.case_when(pc.make_struct(*conditions.values()), *conditions).cast(pa.string())
