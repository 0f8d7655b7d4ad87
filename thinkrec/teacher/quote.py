"""What a stage would ask a teacher, and what that takes: requests, tokens, cost and time, before anything is spent.

A quote is a walk over the response store alone (`client.open_replay`): what it knows costs nothing, the rest is open.
Both ends of a range are stated: at least, every open question's next answer can be kept; at most, each takes all the
turns it may. What nobody can know beforehand is assumed, and said to be (`Quote.notes`). Nothing is sent, and no key
is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from thinkrec.params import TeacherSettings
from thinkrec.teacher.batch import WINDOW_HOURS
from thinkrec.teacher.budget import CEILINGS, TOKENS_PER_CHARACTER, cost_of, money
from thinkrec.teacher.client import (
    OFFLINE,
    Request,
    Teacher,
    Unanswered,
    open_replay,
    place,
    store_path,
)
from thinkrec.teacher.store import Answer
from thinkrec.teacher.submissions import under_way

ANSWER_TOKENS = {"keywords": 40, "traces": 200}  # of a stage's answer, while nothing says more
FOLLOW_UP_TOKENS = 60  # what a further turn adds to its prompt besides the answer it follows
SECONDS = 3.0  # from a question to its answer
HOUR = 3600.0
CAPS = ("max_requests", "max_tokens_spent", "max_cost")

FREE = "the offline teacher is free and answers on this machine"


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


def quote(
    stage: str, work: Callable[[Teacher], object], params: TeacherSettings, *, turns: int, changing: str = ""
) -> Quote:
    """What `work` would still ask the teacher of `params`.

    Args:
        stage: its name, in `ANSWER_TOKENS`.
        work: asks all of a stage's questions; raises `Unanswered` after it has walked them all.
        turns: answers that one question may take, the first included.
        changing: why all questions will be others by then, so that no answer to those of today counts; or nothing.

    Raises:
        UserError: a parameter is wrong, the store cannot be used, or `work` lacks something else.
    """
    if params.endpoint == OFFLINE:
        return Quote(stage=stage, notes=(f"{stage}: {FREE}",))
    submitted = set() if changing else under_way(store_path(), place(params.endpoint))
    walk = _Walk(turns=turns, assumed=ANSWER_TOKENS[stage], submitted=submitted, changing=bool(changing))
    with suppress(Unanswered):
        work(open_replay(params, walk.hear))
    found = _quote(stage, walk, params)
    return replace(found, notes=(f"{stage}: {changing}", *found.notes)) if changing else found


def total(quotes: Sequence[Quote]) -> Quote:
    """Stages that run one after the other, taken together."""
    costs = [one.cost for one in quotes if one.cost is not None]
    return Quote(
        stage="total",
        questions=sum(one.questions for one in quotes),
        answered=sum(one.answered for one in quotes),
        submitted=sum(one.submitted for one in quotes),
        requests=sum((one.requests for one in quotes), NOTHING),
        prompt_tokens=sum((one.prompt_tokens for one in quotes), NOTHING),
        completion_tokens=sum((one.completion_tokens for one in quotes), NOTHING),
        cost=sum(costs, NOTHING) if len(costs) == len(quotes) else None,
        seconds=sum((one.seconds for one in quotes), NOTHING),
    )


def quote_table(quotes: Sequence[Quote]) -> RenderableType:
    """Quotes as columns, their total last where there are several, and beneath them what was assumed."""
    table = Table(box=box.SIMPLE_HEAD)
    columns = [*quotes, total(quotes)] if len(quotes) > 1 else quotes
    table.add_column("")
    for one in columns:
        table.add_column(one.stage, justify="right")
    table.add_row("questions", *(f"{one.questions:,}" for one in columns))
    table.add_row("answers in the store", *(f"{one.answered:,}" for one in columns))
    if any(one.submitted for one in columns):
        table.add_row("under way in batches", *(f"{one.submitted:,}" for one in columns))
    table.add_row("requests to send", *(_range(one.requests) for one in columns))
    table.add_row("prompt tokens", *(_range(one.prompt_tokens, _rough) for one in columns))
    table.add_row("completion tokens", *(_range(one.completion_tokens, _rough) for one in columns))
    table.add_row("cost", *(_range(one.cost, money) if one.cost else "no price set" for one in columns))
    table.add_row("time", *(_range(one.seconds, _time) for one in columns))
    notes = dict.fromkeys(note for one in quotes for note in one.notes)
    beneath = Table.grid(padding=(0, 1))
    for note in notes:
        beneath.add_row("", "·", Text(note, style="dim"))
    return Group(table, beneath)


def show(quotes: Sequence[Quote]) -> str:
    """Print quotes as a table; returns them in a line."""
    Console().print(quote_table(quotes))
    every = total(quotes)
    cost = f"cost {_range(every.cost, money)}" if every.cost else "no price set"
    return f"nothing sent; to send: {_range(every.requests)} requests, {cost}"


@dataclass(slots=True, kw_only=True)
class _Walk:
    """What a walk over the store has met so far: sums, and the keys by which equal questions count once."""

    turns: int
    assumed: int  # tokens of an answer
    submitted: set[str]
    changing: bool = False  # answers tell of tokens, and every first question is open
    first: set[str] = field(default_factory=set)
    answered: set[str] = field(default_factory=set)
    open: set[str] = field(default_factory=set)
    # Of answers that say what they took, and of what they answer.
    telling: int = 0
    told_characters: int = 0
    told_prompt: int = 0
    told_completion: int = 0
    # Of what is open: the next turns, and those that may follow.
    next_requests: int = 0
    next_characters: int = 0
    later_requests: int = 0
    later_characters: int = 0
    growths: int = 0  # how often later turns repeat an answer and the message after it
    limit: int | None = None  # tokens of an answer, as the requests have it

    def hear(self, key: str, request: Request, answer: Answer | None) -> None:
        """Count a question in; see `client.Heard`."""
        characters = sum(len(message["content"]) for message in request["messages"])
        turn = 1 + sum(message["role"] == "assistant" for message in request["messages"])
        if turn == 1:
            self.first.add(key)
        if turn == 1 if self.changing else answer is None:
            self._open(key, characters, left=max(self.turns - turn, 0))
            self.limit = next((request[name] for name in CEILINGS if name in request), None)
        if answer is not None and key not in self.answered:
            self.answered.add(key)
            if answer.prompt_tokens and answer.completion_tokens:
                self.telling += 1
                self.told_characters += characters
                self.told_prompt += answer.prompt_tokens
                self.told_completion += answer.completion_tokens

    def _open(self, key: str, characters: int, *, left: int) -> None:
        """`left`: turns that may follow this one."""
        if key not in self.open and key not in self.submitted:
            self.next_requests += 1
            self.next_characters += characters
        self.open.add(key)
        # What equal questions make of one answer differs with their labels, so each may go on by itself.
        self.later_requests += left
        self.later_characters += left * characters
        self.growths += left * (left + 1) // 2


def _quote(stage: str, walk: _Walk, params: TeacherSettings) -> Quote:
    requests = Range(least=walk.next_requests, most=walk.next_requests + walk.later_requests)
    per_character = walk.told_prompt / walk.told_characters if walk.telling else TOKENS_PER_CHARACTER
    answer, known = _answer_tokens(walk)
    notes = [f"{stage}: {note}" for note in known]
    least = walk.next_characters * per_character
    prompt = Range(
        least=least,
        most=least + walk.later_characters * per_character + walk.growths * (answer.most + FOLLOW_UP_TOKENS),
    )
    completion = Range(least=requests.least * answer.least, most=requests.most * answer.most)
    cost = _cost(prompt, completion, params)
    if not requests.most:
        cost, notes = NOTHING, [f"{stage}: all answers are in the store"]
    else:
        if cost is None:
            notes.append("no price set: give run.prompt_price and run.completion_price, per million tokens")
        notes += _limits(requests, params)
    return Quote(
        stage=stage,
        questions=len(walk.first),
        answered=0 if walk.changing else len(walk.answered),
        submitted=len(walk.open & walk.submitted),
        requests=requests,
        prompt_tokens=prompt,
        completion_tokens=completion,
        cost=cost,
        seconds=_seconds(requests, prompt + completion, walk.turns, params),
        notes=tuple(notes),
    )


def _answer_tokens(walk: _Walk) -> tuple[Range, list[str]]:
    """What one answer takes, and in words how that and the tokens of prompts are known."""
    if walk.telling:
        mean = walk.told_completion / walk.telling
        return Range(least=mean, most=mean), [
            f"tokens as in the {walk.telling:,} answers that are there: {mean:,.0f} an answer"
        ]
    notes = [f"prompt tokens assumed: a token for {1 / TOKENS_PER_CHARACTER:g} characters"]
    if walk.limit:
        return Range(least=min(walk.assumed, walk.limit), most=walk.limit), [
            *notes,
            f"completion tokens: at most {walk.limit:,} an answer, as teacher.request has it",
        ]
    return Range(least=walk.assumed, most=walk.assumed), [
        *notes,
        f"completion tokens unknown: {walk.assumed} an answer assumed; a model that reasons takes many times that",
    ]


def _cost(prompt: Range, completion: Range, params: TeacherSettings) -> Range | None:
    least, most = cost_of(prompt.least, completion.least, params), cost_of(prompt.most, completion.most, params)
    return None if least is None or most is None else Range(least=least, most=most)


def _seconds(requests: Range, tokens: Range, turns: int, params: TeacherSettings) -> Range:
    """As the slowest of what bounds it: the limits per minute, and how many may be under way at a time."""
    if params.mode == "batch":
        return Range(least=0, most=turns * WINDOW_HOURS * HOUR if requests.most else 0)

    def longest(count: float, size: float) -> float:
        bounds = [count * SECONDS / params.concurrency, SECONDS if count else 0]
        if params.requests_per_minute:
            bounds.append(count / params.requests_per_minute * 60)
        if params.tokens_per_minute:
            bounds.append(size / params.tokens_per_minute * 60)
        return max(bounds)

    return Range(least=longest(requests.least, tokens.least), most=longest(requests.most, tokens.most))


def _limits(requests: Range, params: TeacherSettings) -> list[str]:
    """What else bounds a run, in words."""
    if params.mode == "batch":
        notes = [f"time: at most {WINDOW_HOURS} hours a turn, oftener far less; are the prices those of batches?"]
    else:
        notes = [f"time: {SECONDS:g} s an answer assumed, {params.concurrency} at a time, within the limits per minute"]
    return notes + [
        f"run.{name}={most:,} may end a run before that; the next one goes on"
        for name in CAPS
        if (most := getattr(params, name)) is not None
    ]


def _range(found: Range, show: Callable[[float], str] = lambda number: f"{number:,.0f}") -> str:
    least, most = show(found.least), show(found.most)
    return least if least == most else f"{least} to {most}"


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
