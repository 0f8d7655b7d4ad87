"""What a stage would ask a teacher, and what that takes: requests, tokens, cost and time, before anything is spent.

The job's work is tried over the response store alone: what the store knows costs nothing, the rest is open. Both ends
of a range are stated: at least, every open question's next answer can be kept; at most, each takes all the turns it
may. What nobody can know beforehand is assumed, and said to be (`Quote.notes`). Nothing is sent, and no key is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from thinkrec.artifacts import rounded
from thinkrec.params import TeacherSettings
from thinkrec.teacher.answers import Answer
from thinkrec.teacher.batch import WINDOW_HOURS
from thinkrec.teacher.budget import CAPS, CEILINGS, TOKENS_PER_CHARACTER, compute_cost, format_money
from thinkrec.teacher.client import Unanswered
from thinkrec.teacher.endpoint import OFFLINE, Request, open_replay, place, store_path
from thinkrec.teacher.job import Job
from thinkrec.teacher.store import keys_under_way

ANSWER_TOKENS = {"keywords": 40, "traces": 200}  # of a stage's answer, while nothing says more
FOLLOW_UP_TOKENS = 60  # what a further turn adds to its prompt besides the answer it follows
SECONDS = 3.0  # from a question to its answer
HOUR = 3600.0
LARGE = ((1e6, " M"), (1e3, " k"))  # sizes and names of units
LONG = ((24 * HOUR, " d"), (HOUR, " h"), (60.0, " min"))  # in seconds
QUESTION = ("characters", "first", "turns_left", "answered", "prompt_tokens", "completion_tokens", "times")

Range = NDArray[np.float64]  # (2,): what something takes at least, and at most


def _nothing() -> Range:
    return np.zeros(2)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Quote:
    """One stage's questions and what is left of them; `cost` is NaN where a price is not known."""

    stage: str
    questions: int = 0  # first turns, equal ones once
    answered: int = 0  # answers that the store has, of all turns
    submitted: int = 0  # questions under way in batches
    requests: Range = field(default_factory=_nothing)  # still to send
    prompt_tokens: Range = field(default_factory=_nothing)
    completion_tokens: Range = field(default_factory=_nothing)
    cost: Range = field(default_factory=_nothing)
    seconds: Range = field(default_factory=_nothing)
    notes: tuple[str, ...] = ()

    def __add__(self, other: Quote) -> Quote:
        """Both stages, one after the other."""
        sums = {name: getattr(self, name) + getattr(other, name) for name in Quote.__slots__ if name != "stage"}
        return Quote(stage="total", **sums)


def quote_job(job: Job[Any]) -> Quote:
    """What a job would still ask its teacher."""
    if job.teacher.endpoint == OFFLINE:
        return Quote(stage=job.stage, notes=(f"{job.stage}: the offline teacher is free and answers on this machine",))
    heard: dict[str, list[int]] = {}  # a `QUESTION` by its key

    def hear(key: str, request: Request, answer: Answer | None) -> None:
        if key not in heard:
            messages = request["messages"]
            characters = sum(len(message["content"]) for message in messages)
            earlier = sum(message["role"] == "assistant" for message in messages)
            tokens = (1, answer.prompt_tokens, answer.completion_tokens) if answer else (0, 0, 0)
            heard[key] = [characters, earlier == 0, max(job.turns - 1 - earlier, 0), *tokens, 0]
        heard[key][-1] += 1

    with suppress(Unanswered):
        job.work(open_replay(job.teacher, hear))
    questions = pd.DataFrame(list(heard.values()), index=list(heard), columns=QUESTION, dtype=int)
    submitted = frozenset() if job.changing else keys_under_way(store_path(), place(job.teacher.endpoint))
    return _quote_questions(job, questions, submitted)


def _quote_questions(job: Job[Any], questions: pd.DataFrame, submitted: frozenset[str]) -> Quote:
    """The quote of a job's questions, by their keys; `submitted` are the keys of those under way in batches."""
    params, notes = job.teacher, []
    # Where questions will change, every first one is open, and answers say no more than what they took.
    still_open = questions[questions["first"] == 1 if job.changing else questions["answered"] == 0]
    under_way = still_open.index.isin(submitted)
    next_ones = still_open["characters"][~under_way]
    # What equal questions make of one answer differs with their labels, so each may go on by itself.
    turns = still_open["times"] * still_open["turns_left"]
    later_characters = int((turns * still_open["characters"]).sum())
    repeated_answers = int((turns * (still_open["turns_left"] + 1) // 2).sum())

    counted = questions[(questions["prompt_tokens"] > 0) & (questions["completion_tokens"] > 0)]
    if len(counted):
        tokens_per_character = counted["prompt_tokens"].sum() / counted["characters"].sum()
        answer_tokens = counted["completion_tokens"].mean() * np.ones(2)
        notes.append(f"tokens as in the {len(counted):,} answers that are there: {answer_tokens[0]:,.0f} an answer")
    else:
        tokens_per_character = TOKENS_PER_CHARACTER
        notes.append(f"prompt tokens assumed: a token for {1 / TOKENS_PER_CHARACTER:g} characters")
        answer_tokens, note = _assume_answer_tokens(job)
        notes.append(note)

    requests = np.array([len(next_ones), len(next_ones) + turns.sum()], dtype=float)
    repeated = later_characters * tokens_per_character + repeated_answers * (answer_tokens[1] + FOLLOW_UP_TOKENS)
    prompt = next_ones.sum() * tokens_per_character + np.array([0.0, repeated])
    completion = requests * answer_tokens
    cost = _nothing()
    if requests[1]:
        cost = np.array([compute_cost(*tokens, params) for tokens in zip(prompt, completion, strict=True)], dtype=float)
        if np.isnan(cost).any():
            notes.append("no price set: give run.prompt_price and run.completion_price, per million tokens")
        notes += _describe_time_and_caps(params)
    else:
        notes = ["all answers are in the store"]
    if job.changing:
        notes.insert(0, job.changing)
    return Quote(
        stage=job.stage,
        questions=int(questions["first"].sum()),
        answered=0 if job.changing else int(questions["answered"].sum()),
        submitted=int(under_way.sum()),
        requests=requests,
        prompt_tokens=prompt,
        completion_tokens=completion,
        cost=cost,
        seconds=_estimate_seconds(requests, prompt + completion, job),
        notes=tuple(f"{job.stage}: {note}" for note in notes),
    )


def _assume_answer_tokens(job: Job[Any]) -> tuple[Range, str]:
    """What an answer takes while the store has none, and in words how that is known."""
    assumed = float(ANSWER_TOKENS[job.stage])
    ceiling = next((job.teacher.request[name] for name in CEILINGS if name in job.teacher.request), None)
    if ceiling is None:
        note = f"completion tokens unknown: {assumed:g} an answer assumed; a model that reasons takes many times that"
        return np.array([assumed, assumed]), note
    note = f"completion tokens: at most {ceiling:,} an answer, as teacher.request has it"
    return np.array([min(assumed, ceiling), float(ceiling)]), note


def _estimate_seconds(requests: Range, tokens: Range, job: Job[Any]) -> Range:
    """As the slowest of what bounds it: the limits per minute, and how many may be under way at a time."""
    params = job.teacher
    if params.mode == "batch":
        return np.array([0, job.turns * WINDOW_HOURS * HOUR]) * (requests[1] > 0)
    bounds = [requests * SECONDS / params.concurrency, SECONDS * (requests > 0)]
    for amount, per_minute in ((requests, params.requests_per_minute), (tokens, params.tokens_per_minute)):
        if per_minute:
            bounds.append(amount / per_minute * 60)
    return np.maximum.reduce(bounds)


def _describe_time_and_caps(params: TeacherSettings) -> list[str]:
    """How the time is known, and what may end a run before that."""
    if params.mode == "batch":
        time = f"time: at most {WINDOW_HOURS} hours a turn, often far less; are the prices those of batches?"
    else:
        time = f"time: {SECONDS:g} s an answer assumed, {params.concurrency} at a time, within the limits per minute"
    caps = {name: cap for name in CAPS if (cap := getattr(params, name)) is not None}
    return [
        time,
        *(f"run.{name}={cap:,} may end a run before that; the next one goes on" for name, cap in caps.items()),
    ]


def describe_quotes(quotes: Sequence[Quote]) -> dict[str, Any]:
    """Quotes as a `command.Reply`: their total in a line, a document, and a table with what was assumed beneath it."""
    total = sum(quotes[1:], start=quotes[0])
    columns = [*quotes, total] if len(quotes) > 1 else quotes
    table = Table("", box=box.SIMPLE_HEAD)
    for quote in columns:
        table.add_column(quote.stage, justify="right")
    shown = [_show(quote) for quote in columns]
    for name in shown[0]:
        if name != "under way in batches" or total.submitted:
            table.add_row(name, *(column[name] for column in shown))
    notes = Table.grid(padding=(0, 1))
    for note in dict.fromkeys(total.notes):
        notes.add_row("", "·", Text(note, style="dim"))
    cost = _format_cost(total.cost)
    priced = cost if np.isnan(total.cost).any() else f"cost {cost}"
    return {
        "summary": f"nothing sent; to send: {_format_range(total.requests)} requests, {priced}",
        "document": {quote.stage: _as_json(quote) for quote in columns},
        "table": Group(table, notes),
    }


def _show(quote: Quote) -> dict[str, str]:
    """A column of the table, by the names of its rows."""
    return {
        "questions": f"{quote.questions:,}",
        "answers in the store": f"{quote.answered:,}",
        "under way in batches": f"{quote.submitted:,}",
        "requests to send": _format_range(quote.requests),
        "prompt tokens": _format_range(quote.prompt_tokens, LARGE),
        "completion tokens": _format_range(quote.completion_tokens, LARGE),
        "cost": _format_cost(quote.cost),
        "time": _format_range(quote.seconds, LONG, " s"),
    }


def _as_json(quote: Quote) -> dict[str, Any]:
    """A quote's fields, ranges as two numbers (null where unknown)."""
    values = {name: getattr(quote, name) for name in Quote.__slots__}
    return {
        name: rounded(value.tolist() if isinstance(value, np.ndarray) else value, 6) for name, value in values.items()
    }


def _format_range(amount: Range, units: Sequence[tuple[float, str]] = (), smallest: str = "") -> str:
    """Each end in the largest of `units` that it reaches, as exact as an estimate is."""
    texts = []
    for number in amount:
        size, unit = next((unit for unit in units if number >= unit[0]), (1, smallest))
        texts.append(f"{number / size:,.{int(size > 1)}f}{unit}")
    return " to ".join(dict.fromkeys(texts))


def _format_cost(cost: Range) -> str:
    return "no price set" if np.isnan(cost).any() else " to ".join(dict.fromkeys(map(format_money, cost)))
