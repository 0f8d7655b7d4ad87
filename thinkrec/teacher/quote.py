"""What a stage would ask a teacher, and what that takes: requests, tokens, cost and time, before anything is spent.

The job's work is tried over the response store alone: what the store knows costs nothing, the rest is open. Both ends
of a range are stated: at least, every open question's next answer can be kept; at most, each takes all the turns it
may. What nobody can know beforehand is assumed, and said to be (`Quote.notes`). Nothing is sent, and no key is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from thinkrec.params import TeacherSettings
from thinkrec.teacher.answers import Answer
from thinkrec.teacher.batch import WINDOW_HOURS
from thinkrec.teacher.budget import CEILINGS, TOKENS_PER_CHARACTER, cost_of, format_money
from thinkrec.teacher.client import Unanswered
from thinkrec.teacher.endpoint import OFFLINE, Request, open_replay, place, store_path
from thinkrec.teacher.job import Job
from thinkrec.teacher.store import keys_under_way

ANSWER_TOKENS = {"keywords": 40, "traces": 200}  # of a stage's answer, while nothing says more
FOLLOW_UP_TOKENS = 60  # what a further turn adds to its prompt besides the answer it follows
SECONDS = 3.0  # from a question to its answer
HOUR = 3600.0
CAPS = ("max_requests", "max_tokens_spent", "max_cost")


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """What something takes at least and at most."""

    least: float
    most: float

    def __add__(self, other: Range) -> Range:
        return Range(least=self.least + other.least, most=self.most + other.most)


NOTHING = Range(least=0, most=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """One stage's questions and what is left of them; `cost` is None where a price is not known."""

    stage: str
    questions: int = 0  # first turns, equal ones once
    answered: int = 0  # answers that the store has, of all turns
    submitted: int = 0  # questions under way in batches
    requests: Range = NOTHING  # still to send
    prompt_tokens: Range = NOTHING
    completion_tokens: Range = NOTHING
    cost: Range | None = NOTHING
    seconds: Range = NOTHING
    notes: tuple[str, ...] = ()


def quote_job(job: Job[Any]) -> Quote:
    """What a job would still ask its teacher.

    Raises:
        UserError: a parameter is wrong, the store cannot be used, or the work lacks something else.
    """
    if job.teacher.endpoint == OFFLINE:
        note = f"{job.stage}: the offline teacher is free and answers on this machine"
        return Quote(stage=job.stage, notes=(note,))
    questions = _Questions(job=job)
    if not job.changing:
        questions.submitted = keys_under_way(store_path(), place(job.teacher.endpoint))
    with suppress(Unanswered):
        job.work(open_replay(job.teacher, questions.hear))
    return questions.quote()


def add_quotes(quotes: Sequence[Quote]) -> Quote:
    """Stages that run one after the other, taken together."""
    costs = [quote.cost for quote in quotes if quote.cost is not None]
    return Quote(
        stage="total",
        questions=sum(quote.questions for quote in quotes),
        answered=sum(quote.answered for quote in quotes),
        submitted=sum(quote.submitted for quote in quotes),
        requests=sum((quote.requests for quote in quotes), NOTHING),
        prompt_tokens=sum((quote.prompt_tokens for quote in quotes), NOTHING),
        completion_tokens=sum((quote.completion_tokens for quote in quotes), NOTHING),
        cost=sum(costs, NOTHING) if len(costs) == len(quotes) else None,
        seconds=sum((quote.seconds for quote in quotes), NOTHING),
    )


def quote_table(quotes: Sequence[Quote]) -> RenderableType:
    """Quotes as columns, their total last where there are several, and beneath them what was assumed."""
    table = Table(box=box.SIMPLE_HEAD)
    columns = [*quotes, add_quotes(quotes)] if len(quotes) > 1 else quotes
    table.add_column("")
    for quote in columns:
        table.add_column(quote.stage, justify="right")
    table.add_row("questions", *(f"{quote.questions:,}" for quote in columns))
    table.add_row("answers in the store", *(f"{quote.answered:,}" for quote in columns))
    if any(quote.submitted for quote in columns):
        table.add_row("under way in batches", *(f"{quote.submitted:,}" for quote in columns))
    table.add_row("requests to send", *(_format_range(quote.requests) for quote in columns))
    table.add_row("prompt tokens", *(_format_range(quote.prompt_tokens, _rough) for quote in columns))
    table.add_row("completion tokens", *(_format_range(quote.completion_tokens, _rough) for quote in columns))
    table.add_row("cost", *(_format_cost(quote.cost) for quote in columns))
    table.add_row("time", *(_format_range(quote.seconds, _time) for quote in columns))
    beneath = Table.grid(padding=(0, 1))
    for note in dict.fromkeys(note for quote in quotes for note in quote.notes):
        beneath.add_row("", "·", Text(note, style="dim"))
    return Group(table, beneath)


def show_quotes(quotes: Sequence[Quote]) -> str:
    """Print quotes as a table; returns them in a line."""
    Console().print(quote_table(quotes))
    total = add_quotes(quotes)
    cost = f"cost {_format_cost(total.cost)}" if total.cost else "no price set"
    return f"nothing sent; to send: {_format_range(total.requests)} requests, {cost}"


@dataclass(slots=True, kw_only=True)
class _Questions:
    """What has been heard so far of a job's questions: sums, and the keys by which equal questions count once."""

    job: Job[Any]
    submitted: frozenset[str] = frozenset()  # keys under way in batches
    first: set[str] = field(default_factory=set)
    answered: set[str] = field(default_factory=set)
    open: set[str] = field(default_factory=set)
    # Of answers that say what they took, and of the questions they answer.
    counted_answers: int = 0
    counted_characters: int = 0
    counted_prompt: int = 0
    counted_completion: int = 0
    # Of open questions: the next turns, and those that may follow.
    next_requests: int = 0
    next_characters: int = 0
    later_requests: int = 0
    later_characters: int = 0
    growths: int = 0  # how often later turns repeat an answer and the message after it
    ceiling: int | None = None  # tokens of an answer, as the requests set it

    def hear(self, key: str, request: Request, answer: Answer | None) -> None:
        """Count a question in (a `Listener`)."""
        characters = sum(len(message["content"]) for message in request["messages"])
        turn = 1 + sum(message["role"] == "assistant" for message in request["messages"])
        if turn == 1:
            self.first.add(key)
        # Where questions will change, every first one is open, and answers say no more than what they took.
        if turn == 1 if self.job.changing else answer is None:
            self._count_open(key, characters, turns_left=max(self.job.turns - turn, 0))
            self.ceiling = next((request[name] for name in CEILINGS if name in request), None)
        if answer is not None and key not in self.answered:
            self.answered.add(key)
            if answer.prompt_tokens and answer.completion_tokens:
                self.counted_answers += 1
                self.counted_characters += characters
                self.counted_prompt += answer.prompt_tokens
                self.counted_completion += answer.completion_tokens

    def quote(self) -> Quote:
        """The quote of what was heard."""
        job, notes = self.job, []
        requests = Range(least=self.next_requests, most=self.next_requests + self.later_requests)
        answer, answer_note = self._answer_tokens()
        if self.counted_answers:
            per_character = self.counted_prompt / self.counted_characters
        else:
            per_character = TOKENS_PER_CHARACTER
            notes.append(f"prompt tokens assumed: a token for {1 / TOKENS_PER_CHARACTER:g} characters")
        notes.append(answer_note)
        next_prompts = self.next_characters * per_character
        repeated = self.later_characters * per_character + self.growths * (answer.most + FOLLOW_UP_TOKENS)
        prompt = Range(least=next_prompts, most=next_prompts + repeated)
        completion = Range(least=requests.least * answer.least, most=requests.most * answer.most)
        cost: Range | None = NOTHING
        if requests.most:
            cost = _cost(prompt, completion, job.teacher)
            if cost is None:
                notes.append("no price set: give run.prompt_price and run.completion_price, per million tokens")
            notes += _time_and_caps(job.teacher)
        else:
            notes = ["all answers are in the store"]
        if job.changing:
            notes = [job.changing, *notes]
        return Quote(
            stage=job.stage,
            questions=len(self.first),
            answered=0 if job.changing else len(self.answered),
            submitted=len(self.open & self.submitted),
            requests=requests,
            prompt_tokens=prompt,
            completion_tokens=completion,
            cost=cost,
            seconds=_seconds(requests, prompt + completion, job),
            notes=tuple(f"{job.stage}: {note}" for note in notes),
        )

    def _count_open(self, key: str, characters: int, *, turns_left: int) -> None:
        if key not in self.open and key not in self.submitted:
            self.next_requests += 1
            self.next_characters += characters
        self.open.add(key)
        # What equal questions make of one answer differs with their labels, so each may go on by itself.
        self.later_requests += turns_left
        self.later_characters += turns_left * characters
        self.growths += turns_left * (turns_left + 1) // 2

    def _answer_tokens(self) -> tuple[Range, str]:
        """What one answer takes, and in words how that is known."""
        if self.counted_answers:
            mean = self.counted_completion / self.counted_answers
            note = f"tokens as in the {self.counted_answers:,} answers that are there: {mean:,.0f} an answer"
            return Range(least=mean, most=mean), note
        assumed = ANSWER_TOKENS[self.job.stage]
        if self.ceiling:
            note = f"completion tokens: at most {self.ceiling:,} an answer, as teacher.request has it"
            return Range(least=min(assumed, self.ceiling), most=self.ceiling), note
        note = f"completion tokens unknown: {assumed} an answer assumed; a model that reasons takes many times that"
        return Range(least=assumed, most=assumed), note


def _cost(prompt: Range, completion: Range, params: TeacherSettings) -> Range | None:
    least, most = cost_of(prompt.least, completion.least, params), cost_of(prompt.most, completion.most, params)
    return None if least is None or most is None else Range(least=least, most=most)


def _seconds(requests: Range, tokens: Range, job: Job[Any]) -> Range:
    """As the slowest of what bounds it: the limits per minute, and how many may be under way at a time."""
    params = job.teacher
    if params.mode == "batch":
        return Range(least=0, most=job.turns * WINDOW_HOURS * HOUR if requests.most else 0)

    def slowest(count: float, size: float) -> float:
        bounds = [count * SECONDS / params.concurrency, SECONDS if count else 0]
        if params.requests_per_minute:
            bounds.append(count / params.requests_per_minute * 60)
        if params.tokens_per_minute:
            bounds.append(size / params.tokens_per_minute * 60)
        return max(bounds)

    return Range(least=slowest(requests.least, tokens.least), most=slowest(requests.most, tokens.most))


def _time_and_caps(params: TeacherSettings) -> list[str]:
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


def _format_range(amount: Range, show: Callable[[float], str] = lambda number: f"{number:,.0f}") -> str:
    least, most = show(amount.least), show(amount.most)
    return least if least == most else f"{least} to {most}"


def _format_cost(cost: Range | None) -> str:
    return _format_range(cost, format_money) if cost else "no price set"


def _rough(number: float) -> str:
    """As exact as an estimate is."""
    for unit, size in ((" M", 1e6), (" k", 1e3)):
        if number >= size:
            return f"{number / size:,.1f}{unit}"
    return f"{number:.0f}"


def _time(seconds: float) -> str:
    for unit, size in (("d", 24 * HOUR), ("h", HOUR), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
