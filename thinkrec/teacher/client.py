"""The teacher as an OpenAI-compatible endpoint, reached through the `openai` client whatever it is.

The offline teacher runs in this process behind the same client, over an in-process transport, so the default run
goes through the code that a paid run goes through. Retries are the client's own (Retry-After honoured up to two
minutes); nothing here repeats a call. A teacher behind a network is asked only what the response store does not know,
by a process of its own (`sender`) that outlives this one until what is paid for is kept; the offline one is free and
says the same every time, so it needs neither.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai

from thinkrec.artifacts import RESPONSES
from thinkrec.claims.prompts import Message
from thinkrec.errors import UserError
from thinkrec.params import TeacherSettings
from thinkrec.teacher import offline
from thinkrec.teacher.apart import KEY_VARIABLE, Sender
from thinkrec.teacher.budget import Budget, Spent, usage
from thinkrec.teacher.limits import Bucket
from thinkrec.teacher.store import Answer, Store, open_store, request_key

OFFLINE = "offline"
KEY_VARIABLES = (KEY_VARIABLE, "OPENAI_API_KEY")
RETRIES = 5
LONGEST_RESPONSE = 2**25  # bytes
LEAST_SECRET = 16  # characters of a key that nobody writes by chance
POOL = 8  # connections
SHORTEST_WAIT, LONGEST_WAIT = 0.05, 1.0  # seconds between looks for another process' answer

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_NO_KEY = "no-key-needed"
_FLAGGED = {"content_filter", "content_policy_violation", "invalid_prompt"}  # what hosts call a question they refuse
_USED_UP = "insufficient_quota"  # what hosts call it where waiting does not help, with the status of a rate limit
# Reasoning models behind generic servers leave their scratch work in the answer, its opening tag often in the prompt.
_SCRATCH = re.compile(r"\A.*</think>|<think>.*\Z", re.DOTALL)

# Up to so many retries: none where the server says so, or asks for a longer wait than the client bears.
# The first line that fits says what to do; subclasses stand before their bases.
_ADVICE: tuple[tuple[type[openai.OpenAIError], str], ...] = (
    (openai.AuthenticationError, f"refused the key; set {KEY_VARIABLES[0]} to a valid one"),
    (openai.PermissionDeniedError, "forbids this key the model {model}; choose another teacher.model or key"),
    (openai.NotFoundError, "does not know the model {model}, or is no such API; mend teacher.model or .endpoint"),
    (openai.RateLimitError, "still turned us away after up to {retries} retries (rate limit or quota); lower "
                            "run.concurrency, mend the quota or run again later"),
    (openai.APITimeoutError, "gave no answer within {timeout:g} s; raise run.timeout or lower "
                             "run.concurrency"),
    (openai.APIConnectionError, "cannot be reached, or breaks off; check teacher.endpoint, and that the server runs"),
    (openai.InternalServerError, "still failed after up to {retries} retries ({heard}), which is its own fault; run "
                                 "again later"),
    (openai.APIResponseValidationError, "answers, but not as an OpenAI-compatible API; does teacher.endpoint end in "
                                        "/v1?"),
)  # fmt: skip


Request = dict[str, Any]  # the body of a question: model and messages
Heard = Callable[[str, Request, Answer | None], None]  # told a question's key, the question, the store's answer to it


class Unanswered(UserError):
    """A question that the store has no answer to, where nothing may be sent.

    Whoever asks many questions goes on with the others, then raises the first of these: so one walk over the store
    alone comes by everything that is still to ask (`Teacher.heard` is told).
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer: its text ("" where there is none) and what the server says of it."""

    text: str
    finish_reason: str
    refused: bool
    prompt_tokens: int
    completion_tokens: int
    reasoning: str = ""  # scratch work that the server gives apart from the text


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """A teacher that can be asked: open a `session` inside a running event loop, then `ask` it."""

    params: TeacherSettings
    app: Any  # the ASGI app of an in-process teacher, None for one behind a network
    key: str = field(repr=False)
    budget: Budget = field(repr=False)  # of all its sessions
    retries: int = RETRIES
    store: Path | None = None  # of the answers; None: every question is sent
    apart: bool = False  # whether a process of its own does the sending
    heard: Heard | None = None  # where given, nothing is sent, and it is told of every question

    @property
    def spent(self) -> Spent:
        """What this run has sent and what that took, so far."""
        return self.budget.spent

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """Connections that live as long as the block; never more than `concurrency` requests at a time.

        However the block ends, answers to what has been sent are waited for and kept: they are paid for.

        Raises:
            UserError: the store cannot be used.
        """
        with open_store(self.store) if self.store else nullcontext() as store:
            if self.apart and self.store:
                way: Sender | Connection = Sender(self.params, self.store, self.key, self.retries, self.budget)
            else:
                way = Connection(self, store)
            session = Session(teacher=self, store=store, way=way)
            try:
                yield session
            finally:
                left = list(session.asked.values())
                await way.finish()
                await asyncio.gather(*left, return_exceptions=True)


class _Door(openai.DefaultAsyncHttpxClient):
    """What every request goes through on its way out, retries too: the budget, the limits per minute, the timeout."""

    def __init__(self, params: TeacherSettings, budget: Budget, **options: Any) -> None:
        super().__init__(**options)
        # A pool looks at each of its connections twice a request, so several small ones cost less than a large one.
        pools = [openai.DefaultAsyncHttpxClient(**options) for _ in range(0, params.concurrency, POOL)]
        self.pools, self.turn = pools, itertools.cycle(pools)
        self.bound, self.budget = params.timeout, budget
        self.requests = Bucket(params.requests_per_minute) if params.requests_per_minute else None
        self.tokens = Bucket(params.tokens_per_minute) if params.tokens_per_minute else None
        self.closed = False
        self.under_way: set[asyncio.Task[Any] | None] = set()

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        budget, characters = self.budget, len(request.content)
        if self.requests and not budget.stopped:
            await self.requests.take(1)
        if self.tokens and not budget.stopped:
            await self.tokens.take(budget.prompt(characters))
        estimate = None if self.closed else await budget.reserve(characters)
        if estimate is None:  # an answer of our own, which ends openai's retries
            return httpx2.Response(429, headers={"x-should-retry": "false"}, request=request)
        task = asyncio.current_task()
        self.under_way.add(task)
        used: tuple[int, int] | None = None  # what brings no whole answer may have been billed all the same
        try:  # the in-process transport knows no timeouts, and a server that dribbles meets none of httpx's
            async with asyncio.timeout(self.bound):
                response = await _whole(await next(self.turn).send(request, **{**options, "stream": True}))
            used = _used(response) if response.is_success else (0, 0)
            if response.status_code == 429 and _USED_UP.encode() in response.content:
                response.headers["x-should-retry"] = "false"
        except TimeoutError:
            raise httpx2.ReadTimeout("no whole answer in time", request=request) from None
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout):
            used = (0, 0)
            raise
        finally:
            self.under_way.discard(task)
            budget.settle(estimate, used)
        if self.tokens and used:
            self.tokens.charge(sum(used) - estimate.prompt)
        return response

    async def aclose(self) -> None:
        for pool in self.pools:
            await pool.aclose()
        await super().aclose()


async def _whole(response: httpx2.Response) -> httpx2.Response:
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


class Connection:
    """The way to a teacher from within this process."""

    def __init__(self, teacher: Teacher, store: Store | None) -> None:
        params = teacher.params
        self.teacher, self.store, self.door = teacher, store, _door(teacher)
        self.client = openai.AsyncOpenAI(
            api_key=teacher.key or _NO_KEY,
            base_url=f"http://{OFFLINE}/v1" if teacher.app else params.endpoint,
            http_client=self.door,
            timeout=params.timeout,
            max_retries=teacher.retries,
        )
        self.room = asyncio.Semaphore(params.concurrency)
        self.tasks: set[asyncio.Task[Any] | None] = set()  # that want an answer

    async def ask(self, request: dict[str, Any]) -> Answer:
        """The answer to a request that the store did not know.

        Raises:
            UserError: as `Session.ask`.
        """
        task = asyncio.current_task()
        self.tasks.add(task)
        try:
            if self.store is not None:
                return await self._claim_and_send(self.store, request)
            async with self.room:
                return await self._send(request)
        finally:
            self.tasks.discard(task)

    async def finish(self) -> None:
        """Wait for the answers to what has been sent, and drop what has not."""
        self.door.closed = True  # no retries any more
        left = [task for task in self.tasks if task is not None and task is not asyncio.current_task()]
        for task in left:
            if task not in self.door.under_way:
                task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self.client.close()

    async def _claim_and_send(self, store: Store, request: dict[str, Any]) -> Answer:
        """The answer of whoever is first to claim the question, this process or another that shares the store."""
        key = request_key(place(self.teacher.params.endpoint), request)
        wait = SHORTEST_WAIT
        while True:
            async with self.room:
                if store.claim(key):
                    try:
                        return store.put(key, await self._send(request))
                    except BaseException:  # cancelled, too
                        store.release(key)
                        raise
                answer = store.get(key)
            if answer is not None:
                return answer
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)

    async def _send(self, request: dict[str, Any]) -> Answer:
        teacher = self.teacher
        try:
            # Not `chat.completions.create`, which spends a fifth of the time here on objects that nobody keeps.
            response = await self.client.post("/chat/completions", body=request, cast_to=httpx2.Response)
        except openai.APIError as error:  # `from None`: the cause holds the request, and that holds the key
            if self.door.budget.stopped:
                raise UserError(stopped(teacher, self.door.budget.stopped)) from None
            if error.code == _USED_UP:
                raise UserError(
                    f"teacher at {place(teacher.params.endpoint)} says that the key's quota is used up; raise it or "
                    "set another key, and run again to go on"
                ) from None
            if isinstance(error, openai.BadRequestError) and (flag := flagged(teacher, error.body)):
                return flag  # of one question, and no reason to stop asking others
            heard = words(error.body)
            said = error.message if heard in error.message else f"{error.message} - {heard}"
            raise UserError(explain(teacher, type(error), said)) from None
        body = _body(response)
        answer = completed(teacher, body)
        if answer is None:  # gateways put their own errors into answers with status 200
            heard = words(body["error"]) if body and "error" in body else ""
            raise UserError(explain(teacher, openai.APIError if heard else openai.APIResponseValidationError, heard))
        return answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """An open line to a teacher."""

    teacher: Teacher
    store: Store | None
    way: Sender | Connection = field(repr=False)
    asked: dict[str, asyncio.Task[Answer]] = field(default_factory=dict)  # what waits for an answer, by its key

    @property
    def spent(self) -> Spent:
        """What the run has sent and what that took, so far."""
        return self.teacher.spent

    async def ask(self, messages: Sequence[Message]) -> Reply:
        """One answer to `messages`: the store's, that of an equal question under way, or the teacher's.

        Raises:
            Unanswered: nothing may be sent, and the store does not know the answer.
            UserError: the teacher cannot be reached, refuses the key or the model, or is no such API; no key is set;
                a cap is reached; the store cannot be used.
        """
        params = self.teacher.params
        return _reply(await self.answer({"model": params.model, "messages": list(messages), **params.request}))

    async def answer(self, request: dict[str, Any]) -> Answer:
        """What the server said to a whole request; raises as `ask`."""
        if self.store is None:
            return await self.way.ask(request)
        key = request_key(place(self.teacher.params.endpoint), request)
        known = self.store.get(key)
        if self.teacher.heard is not None:
            self.teacher.heard(key, request, known)
            if known is None:
                raise Unanswered(
                    f"{self.store.path}: not all answers of this run are here; run the stage that asks for them"
                )
        if known is None:
            if not self.teacher.key:
                where = place(self.teacher.params.endpoint)
                raise UserError(f"teacher at {where}: needs a key; set {KEY_VARIABLES[0]} in the environment")
            if key not in self.asked:
                self.asked[key] = asyncio.create_task(self.way.ask(request))
                self.asked[key].add_done_callback(lambda _: self.asked.pop(key))
            known = await asyncio.shield(self.asked[key])  # whoever waits may be cancelled, the request is paid for
        return known


def open_teacher(params: TeacherSettings, *, app: Any = None, retries: int = RETRIES, apart: bool = True) -> Teacher:
    """The teacher of `teacher.endpoint`: the offline one, or any OpenAI-compatible base URL.

    `app` puts another in-process teacher in the offline one's place. Those behind a network are asked by a process
    of its own (see `sender`), unless `apart` is false. A remote teacher without a key is no fault before something has
    to be sent: what the store knows needs none.

    Raises:
        UserError: the endpoint is no address, or the key is none that can be sent.
    """
    budget = Budget(params)
    if params.endpoint == OFFLINE:
        return Teacher(params=params, app=app or offline.app, key=_NO_KEY, budget=budget, retries=retries)
    try:
        address = urlsplit(params.endpoint)
        usable = address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
    except ValueError:  # a port that is no number, a bracket left open
        usable = False
    if not usable:
        raise UserError(
            f"params.yaml: teacher.endpoint should be {OFFLINE} or a base URL such as https://host/v1; mend it"
        )
    key = next((value for name in KEY_VARIABLES if (value := os.environ.get(name, "").strip())), "")
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"teacher at {place(params.endpoint)}: the key has characters no header can carry; set it anew")
    if not key and is_loopback(params.endpoint):
        key = _NO_KEY
    return Teacher(params=params, app=None, key=key, budget=budget, retries=retries, store=store_path(), apart=apart)


def open_replay(params: TeacherSettings, heard: Heard) -> Teacher:
    """The same teacher, answering from the store alone: nothing is sent, and `heard` is told of every question.

    Raises:
        UserError: as `open_teacher`, or the teacher is the offline one, which has no store.
    """
    if params.endpoint == OFFLINE:
        raise UserError(
            "params.yaml: teacher.endpoint is offline, whose answers are free and the same everywhere, "
            "so none are kept; name another teacher"
        )
    return replace(open_teacher(params), heard=heard)


def store_path() -> Path:
    """Where answers are kept: $THINKREC_STORE, else `RESPONSES` (which does not outlast a queued experiment)."""
    return Path(os.environ.get("THINKREC_STORE", "").strip() or RESPONSES)


def place(endpoint: str) -> str:
    """Where a teacher is, fit for a message: no user, password or query of its address."""
    if endpoint == OFFLINE:
        return OFFLINE
    address = urlsplit(endpoint)
    return f"{address.scheme}://{address.netloc.rpartition('@')[2]}{address.path}"


def _door(teacher: Teacher) -> _Door:
    if teacher.app:
        return _Door(teacher.params, teacher.budget, transport=httpx2.ASGITransport(app=teacher.app))
    # A proxy of the environment has no way to this machine.
    return _Door(teacher.params, teacher.budget, trust_env=not is_loopback(teacher.params.endpoint))


def is_loopback(endpoint: str) -> bool:
    return urlsplit(endpoint).hostname in _LOOPBACK


def _body(response: httpx2.Response) -> dict[str, Any] | None:
    """The JSON object that a response holds, None where it holds none, whatever its type says."""
    try:
        found = json.loads(response.content)
    except (ValueError, RecursionError):  # nested deeper than anybody reads
        return None
    return found if isinstance(found, dict) else None


def _used(response: httpx2.Response) -> tuple[int, int] | None:
    return usage(_body(response) or {})


def completed(teacher: Teacher, body: dict[str, Any] | None) -> Answer | None:
    """What is kept of a completion, None of anything else; generic servers leave out what the format says is there.

    A key that a server echoes goes no further, since answers are shared; one too short for a secret may be any word.
    """
    choices = body.get("choices") if body else None
    if not body or not isinstance(choices, list):
        return None
    choice = as_object(choices[0]) if choices else {}
    message = as_object(choice.get("message"))
    prompt, completion = usage(body) or (0, 0)
    texts = {
        "content": _content(message.get("content")),
        "reasoning_content": _text(message.get("reasoning_content")),
        "refusal": _text(message.get("refusal")),
        "finish_reason": _text(choice.get("finish_reason")),
    }
    if len(teacher.key) >= LEAST_SECRET:
        texts = {name: _hidden(teacher, text) for name, text in texts.items()}
    return Answer(
        **texts,
        prompt_tokens=prompt,
        completion_tokens=completion,
    )


def flagged(teacher: Teacher, error: object) -> Answer | None:
    """What stands for the answer to a question that the host did not pass on to the model, by the error of a 400.

    None: the error is another one.
    """
    if as_object(error).get("code") not in _FLAGGED:
        return None
    return Answer(
        content="",
        reasoning_content="",
        refusal=_hidden(teacher, words(error)),
        finish_reason="content_filter",
        prompt_tokens=0,
        completion_tokens=0,
    )


def words(error: object) -> str:
    """What a server's error says, in whichever of the usual places."""
    found = as_object(error)
    return _text(found.get("message") or found.get("detail") or error)


def as_object(value: object) -> dict[str, Any]:
    """A JSON object, empty for what is none."""
    return value if isinstance(value, dict) else {}


def _text(said: object) -> str:
    """A text, empty for what is none; JSON can spell halves of characters that no file can hold."""
    return said.encode(errors="replace").decode() if isinstance(said, str) else ""


def _content(said: object) -> str:
    """A message's text, which some servers give in parts; parts of another type (such as thinking) are left out."""
    if not isinstance(said, list):
        return _text(said)
    return "".join(_text(part.get("text")) for part in map(as_object, said) if part.get("type") == "text")


def _reply(answer: Answer) -> Reply:
    return Reply(
        text=_SCRATCH.sub("", answer.content).strip(),
        finish_reason=answer.finish_reason,
        refused=bool(answer.refusal) or answer.finish_reason == "content_filter",
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
        reasoning=answer.reasoning_content.strip(),
    )


def capped(params: TeacherSettings, cap: str) -> str:
    """Which cap a run has reached, in words."""
    said = f"run.{cap}={getattr(params, cap)}"
    return f"all {said} of this run are sent" if cap == "max_requests" else f"{said} has no room for another request"


def stopped(teacher: Teacher, cap: str) -> str:
    """One line: which cap, what was spent, how to go on."""
    said = f"teacher at {place(teacher.params.endpoint)}: {capped(teacher.params, cap)}"
    kept = f"is in {teacher.store}, so run again to go on" if teacher.store else "is lost; raise it"
    return f"{said}; what they brought ({teacher.spent}) {kept}"


def masked(teacher: Teacher, said: str) -> str:
    """A server's own words on one line, without the key: a refusal of one often repeats it."""
    said = " ".join(_hidden(teacher, said).split())[:200]
    return "".join(char for char in said if char.isprintable())  # nothing that steers a terminal


def _hidden(teacher: Teacher, said: str) -> str:
    return said.replace(teacher.key, "***") if teacher.key else said


def explain(teacher: Teacher, kind: type[Exception], said: str) -> str:
    """One line: which teacher, what went wrong (`said` by the server), what to do."""
    values = {
        "model": repr(teacher.params.model),
        "retries": teacher.retries,
        "timeout": teacher.params.timeout,
        "heard": masked(teacher, said),
    }
    unknown = "failed ({heard}); check teacher.endpoint and teacher.model"
    text = next((advice for error, advice in _ADVICE if issubclass(kind, error)), unknown)
    return f"teacher at {place(teacher.params.endpoint)} {text.format(**values)}"
