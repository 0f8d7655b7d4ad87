"""Asking a teacher: requests a second over HTTP, traces a second from the response store, memory by requests.

The server is a process of its own that answers anything with one sentence, after as long as it is told to wait.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pandas as pd  # what a stage that asks has loaded, too

from benchmarks.measure import Goal, Line, duration, in_child, peak_resident, peaks
from thinkrec.claims.checker import Checker, thesaurus_of
from thinkrec.params import PARAMS_FILE, TeacherSettings, load
from thinkrec.synthesis.sampling import Rows, as_sample
from thinkrec.synthesis.traces import synthesise
from thinkrec.teacher.client import Session, ask_about
from thinkrec.teacher.endpoint import open_teacher

SECONDS = 0.2  # that an answer takes
CONCURRENCY = 64
REQUESTS = TRACES = 10_000
REPLAY = 10.0  # seconds
MEMORY = (1000, 10_000, 30_000)  # requests, of a server that answers at once
PROMPT = 3000  # characters
FLAT = 1.03  # an answer of 300 bytes held for each of 30,000 requests would show

_ANSWER = json.dumps(
    {
        "object": "chat.completion",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Yes. It fits."}}
        ],
        "usage": {"prompt_tokens": 750, "completion_tokens": 40, "total_tokens": 790},
    }
).encode()
_RESPONSE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_ANSWER) + _ANSWER


def teacher() -> Iterator[Line]:
    """Requests to a teacher a second, 10,000 traces from the response store, and memory as requests grow."""
    seconds, _ = in_child(ask, REQUESTS, SECONDS)
    ideal = CONCURRENCY / SECONDS
    yield Line(
        what=f"{REQUESTS:,} requests, {CONCURRENCY} at a time",
        against=f"{CONCURRENCY} / {SECONDS:g} s",
        measured=f"{REQUESTS / seconds:,.0f} requests/s",
        other=f"{ideal:,.0f} requests/s",
        ratio=REQUESTS / seconds / ideal,
        goal=Goal("at least", 0.85),
    )
    seconds = in_child(replayed, TRACES)
    yield Line(
        what=f"{TRACES:,} traces from the response store",
        against=duration(REPLAY),
        measured=duration(seconds),
        other=duration(REPLAY),
        ratio=seconds / REPLAY,
        goal=Goal("at most", 1),
    )
    least, *more = (in_child(ask, count, 0.0)[1] for count in MEMORY)
    for count, peak in zip(MEMORY[1:], more, strict=True):
        against = f"{MEMORY[0]:,} requests"
        yield peaks(f"{count:,} requests: peak memory", against, (peak, least), Goal("at most", FLAT))


def ask(count: int, wait: float) -> tuple[float, int | None]:
    """Seconds that so many requests take where each answer takes `wait`, and this process' peak memory meanwhile."""
    prompt = "x" * PROMPT

    async def converse(session: Session, number: int) -> None:
        await session.ask([{"role": "user", "content": f"{number} {prompt}"}])

    with tempfile.TemporaryDirectory() as folder, server(wait) as endpoint:
        asked = replace(open_teacher(_params(endpoint=endpoint)), store=Path(folder) / "responses.sqlite")
        began = time.perf_counter()
        peak = peak_resident(lambda: ask_about(asked, range(count), converse, progress="", unit="request"))
        seconds = time.perf_counter() - began
    assert asked.spent.requests == count
    return seconds, peak


def replayed(count: int) -> float:
    """Seconds that so many traces take when all their answers are in the store (the offline teacher's)."""
    world, rows = _world(count)
    params = load(Path(__file__).parents[1] / PARAMS_FILE)
    with tempfile.TemporaryDirectory() as folder:
        seconds = 0.0
        sample = as_sample(world[0], rows)
        checker = Checker(*world, params.prompt, thesaurus_of("synthetic"))
        for _ in ("asked", "replayed"):
            asked = replace(open_teacher(_params()), store=Path(folder) / "responses.sqlite")
            began = time.perf_counter()
            synthesise(sample, checker, asked, params.traces, progress="")
            seconds = time.perf_counter() - began
        assert asked.spent.requests == 0
    return seconds


def _world(count: int) -> tuple[tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame], Rows]:
    """Interactions, items and keywords, and so many rows to ask about."""
    from benchmarks.worlds import KEYWORDS, item_table, rated, ratings, words  # torch, which nothing else here loads

    random = np.random.default_rng(0)
    interactions = ratings(rated(2 * count, count // 50, least=20)).assign(split=pd.Categorical(["train"] * 2 * count))
    items = item_table()
    keywords = [random.choice(words()[:400], KEYWORDS, replace=False).tolist() for _ in range(len(items))]
    rows = np.sort(random.choice(2 * count, count, replace=False))
    return (interactions, items, pd.DataFrame({"item": range(len(items)), "keywords": keywords})), rows


def _params(**changes: object) -> TeacherSettings:
    given = load(Path(__file__).parents[1] / PARAMS_FILE).teacher_settings.model_dump()
    return TeacherSettings(**{**given, "concurrency": CONCURRENCY, **changes})


@contextmanager
def server(wait: float) -> Iterator[str]:
    """The base URL of a server that lives as long as the block."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(wait, theirs))
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}/v1"
    finally:
        process.terminate()
        process.join()


def _serve(wait: float, port: Connection) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r\n")[0]))
                await asyncio.sleep(wait)
                writer.write(_RESPONSE)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def serve() -> None:
        listening = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=2 * CONCURRENCY)
        port.send(listening.sockets[0].getsockname()[1])
        await listening.serve_forever()

    asyncio.run(serve())
