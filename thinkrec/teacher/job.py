"""All questions of one stage to a teacher: they can be asked (here), priced (`quote`) or shared (`bundle`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Generic, TypeVar

from thinkrec.errors import UserError
from thinkrec.params import TeacherParams, TeacherSettings
from thinkrec.teacher.batch import run_in_batches
from thinkrec.teacher.budget import Spent
from thinkrec.teacher.client import Unanswered
from thinkrec.teacher.endpoint import OFFLINE, Teacher, open_teacher
from thinkrec.teacher.store import keys_under_way

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(Generic[T]):
    """What a stage asks of a teacher.

    `work` asks all of the stage's questions and makes something of the answers. Over the store alone it raises
    `Unanswered` after it has tried them all.
    """

    stage: str
    work: Callable[[Teacher], T]
    teacher: TeacherSettings
    turns: int  # answers that one question may take, the first included
    changing: str = ""  # why no answer to today's questions will count; "" if they stay as they are


def run_job(job: Job[T], report: Callable[..., None]) -> tuple[T, Spent]:
    """What the job's work comes to and what was spent; `report` is given the latter however it ends, by field."""
    teacher = open_teacher(job.teacher)
    try:
        return carry_out(job.work, teacher), teacher.spent
    finally:
        report(**asdict(teacher.spent))


def describe_weakness(useful: int, asked: int, faults: Mapping[str, int]) -> str:
    """That a teacher is too weak, where less than half of what it was asked about came to something; else nothing.

    `faults` counts its refused answers, by what was wrong with them.
    """
    if 2 * useful >= asked:
        return ""
    most = max(faults, key=lambda fault: faults[fault])
    advice = "allow it longer answers (teacher.request)" if most == "truncated" else "name a stronger one"
    return f" (the teacher is too weak: {useful:,} of {asked:,} came to something, most faults were {most}; {advice})"


def describe_spent(spent: Spent, params: TeacherParams) -> str:
    """What a run has asked, in words: the built-in teacher is no server, and nothing is sent to it."""
    if params.endpoint == OFFLINE:
        return f"the built-in teacher answered {spent.requests:,} questions"
    return f"sent {spent}"


def carry_out(work: Callable[[Teacher], T], teacher: Teacher) -> T:
    """What `work` makes of the answers of `teacher`, asked as teacher.mode says.

    A live run that would pay again for what is under way in batches is refused.
    """
    if teacher.params.mode == "batch":
        return run_in_batches(work, teacher)
    if teacher.store and (submitted := keys_under_way(teacher.store, teacher.place)):
        unanswered: set[str] = set()
        with suppress(Unanswered):
            work(replace(teacher, listener=lambda key, _, answer: None if answer else unanswered.add(key)))
        if asked_twice := unanswered & submitted:
            raise UserError(
                f"teacher at {teacher.place}: {len(asked_twice):,} questions are under way in batches, and would be "
                "paid for twice; run with teacher.mode=batch to collect them (cancel the batches at the server to be "
                "rid of them)"
            )
    return work(teacher)
