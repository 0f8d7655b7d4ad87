"""One thread that asks the models, and a bounded queue before it: what waits together is answered together."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from thinkrec.answers.views import Ranking

TOGETHER = 64  # questions of one pass
Task = Ranking | Callable[[], Any]  # a ranking shares a pass with others; anything else has the models for itself


class Busy(Exception):
    """As many questions wait as may."""


class ModelThread:
    """Answers tasks in the order in which they came, rankings that wait at the same time in one call.

    Nothing waits for company: while the models are busy, the next questions gather.

    Attributes:
        passes: calls of `answer` so far.
        questions: rankings that they answered.
    """

    def __init__(self, answer: Callable[[Sequence[Ranking]], Sequence[Any]], *, waiting: int) -> None:
        self._answer = answer
        self._waiting: queue.Queue[tuple[Task, Future[Any]] | None] = queue.Queue(waiting)
        self.passes = self.questions = 0
        self._thread = threading.Thread(target=self._run, name="models", daemon=True)  # or Ctrl-C twice would hang
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Tasks that wait."""
        return self._waiting.qsize()

    def submit(self, task: Task) -> Future[Any]:
        """Put a task in the queue; its answer will be in the future. Raises `Busy` where there is no room."""
        future: Future[Any] = Future()
        try:
            self._waiting.put_nowait((task, future))
        except queue.Full:
            raise Busy from None
        return future

    def close(self) -> None:
        """Stop, once all that waits is answered."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        going = True
        while going:
            entries = [self._waiting.get()]
            while len(entries) < TOGETHER and not self._waiting.empty():
                entries.append(self._waiting.get())
            going = None not in entries
            # What nobody waits for any more is left out.
            tasks = [entry for entry in entries if entry is not None and entry[1].set_running_or_notify_cancel()]
            rankings = [(task, future) for task, future in tasks if isinstance(task, Ranking)]
            if rankings:
                self.passes, self.questions = self.passes + 1, self.questions + len(rankings)
                self._fulfil([future for _, future in rankings], lambda: self._answer([task for task, _ in rankings]))  # noqa: B023
            for task, future in tasks:
                if not isinstance(task, Ranking):
                    self._fulfil([future], lambda: [task()])  # noqa: B023

    def _fulfil(self, futures: Sequence[Future[Any]], work: Callable[[], Sequence[Any]]) -> None:
        """Give the futures what `work` returns, or all of them what it raises."""
        try:
            pairs = list(zip(futures, work(), strict=True))
        except Exception as error:
            for future in futures:
                future.set_exception(error)
        else:
            for future, answer in pairs:
                future.set_result(answer)
