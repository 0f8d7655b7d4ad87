"""How far a long loop is: a bar on a terminal, in a log a line every half a minute, and to whatever tracks runs."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

from tqdm import tqdm

from thinkrec.errors import UserError

LIVE = Path("live")
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


@contextmanager
def reported(trackers: Sequence[str], name: str) -> Iterator[Callable[[Mapping[str, float], int], None]]:
    """A block whose measures, of a step, go to trackers that `accelerate` knows, under `name`.

    DVCLive's and TensorBoard's files lie in `live/`; if git ignored it, DVC would not show them.
    A UserError names a tracker that is not installed.
    """
    opened = [_open_tracker(tracker, name) for tracker in trackers]

    def report(measures: Mapping[str, float], step: int) -> None:
        for tracker in opened:
            tracker.log(dict(measures), step=step)

    try:
        yield report
    finally:
        for tracker in opened:
            tracker.finish()


def _open_tracker(tracker: str, name: str) -> Any:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    installed = {str(kind.value): LOGGER_TYPE_TO_CLASS[kind.value] for kind in get_available_trackers()}
    if tracker not in installed:
        usable = ", ".join(installed) or f"of {', '.join(LOGGER_TYPE_TO_CLASS)}, none"
        raise UserError(f"run.report_to: no tracker {tracker!r} here ({usable} is installed); install its package")
    folder = LIVE / name
    lying = {"logging_dir": str(LIVE)} if installed[tracker].requires_logging_directory else {}
    of_dvc = {"dir": str(folder), "dvcyaml": str(folder / "dvc.yaml"), "save_dvc_exp": False}  # or it edits dvc.yaml
    made = installed[tracker](name, **(of_dvc if tracker == "dvclive" else lying))
    made.start()
    return made
