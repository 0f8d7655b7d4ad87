"""The asking process' end of the sender (see `sender`): starts it with the first question, and hears from it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from thinkrec.errors import UserError
from thinkrec.params import TeacherSettings
from thinkrec.teacher.budget import Budget, Spent
from thinkrec.teacher.store import Answer

KEY_VARIABLE = "THINKREC_TEACHER_KEY"
LONGEST_LINE = 2**28  # bytes; a question holds a whole prompt

_SOURCE = Path(__file__).resolve().parents[2]  # the sender runs the code that this process runs


class Sender:
    """A sender as the asking process sees it."""

    def __init__(self, params: TeacherSettings, store: Path, key: str, retries: int, budget: Budget) -> None:
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
        self.writer.write(as_message({"number": self.asked, "request": request}))
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
        self.writer.write(as_message(head))
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
            [sys.executable, "-P", "-m", "thinkrec.teacher.sender"],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=said,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        raise UserError(f"the process that asks the teacher cannot be started ({error}); make room for it") from None


def as_message(value: dict[str, Any]) -> bytes:
    """What either end says, in one line."""
    return (json.dumps(value) + "\n").encode()
