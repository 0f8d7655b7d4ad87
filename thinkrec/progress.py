"""How far a long loop is: a bar on a terminal, and in a log a line every half a minute."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator
from threading import Event, Thread
from typing import Any

from tqdm import tqdm

EVERY = 30.0  # seconds between two lines of a log


def track(iterable: Iterable[Any] | None = None, name: str | None = None, **options: Any) -> tqdm[Any]:
    """The iterable, its progress shown on stderr under `name`; without a name, none is shown.

    `options` are tqdm's: `total`, `initial`, `unit`. Without an iterable the caller counts by `update`.
    """
    if not name:
        return tqdm(iterable, disable=True, **options)
    kind = tqdm if sys.stderr.isatty() else _Lines
    return kind(iterable, desc=name, leave=False, **options)


def write(line: str) -> None:
    """Write a line to stderr, above a bar if there is one."""
    tqdm.write(line, file=sys.stderr)


class _Lines(tqdm):  # type: ignore[type-arg]
    """A bar for a log. A thread writes its lines, so that they come while a single step takes minutes, too."""

    def __init__(self, iterable: Iterable[Any] | None, **options: Any) -> None:
        super().__init__(iterable, mininterval=math.inf, delay=math.inf, **options)
        done, left = ("{n_fmt} of {total_fmt}", ", about {remaining} left") if self.total else ("{n_fmt}", "")
        self.bar_format = f"{{desc}}: {done}{{unit}}, {{elapsed}} so far{left}{{postfix}}"
        self.unit = f" {self.unit.strip()}"
        self.ended = Event()
        Thread(target=self._write_lines, daemon=True).start()

    def __iter__(self) -> Iterator[Any]:
        try:
            for value in self.iterable:
                yield value
                self.update()  # tqdm's own loop counts only what it draws
        finally:
            self.close()

    def _write_lines(self) -> None:
        while not self.ended.wait(EVERY):
            self.fp.write(f"{self}\n")

    def display(self, *_: Any, **__: Any) -> None:
        """Draw nothing between the lines."""

    def close(self) -> None:
        if hasattr(self, "ended"):
            self.ended.set()
        super().close()
