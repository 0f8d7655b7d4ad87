"""How things are timed here: A and B in turn, their medians, and what a goal says of their ratio.

Machines are noisy, so only ratios of what ran in turn in one process are worth quoting. Peak memory is a child
process' own: how far its resident memory rose above what it held when the measured part began (Linux only).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, TypeVar

ROUNDS = 5
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Goal:
    """What a ratio should come to."""

    side: Literal["at least", "at most"]
    bound: float

    def met(self, ratio: float) -> bool:
        """Whether it does."""
        return ratio >= self.bound if self.side == "at least" else ratio <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.side == 'at least' else '≤'} {self.bound:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the table: `what`, its figure, what it is held against, that one's figure, their ratio, the goal."""

    what: str
    against: str
    measured: str
    other: str
    ratio: float | None = None  # None: there is none, or it could not be measured
    goal: Goal | None = None

    @property
    def verdict(self) -> str:
        """Whether the goal is met: yes or no, and nothing where there is no goal or no ratio."""
        if self.goal is None or self.ratio is None:
            return ""
        return "yes" if self.goal.met(self.ratio) else "no"


@dataclass(frozen=True, slots=True)
class Timing:
    """Median seconds of A and of B, and the median over the rounds of B's seconds / A's."""

    a: float
    b: float
    ratio: float


def in_turn(a: Callable[[], object], b: Callable[[], object], *, rounds: int = ROUNDS) -> Timing:
    """Time A and B `rounds` times, in turn, after a round that warms up."""
    took = [(seconds(a), seconds(b)) for _ in range(rounds + 1)][1:]
    middle_a, middle_b = (statistics.median(side) for side in zip(*took, strict=True))
    return Timing(middle_a, middle_b, statistics.median(b / a for a, b in took))


def seconds(work: Callable[[], object]) -> float:
    """How long `work` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def faster(what: str, against: str, timing: Timing, goal: Goal) -> Line:
    """A line whose ratio is B's time over A's (how many times faster A is), or A's over B's for a goal of at most."""
    return Line(
        what=what,
        against=against,
        measured=duration(timing.a),
        other=duration(timing.b),
        ratio=timing.ratio if goal.side == "at least" else 1 / timing.ratio,
        goal=goal,
    )


def rates(what: str, against: str, timing: Timing, units: tuple[int, int], unit: str, goal: Goal) -> Line:
    """A line of rates: A does `units[0]` in a call and B `units[1]`; the ratio is of A's rate to B's."""
    return Line(
        what=what,
        against=against,
        measured=f"{units[0] / timing.a:,.0f} {unit}/s",
        other=f"{units[1] / timing.b:,.0f} {unit}/s",
        ratio=timing.ratio * units[0] / units[1],
        goal=goal,
    )


def peaks(what: str, against: str, sizes: tuple[int | None, int | None], goal: Goal | None = None) -> Line:
    """A line of A's and B's bytes; the ratio is how many times B's A's are for a goal of at most, else the inverse."""
    a, b = sizes
    at_most = goal is not None and goal.side == "at most"
    ratio = None if a is None or b is None else a / b if at_most else b / a
    return Line(what=what, against=against, measured=megabytes(a), other=megabytes(b), ratio=ratio, goal=goal)


def duration(took: float) -> str:
    """Seconds, or milliseconds below one."""
    return f"{took:.2f} s" if took >= 1 else f"{took * 1000:.0f} ms"


def in_child(work: Callable[..., R], *args: Any, **kwargs: Any) -> R:
    """What `work` returns in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *args, **kwargs).result()


def peak_growth(work: Callable[[], object]) -> int | None:
    """Bytes by which resident memory rose, at most, while `work` ran; None where the system does not say.

    Not getrusage's ru_maxrss: a process inherits that from the one that started it, however small it is itself.
    """
    if not RESET.exists():
        return None
    RESET.write_text("5")  # the peak so far is forgotten
    before = _resident("VmRSS")
    work()
    return _resident("VmHWM") - before


def peak_resident(work: Callable[[], object]) -> int | None:
    """Bytes that this process held at most while `work` ran, libraries and all; None where the system does not say."""
    grown = peak_growth(work)
    return None if grown is None else _resident("VmHWM")


def _resident(name: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def megabytes(size: int | None) -> str:
    """Bytes for a reader; None where the system does not say."""
    return "not measured: needs Linux" if size is None else f"{size / 2**20:,.0f} MB"


def as_text(lines: Iterable[Line]) -> str:
    """The lines as a table of plain text, a row each."""
    head = ("what", "against", "what takes", "against takes", "ratio", "goal", "met")
    rows = [
        head,
        *(
            (
                line.what,
                line.against,
                line.measured,
                line.other,
                "" if line.ratio is None else f"{line.ratio:.2f}",
                "" if line.goal is None else str(line.goal),
                line.verdict,
            )
            for line in lines
        ),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
