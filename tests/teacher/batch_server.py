"""A loopback server that speaks the Batch API: files, batches, and chat completions beside them.

What it does by itself is right. A test says how batches end (`finish`), what a request gets (`answer`), and what goes
wrong on the way (`faults`, one after the other, by method and the path's first part below /v1).
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.teacher.asking import KEY, teacher_at
from tests.teacher.server import Request, Response, listen
from thinkrec.errors import UserError
from thinkrec.teacher.batch import Waiting
from thinkrec.teacher.client import Session, ask_about
from thinkrec.teacher.endpoint import Teacher
from thinkrec.teacher.job import carry_out
from thinkrec.teacher.offline import complete

PAGE = 2  # batches of one page at most, however many are asked for

Answer = tuple[int, Any] | str | None  # status and body; a line of the output file as it is; no line at all


def questions(*texts: str) -> Callable[[Teacher], list[str]]:
    """Work that asks each of `texts`, and whoever answers "again" once more; makes a list of the answers."""

    async def converse(session: Session, text: str) -> str:
        messages = [{"role": "user", "content": text}]
        reply = await session.ask(messages)
        if reply.text == "again":
            further = [{"role": "assistant", "content": "again"}, {"role": "user", "content": "so?"}]
            reply = await session.ask([*messages, *further])
        return reply.text

    return lambda teacher: ask_about(teacher, texts, converse, progress="", unit="")


class BatchServer:
    """What the server has and does; its address is `endpoint`."""

    def __init__(self) -> None:
        self.endpoint = ""
        self.answer: Callable[[dict[str, Any], int], Answer] = lambda request, _: (200, complete(request))
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.faults: dict[str, list[str | Callable[[], None]]] = {}
        self.asked: Counter[str] = Counter()  # in batches and out of them, by the question's key or last message
        self.calls: Counter[str] = Counter()
        self.heard: list[dict[str, Any]] = []  # bodies of chat completions

    def finish(self, status: str = "completed", *, keep: Callable[[int], bool] = lambda place: True) -> None:
        """End all batches that have not ended; requests (by their place) that are not kept get no answer."""
        for batch in self.batches.values():
            if batch["status"] == "in_progress":
                self._end(batch, status, keep)

    def _end(self, batch: dict[str, Any], status: str, keep: Callable[[int], bool]) -> None:
        output, errors = [], []
        requests = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        for place, request in enumerate(requests if status != "failed" else ()):
            key = request["custom_id"]
            if not keep(place):
                if status == "expired":
                    error = {"code": "batch_expired", "message": "This request could not be executed in time."}
                    errors.append(json.dumps({"custom_id": key, "response": None, "error": error}))
                continue
            self.asked[key] += 1
            answer = self.answer(request["body"], self.asked[key])
            if isinstance(answer, str):
                output.append(answer)
            elif answer:
                response = {"status_code": answer[0], "request_id": "r", "body": answer[1]}
                line = json.dumps({"id": "l", "custom_id": key, "response": response, "error": None})
                (output if answer[0] == 200 else errors).append(line)
        output.reverse()  # in no order, as the API has it
        batch["status"] = status
        for name, lines in (("output_file_id", output), ("error_file_id", errors)):
            if lines:
                batch[name] = self._keep("".join(f"{line}\n" for line in lines).encode())
        if status == "failed":
            batch["errors"] = {"object": "list", "data": [{"code": "token_limit", "message": "Too many tokens."}]}

    def _keep(self, content: bytes) -> str:
        name = f"file-{len(self.files)}"
        self.files[name] = content
        return name

    def upload(self, body: bytes, content_type: str) -> dict[str, Any]:
        boundary = content_type.partition("boundary=")[2].strip('"').encode()
        parts = [part.partition(b"\r\n\r\n") for part in body.split(b"--" + boundary)[1:-1]]
        named = {re.search(rb'name="(\w+)"', head)[1]: content.removesuffix(b"\r\n") for head, _, content in parts}
        assert named[b"purpose"] == b"batch"
        return {"id": self._keep(named[b"file"]), "object": "file", "purpose": "batch"}

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        assert body["endpoint"] == "/v1/chat/completions" and body["completion_window"] == "24h"
        lines = self.files[body["input_file_id"]].splitlines()
        requests = [json.loads(line) for line in lines]
        assert len({request["custom_id"] for request in requests}) == len(requests)
        assert all(request["method"] == "POST" and request["url"] == body["endpoint"] for request in requests)
        name = f"batch_{len(self.batches)}"
        self.batches[name] = {
            "id": name,
            "object": "batch",
            "status": "in_progress",
            "created_at": int(time.time()),
            "request_counts": {"total": len(lines), "completed": 0, "failed": 0},
            **body,
        }
        return self.batches[name]

    def page(self, query: dict[str, list[str]]) -> dict[str, Any]:
        newest = list(self.batches.values())[::-1]
        after = query.get("after", [""])[0]
        start = next((place + 1 for place, batch in enumerate(newest) if batch["id"] == after), 0)
        return {"object": "list", "data": newest[start : start + PAGE], "has_more": start + PAGE < len(newest)}

    def respond(self, request: Request) -> Response:
        """What a request gets, and whatever goes wrong with it."""
        address = urlsplit(request.path)
        first, *rest = address.path.removeprefix("/v1/").split("/")
        call = f"{request.method} {first}"
        self.calls[call] += 1
        faults = self.faults.get(call, [])
        fault = faults.pop(0) if faults else None
        if fault in ("429", "500", "404"):
            return self._reply({"error": {"message": "no"}}, status=int(fault))
        if fault == "page":
            return Response(body="<html>hello</html>", headers={"content-type": "text/html"})
        content: Any
        match call, rest:
            case "POST files", []:
                content = self.upload(request.content, request.headers["content-type"])
            case "GET files", [name, "content"] if name in self.files:
                content = self.files[name]
            case "POST batches", []:
                content = self.create(request.body)
            case "GET batches", []:
                content = self.page(parse_qs(address.query))
            case "GET batches", [name] if name in self.batches:
                content = self.batches[name]
            case "POST chat", ["completions"]:
                self.heard.append(request.body)
                content = self.answer(request.body, 1)[1]
            case _:
                return self._reply({"error": {"message": "no such thing"}}, status=404)
        if callable(fault):  # what was asked for is done, and the asker may be gone
            fault()
        if fault == "cut":  # done, without an answer or in the middle of one
            return self._reply(content, upto=-len(content) // 2 if isinstance(content, bytes) else 0)
        return self._reply(content)

    def _reply(self, body: Any, **how: Any) -> Response:
        return Response(body=body, headers={"retry-after-ms": "1"}, **how)


@contextmanager
def batch_server() -> Iterator[BatchServer]:
    server = BatchServer()
    with listen(server.respond) as server.endpoint:
        yield server


def go(server: BatchServer, *texts: str, **changes: Any) -> list[str]:
    """One run of the stage."""
    return carry_out(
        questions(*texts), teacher_at(server.endpoint, retries=1, **{"mode": "batch", "timeout": 5.0, **changes})
    )


def waits(server: BatchServer, *texts: str, error: type[UserError] = Waiting, **changes: Any) -> str:
    """The line of a run that has to wait."""
    with pytest.raises(UserError) as caught:
        go(server, *texts, **changes)
    assert type(caught.value) is error
    assert KEY not in str(caught.value)
    return str(caught.value)
