"""Asking a teacher: many questions at a time, each paid for once, and an orderly end.

The teacher is reached through the `openai` client whatever it is. The offline one runs in this process behind the same
client, over an in-process transport, so the default run goes through the code that a paid run goes through. Retries are
the client's own (Retry-After honoured up to two minutes).

A teacher behind a network is asked only what the response store does not know. Who sends holds the store's lock until
it is done: of two runs at once, the second waits and then finds the first one's answers. Ctrl-C and SIGTERM end a run
in order: nothing more is sent, answers under way are waited for (at most run.timeout) and kept. A second one ends
it at once. SIGKILL may lose what was under way; what was answered before stands in the store.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, nullcontext
from typing import Any, TypeVar

import httpx2
import openai
from filelock import Timeout
from tqdm import tqdm

from thinkrec.errors import UserError
from thinkrec.teacher.answers import Answer, Reply, error_text, parse_object, read_reply, read_usage
from thinkrec.teacher.endpoint import Request, Teacher
from thinkrec.teacher.store import Store, open_store, request_key, store_lock
from thinkrec.teacher.trace_prompts import Message

LOCK_PAUSE = 0.1  # seconds between looks at another run's lock
LONGEST_RESPONSE = 2**25  # bytes
POOL = 8  # connections
QUOTA_USED_UP = "insufficient_quota"  # what hosts call it where waiting does not help, with the status of a rate limit
STOPPED_BY = (signal.SIGINT, signal.SIGTERM)

Topic = TypeVar("Topic")
Result = TypeVar("Result")


class Unanswered(UserError):
    """A question that the store has no answer to, where nothing may be sent."""


class MeteredClient(openai.DefaultAsyncHttpxClient):
    """The HTTP client under the `openai` client: retries too go through its budget, limits per minute and time-out.

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


class Session:
    """An open line to a teacher; `open_session` opens one."""

    def __init__(self, teacher: Teacher, store: Store | None) -> None:
        self.teacher, self.store = teacher, store
        self.http = MeteredClient(teacher)
        self.client = openai.AsyncOpenAI(
            api_key=teacher.key or "none",
            base_url=teacher.base_url,
            http_client=self.http,
            timeout=teacher.params.timeout,
            max_retries=teacher.retries,
        )
        self.lock = store_lock(store.path) if store else None
        self.room = asyncio.Semaphore(teacher.params.concurrency)
        self.waiting = False  # for another run's lock
        self.requests: dict[str, asyncio.Task[Answer]] = {}  # what waits for an answer, by its key

    async def ask(self, messages: Sequence[Message]) -> Reply:
        """One answer to `messages`: the store's, that of an equal question under way, or the teacher's.

        Raises:
            Unanswered: nothing may be sent, and the store does not know the answer.
            UserError: the teacher cannot be reached, refuses the key or the model, or is no such API; no key is set;
                a cap is reached; the store cannot be used.
        """
        params = self.teacher.params
        request = {"model": params.model, "messages": list(messages), **params.request}
        if self.store is None:
            async with self.room:
                return read_reply(await self._send(request))
        key = request_key(self.teacher.place, request)
        answer = self.store.get(key)
        if self.teacher.listener is not None:
            self.teacher.listener(key, request, answer)
            if answer is None:
                raise Unanswered(
                    f"{self.store.path}: not all answers of this run are here; run the stage that asks for them"
                )
        if answer is None:
            self.teacher.require_key()
            if key not in self.requests:
                self.requests[key] = asyncio.create_task(self._send_and_keep(self.store, key, request))
                self.requests[key].add_done_callback(lambda _: self.requests.pop(key))
            # Whoever waits may be cancelled, but the request is paid for.
            answer = await asyncio.shield(self.requests[key])
        return read_reply(answer)

    async def finish(self) -> None:
        """Drop what has not been sent, and wait for the rest: at most run.timeout seconds."""
        self.http.closed = True
        tasks = list(self.requests.values())
        for task in tasks:
            if task not in self.http.under_way:
                task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=self.teacher.params.timeout)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.client.close()
        if self.lock:
            self.lock.release(force=True)

    async def _send_and_keep(self, store: Store, key: str, request: Request) -> Answer:
        async with self.room:
            await self._wait_for_lock()
            answer = store.get(key)  # a run that held the lock before may have asked it
            return answer or store.put(key, await self._send(request))

    async def _wait_for_lock(self) -> None:
        assert self.lock is not None
        while not self.lock.is_locked:
            try:
                self.lock.acquire(blocking=False)
            except Timeout:
                if not self.waiting:
                    tqdm.write(f"waiting for another run, which holds {self.lock.lock_file}", file=sys.stderr)
                self.waiting = True
                await asyncio.sleep(LOCK_PAUSE)

    async def _send(self, request: Request) -> Answer:
        teacher = self.teacher
        try:
            # Not `chat.completions.create`, which spends a fifth of the time here on objects that nobody keeps.
            response = await self.client.post("/chat/completions", body=request, cast_to=httpx2.Response)
        except openai.APIError as error:
            answer = teacher.read_flag(error.body) if isinstance(error, openai.BadRequestError) else None
            if answer is None:
                raise self._fault(error) from None  # the cause holds the request, and that holds the key
            return answer
        body = parse_object(response.content)
        answer = teacher.read_completion(body)
        if answer is None:  # gateways put their own errors into answers with status 200
            text = error_text(body.get("error"))
            raise teacher.fault(openai.APIError if text else openai.APIResponseValidationError, text)
        return answer

    def _fault(self, error: openai.APIError) -> UserError:
        teacher = self.teacher
        if teacher.budget.stopped:
            return teacher.cap_reached(teacher.budget.stopped)
        if error.code == QUOTA_USED_UP:
            return UserError(
                f"teacher at {teacher.place} says that the key's quota is used up; raise it or set another key, and "
                "run again to go on"
            )
        text = error_text(error.body)
        return teacher.fault(type(error), error.message if text in error.message else f"{error.message} - {text}")


@asynccontextmanager
async def open_session(teacher: Teacher) -> AsyncIterator[Session]:
    """A session inside a running event loop: never more than `concurrency` requests at a time.

    However the block ends, answers to what has been sent are waited for and kept: they are paid for.

    Raises:
        UserError: the store cannot be used.
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

    Workers share one queue, so a slow answer holds up only its own conversation. `progress` names the bar on stderr
    (shown on a terminal only), which counts in `unit`; an empty name shows none.

    Raises:
        Unanswered: the teacher answers from the store alone, and some answers are not there; all topics were tried.
        UserError: the teacher cannot be reached or refuses to work, or Ctrl-C or SIGTERM ended the run.
    """
    results: dict[int, Result] = {}
    unanswered: list[Unanswered] = []
    stopped_by: list[str] = []
    queue = iter(enumerate(topics))
    bar = tqdm(total=len(topics), desc=progress, unit=f" {unit}", disable=None if progress else True)

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

    failures: list[BaseException] = []
    try:
        with bar:
            asyncio.run(run())
    except* UserError as group:
        failures.append(_first_error(group))
    except* asyncio.CancelledError:
        kept = f"all that was answered is in {teacher.store}" if teacher.store else "nothing is kept"
        failures.append(UserError(f"stopped by {stopped_by[0]}; {kept}; run again to go on"))
    for error in [*failures, *unanswered]:
        raise error  # the first, and outside: within, it would be wrapped in a group again
    return [results[number] for number in range(len(topics))]


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


def _first_error(group: BaseExceptionGroup[UserError]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


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
