"""A teacher on the loopback: it speaks OpenAI's chat completions and misbehaves on demand (`batch_server`: batches).

    serve()                                 # answers the question X with "aX"
    serve("hang")                           # everybody, always
    serve(["500", "429"])                   # each question: first a 500, then a 429, from then on well
    serve(lambda request: request.text)     # whatever the request calls for: here the question names its fault

`BEHAVIOURS` holds the faults by name; what a script returns may also be a `Response` of its own, or None for a good
answer. A question is the text of all its messages, one a line.
"""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from typing import Any

from thinkrec.teacher.client import LONGEST_RESPONSE

PATH = "/v1/chat/completions"
WAIT = 1.0  # seconds that Retry-After asks for
_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What came: `times` counts how often its question has come by now, `at` is time.monotonic()."""

    method: str
    path: str  # with its query
    headers: Mapping[str, str]  # names in lower case
    content: bytes
    at: float
    times: int = 1

    @property
    def body(self) -> dict[str, Any]:
        """The body as JSON."""
        return json.loads(self.content or b"{}")

    @property
    def text(self) -> str:
        """The question."""
        return "\n".join(str(message["content"]) for message in self.body.get("messages", ()))

    @property
    def key(self) -> str:
        """The key that was sent."""
        return self.headers.get("authorization", "").removeprefix("Bearer ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What goes back, and how: after `seconds`, `pause` seconds between bytes, or cut off: `response[:upto]`."""

    body: Any  # bytes and text as they are, anything else as JSON
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0  # infinite: never
    pause: float = 0.0
    upto: int | None = None  # 0: the connection is cut without a word

    def written(self) -> bytes:
        """The whole response as it stands on the wire."""
        body = self.body if isinstance(self.body, str | bytes) else json.dumps(self.body)
        content = body.encode() if isinstance(body, str) else body
        headers = {"content-type": "application/json", **self.headers, "content-length": str(len(content))}
        lines = [f"HTTP/1.1 {self.status} {_REASONS.get(self.status, 'Other')}", *map(": ".join, headers.items())]
        return "\r\n".join([*lines, "", ""]).encode() + content


Behaviour = Callable[[Request], Response]
Script = Callable[[Request], "Response | str | None"]  # a behaviour, its name, or None for a good answer


@dataclass(slots=True, kw_only=True)
class Server:
    """A running server: its base URL, and what has come to it so far."""

    endpoint: str = ""
    came: Counter[str] = field(default_factory=Counter)  # by question
    heard: list[Request] = field(default_factory=list)


def completion(
    content: Any, *, finish: Any = "stop", model: str = "m", tokens: tuple[int, int] = (7, 3), **message: Any
) -> Any:
    """The body of a whole answer; `message` adds to or replaces fields of its message."""
    message = {"role": "assistant", "content": content, **message}
    prompt, answer = tokens
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "finish_reason": finish, "message": message}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer},
    }


def well(request: Request) -> Response:
    """A good answer, which repeats the question."""
    return Response(body=completion(f"a{request.text}", reasoning_content=f"because {request.text}"))


def says(content: Any, **changes: Any) -> Behaviour:
    """Answers `content`; `changes` as in `completion`."""
    return lambda request: Response(body=completion(content, **changes))


def lacks(**changes: Any) -> Behaviour:
    """A good answer with top-level fields replaced, or left out where None."""

    def script(request: Request) -> Response:
        body = well(request).body | changes
        return Response(body={name: value for name, value in body.items() if value is not None})

    return script


def refuses(status: int, code: str = "", headers: Mapping[str, str] | None = None) -> Behaviour:
    """Turns the request away, as hosts do: the error repeats the key on two lines."""

    def script(request: Request) -> Response:
        message = f"{code or 'no'}:\nsee {request.key}"
        error = {"message": message, "type": code or "server_error", "param": None, "code": code or None}
        return Response(body={"error": error}, status=status, headers=headers or {})

    return script


def soon(behaviour: Behaviour) -> Behaviour:
    """The same, asking for another try almost at once, so that tests do not wait out the client's own pauses."""

    def script(request: Request) -> Response:
        response = behaviour(request)
        return replace(response, headers={**response.headers, "retry-after-ms": "1"})

    return script


def _raw(body: str | bytes, content_type: str = "application/json", **how: Any) -> Behaviour:
    return lambda request: Response(body=body, headers={"content-type": content_type}, **how)


def _good(**how: Any) -> Behaviour:
    return lambda request: Response(body=well(request).body, **how)


BEHAVIOURS: dict[str, Behaviour] = {
    # turned away
    "429": soon(refuses(429, "rate_limit_exceeded")),
    "429 bare": refuses(429, "rate_limit_exceeded"),
    "429 seconds": refuses(429, "rate_limit_exceeded", {"retry-after": f"{WAIT:g}"}),
    "429 date": lambda request: refuses(
        429, "rate_limit_exceeded", {"retry-after": formatdate(math.ceil(time.time() + WAIT), usegmt=True)}
    )(request),
    "429 quota": soon(refuses(429, "insufficient_quota")),
    "429 quota by type": _raw('{"error": {"message": "no", "type": "insufficient_quota", "code": null}}', status=429),
    "500": soon(refuses(500)),
    "502": soon(_raw("<html>Bad Gateway</html>", "text/html", status=502)),
    "503": soon(refuses(503, "overloaded")),
    "bad request": refuses(400, "context_length_exceeded"),
    "flagged": refuses(400, "content_filter"),
    "moderated": _raw('{"error": {"code": 403, "message": "m is moderated, and your input was flagged"}}', status=403),
    "error in a list": _raw(
        '[{"error": {"code": 400, "message": "The input token count exceeds the maximum number '
        'of tokens allowed (9)."}}]',
        status=400,
    ),
    "detail": lambda request: Response(body={"detail": f"not today,\x1b[31m {request.key}"}, status=422),
    "bad key": refuses(401, "invalid_api_key"),
    "forbidden": refuses(403, "model_not_allowed"),
    "no filter": _raw('{"error": {"code": 403, "message": "m has no content_filter here"}}', status=403),
    "no model": refuses(404, "model_not_found"),
    # on the wire
    "hang": _good(seconds=math.inf),
    "slow": _good(seconds=0.1),
    "dribble": _good(pause=0.05),
    "cut": _good(upto=0),
    "cut in the body": _good(upto=-20),
    # no such API
    "html": _raw("<html>hello</html>", "text/html"),
    "html as json": _raw("<html>hello</html>"),
    "broken json": _raw('{"id": "x", "choices": [{"index": 0, "mess'),
    "deep json": _raw("[" * 100_000),
    "no bytes": _raw(""),
    "broken utf-8": _raw(b'{"id": "\xff"}'),
    "list": _raw("[]"),
    "null": _raw("null"),
    "error with 200": lambda request: Response(body=refuses(500, "upstream_failed")(request).body),
    "error object with 200": _raw('{"object": "error", "message": "maximum context length is 2048", "code": 400}'),
    # what the format promises, left out
    "no choices": lacks(choices=[]),
    "choices missing": lacks(choices=None),
    "null choices": _raw('{"choices": null}'),
    "choices of text": lacks(choices="Yes. It fits."),
    "null choice": lacks(choices=[None]),
    "no message": lacks(choices=[{"index": 0, "finish_reason": "stop"}]),
    "no usage": lacks(usage=None),
    "usage of text": lacks(usage={"prompt_tokens": "many", "completion_tokens": "few", "total_tokens": "more"}),
    "usage below zero": lacks(usage={"prompt_tokens": -7, "completion_tokens": -3, "total_tokens": -10}),
    "usage beyond belief": lacks(usage={"prompt_tokens": 10**400, "completion_tokens": 3}),
    "half a usage": lacks(usage={"prompt_tokens": 7}),
    "text parts": says([{"type": "thinking", "text": "No."}, {"type": "text", "text": "Yes. It fits."}]),
    "other parts": says([None, "Yes.", {"type": "text"}, {"type": "image", "text": "Yes."}]),
    "no model named": lacks(model=None),
    "nothing said": lacks(usage=None, choices=[{"finish_reason": "stop", "message": {"content": ""}}]),
    "broke off": says(None, finish="error"),
    "broke off in the text": says("Yes. It fi", finish="error"),
    "error in a choice": lacks(
        choices=[{"finish_reason": "error", "error": {"code": 502, "message": "Upstream"}, "message": {"content": "Y"}}]
    ),
    # answers that are none
    "empty": says(""),
    "null content": says(None),
    "spaces": says(" \n\t"),
    "refusal": says(None, refusal="I will not."),
    "content filter": says("Yes. It", finish="content_filter"),
    "filtered": lacks(choices=[{"index": 0, "finish_reason": "content_filter: PROHIBITED_CONTENT"}]),
    "unsafe": says(None, finish="SAFETY", tokens=(7, 0)),
    "can't help": says("I can't help with that."),
    "truncated": says("Yes. It fits because the user", finish="length"),
    "truncated elsewhere": says("Yes. It fits because the user", finish="MAX_TOKENS"),
    "truncated scratch": says("<think>First, the user", finish="length"),
    "scratch": says("<think>No, wait.</think>\nYes. It fits."),
    "scratch apart": says("Yes. It fits.", reasoning_content="No, wait."),
    "surrogates": says("Yes. It \ud800fits\udfff.", reasoning_content="\ud800"),
    "huge": says("Yes. " + "It fits. " * 500_000),
    "endless": _raw(" " * (LONGEST_RESPONSE + 1)),
    "echo": lambda request: says(f"Yes. {request.key} fits.")(request),
    "other model": says("Yes. It fits.", model="another-model"),
    "dated model": says("Yes. It fits.", model="m-2026-01-31"),
}


@contextmanager
def serve(script: Script | Sequence[str | Script] | str = (), *, seconds: float = 0.0) -> Iterator[Server]:
    """A server that lives as long as the block; each answer takes `seconds` more."""
    server = Server()

    def respond(request: Request) -> Response:
        server.came[request.text] += 1
        request = replace(request, times=server.came[request.text])
        server.heard.append(request)
        response = _response(script, request)
        return replace(response, seconds=response.seconds + seconds)

    with listen(respond) as server.endpoint:
        yield server


@contextmanager
def listen(respond: Callable[[Request], Response]) -> Iterator[str]:
    """Answer on the loopback as long as the block lasts; the base URL. `respond` runs in one thread.

    Tests of downloads and of the hub have their servers by it, too.
    """
    ready: Future[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A client that was killed or has gone; the end of the block while somebody still waits.
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError), closing(writer):
            while await _answer(respond, reader, writer):
                pass

    async def run() -> None:
        listener = await asyncio.start_server(connected, "127.0.0.1", 0, backlog=256)
        stop = asyncio.Event()
        port = listener.sockets[0].getsockname()[1]
        ready.set_result((f"http://127.0.0.1:{port}/v1", asyncio.get_running_loop(), stop))
        await stop.wait()
        listener.close()

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    endpoint, loop, stop = ready.result()
    try:
        yield endpoint
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


async def _answer(
    respond: Callable[[Request], Response], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    """Hear one request and answer it; whether the connection stands."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    content = await reader.readexactly(int(headers.get("content-length", 0)))
    method, path, _ = first.split()
    response = respond(Request(method=method, path=path, headers=headers, content=content, at=time.monotonic()))
    if response.seconds:
        await asyncio.sleep(response.seconds)
    written = response.written()[: response.upto]
    if response.pause:
        for place in range(len(written)):
            await asyncio.sleep(response.pause)
            writer.write(written[place : place + 1])
            await writer.drain()
    else:
        writer.write(written)
        await writer.drain()
    return response.upto is None


def _response(script: Script | Sequence[str | Script] | str, request: Request) -> Response:
    if request.path != PATH:
        return Response(body="<html>Not Found</html>", status=404, headers={"content-type": "text/html"})
    if not callable(script) and not isinstance(script, str):
        script = script[request.times - 1] if request.times <= len(script) else well
    answer = script(request) if callable(script) else script
    return BEHAVIOURS[answer](request) if isinstance(answer, str) else answer or well(request)
