"""What stands before every request: the token, the limits of bodies, and counts for Prometheus."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections import Counter
from collections.abc import Iterator

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST = 2**18  # bytes of a body
OPEN = ("/", "/page.css", "/serve.js", "/health")  # without a token
SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)  # bounds of the histogram


class Guard:
    """An ASGI application around another."""

    def __init__(self, app: ASGIApp, *, paths: set[str], token: str | None, timeout: float) -> None:
        self._app, self._paths, self._timeout = app, paths, timeout
        self._header = None if token is None else f"Bearer {token}".encode()
        self.answered: Counter[tuple[str, int]] = Counter()  # by path and status
        self._seconds: dict[str, list[float]] = {}  # by path: how many took at most each of SECONDS, all, their sum

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        path = scope["path"] if scope["path"] in self._paths else "other"  # or strangers could make any number of them
        began, size, whole = time.monotonic(), 0, False

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._count(path, message["status"], time.monotonic() - began)
            await send(message)

        async def limited() -> Message:
            nonlocal size, whole
            if whole:
                return await receive()
            try:
                left = max(0.0, self._timeout - (time.monotonic() - began))  # of all parts together
                message = await asyncio.wait_for(receive(), left)
            except TimeoutError:
                raise HTTPException(408, "the body did not come in time") from None
            size += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if size > LARGEST:
                raise HTTPException(413, f"the body is larger than {LARGEST:,} bytes")
            return message

        headers = dict(scope["headers"])
        app = self._app
        admitted = self._header is None or hmac.compare_digest(headers.get(b"authorization", b""), self._header)
        if not admitted and path not in OPEN:
            app = JSONResponse({"detail": "a token is needed: Authorization: Bearer TOKEN"}, 401)
        await app(scope, limited, counted)

    def _count(self, path: str, status: int, seconds: float) -> None:
        self.answered[path, status] += 1
        row = self._seconds.setdefault(path, [0.0] * (len(SECONDS) + 2))
        for place, bound in enumerate(SECONDS):
            row[place] += float(seconds <= bound)
        row[-2] += 1
        row[-1] += seconds

    def metrics(self, **values: float) -> Iterator[str]:
        """The lines of Prometheus's text format, with further gauges."""
        yield "# TYPE thinkrec_requests_total counter"
        for (path, status), count in sorted(self.answered.items()):
            yield f'thinkrec_requests_total{{path="{path}",status="{status}"}} {count}'
        yield "# TYPE thinkrec_request_seconds histogram"
        for path, row in sorted(self._seconds.items()):
            for bound, held in zip((*SECONDS, "+Inf"), row, strict=False):
                yield f'thinkrec_request_seconds_bucket{{path="{path}",le="{bound}"}} {held:.0f}'
            yield f'thinkrec_request_seconds_count{{path="{path}"}} {row[-2]:.0f}'
            yield f'thinkrec_request_seconds_sum{{path="{path}"}} {row[-1]:.6f}'
        for name, value in values.items():
            yield f"# TYPE thinkrec_{name} gauge\nthinkrec_{name} {value:g}"
