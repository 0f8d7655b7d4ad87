"""How tests ask a teacher."""

import asyncio
import itertools
import multiprocessing
import sys
from dataclasses import replace
from pathlib import Path

from tests.project import teacher_params
from thinkrec.teacher.client import open_session
from thinkrec.teacher.endpoint import open_teacher

KEY = "sk-do-not-show-me"
STORE = Path(".cache/responses.sqlite")
FORK = multiprocessing.get_context("fork")  # a child has imported already what takes a new process two seconds
NUMBERS = itertools.count()


def teacher_at(endpoint="offline", *, respond=None, retries=5, patience=300.0, **changes):
    """A teacher with the repository's own settings and `changes`."""
    teacher = open_teacher(teacher_params(endpoint, **changes))
    return replace(teacher, respond=respond or teacher.respond, retries=retries, patience=patience)


def message(text):
    return [{"role": "user", "content": str(text)}]


def try_to_ask(teacher, *texts):
    """What comes of some questions asked at once: answers, and the errors of those that fail."""

    async def run():
        async with open_session(teacher) as session:
            return await asyncio.gather(*(session.ask(message(text)) for text in texts), return_exceptions=True)

    return asyncio.run(run())


def ask(teacher, *texts):
    """The answers to some questions asked at once; raises the first error there is."""
    outcomes = try_to_ask(teacher, *texts)
    for error in (outcome for outcome in outcomes if isinstance(outcome, BaseException)):
        raise error
    return outcomes


def texts_of(answers):
    return [answer.text for answer in answers]


def start(work, *arguments):
    """`work(*arguments)` in a process of its own, and the file that it prints into."""
    log = Path(f"log-{next(NUMBERS)}")
    log.touch()
    process = FORK.Process(target=_print_into, args=(log, work, *arguments))
    process.start()
    return process, log


def _print_into(log, work, *arguments):
    sys.stdout = sys.stderr = log.open("w", buffering=1)
    work(*arguments)
