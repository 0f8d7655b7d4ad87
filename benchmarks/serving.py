"""`thinkrec serve` under load: 64 clients on loopback, against one that asks again when it is answered.

The server is a process of its own, over the finished project in the working directory.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import requests

from benchmarks.measure import Goal, Line

CLIENTS = 64
SECONDS = 20.0  # of each
SHORTLIST = 20  # items that a question ranks


def serving() -> Iterator[Line]:
    """Questions a second of 64 clients and of one, and how long an answer takes; every one must come."""
    with _server() as address:
        users = [user["user_id"] for user in requests.get(f"{address}users", timeout=60).json()]
        _load(address, users, 1, 2.0)
        (alone, rate_alone), (together, rate) = (_load(address, users, clients, SECONDS) for clients in (1, CLIENTS))
    half, most = np.percentile(together, [50, 99])
    yield Line(
        what=f"recommend of {SHORTLIST}, {CLIENTS} clients, {SECONDS:g} s: p50 {half:.2f} s, p99 {most:.2f} s",
        against=f"one client: p50 {statistics.median(alone):.3f} s",
        measured=f"{rate:,.1f} answers/s",
        other=f"{rate_alone:,.1f} answers/s",
        ratio=rate / rate_alone,
        goal=Goal("at least", 5),
    )


@contextmanager
def _server() -> Iterator[str]:
    command = [sys.executable, "-m", "thinkrec.cli", "serve", "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert server.stderr is not None
    try:
        yield next(line.split()[1] for line in server.stderr if line.startswith("serve: http"))
    finally:
        server.terminate()
        server.communicate()


def _load(address: str, users: list[str], clients: int, seconds: float) -> tuple[list[float], float]:
    """How long each answer took that so many clients asked for in these seconds, and answers a second; none is lost."""
    took: list[float] = []
    lost: list[str] = []
    start = time.monotonic()
    end = start + seconds

    def ask(number: int) -> None:
        with requests.Session() as session:
            while (began := time.monotonic()) < end:
                user = users[number % len(users)]
                number += clients
                try:
                    reply = session.post(f"{address}recommend", json={"user": user, "shortlist": SHORTLIST}, timeout=60)
                    reply.raise_for_status()
                    took.append(time.monotonic() - began)
                except requests.RequestException as error:
                    lost.append(str(error))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not lost, f"{len(lost)} not answered: {lost[0]}"
    return took, len(took) / (time.monotonic() - start)
