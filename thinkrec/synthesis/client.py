"""The teacher as an OpenAI-compatible endpoint, reached through the `openai` client whatever it is.

The embedded teacher runs in this process behind the same client, over an in-process transport, so the default run
goes through the code that a paid run goes through. Retries are the client's own (Retry-After honoured up to two
minutes); nothing here repeats a call. A teacher behind a network is asked only what the response store does not know;
the embedded one is free and says the same every time, so it needs no store.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai
from openai.types.chat import ChatCompletion

from thinkrec.artifacts import RESPONSES
from thinkrec.errors import UserError
from thinkrec.params import TeacherParams
from thinkrec.synthesis import embedded
from thinkrec.synthesis.limits import Bucket
from thinkrec.synthesis.prompts import Message
from thinkrec.synthesis.store import Answer, Store, open_store, request_key

EMBEDDED = "embedded"
KEY_VARIABLES = ("THINKREC_TEACHER_KEY", "OPENAI_API_KEY")
RETRIES = 5
CHARACTERS_PER_TOKEN = 4  # of a request, until its answer says how many tokens it was

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_NO_KEY = "no-key-needed"
# Reasoning models behind generic servers leave their scratch work in the answer, its opening tag often in the prompt.
_SCRATCH = re.compile(r"\A.*</think>|<think>.*\Z", re.DOTALL)

# The first line that fits says what to do; subclasses stand before their bases.
_ADVICE: tuple[tuple[type[openai.OpenAIError], str], ...] = (
    (openai.AuthenticationError, f"refused the key; set {KEY_VARIABLES[0]} to a valid one"),
    (openai.PermissionDeniedError, "forbids this key the model {model}; choose another teacher.model or key"),
    (openai.NotFoundError, "does not know the model {model}, or is no such API; mend teacher.model or .endpoint"),
    (openai.RateLimitError, "still turned us away after {retries} retries (rate limit or quota); lower "
                            "teacher.concurrency or mend the quota"),
    (openai.APITimeoutError, "gave no answer within {timeout:g} s; raise teacher.timeout or lower "
                             "teacher.concurrency"),
    (openai.APIConnectionError, "cannot be reached; check teacher.endpoint, and that the server runs"),
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

    params: TeacherParams
    app: Any  # the ASGI app of an in-process teacher, None for one behind a network
    key: str = field(repr=False)
    retries: int = RETRIES
    store: Path | None = None  # of the answers; None: every question is sent
    heard: Heard | None = None  # where given, nothing is sent, and it is told of every question

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """Connections that live as long as the block; never more than `concurrency` requests at a time.

        However the block ends, answers to what has been sent are waited for and kept: they are paid for.

        Raises:
            UserError: the store cannot be used.
        """
        door = _door(self)
        async with openai.AsyncOpenAI(
            api_key=self.key or _NO_KEY,
            base_url=f"http://{EMBEDDED}/v1" if self.app else self.params.endpoint,
            http_client=door,
            timeout=self.params.timeout,
            max_retries=self.retries,
        ) as client:
            with open_store(self.store) if self.store else nullcontext() as store:
                room = asyncio.Semaphore(self.params.concurrency)
                session = Session(teacher=self, client=client, door=door, room=room, store=store)
                try:
                    yield session
                finally:
                    await session.finish()


class _Door(openai.DefaultAsyncHttpxClient):
    """What every request goes through on its way out, retries too: the cap, the limits per minute, the timeout."""

    def __init__(self, params: TeacherParams, **options: Any) -> None:
        super().__init__(**options)
        self.bound, self.most, self.sent = params.timeout, params.max_requests, 0
        self.requests = Bucket(params.requests_per_minute) if params.requests_per_minute else None
        self.tokens = Bucket(params.tokens_per_minute) if params.tokens_per_minute else None
        self.refused = False  # whether the cap has kept anything back
        self.under_way: set[asyncio.Task[Any] | None] = set()

    @property
    def spent(self) -> bool:
        """Whether this run has sent all that it may."""
        return self.most is not None and self.sent >= self.most

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        if self.requests and not self.spent:
            await self.requests.take(1)
        if self.tokens and not self.spent:
            await self.tokens.take(_tokens(request.content))
        if self.spent:  # an answer of our own, which ends openai's retries
            self.refused = True
            return httpx2.Response(429, headers={"x-should-retry": "false"}, request=request)
        self.sent += 1
        task = asyncio.current_task()
        self.under_way.add(task)
        try:  # the in-process transport knows no timeouts, and a server that dribbles meets none of httpx's
            async with asyncio.timeout(self.bound):
                response = await super().send(request, **options)
        except TimeoutError:
            raise httpx2.ReadTimeout("no whole answer in time", request=request) from None
        finally:
            self.under_way.discard(task)
        return response


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """An open connection to a teacher."""

    teacher: Teacher
    client: openai.AsyncOpenAI = field(repr=False)
    door: _Door = field(repr=False)
    room: asyncio.Semaphore = field(repr=False)
    store: Store | None
    asked: dict[str, asyncio.Task[Answer]] = field(default_factory=dict)  # what waits for an answer, by its key

    @property
    def sent(self) -> int:
        """Requests sent so far, retries included."""
        return self.door.sent

    async def ask(self, messages: Sequence[Message]) -> Reply:
        """One answer to `messages`: the store's, that of an equal question under way, or the teacher's.

        Raises:
            Unanswered: nothing may be sent, and the store does not know the answer.
            UserError: the teacher cannot be reached, refuses the key or the model, or is no such API; no key is set;
                `max_requests` are sent; the store cannot be used.
        """
        request: Request = {"model": self.teacher.params.model, "messages": list(messages)}
        if self.store is None:
            async with self.room:
                return _reply(await self._send(request))
        key = request_key(place(self.teacher.params.endpoint), request)
        known = self.store.get(key)
        if self.teacher.heard is not None:
            self.teacher.heard(key, request, known)
            if known is None:
                raise Unanswered(
                    f"{self.store.path}: not all answers of this run are here; run the stage that asks for them"
                )
        if known is None:
            if key not in self.asked:
                self.asked[key] = asyncio.create_task(self._send_and_keep(key, request))
            known = await asyncio.shield(self.asked[key])  # whoever waits may be cancelled, the request is paid for
        return _reply(known)

    async def finish(self) -> None:
        """Wait for the answers to what has been sent, and drop what has not."""
        self.door.most = 0  # no retries any more
        left = list(self.asked.values())
        for task in left:
            if task not in self.door.under_way:
                task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _send_and_keep(self, key: str, request: dict[str, Any]) -> Answer:
        assert self.store is not None
        try:
            async with self.room:
                # Another process may have asked while this question waited.
                return self.store.get(key) or self.store.put(key, await self._send(request))
        finally:
            del self.asked[key]

    async def _send(self, request: dict[str, Any]) -> Answer:
        teacher = self.teacher
        where = place(teacher.params.endpoint)
        if not teacher.key:
            raise UserError(f"teacher at {where}: needs a key; set {KEY_VARIABLES[0]} in the environment")
        try:
            answer = await self.client.chat.completions.create(**request)
        except openai.APIError as error:  # `from None`: the cause holds the request, and that holds the key
            if self.door.refused:
                kept = f"what they brought is in {self.store.path}, so run again to go on" if self.store else "raise it"
                raise UserError(
                    f"teacher at {where}: all teacher.max_requests={self.door.most} of this run are sent; {kept}"
                ) from None
            raise UserError(_explain(teacher, type(error), str(error.message))) from None
        except ValueError:  # the body is no JSON, whatever its type says
            answer = None
        if not isinstance(answer, ChatCompletion):  # a web page with status 200 comes back as a string
            raise UserError(_explain(teacher, openai.APIResponseValidationError, ""))
        if self.door.tokens and answer.usage:
            self.door.tokens.charge((answer.usage.total_tokens or 0) - _tokens(str(request)))
        return _answer(answer)


def open_teacher(params: TeacherParams, *, app: Any = None, retries: int = RETRIES) -> Teacher:
    """The teacher of `teacher.endpoint`: the embedded one, or any OpenAI-compatible base URL.

    `app` puts another in-process teacher in the embedded one's place. A remote teacher without a key is no fault
    before something has to be sent: what the store knows needs none.

    Raises:
        UserError: the endpoint is no address, or the key is none that can be sent.
    """
    if params.endpoint == EMBEDDED:
        return Teacher(params=params, app=app or embedded.app, key=_NO_KEY, retries=retries)
    try:
        address = urlsplit(params.endpoint)
        usable = address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
    except ValueError:  # a port that is no number, a bracket left open
        usable = False
    if not usable:
        raise UserError(
            f"params.yaml: teacher.endpoint should be {EMBEDDED} or a base URL such as https://host/v1; mend it"
        )
    key = next((value for name in KEY_VARIABLES if (value := os.environ.get(name, "").strip())), "")
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"teacher at {place(params.endpoint)}: the key has characters no header can carry; set it anew")
    if not key and _is_loopback(params.endpoint):
        key = _NO_KEY
    return Teacher(params=params, app=None, key=key, retries=retries, store=store_path())


def open_replay(params: TeacherParams, heard: Heard) -> Teacher:
    """The same teacher, answering from the store alone: nothing is sent, and `heard` is told of every question.

    Raises:
        UserError: as `open_teacher`, or the teacher is the embedded one, which has no store.
    """
    if params.endpoint == EMBEDDED:
        raise UserError(
            "params.yaml: teacher.endpoint is embedded, whose answers are free and the same everywhere, "
            "so none are kept; name another teacher"
        )
    return replace(open_teacher(params), heard=heard)


def store_path() -> Path:
    """Where answers are kept: $THINKREC_STORE, else `RESPONSES` (which does not outlast a queued experiment)."""
    return Path(os.environ.get("THINKREC_STORE", "").strip() or RESPONSES)


def place(endpoint: str) -> str:
    """Where a teacher is, fit for a message: no user, password or query of its address."""
    if endpoint == EMBEDDED:
        return EMBEDDED
    address = urlsplit(endpoint)
    return f"{address.scheme}://{address.netloc.rpartition('@')[2]}{address.path}"


def _door(teacher: Teacher) -> _Door:
    if teacher.app:
        return _Door(teacher.params, transport=httpx2.ASGITransport(app=teacher.app))
    # A proxy of the environment has no way to this machine.
    return _Door(teacher.params, trust_env=not _is_loopback(teacher.params.endpoint))


def _is_loopback(endpoint: str) -> bool:
    return urlsplit(endpoint).hostname in _LOOPBACK


def _answer(answer: ChatCompletion) -> Answer:
    """What is kept of an answer; generic servers leave out what the format says is always there."""
    usage = answer.usage
    choice = answer.choices[0] if answer.choices else None
    message = choice.message if choice else None
    return Answer(
        content=_text(message and message.content),
        reasoning_content=_text(getattr(message, "reasoning_content", None)),
        refusal=_text(message and message.refusal),
        finish_reason=_text(choice and choice.finish_reason),
        prompt_tokens=(usage.prompt_tokens if usage else None) or 0,
        completion_tokens=(usage.completion_tokens if usage else None) or 0,
    )


def _text(said: object) -> str:
    """A text, empty for what is none; JSON can spell halves of characters that no file can hold."""
    return said.encode(errors="replace").decode() if isinstance(said, str) else ""


def _reply(answer: Answer) -> Reply:
    return Reply(
        text=_SCRATCH.sub("", answer.content).strip(),
        finish_reason=answer.finish_reason,
        refused=bool(answer.refusal) or answer.finish_reason == "content_filter",
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
        reasoning=answer.reasoning_content.strip(),
    )


def _tokens(body: bytes | str) -> float:
    """How many tokens a request's body will turn out to be, roughly."""
    return len(body) / CHARACTERS_PER_TOKEN


def _explain(teacher: Teacher, kind: type[Exception], said: str) -> str:
    """One line: which teacher, what went wrong, what to do."""
    values = {
        "model": repr(teacher.params.model),
        "retries": teacher.retries,
        "timeout": teacher.params.timeout,
    }
    # The server's own words only where we have none: a refusal of a key often repeats the key.
    heard = " ".join((said.replace(teacher.key, "***") if teacher.key else said).split())[:200]
    unknown = f"failed ({heard}); check teacher.endpoint and teacher.model"
    text = next((advice.format(**values) for error, advice in _ADVICE if issubclass(kind, error)), unknown)
    return f"teacher at {place(teacher.params.endpoint)} {text}"
