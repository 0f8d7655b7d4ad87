"""The teacher as an OpenAI-compatible endpoint, reached through the `openai` client whatever it is.

The embedded teacher runs in this process behind the same client, over an in-process transport, so the default run
goes through the code that a paid run goes through. Retries are the client's own; nothing here repeats a call.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai
from openai.types.chat import ChatCompletion

from thinkrec.errors import UserError
from thinkrec.params import TeacherParams
from thinkrec.synthesis import embedded
from thinkrec.synthesis.prompts import Message

EMBEDDED = "embedded"
KEY_VARIABLES = ("THINKREC_TEACHER_KEY", "OPENAI_API_KEY")
RETRIES = 5

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_NO_KEY = "no-key-needed"
# Reasoning models behind generic servers leave their scratch work in the answer.
_SCRATCH = re.compile(r"\A\s*<think>.*?(?:</think>|\Z)", re.DOTALL)

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer: its text ("" where there is none) and what the server says of it."""

    text: str
    finish_reason: str
    refused: bool
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """A teacher that can be asked: open a `session` inside a running event loop, then `ask` it."""

    params: TeacherParams
    app: Any  # the ASGI app of an in-process teacher, None for one behind a network
    key: str = field(repr=False)
    retries: int = RETRIES

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """Connections that live as long as the block; never more than `concurrency` questions at a time."""
        async with openai.AsyncOpenAI(
            api_key=self.key,
            base_url=f"http://{EMBEDDED}/v1" if self.app else self.params.endpoint,
            http_client=_transport(self),
            timeout=self.params.timeout,
            max_retries=self.retries,
        ) as client:
            yield Session(teacher=self, client=client, room=asyncio.Semaphore(self.params.concurrency))


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """An open connection to a teacher."""

    teacher: Teacher
    client: openai.AsyncOpenAI = field(repr=False)
    room: asyncio.Semaphore = field(repr=False)

    async def ask(self, messages: Sequence[Message]) -> Reply:
        """One answer to `messages`.

        Raises:
            UserError: the teacher cannot be reached, refuses the key or the model, or is no such API.
        """
        teacher = self.teacher
        # The in-process transport knows no timeouts, so the whole call, retries included, is bounded here too.
        bound = teacher.params.timeout * (teacher.retries + 1)
        try:
            async with self.room, asyncio.timeout(bound):
                answer = await self.client.chat.completions.create(
                    model=teacher.params.model,
                    messages=messages,  # type: ignore[arg-type]  # plain dicts of the right keys
                )
        except TimeoutError:
            raise UserError(_explain(teacher, openai.APITimeoutError, "")) from None
        except openai.APIError as error:  # `from None`: the cause holds the request, and that holds the key
            raise UserError(_explain(teacher, type(error), str(error.message))) from None
        except ValueError:  # the body is no JSON, whatever its type says
            answer = None
        if not isinstance(answer, ChatCompletion):  # a web page with status 200 comes back as a string
            raise UserError(_explain(teacher, openai.APIResponseValidationError, ""))
        return _reply(answer)


def open_teacher(params: TeacherParams, *, app: Any = None, retries: int = RETRIES) -> Teacher:
    """The teacher of `teacher.endpoint`: the embedded one, or any OpenAI-compatible base URL.

    `app` puts another in-process teacher in the embedded one's place.

    Raises:
        UserError: the endpoint is no address, or a key is needed and none is set.
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
    if not key and not _is_loopback(params.endpoint):
        raise UserError(f"teacher at {place(params.endpoint)}: needs a key; set {KEY_VARIABLES[0]} in the environment")
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"teacher at {place(params.endpoint)}: the key has characters no header can carry; set it anew")
    return Teacher(params=params, app=None, key=key or _NO_KEY, retries=retries)


def place(endpoint: str) -> str:
    """Where a teacher is, fit for a message: no user, password or query of its address."""
    if endpoint == EMBEDDED:
        return EMBEDDED
    address = urlsplit(endpoint)
    return f"{address.scheme}://{address.netloc.rpartition('@')[2]}{address.path}"


def _transport(teacher: Teacher) -> httpx2.AsyncClient | None:
    if teacher.app:
        return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=teacher.app))
    if _is_loopback(teacher.params.endpoint):
        return openai.DefaultAsyncHttpxClient(trust_env=False)  # a proxy of the environment has no way to this machine
    return None


def _is_loopback(endpoint: str) -> bool:
    return urlsplit(endpoint).hostname in _LOOPBACK


def _reply(answer: ChatCompletion) -> Reply:
    """The parts of an answer that count; generic servers leave out what the format says is always there."""
    usage = answer.usage
    choice = answer.choices[0] if answer.choices else None
    message = choice.message if choice else None
    text = (message.content if message else None) or ""
    text = text.encode(errors="replace").decode()  # JSON can spell halves of characters that no file can hold
    return Reply(
        text=_SCRATCH.sub("", text).strip(),
        finish_reason=(choice.finish_reason if choice else None) or "",
        refused=bool(message and message.refusal) or bool(choice and choice.finish_reason == "content_filter"),
        prompt_tokens=(usage.prompt_tokens if usage else None) or 0,
        completion_tokens=(usage.completion_tokens if usage else None) or 0,
    )


def _explain(teacher: Teacher, kind: type[Exception], said: str) -> str:
    """One line: which teacher, what went wrong, what to do."""
    values = {
        "model": repr(teacher.params.model),
        "retries": teacher.retries,
        "timeout": teacher.params.timeout,
    }
    # The server's own words only where we have none: a refusal of a key often repeats the key.
    heard = " ".join(said.replace(teacher.key, "***").split())[:200]
    unknown = f"failed ({heard}); check teacher.endpoint and teacher.model"
    text = next((advice.format(**values) for error, advice in _ADVICE if issubclass(kind, error)), unknown)
    return f"teacher at {place(teacher.params.endpoint)} {text}"
