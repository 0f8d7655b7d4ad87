"""Which time is train, valid and test (METHOD: data). Splits follow each other in time, never at random.

A rule is written in the catalogue as it is in `dataset.windows`:

    {train: [day, day], valid: ..., test: ...}   spans of time: the same rows from the same raw file everywhere
    {months: [10, 5, 5]}                         so many months each, counted back from the newest rating's day
    {shares: [0.8, 0.1, 0.1]}                    shares of the time that the ratings span, counted back from its end
    column                                       what a column of the raw data says of each rating

All but the last come down to `Windows` once the oldest and the newest rating are known (`windows_of`). A month before
a day is the same day of the month before, or that month's last where it has no such day. What shares leave of the time
is before train.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from dateutil.relativedelta import relativedelta
from numpy.typing import NDArray

from thinkrec.artifacts import SPLITS
from thinkrec.errors import UserError

Rule = Mapping[str, Any] | str
COLUMN = "column"
MOST_MONTHS = 1200
EXAMPLES = (
    "{months: [10, 5, 5]}, {shares: [0.8, 0.1, 0.1]}, column, or "
    "{train: [2001-06-01, 2002-04-01], valid: [2002-04-01, 2002-09-01], test: [2002-09-01, 2003-02-01]}"
)


class Window(NamedTuple):
    """A half-open span of time, [start, end), in seconds since 1970 UTC."""

    start: int
    end: int

    def __str__(self) -> str:
        """As people write it: days where it begins and ends at midnight."""
        edges = [datetime.fromtimestamp(edge, UTC) for edge in (self.start, self.end)]
        days = not any(edge.hour or edge.minute or edge.second for edge in edges)
        texts = [edge.date().isoformat() if days else f"{edge:%Y-%m-%dT%H:%M:%S}" for edge in edges]
        return f"[{texts[0]}, {texts[1]}) UTC"


Windows = Mapping[str, Window]  # of each split; see `in_order`


def in_order(windows: Windows) -> Windows:
    """The same windows, none empty, one after another (else a ValueError); there may be time between them."""
    for split, window in windows.items():
        if window.end <= window.start:
            raise ValueError(f"the {split} window ends before it begins")
    for earlier, later in pairwise(SPLITS):
        if windows[later].start < windows[earlier].end:
            raise ValueError(f"the {later} window begins before the {earlier} window ends")
    return windows


def windows_between(edges: Sequence[int]) -> Windows:
    """Windows without time between them: the seconds at which each begins, and at which the last ends."""
    return in_order(dict(zip(SPLITS, map(Window._make, pairwise(edges)), strict=True)))


def split_at(train: str, valid: str, test: str, end: str) -> dict[str, list[str]]:
    """The rule without time between the windows: the first day of each (ISO, UTC), and the first day after the last."""
    return {"train": [train, valid], "valid": [valid, test], "test": [test, end]}


def check_rule(rule: Any) -> None:
    """Stop where a value of `dataset.windows` stands for no rule (EXAMPLES)."""
    if rule != COLUMN:
        windows_of(rule, 0, 2**32)


def windows_of(rule: Any, oldest: int, newest: int) -> Windows:
    """The rule as windows, for ratings from `oldest` to `newest`; a UserError where it is none, or too little time."""
    try:
        return _parse_rule(rule, oldest, newest)
    except (ValueError, TypeError) as error:
        raise UserError(f"dataset.windows: {error}; it may be null (the dataset's own), {EXAMPLES}") from None


def _parse_rule(rule: Any, oldest: int, newest: int) -> Windows:
    if not isinstance(rule, Mapping):
        raise ValueError(f"no rule is called {rule!r}")
    if set(rule) == set(SPLITS):
        days = {split: _parse_list(split, rule[split], "a first day and the first day after it", 2) for split in SPLITS}
        return in_order({split: Window(*map(_seconds, edges)) for split, edges in days.items()})
    if set(rule) == {"months"}:
        months = _parse_list("months", rule["months"])
        if any(type(n) is not int or not 1 <= n <= MOST_MONTHS for n in months):
            raise ValueError(f"months should be whole numbers from 1 to {MOST_MONTHS} (they are {months})")
        end = datetime.fromtimestamp(newest, UTC).date() + timedelta(days=1)
        return windows_between([_seconds(end - relativedelta(months=sum(months[split:]))) for split in range(4)])
    if set(rule) == {"shares"}:
        shares = _parse_list("shares", rule["shares"])
        numbers = all(type(share) in (int, float) and share > 0 for share in shares)
        if not numbers or sum(shares) > 1 + 1e-9:
            raise ValueError(f"shares should be above 0 and add up to 1 at most (they are {shares})")
        left = np.cumsum([0, *reversed(shares)])[::-1].tolist()
        edges = [newest + 1 - round(share * (newest + 1 - oldest)) for share in left]
        if sorted(set(edges)) != edges:
            raise UserError(
                f"dataset.windows: the ratings span {newest + 1 - oldest} seconds, too few to be split by shares of "
                "time; check that timestamps are read as they are meant"
            )
        return windows_between(edges)
    raise ValueError(f"no rule has the keys {', '.join(map(str, rule)) or '(none)'}")


def _parse_list(
    name: str, values: Any, what: str = f"three numbers, of {', '.join(SPLITS)}", length: int = 3
) -> list[Any]:
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != length:
        raise ValueError(f"{name} should be {what} (it is {values!r})")
    return list(values)


def _seconds(day: Any) -> int:
    """Seconds since 1970 of an ISO day or moment, UTC where it names no zone."""
    moment = datetime.fromisoformat(str(day))
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def split_codes(timestamp: NDArray[np.int64], windows: Windows) -> NDArray[np.int8]:
    """The number in `SPLITS` of the window that each timestamp falls in, -1 outside all of them."""
    code = np.full(len(timestamp), -1, np.int8)
    for number, split in enumerate(SPLITS):
        window = windows[split]
        code[(window.start <= timestamp) & (timestamp < window.end)] = number
    return code
