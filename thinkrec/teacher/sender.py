"""A process that holds the connections to a teacher, so that nothing under way is lost with the process that asks.

It asks as any process would (the same client, store and limits) and keeps every answer before it tells of it. Both
ends speak JSON lines over a socket pair: the asking one first says who is asked and how, then a question a line; the
sender says what came of each, and what the run has spent by then. The key goes through the environment alone.

When the asking process is done, interrupted or killed, the socket ends: then nothing more is sent, what is under way
is waited for (at most run.timeout) and kept, and the sender ends. It has a session of its own, so that what is
meant for the other (Ctrl-C, a closed terminal) does not reach it. `apart.Sender` runs it, as
python -m thinkrec.teacher.sender.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import traceback
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from thinkrec.errors import UserError
from thinkrec.params import TeacherSettings
from thinkrec.teacher.apart import LONGEST_LINE, as_message
from thinkrec.teacher.budget import Spent
from thinkrec.teacher.client import open_teacher


async def serve() -> None:
    """The sender's end, on standard input, which is a socket: answer questions until no more can come."""
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=0), limit=LONGEST_LINE)
    head = await reader.readline()
    if not head.endswith(b"\n"):
        return
    given = json.loads(head)
    teacher = open_teacher(TeacherSettings(**given["teacher"]), retries=given["retries"], apart=False)
    teacher = replace(teacher, store=Path(given["store"]))
    teacher.budget.spent = Spent(**given["spent"])
    tasks: set[asyncio.Task[None]] = set()

    def say(number: int, **what: object) -> None:
        if not writer.is_closing():
            writer.write(as_message({"number": number, "spent": asdict(teacher.spent), **what}))

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


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(serve())
