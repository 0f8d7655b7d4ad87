"""Asking a teacher: many questions at a time, each paid for once, and an orderly end.

A server is reached through the `openai` client. The offline teacher is a function of this process that gives the same
responses, so the default run goes through the code that a paid run goes through.

A question's way: `Session.ask` looks into the store; `_keep` waits for its turn and stores the answer; `_answer` asks
until there is one; `_send` sends one request within the budget; `_judge` alone decides what its response comes to: an
answer to keep, a failure to ask again, or one that ends the run. What a kept answer is worth, the stage decides.

Who sends holds the store's lock until it is done: of two runs at once, the second waits and then finds the first one's
answers. Ctrl-C and SIGTERM end a run in order: nothing more is sent, answers under way are waited for (at most
run.timeout) and kept. A second one ends it at once. SIGKILL may lose what was under way.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx2
import openai
from filelock import Timeout

from thinkrec.errors import UserError
from thinkrec.progress import track, write
from thinkrec.teacher.answers import (
    SET_ASIDE,
    TURNED_DOWN,
    Answer,
    as_object,
    error_status,
    error_text,
    parse_object,
    read_error,
    read_usage,
    read_wait,
)
from thinkrec.teacher.budget import FIRST_PAUSE, LONGEST_PAUSE, Pace
from thinkrec.teacher.endpoint import Request, Teacher
from thinkrec.teacher.store import Store, open_store, request_key, store_lock
from thinkrec.teacher.trace_prompts import Message

LOCK_PAUSE = 0.1  # seconds between looks at another run's lock
SLOW_TRIES = 2  # of a question that was not answered in time: a slow server goes on with what was abandoned
MOST_SET_ASIDE = 10  # questions turned down one after the other, from which it is not their own fault
LONGEST_RESPONSE = 2**25  # bytes
POOL = 8  # connections
_KINDS: dict[int, type[Exception]] = {  # what `openai` calls a status
    401: openai.AuthenticationError,
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    429: openai.RateLimitError,
}
QUOTA_USED_UP = "insufficient_quota"  # what hosts call it where waiting does not help, with the status of a rate limit
STOPPED_BY = (signal.SIGINT, signal.SIGTERM)

Topic = TypeVar("Topic")
Result = TypeVar("Result")


class Unanswered(UserError):
    """A question that the store has no answer to, where nothing may be sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A request that brought no answer."""

    line: UserError  # which ends the run, unless it is asked again
    again: bool = False  # whether that may help
    turned_away: bool = False  # as all others would be, for a while
    slow: bool = False  # no answer in time
    alone: bool = False  # whether it may be this question's own fault
    wait: float = 0.0  # seconds that the server asks for before; 0: it names none


class Session:
    """An open line to a teacher; `open_session` opens one."""

    def __init__(self, teacher: Teacher, store: Store | None) -> None:
        self.teacher, self.store = teacher, store
        # A pool looks at each of its connections twice a request, so several small ones cost less than a large one.
        pools = 0 if teacher.respond else -(-teacher.params.concurrency // POOL)
        self.clients = [_open_client(teacher) for _ in range(pools)]
        self.next_client = itertools.cycle(self.clients)
        self.lock = store_lock(store.path) if store else None
        self.room = asyncio.Semaphore(teacher.params.concurrency)
        self.waiting = False  # for another run's lock
        self.closed = False
        self.questions: dict[str, asyncio.Task[Answer]] = {}  # what waits for an answer, by its key
        self.under_way: set[asyncio.Task[Any] | None] = set()  # tasks whose request is sent and not answered
        self.limits: dict[asyncio.Timeout, float] = {}  # of requests under way, and the seconds that each allows
        self.pace = Pace(teacher.patience)
        self.taken = False  # whether the teacher has answered any question of this run, now or before
        self.set_aside: list[UserError] = []  # what was said of questions turned down, since the last answer

    async def ask(self, messages: Sequence[Message]) -> Answer:
        """One answer to `messages`: the store's, that of an equal question under way, or the teacher's.

        Raises `Unanswered` where nothing may be sent and the store does not know the answer.
        """
        params = self.teacher.params
        request = {"model": params.model, "messages": list(messages), **params.request}
        if self.store is None:
            async with self.room:
                return await self._answer(request)
        key = request_key(self.teacher.place, request)
        answer = self.store.get(key)
        if self.teacher.listener is not None:
            self.teacher.listener(key, request, answer)
            if answer is None:
                raise Unanswered(
                    f"{self.store.path}: not all answers of this run are here; run the stage that asks for them"
                )
        if answer is not None:
            self.taken = self.taken or not answer.final
            return answer
        self.teacher.require_key()
        if key not in self.questions:
            self.questions[key] = asyncio.create_task(self._keep(self.store, key, request))
            self.questions[key].add_done_callback(lambda _: self.questions.pop(key))
        return await asyncio.shield(self.questions[key])  # whoever waits may be cancelled, but the request is paid for

    async def finish(self) -> None:
        """Drop what has not been sent, and wait for the rest: at most run.timeout seconds."""
        self.closed = True
        tasks = list(self.questions.values())
        for task in tasks:
            if task not in self.under_way:
                task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=self.teacher.params.timeout)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for client in self.clients:
            await client.close()
        if self.lock:
            self.lock.release(force=True)

    async def _keep(self, store: Store, key: str, request: Request) -> Answer:
        async with self.room:
            await self._wait_for_lock()
            answer = store.get(key)  # a run that held the lock before may have asked it
            answer = answer or await self._answer(request)
            return answer if answer.finish_reason == SET_ASIDE else store.put(key, answer)

    async def _wait_for_lock(self) -> None:
        assert self.lock is not None
        while not self.lock.is_locked:
            try:
                self.lock.acquire(blocking=False)
            except Timeout:
                if not self.waiting:
                    write(f"waiting for another run, which holds {self.lock.lock_file}")
                self.waiting = True
                await asyncio.sleep(LOCK_PAUSE)

    async def _answer(self, request: Request) -> Answer:
        """The teacher's answer, asked for again while that may help; a refusal where it turns down this question alone.

        While the teacher turns requests away, the run pauses as a whole (`Pace`): that takes patience, and no retries.
        """
        attempt = 0
        while True:
            sent = 0.0 if self.teacher.respond else await self.pace.take()
            outcome = await self._send(request, attempt)
            if isinstance(outcome, Answer) and not outcome.final:
                self.pace.note_answer(sent)
                self.taken = True
                self.set_aside.clear()
                return outcome
            if isinstance(outcome, Answer) or outcome.alone:
                return self._set_aside(outcome)
            if outcome.turned_away and outcome.again and not self.closed and self.pace.pause(sent, outcome.wait):
                continue
            tries = min(SLOW_TRIES - 1, self.teacher.retries) if outcome.slow else self.teacher.retries
            if outcome.turned_away or not outcome.again or attempt >= tries or self.closed:
                raise outcome.line
            pause = min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE) * random.uniform(0.75, 1)
            await asyncio.sleep(outcome.wait or pause)
            attempt += 1

    def _set_aside(self, outcome: Answer | Failure) -> Answer:
        """The refusal that a question gets which the host turned down; raises where it turns down one after the other.

        Whether it was this question's own fault, others tell: see `ask_about`.
        """
        if isinstance(outcome, Answer):
            answer, line = outcome, self.teacher.fault(openai.BadRequestError, outcome.refusal)
        else:
            answer, line = Answer(refusal=str(outcome.line), finish_reason=SET_ASIDE), outcome.line
        self.set_aside.append(line)
        if len(self.set_aside) >= MOST_SET_ASIDE:
            raise line
        return answer

    async def _send(self, request: Request, attempt: int) -> Answer | Failure:
        """What one request comes to, as soon as the budget has room for it.

        The time-out counts from the last answer to any request, since a server may work on one at a time. A second try
        is given twice as long: the server may still be busy with the first.
        """
        budget, task = self.teacher.budget, asyncio.current_task()
        estimate = await budget.reserve(len(json.dumps(request)))
        if estimate is None:
            return Failure(line=self.teacher.cap_reached())
        used: tuple[int, int] | None = None  # what brings no whole answer may have been billed all the same
        self.under_way.add(task)
        seconds = self.teacher.params.timeout * (1 + attempt)
        limit = asyncio.timeout(seconds)
        try:  # a teacher in this process knows no time-outs, and a server that dribbles meets none of httpx's
            async with limit:
                self.limits[limit] = seconds
                if self.teacher.respond:
                    status, body = await self.teacher.respond(request)
                    response = httpx2.Response(status, json=body)
                else:
                    # Not `chat.completions.create`, which spends a fifth of the time on objects that nobody keeps.
                    client = next(self.next_client)
                    response = await client.post("/chat/completions", body=request, cast_to=httpx2.Response)
            used = read_usage(parse_object(response.content))
            outcome = self._judge(response)
            if isinstance(outcome, Answer) and not self.teacher.respond:
                now = asyncio.get_running_loop().time()
                for other, allowed in self.limits.items():
                    if other is not limit and not other.expired():
                        other.reschedule(now + allowed)
            return outcome
        except openai.APIStatusError as error:
            used = (0, 0)
            return self._judge(error.response)
        except TimeoutError:
            return Failure(line=self.teacher.fault(openai.APITimeoutError), again=True, slow=True)
        except openai.APIConnectionError as error:
            if isinstance(error.__cause__, (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)):
                used = (0, 0)
            return Failure(line=self.teacher.fault(type(error)), again=True)
        finally:
            self.under_way.discard(task)
            self.limits.pop(limit, None)
            budget.settle(estimate, used)

    def _judge(self, response: httpx2.Response) -> Answer | Failure:
        """What a response comes to: an answer (a refusal, too), a failure to ask again, or one that ends the run."""
        teacher, body, status = self.teacher, parse_object(response.content), response.status_code
        answer = teacher.read_answer(status, body)
        if answer is not None:
            return answer
        error = read_error(body)
        text = error_text(error)
        if status < 400:  # gateways put their own errors into answers, or nothing where one was due
            if not error and not isinstance(body.get("choices", ""), list | None):
                cut_off = not body and response.content.lstrip()[:1] in (b"", b"{")
                return Failure(line=teacher.fault(openai.APIResponseValidationError), again=cut_off)
            status = error_status(error) or 502
            text = text or "an answer without a word"
        else:
            text = f"Error code: {status} - {text or error_text(body) or response.text}"
        if QUOTA_USED_UP in (as_object(error).get("code"), as_object(error).get("type")):
            line = "says that the key's quota is used up; raise it or set another key, and run again to go on"
            return Failure(line=UserError(f"teacher at {teacher.place} {line}"))
        wait = read_wait(response.headers)
        by_status = status in (408, 409, 429) or status >= 500
        again = {"true": True, "false": False}.get(response.headers.get("x-should-retry", ""), by_status)
        kind = _KINDS.get(status, openai.InternalServerError if status >= 500 else openai.APIError)
        return Failure(
            line=teacher.fault(kind, text),
            again=again and wait <= teacher.patience,
            turned_away=status == 429,
            alone=status in TURNED_DOWN and not again,
            wait=wait,
        )


@asynccontextmanager
async def open_session(teacher: Teacher) -> AsyncIterator[Session]:
    """A session inside a running event loop: never more than `concurrency` requests at a time.

    However the block ends, answers to what has been sent are waited for and kept: they are paid for.
    """
    with open_store(teacher.store) if teacher.store else nullcontext() as store:
        session = Session(teacher, store)
        try:
            yield session
        finally:
            await session.finish()


def ask_about(
    teacher: Teacher,
    topics: Sequence[Topic],
    conversation: Callable[[Session, Topic], Awaitable[Result]],
    *,
    progress: str,
    unit: str,
) -> list[Result]:
    """What a conversation about each of `topics` comes to, in their order; `concurrency` of them at a time.

    Workers share one queue, so a slow answer holds up only its own conversation. `progress` names the bar on stderr,
    which counts in `unit`; an empty name shows none. Where a teacher answers from the store
    alone, all topics are tried before `Unanswered` is raised.
    """
    results: dict[int, Result] = {}
    unanswered: list[Unanswered] = []
    stopped_by: list[str] = []
    queue = iter(enumerate(topics))
    bar = track(name=progress, total=len(topics), unit=f" {unit}")

    async def take_from_queue(session: Session) -> None:
        for number, topic in queue:
            try:
                results[number] = await conversation(session, topic)
            except Unanswered as error:
                unanswered.append(error)
            bar.set_postfix_str(str(teacher.spent), refresh=False)
            bar.update()

    async def run() -> None:
        _cancel_on_signals(stopped_by)
        async with open_session(teacher) as session, asyncio.TaskGroup() as group:
            for _ in range(min(teacher.params.concurrency, len(topics))):
                group.create_task(take_from_queue(session))
        if session.set_aside and not session.taken:  # it was not the questions' own fault
            raise session.set_aside[0]

    failures: list[BaseException] = []
    try:
        with bar:
            asyncio.run(run())
    except* UserError as group:
        failures.append(group.exceptions[0])
    except* asyncio.CancelledError:
        kept = f"all that was answered is in {teacher.store}" if teacher.store else "nothing is kept"
        failures.append(UserError(f"stopped by {stopped_by[0]}; {kept}; run again to go on"))
    for error in [*failures, *unanswered]:
        raise error  # the first, and outside: within, it would be wrapped in a group again
    return [results[number] for number in range(len(topics))]


class _BoundedClient(openai.DefaultAsyncHttpxClient):
    """An HTTP client that reads no response that does not end: it puts a server's error in its place."""

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        response = await super().send(request, **{**options, "stream": True})
        body = bytearray()
        async with aclosing(response):
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > LONGEST_RESPONSE:
                    body[:] = b'{"error": {"message": "its response is longer than any answer", "code": 404}}'
                    break
        coded = ("content-encoding", "content-length", "transfer-encoding")
        headers = [(name, value) for name, value in response.headers.multi_items() if name not in coded]
        return httpx2.Response(response.status_code, headers=headers, content=bytes(body), request=request)


def _open_client(teacher: Teacher) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        **teacher.access,
        http_client=_BoundedClient(trust_env=not teacher.is_local),
        timeout=httpx2.Timeout(None, connect=teacher.params.timeout),  # the rest: see `Session._send`
        max_retries=0,  # see `Session._answer`
    )


def _cancel_on_signals(stopped_by: list[str]) -> None:
    """Let the first Ctrl-C or SIGTERM cancel the present task, and note its name; the second acts as usual."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def cancel(number: signal.Signals) -> None:
        stopped_by.append(number.name)
        for each in STOPPED_BY:
            loop.remove_signal_handler(each)
        task.cancel()

    if threading.current_thread() is threading.main_thread():  # no other may set handlers
        for number in STOPPED_BY:
            loop.add_signal_handler(number, cancel, number)
