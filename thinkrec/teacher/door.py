"""What every request to a teacher goes through on its way out, retries too: budget, limits per minute, time-out."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import aclosing
from typing import Any

import httpx2
import openai

from thinkrec.teacher.answers import parse_object, read_usage
from thinkrec.teacher.endpoint import Teacher

LONGEST_RESPONSE = 2**25  # bytes
POOL = 8  # connections
QUOTA_USED_UP = "insufficient_quota"  # what hosts call it where waiting does not help, with the status of a rate limit


class Door(openai.DefaultAsyncHttpxClient):
    """The HTTP client under the `openai` client.

    It answers a request itself, without sending it, where a cap is reached or no more is to be sent (`closed`): with
    status 429 and a header that ends openai's retries.
    """

    def __init__(self, teacher: Teacher) -> None:
        options: dict[str, Any] = {"trust_env": not teacher.is_local}
        if teacher.app:
            options = {"transport": httpx2.ASGITransport(app=teacher.app)}
        super().__init__(**options)
        # A pool looks at each of its connections twice a request, so several small ones cost less than a large one.
        self.pools = [openai.DefaultAsyncHttpxClient(**options) for _ in range(0, teacher.params.concurrency, POOL)]
        self.turn = itertools.cycle(self.pools)
        self.timeout_seconds, self.budget = teacher.params.timeout, teacher.budget
        self.closed = False
        self.under_way: set[asyncio.Task[Any] | None] = set()  # tasks whose request is sent and not answered

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        estimate = None if self.closed else await self.budget.reserve(len(request.content))
        if estimate is None:
            return httpx2.Response(429, headers={"x-should-retry": "false"}, request=request)
        task = asyncio.current_task()
        self.under_way.add(task)
        used: tuple[int, int] | None = None  # what brings no whole answer may have been billed all the same
        try:  # the in-process transport knows no time-outs, and a server that dribbles meets none of httpx's
            async with asyncio.timeout(self.timeout_seconds):
                response = await _read_whole(await next(self.turn).send(request, **{**options, "stream": True}))
            used = read_usage(parse_object(response.content)) if response.is_success else (0, 0)
        except TimeoutError:
            raise httpx2.ReadTimeout("no whole answer in time", request=request) from None
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout):
            used = (0, 0)
            raise
        finally:
            self.under_way.discard(task)
            self.budget.settle(estimate, used)
        if self.closed or (response.status_code == 429 and QUOTA_USED_UP.encode() in response.content):
            response.headers["x-should-retry"] = "false"
        return response

    async def aclose(self) -> None:
        for pool in self.pools:
            await pool.aclose()
        await super().aclose()


async def _read_whole(response: httpx2.Response) -> httpx2.Response:
    """A response with its body; of one that does not end, a server's error instead."""
    body = bytearray()
    async with aclosing(response):
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > LONGEST_RESPONSE:
                body[:] = b'{"error": {"message": "its response is longer than any answer"}}'
                break
    coded = ("content-encoding", "content-length", "transfer-encoding")
    headers = [(name, value) for name, value in response.headers.multi_items() if name not in coded]
    return httpx2.Response(response.status_code, headers=headers, content=bytes(body), request=response.request)
