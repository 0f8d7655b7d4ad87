"""A process that holds the connections to a teacher, so that nothing under way is lost with the process that asks.

It asks as any process would (the same client, store and limits) and keeps every answer before it tells of it. Both
ends speak JSON lines over a socket pair: the asking one first says who is asked and how, then a question a line; the
sender says what came of each, and what the run has spent by then. The key goes through the environment alone.

When the asking process is done, interrupted or killed, the socket ends: then nothing more is sent, what is under way
is waited for (at most teacher.timeout) and kept, and the sender ends. It has a session of its own, so that what is
meant for the other (Ctrl-C, a closed terminal) does not reach it. Run by `Sender`: python -m thinkrec.synthesis.sender
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any

from thinkrec.errors import UserError
from thinkrec.params import TeacherParams
from thinkrec.synthesis.budget import Budget, Spent
from thinkrec.synthesis.store import Answer

KEY_VARIABLE = "THINKREC_TEACHER_KEY"
LONGEST_LINE = 2**28  # bytes; a question holds a whole prompt

_SOURCE = Path(__file__).resolve().parents[2]  # the sender runs the code that this process runs


class Sender:
    """The asking process' end: starts the sender with the first question."""

    def __init__(self, params: TeacherParams, store: Path, key: str, retries: int, budget: Budget) -> None:
        self.params, self.store, self.key, self.retries, self.budget = params, store, key, retries, budget
        self.starting: asyncio.Task[None] | None = None
        self.hearing: asyncio.Task[None] | None = None
        self.waiting: dict[int, asyncio.Future[Answer]] = {}
        self.asked = 0
        self.finishing = False

    async def ask(self, request: dict[str, Any]) -> Answer:
        """The answer to a request, kept in the store by now.

        Raises:
            UserError: as `client.Session.ask`, or the sender process has come to an end.
        """
        if self.starting is None:
            self.starting = asyncio.create_task(self._start())
        await asyncio.shield(self.starting)
        assert self.hearing is not None
        if self.hearing.done():
            raise UserError(self.lost)
        self.asked += 1
        answer = self.waiting[self.asked] = asyncio.get_running_loop().create_future()
        self.writer.write(_line({"number": self.asked, "request": request}))
        return await answer

    async def finish(self) -> None:
        """Ask nothing more, and hear what comes of what is under way."""
        self.finishing = True
        if self.starting is not None:
            await asyncio.gather(self.starting, return_exceptions=True)
        if self.hearing is None:
            return
        if self.writer.can_write_eof() and not self.writer.is_closing():
            self.writer.write_eof()
        await asyncio.shield(self.hearing)

    async def _start(self) -> None:
        ours, theirs = socket.socketpair()
        path = os.pathsep.join(filter(None, [str(_SOURCE), os.environ.get("PYTHONPATH")]))
        # No pipe: nobody reads while it runs, and a full one would stop it.
        said = tempfile.TemporaryFile()  # noqa: SIM115
        with theirs:
            process = _process(theirs, {**os.environ, "PYTHONPATH": path, KEY_VARIABLE: self.key}, said)
        reader, self.writer = await asyncio.open_connection(sock=ours, limit=LONGEST_LINE)
        head = {
            "teacher": self.params.model_dump(mode="json"),
            "store": str(self.store),
            "retries": self.retries,
            "spent": asdict(self.budget.spent),
        }
        self.writer.write(_line(head))
        self.hearing = asyncio.create_task(self._hear(reader, process, said))

    async def _hear(self, reader: asyncio.StreamReader, process: subprocess.Popen[bytes], said: IO[bytes]) -> None:
        """Hand on what the sender says until it ends."""
        with suppress(ConnectionError, ValueError):  # it ended in the middle of something
            async for line in reader:
                self._heard(json.loads(line))
        self.writer.close()
        code = await asyncio.to_thread(process.wait)
        with said:
            said.seek(0)
            words = said.read().decode(errors="replace").strip()
        how = f"killed by signal {-code}" if code < 0 else f"exit {code}"
        why = (words.splitlines() or ["no word"])[-1]
        self.lost = f"the process that asks the teacher ended ({how}: {why}); run again to go on from what it kept"
        for answer in self.waiting.values():
            if self.finishing:
                answer.cancel()
            elif not answer.done():
                answer.set_exception(UserError(self.lost))

    def _heard(self, said: dict[str, Any]) -> None:
        self.budget.spent = Spent(**said["spent"])
        answer = self.waiting.pop(said["number"])
        if answer.done():  # whoever waited is gone
            return
        if "answer" in said:
            answer.set_result(Answer(**said["answer"]))
        else:
            answer.set_exception(UserError(said["error"]) if "error" in said else RuntimeError(said["fault"]))


def _process(theirs: socket.socket, environment: dict[str, str], said: IO[bytes]) -> subprocess.Popen[bytes]:
    try:  # not by way of asyncio, which kills what it has started when its loop is closed
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "thinkrec.synthesis.sender"],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=said,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        raise UserError(f"the process that asks the teacher cannot be started ({error}); make room for it") from None


async def serve() -> None:
    """The sender's end, on standard input, which is a socket: answer questions until no more can come."""
    from thinkrec.synthesis.client import open_teacher

    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=0), limit=LONGEST_LINE)
    head = await reader.readline()
    if not head.endswith(b"\n"):
        return
    given = json.loads(head)
    teacher = open_teacher(TeacherParams(**given["teacher"]), retries=given["retries"], apart=False)
    teacher = replace(teacher, store=Path(given["store"]))
    teacher.budget.spent = Spent(**given["spent"])
    tasks: set[asyncio.Task[None]] = set()

    def say(number: int, **what: object) -> None:
        if not writer.is_closing():
            writer.write(_line({"number": number, "spent": asdict(teacher.spent), **what}))

    async def answer(number: int, request: dict[str, Any]) -> None:
        try:
            say(number, answer=asdict(await session.answer(request)))
        except UserError as error:
            say(number, error=str(error))
        except Exception:
            say(number, fault=traceback.format_exc())

    async with teacher.session() as session:
        while (line := await _next(reader)).endswith(b"\n"):  # half a line is of a process that was killed
            task = asyncio.create_task(answer(**json.loads(line)))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await session.way.finish()
        await asyncio.gather(*tasks, return_exceptions=True)
    writer.close()
    with suppress(ConnectionError):  # nobody listens any more
        await writer.wait_closed()


async def _next(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readline()
    except ConnectionError:
        return b""


def _line(value: dict[str, Any]) -> bytes:
    return (json.dumps(value) + "\n").encode()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(serve())
