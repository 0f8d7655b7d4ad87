"""Questions through the Batch API (`teacher.mode: batch`): submit, leave, come back, collect; oftener cheaper, later.

A stage's work is walked over the response store alone. What it does not know goes to the server as files of requests,
at most 50,000 and 200 MB each, and the stage stops (`Waiting`). Run again, it collects into the store what has ended
and submits what that opens (a second turn, what failed), until a walk meets no open question: its result is the
stage's. So the answers are those of the same requests as live, under the same keys of the same store, and what is made
of them is the same to the byte.

Nothing is submitted twice: a batch is noted before it is created (see `submissions`), and a question that is under way
in one is left alone. What failed in `ATTEMPTS` batches ends in one line. run.max_requests and its like bound what
one run submits; concurrency and the limits per minute have no meaning here.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import IO, Literal, TypeVar

import httpx2
import openai
from openai.types import Batch

from thinkrec.errors import UserError
from thinkrec.teacher.client import (
    KEY_VARIABLES,
    Request,
    Teacher,
    Unanswered,
    as_object,
    capped,
    completed,
    explain,
    flagged,
    is_loopback,
    masked,
    place,
    stopped,
    words,
)
from thinkrec.teacher.store import Answer, Store, open_store
from thinkrec.teacher.submissions import Noted, Submissions, open_submissions, under_way

WINDOW_HOURS = 24  # in which a batch has to end
MOST_REQUESTS = 50_000  # of one file, here and below
MOST_BYTES = 200_000_000
ATTEMPTS = 3  # batches in which one question may fail
URL: Literal["/v1/chat/completions"] = "/v1/chat/completions"
ENDED = {"completed", "failed", "expired", "cancelled"}

T = TypeVar("T")


class Waiting(UserError):
    """No error: batches are under way, and the stage can be finished once they have ended."""


def carry_out(work: Callable[[Teacher], T], teacher: Teacher) -> T:
    """What `work` makes of the answers of `teacher`, asked as teacher.mode says.

    Args:
        work: asks all questions; over the store alone it raises `Unanswered` after it has walked them all.

    Raises:
        Waiting: questions are under way in batches.
        UserError: as `Session.ask`, or questions failed in too many batches, or a batch was cancelled.
    """
    if teacher.params.mode == "batch":
        return _in_batches(work, teacher)
    where = place(teacher.params.endpoint)
    if teacher.store is not None and (left := under_way(teacher.store, where)):
        twice: set[str] = set()

        def hear(key: str, _: Request, answer: Answer | None) -> None:
            if answer is None and key in left:
                twice.add(key)

        with suppress(Unanswered):
            work(replace(teacher, heard=hear))
        if twice:
            raise UserError(
                f"teacher at {where}: {_count(len(twice), 'question')} under way in batches, and would be paid for "
                "twice; run with teacher.mode=batch to collect them (cancel the batches at the server to be rid of "
                "them)"
            )
    return work(teacher)


@dataclass(slots=True, kw_only=True)
class _Progress:
    """What a run has found of the batches that are there."""

    collected: int = 0  # answers, and the tokens they took
    prompt_tokens: int = 0
    completion_tokens: int = 0
    batches: int = 0  # under way, here and below
    questions: int = 0
    answered: int = 0
    failed: int = 0
    lost: int = 0  # questions that ended batches left unanswered, and what was said of one
    said: str = ""
    cancelled: list[str] = field(default_factory=list)  # ids


@dataclass(slots=True, kw_only=True)
class _Part:
    """One file of requests, in a temporary file without a name."""

    file: IO[bytes]
    keys: list[str] = field(default_factory=list)
    size: int = 0


class _Open:
    """The open questions that a walk meets: those to submit, in files, and those that are not submitted, counted."""

    def __init__(self, teacher: Teacher, under_way: set[str], failed: dict[str, str]) -> None:
        self.teacher, self.under_way, self.failed = teacher, under_way, failed
        self.seen: set[str] = set()
        self.parts: list[_Part] = []
        self.submitted = self.waiting = 0
        self.given_up: dict[str, str] = {}

    @property
    def stopped(self) -> str | None:
        """The cap that has kept something back."""
        return self.teacher.budget.stopped

    def hear(self, key: str, request: Request, answer: Answer | None) -> None:
        """See `client.Heard`."""
        if key in self.seen:
            return
        self.seen.add(key)
        if answer is not None:
            self.teacher.budget.learn(_characters(request), answer.prompt_tokens, answer.completion_tokens)
        elif key in self.under_way:
            self.waiting += 1
        elif key in self.failed:
            self.given_up[key] = self.failed[key]
        elif self.teacher.budget.pledge(_characters(request)):
            self._write(key, request)

    def _write(self, key: str, request: Request) -> None:
        line = json.dumps({"custom_id": key, "method": "POST", "url": URL, "body": request}).encode() + b"\n"
        last = self.parts[-1] if self.parts else None
        if last is None or len(last.keys) == MOST_REQUESTS or last.size + len(line) > MOST_BYTES:
            last = _Part(file=tempfile.TemporaryFile())  # noqa: SIM115
            self.parts.append(last)
        last.file.write(line)
        last.keys.append(key)
        last.size += len(line)
        self.submitted += 1

    def close(self) -> None:
        for part in self.parts:
            part.file.close()


def _in_batches(work: Callable[[Teacher], T], teacher: Teacher) -> T:
    assert teacher.store is not None  # as the parameters have it: the offline teacher knows no batches
    progress = _Progress()
    try:
        with open_submissions(teacher.store) as notes, open_store(teacher.store) as store:
            _collect(teacher, notes, store, progress)
            return _walk(work, teacher, notes, progress)
    finally:
        teacher.budget.collect(progress.prompt_tokens, progress.completion_tokens)


def _collect(teacher: Teacher, notes: Submissions, store: Store, progress: _Progress) -> None:
    """Put the answers of ended batches into the store."""
    batches = notes.batches(place(teacher.params.endpoint))
    if not batches:
        return
    missing = f"does not know our batch; use the key that submitted it or, if it is gone, move {notes.path} away"
    with _client(teacher) as client, _explained(teacher, missing):
        for noted in batches:
            batch = client.batches.retrieve(noted.id) if noted.id else _search(client, noted)
            if batch is None:
                notes.close(noted.number, failed={})  # never created: its questions are open
                continue
            notes.name(noted.number, _id(batch, teacher))
            if batch.status in ENDED:
                _take(teacher, client, notes, store, noted, batch, progress)
            else:
                counts = batch.request_counts
                progress.batches += 1
                progress.questions += len(notes.keys(noted.number))
                progress.answered += counts.completed if counts else 0
                progress.failed += counts.failed if counts else 0
    if progress.cancelled:
        where = place(teacher.params.endpoint)
        raise UserError(
            f"teacher at {where}: {' and '.join(progress.cancelled)} cancelled before the end; "
            f"{_count(progress.collected, 'answer')} kept, and what is open will be submitted when you run again"
        )


def _walk(work: Callable[[Teacher], T], teacher: Teacher, notes: Submissions, progress: _Progress) -> T:
    """What `work` makes of the store, or submit what it lacks and raise."""
    where = place(teacher.params.endpoint)
    left = set().union(*(notes.keys(batch.number) for batch in notes.batches(where)))
    with closing(_Open(teacher, left, notes.failed(ATTEMPTS))) as found:
        try:
            return work(replace(teacher, heard=found.hear))
        except Unanswered:
            submitted = _submit(teacher, notes, found)
    if submitted or found.waiting:
        raise Waiting(_waiting(teacher, progress, found, submitted))
    if found.stopped:
        raise UserError(stopped(teacher, found.stopped))
    notes.forgive(found.given_up)
    raise UserError(
        f"teacher at {where}: {_count(len(found.given_up), 'question')} without an answer after {ATTEMPTS} batches "
        f"({next(iter(found.given_up.values()))}); mend that and run again, which asks them anew"
    )


def _search(client: openai.OpenAI, noted: Noted) -> Batch | None:
    """The batch of a run that was killed before it could note its id; None where none was created."""
    try:
        found = client.batches.list(limit=100)
    except AttributeError:  # openai's own, of a web page with status 200
        raise ValueError("no list of batches") from None
    for batch in found:  # page by page
        if batch.input_file_id == noted.file:
            return batch
    return None


def _take(
    teacher: Teacher,
    client: openai.OpenAI,
    notes: Submissions,
    store: Store,
    noted: Noted,
    batch: Batch,
    progress: _Progress,
) -> None:
    """Keep an ended batch's answers, note what failed, forget the batch."""
    errors = batch.errors.data if batch.errors and batch.errors.data else []
    said = next((error.message for error in errors if error.message), None) or f"the batch {batch.status} without it"
    left = dict.fromkeys(notes.keys(noted.number), masked(teacher, said))
    for file in (batch.output_file_id, batch.error_file_id):
        for line in _lines(client, file) if file else ():
            key, answer, fault = _read(teacher, line)
            if key not in left:  # none of this batch's questions, or one that it has answered already
                continue
            if answer is None:
                left[key] = fault
            else:
                store.put(key, answer)
                del left[key]
                progress.collected += 1
                progress.prompt_tokens += answer.prompt_tokens
                progress.completion_tokens += answer.completion_tokens
    if batch.status == "cancelled" and left:
        progress.cancelled.append(batch.id)
        left = {}  # somebody's wish and no failure
    progress.lost += len(left)
    progress.said = next(iter(left.values()), progress.said)
    notes.close(noted.number, failed=left)


def _characters(request: Request) -> int:
    return len(json.dumps(request))


def _lines(client: openai.OpenAI, file: str) -> Iterator[bytes]:
    """The lines of a file at the server, through a temporary file: it may be larger than memory should hold."""
    with tempfile.TemporaryFile() as copy:
        with client.files.with_streaming_response.content(file) as response:
            for chunk in response.iter_bytes():
                copy.write(chunk)
        copy.seek(0)
        if copy.read(1) == b"<":  # a web page with status 200, and no reason to call every answer missing
            raise ValueError("no lines of JSON")
        copy.seek(0)
        yield from copy


def _read(teacher: Teacher, line: bytes) -> tuple[str, Answer | None, str]:
    """A line of an output or error file: whose it is, the answer or None, and what was said instead of one."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return "", None, ""
    found = as_object(found)
    response = as_object(found.get("response"))
    body = as_object(response.get("body"))
    key = found.get("custom_id")
    status, error = response.get("status_code"), found.get("error") or body.get("error")
    answer = completed(teacher, body) if status == 200 else flagged(teacher, error) if status == 400 else None
    said = words(error) if error else f"status {status}"
    return key if isinstance(key, str) else "", answer, masked(teacher, said)


def _submit(teacher: Teacher, notes: Submissions, found: _Open) -> list[str]:
    """Create a batch of every file; returns their ids."""
    made: list[str] = []
    if not found.parts:
        return made
    with _client(teacher) as client, _explained(teacher, "has no Batch API; set teacher.mode=live"):
        for number, part in enumerate(found.parts, 1):
            part.file.seek(0)
            file = client.files.create(file=(f"thinkrec-{number}.jsonl", part.file), purpose="batch")
            noted = notes.note(place(teacher.params.endpoint), _id(file, teacher), part.keys)
            # Never repeated unseen: what became of a creation without an answer, the next run finds out.
            try:
                batch = client.with_options(max_retries=0).batches.create(
                    input_file_id=file.id, endpoint=URL, completion_window="24h"
                )
            except openai.APIStatusError as error:
                if error.status_code < 500:  # refused, so there is none
                    notes.close(noted, failed={})
                raise
            notes.name(noted, _id(batch, teacher))
            made.append(batch.id)
    return made


def _id(found: object, teacher: Teacher) -> str:
    """The id that a server gave what it was asked to make."""
    made = getattr(found, "id", None)
    if not (isinstance(made, str) and made):  # a web page with status 200 comes back as a string
        raise UserError(explain(teacher, openai.APIResponseValidationError, ""))
    return made


def _waiting(teacher: Teacher, progress: _Progress, found: _Open, submitted: list[str]) -> str:
    """One line: what was collected and submitted, what is under way, how to go on."""
    said = [f"{_count(progress.collected, 'answer')} collected"] if progress.collected else []
    if progress.lost:
        said.append(f"{progress.lost:,} failed ({progress.said})")
    if submitted:
        said.append(f"{_count(found.submitted, 'question')} submitted ({', '.join(submitted)})")
    if found.stopped:
        said.append(capped(teacher.params, found.stopped))
    if progress.batches:
        failed = f", {progress.failed:,} failed" if progress.failed else ""
        said.append(f"{progress.answered:,} of {_count(progress.questions, 'question')} under way answered{failed}")
    return (
        f"waiting for the teacher at {place(teacher.params.endpoint)}: {'; '.join(said)}; run again to go on (a batch "
        f"takes up to {WINDOW_HOURS} hours, oftener far less)"
    )


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' if count != 1 else ''}"


def _client(teacher: Teacher) -> openai.OpenAI:
    where = teacher.params.endpoint
    if not teacher.key:
        raise UserError(f"teacher at {place(where)}: needs a key; set {KEY_VARIABLES[0]} in the environment")
    return openai.OpenAI(
        api_key=teacher.key,
        base_url=where,
        # A proxy of the environment has no way to this machine.
        http_client=openai.DefaultHttpxClient(trust_env=not is_loopback(where)),
        timeout=teacher.params.timeout,
        max_retries=teacher.retries,
    )


@contextmanager
def _explained(teacher: Teacher, missing: str) -> Iterator[None]:
    """Faults of the server and of the way to it, in one line that says what to do: `missing` where something is."""
    try:
        yield
    except openai.NotFoundError:  # `from None` everywhere: the cause holds the request, and that holds the key
        raise UserError(f"teacher at {place(teacher.params.endpoint)} {missing}") from None
    except openai.APIError as error:
        raise UserError(explain(teacher, type(error), str(error.message))) from None
    except httpx2.HTTPError:  # in the middle of a file
        raise UserError(explain(teacher, openai.APIConnectionError, "")) from None
    except (ValueError, RecursionError):  # the body is no JSON, whatever its type says
        raise UserError(explain(teacher, openai.APIResponseValidationError, "")) from None
