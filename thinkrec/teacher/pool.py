"""Many questions to one teacher: how stages ask them all, whatever they make of the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

from tqdm import tqdm

from thinkrec.errors import UserError
from thinkrec.teacher.client import Session, Teacher, Unanswered


def ask_all(
    teacher: Teacher, count: int, work: Callable[[Session, int], Awaitable[None]], *, progress: str, unit: str
) -> None:
    """Do `work` for every number below `count`, in that order, `teacher.params.concurrency` at a time.

    Workers share one queue, so a slow answer holds up only its own. `progress` names the bar on stderr (shown on a
    terminal only), which counts in `unit`; an empty name shows none.

    Raises:
        Unanswered: the teacher answers from the store alone, and some answers are not there; all work was tried.
        UserError: the teacher cannot be reached or refuses to work.
    """
    unanswered: list[Unanswered] = []
    failures: list[BaseException] = []
    queue: Iterator[int] = iter(range(count))
    bar = tqdm(total=count, desc=progress, unit=f" {unit}", disable=None if progress else True)

    async def take_from_queue(session: Session) -> None:
        for number in queue:
            try:
                await work(session, number)
            except Unanswered as error:  # whoever replays learns of everything that is open
                unanswered[:] = unanswered or [error]
            bar.set_postfix_str(str(session.spent), refresh=False)
            bar.update()

    async def run() -> None:
        try:
            async with teacher.session() as session, asyncio.TaskGroup() as group:
                for _ in range(min(teacher.params.concurrency, count)):
                    group.create_task(take_from_queue(session))
        except* UserError as errors:
            first: BaseException = errors
            while isinstance(first, BaseExceptionGroup):
                first = first.exceptions[0]
            failures.append(first)

    with bar:
        asyncio.run(run())
    for error in [*failures, *unanswered]:
        raise error  # the first, and outside: within, it would be wrapped in a group again
