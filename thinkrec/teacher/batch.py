"""Questions through the Batch API (`teacher.mode: batch`): submit, leave, come back, collect; often cheaper, later.

A stage's work is tried over the response store alone. What the store lacks goes to the server as files of requests, and
the stage stops (`Waiting`). Run again, it collects what has ended into the store and submits what that opens (a second
turn, what failed), until nothing is lacking. So the answers are those of the same requests as live, under the same
keys, and what is made of them is the same to the byte.

Nothing is submitted twice: a batch is recorded before it is created (see `store`), and a question that is under way in
one is left alone. One that failed in `ATTEMPTS` batches ends the run in one line. The caps bound what one run submits;
concurrency and the limits per minute have no meaning here.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import IO, Literal, NamedTuple, TypeVar

import httpx2
import openai
from openai.types import Batch

from thinkrec.errors import UserError
from thinkrec.teacher.answers import SET_ASIDE, TURNED_DOWN, Answer, as_object, error_text, parse_object
from thinkrec.teacher.client import Unanswered
from thinkrec.teacher.endpoint import Request, Teacher
from thinkrec.teacher.store import Store, Submissions, SubmittedBatch, open_store, open_submissions

WINDOW_HOURS = 24  # in which a batch has to end
MOST_REQUESTS = 50_000  # of one file, here and below
MOST_BYTES = 200_000_000
ATTEMPTS = 3  # batches in which one question may fail
URL: Literal["/v1/chat/completions"] = "/v1/chat/completions"
ENDED = {"completed", "failed", "expired", "cancelled"}

T = TypeVar("T")


class Waiting(UserError):
    """No error: batches are under way, and the stage can be finished once they have ended."""


def run_in_batches(work: Callable[[Teacher], T], teacher: Teacher) -> T:
    """What `work` makes of the store once nothing is lacking; until then, one wave, which ends in `Waiting`."""
    assert teacher.store is not None  # as the parameters have it: the offline teacher knows no batches
    with open_submissions(teacher.store) as submissions, open_store(teacher.store) as store, ExitStack() as files:
        wave = _Wave(teacher, submissions, store, files)
        try:
            wave.collect()
            try:
                return work(replace(teacher, listener=wave.hear))
            except Unanswered:
                wave.submit()
                raise wave.outcome() from None
        finally:
            teacher.budget.charge(wave.prompt_tokens, wave.completion_tokens)


class _Part(NamedTuple):
    """A file of requests, a temporary one without a name, and their questions' keys."""

    file: IO[bytes]
    keys: list[str]


class _Wave:
    """What one run collects, which questions it meets, what it submits."""

    def __init__(self, teacher: Teacher, submissions: Submissions, store: Store, files: ExitStack) -> None:
        self.teacher, self.submissions, self.store, self.files = teacher, submissions, store, files
        # Of recorded batches.
        self.collected = self.prompt_tokens = self.completion_tokens = 0  # answers, and the tokens they took
        self.failures: dict[str, str] = {}  # questions that ended batches left unanswered, and what was said of each
        self.cancelled: list[str] = []  # ids
        self.unfinished: list[Batch] = []
        self.under_way: set[str] = set()
        self.failed_before: dict[str, str] = {}  # questions that failed in too many, and what was said of each
        # Of the work, and of what is submitted.
        self.seen: set[str] = set()  # questions
        self.parts: list[_Part] = []
        self.submitted: list[str] = []  # ids

    def collect(self) -> None:
        """Put the answers of ended batches into the store."""
        batches = self.submissions.batches(self.teacher.place)
        if batches:
            way_out = f"use the key that submitted it or, if it is gone, move {self.submissions.path} away"
            with _open_client(self.teacher, missing=f"does not know our batch; {way_out}") as client:
                for recorded in batches:
                    self._look_after(client, recorded)
        if self.cancelled:
            raise UserError(
                f"teacher at {self.teacher.place}: {' and '.join(self.cancelled)} cancelled before the end; "
                f"{_count(self.collected, 'answer')} kept, and what is open will be submitted when you run again"
            )
        self.failed_before = self.submissions.failed(ATTEMPTS)

    def hear(self, key: str, request: Request, answer: Answer | None) -> None:
        """Learn from an answered question, and write an open one into the file to submit (a `Listener`)."""
        if key in self.seen:
            return
        self.seen.add(key)
        characters = len(json.dumps(request))
        if answer is not None:
            self.teacher.budget.learn(characters, answer.prompt_tokens, answer.completion_tokens)
        elif key in self.under_way or key in self.failed_before:
            return
        elif self.teacher.budget.pledge(characters):
            self._write(key, request)

    def submit(self) -> None:
        """Create a batch of every file."""
        if not self.parts:
            return
        with _open_client(self.teacher, missing="has no Batch API; set teacher.mode=live") as client:
            for place, part in enumerate(self.parts, 1):
                part.file.seek(0)
                file = client.files.create(file=(f"thinkrec-{place}.jsonl", part.file), purpose="batch")
                number = self.submissions.add(self.teacher.place, _id_of(file), part.keys)
                # Never repeated unseen: what became of a creation without an answer, the next run finds out.
                try:
                    batch = client.with_options(max_retries=0).batches.create(
                        input_file_id=file.id, endpoint=URL, completion_window="24h"
                    )
                except openai.APIStatusError as error:
                    if error.status_code < 500:  # refused, so there is none
                        self.submissions.remove(number)
                    raise
                self.submissions.set_id(number, _id_of(batch))
                self.submitted.append(batch.id)

    def outcome(self) -> UserError:
        """Why the stage cannot be finished now, and how to go on."""
        if self.submitted or self.seen & self.under_way:
            return Waiting(self._progress())
        if self.teacher.budget.stopped:
            return self.teacher.cap_reached()
        given_up = {key: reason for key, reason in self.failed_before.items() if key in self.seen}
        self.submissions.forgive(given_up)
        return UserError(
            f"teacher at {self.teacher.place}: {_count(len(given_up), 'question')} without an answer after "
            f"{ATTEMPTS} batches ({next(iter(given_up.values()))}); mend that and run again, which asks them anew"
        )

    def _look_after(self, client: openai.OpenAI, recorded: SubmittedBatch) -> None:
        batch = client.batches.retrieve(recorded.id) if recorded.id else _search(client, recorded)
        if batch is None:
            self.submissions.remove(recorded.number)  # never created: its questions are open
            return
        self.submissions.set_id(recorded.number, _id_of(batch))
        if batch.status in ENDED:
            self._take_answers(client, recorded, batch)
        else:
            self.unfinished.append(batch)
            self.under_way |= recorded.keys

    def _take_answers(self, client: openai.OpenAI, recorded: SubmittedBatch, batch: Batch) -> None:
        """Keep an ended batch's answers, note what failed, forget the batch."""
        errors = as_object(batch.to_dict().get("errors")).get("data") or []
        reason = next(filter(None, map(error_text, errors)), f"the batch {batch.status} without it")
        turned_down: dict[str, Answer] = {}
        unanswered = dict.fromkeys(recorded.keys, self.teacher.mask(reason))
        for file in (batch.output_file_id, batch.error_file_id):
            for line in _lines(client, file) if file else ():
                key, answer, error = _read_line(self.teacher, line)
                if key not in unanswered:  # none of this batch's questions, or one that it has answered already
                    continue
                if answer is None or answer.empty:
                    unanswered[key] = error
                elif answer.finish_reason == SET_ASIDE:
                    turned_down[key], unanswered[key] = answer, error
                else:
                    self._keep(key, answer)
                    del unanswered[key]
        if len(unanswered) < len(recorded.keys):  # that others were answered tells whose fault it was
            for key in turned_down.keys() & unanswered.keys():
                self._keep(key, turned_down[key])
                del unanswered[key]
        if batch.status == "cancelled" and unanswered:
            self.cancelled.append(batch.id)
            unanswered = {}  # somebody's wish and no failure
        self.failures |= unanswered
        self.submissions.remove(recorded.number, answered=recorded.keys - set(unanswered), failed=unanswered)

    def _keep(self, key: str, answer: Answer) -> None:
        self.store.put(key, answer)
        self.collected += 1
        self.prompt_tokens += answer.prompt_tokens
        self.completion_tokens += answer.completion_tokens

    def _write(self, key: str, request: Request) -> None:
        line = json.dumps({"custom_id": key, "method": "POST", "url": URL, "body": request}).encode() + b"\n"
        last = self.parts[-1] if self.parts else None
        if last is None or len(last.keys) == MOST_REQUESTS or last.file.tell() + len(line) > MOST_BYTES:
            last = _Part(self.files.enter_context(tempfile.TemporaryFile()), [])  # noqa: SIM115 (the stack closes it)
            self.parts.append(last)
        last.file.write(line)
        last.keys.append(key)

    def _progress(self) -> str:
        """One line: what was collected and submitted, what is under way, how to go on."""
        parts = [f"{_count(self.collected, 'answer')} collected"] if self.collected else []
        if self.failures:
            parts.append(f"{len(self.failures):,} failed ({list(self.failures.values())[-1]})")
        if self.submitted:
            questions = _count(sum(len(part.keys) for part in self.parts), "question")
            parts.append(f"{questions} submitted ({', '.join(self.submitted)})")
        if self.teacher.budget.stopped:
            parts.append(self.teacher.describe_cap())
        if self.unfinished:
            counts = [batch.request_counts for batch in self.unfinished if batch.request_counts]
            answered, failed = sum(count.completed for count in counts), sum(count.failed for count in counts)
            questions = _count(len(self.under_way), "question")
            parts.append(f"{answered:,} of {questions} under way answered{f', {failed:,} failed' if failed else ''}")
        return (
            f"waiting for the teacher at {self.teacher.place}: {'; '.join(parts)}; run again to go on (a batch takes "
            f"up to {WINDOW_HOURS} hours, often far less)"
        )


def _id_of(thing: object) -> str:
    """The id that the server gave what it was asked to make."""
    id = getattr(thing, "id", None)
    if not (isinstance(id, str) and id):  # a web page with status 200 comes back as a string
        raise ValueError("no id")
    return id


def _search(client: openai.OpenAI, recorded: SubmittedBatch) -> Batch | None:
    """The batch of a run that was killed before it could note its id; None where none was created."""
    try:
        batches = client.batches.list(limit=100)
    except AttributeError:  # openai's own, of a web page with status 200
        raise ValueError("no list of batches") from None
    return next((batch for batch in batches if batch.input_file_id == recorded.file), None)  # page by page


def _lines(client: openai.OpenAI, file: str) -> Iterator[bytes]:
    """The lines of a file at the server, through a temporary file: it may be larger than memory should hold.

    There are none where the server no longer has it, though it knows the batch.
    """
    with tempfile.TemporaryFile() as copy:
        with suppress(openai.NotFoundError), client.files.with_streaming_response.content(file) as response:
            for chunk in response.iter_bytes():
                copy.write(chunk)
        copy.seek(0)
        if copy.read(1) == b"<":  # a web page with status 200, and no reason to call every answer missing
            raise ValueError("no lines of JSON")
        copy.seek(0)
        yield from copy


def _read_line(teacher: Teacher, line: bytes) -> tuple[str, Answer | None, str]:
    """A line of an output or error file: its question's key, the answer or None, and what was said instead of one.

    Where the host turned the question down, the answer is that it was set aside.
    """
    entry = parse_object(line)
    response = as_object(entry.get("response"))
    status, body = response.get("status_code"), as_object(response.get("body"))
    key, error = entry.get("custom_id"), entry.get("error") or body.get("error")
    answer = teacher.read_answer(status, body) if isinstance(status, int) else None
    text = teacher.mask(error_text(error) or f"status {status}")
    if answer is None and status in TURNED_DOWN:
        answer = Answer(refusal=text, finish_reason=SET_ASIDE)
    return key if isinstance(key, str) else "", answer, text


@contextmanager
def _open_client(teacher: Teacher, *, missing: str) -> Iterator[openai.OpenAI]:
    """A client; faults of the server and of the way to it become one line: `missing` where it lacks something."""
    teacher.require_key()
    client = openai.OpenAI(
        **teacher.access,
        http_client=openai.DefaultHttpxClient(trust_env=not teacher.is_local),
        timeout=teacher.params.timeout,
        max_retries=teacher.retries,
    )
    try:
        with client:
            yield client
    except openai.NotFoundError:  # `from None` everywhere: the cause holds the request, and that holds the key
        raise UserError(f"teacher at {teacher.place} {missing}") from None
    except openai.APIError as error:
        raise teacher.fault(type(error), str(error.message)) from None
    except httpx2.HTTPError:  # in the middle of a file
        raise teacher.fault(openai.APIConnectionError) from None
    except (ValueError, RecursionError):  # the body is no JSON, whatever its type says
        raise teacher.fault(openai.APIResponseValidationError) from None


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' if count != 1 else ''}"
