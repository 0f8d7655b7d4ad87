"""What a run may spend, what it has spent, and how fast it may ask: a cap holds before the money is gone, not after.

A request reserves what it will probably take, and settles by what the server counted (as reserved, where it does not).
A prompt is reserved by its characters, at the rate that the server's counts teach; a completion by the request's own
ceiling (`CEILINGS` in teacher.request) or else as the longest so far. So the cap on requests is exact. One on tokens or
money may be overshot by the prompts' error and, without a ceiling, by what the answers under way take beyond the
longest before them. Discounts of providers for cached prompts are not known here.
"""

from __future__ import annotations

import asyncio
import random
from asyncio import sleep
from dataclasses import dataclass, replace
from time import monotonic

from thinkrec.params import TeacherSettings

TOKENS_PER_CHARACTER = 1 / 4  # of a prompt, until the server has counted one
FIRST_COMPLETION = 1000  # tokens reserved for an answer before any has come
CEILINGS = ("max_completion_tokens", "max_tokens")
PATIENCE = 300.0  # seconds that a teacher may turn all requests away before the run ends
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0  # seconds, doubled each time
FIRST_GAP, LEAST_GAP, SLOWEST = 0.05, 0.005, 0.25  # seconds between two requests
CLOSER = 0.8  # what an answer makes of the gap
LOOK = 0.05  # seconds
CAPS = ("max_requests", "max_tokens_spent", "max_cost")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What has been sent in this run, retries included, and what it took; answers from the store took nothing.

    `cost` is in the currency of the prices, None where one is unknown.
    """

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None

    def __str__(self) -> str:
        if self.cost is None:
            amount = f"{self.prompt_tokens + self.completion_tokens:,} tokens"
        else:
            amount = f"cost {format_money(self.cost)}"
        return f"{self.requests:,} requests, {amount}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a request is expected to take; its `characters` teach the next ones."""

    characters: int
    prompt: float  # tokens
    completion: float  # tokens


class Budget:
    """A run's account, its caps and its limits per minute."""

    def __init__(self, params: TeacherSettings) -> None:
        self.params = params
        self.spent = Spent(cost=compute_cost(0, 0, params))
        self.stopped: str | None = None  # the cap that has kept something back
        self.longest = float(next((params.request[name] for name in CEILINGS if name in params.request), 0))
        self.bounded = bool(self.longest)  # by the request itself
        self.counted = (0, 0)  # characters of prompts, and the tokens that the server counted in them
        self.under_way: list[Estimate] = []
        self.settled = asyncio.Event()
        self.request_rate = Bucket(params.requests_per_minute) if params.requests_per_minute else None
        self.token_rate = Bucket(params.tokens_per_minute) if params.tokens_per_minute else None

    def estimate(self, characters: int) -> Estimate:
        """What a request of so many characters will probably take."""
        counted, tokens = self.counted
        prompt = characters * (tokens / counted if counted else TOKENS_PER_CHARACTER)
        return Estimate(characters=characters, prompt=prompt, completion=self.longest or FIRST_COMPLETION)

    def learn(self, characters: int, prompt_tokens: int, completion_tokens: int) -> None:
        """Take an answer's tokens for the measure of those to come."""
        if prompt_tokens:
            self.counted = (self.counted[0] + characters, self.counted[1] + prompt_tokens)
        if not self.bounded:
            self.longest = max(self.longest, completion_tokens)

    def pledge(self, characters: int) -> bool:
        """Count in a request whose answer another run will collect; False: a cap keeps it back."""
        estimate = self.estimate(characters)
        cap = self._passed_cap(estimate)
        if cap is None:
            self._begin(estimate)
        self.stopped = self.stopped or cap
        return cap is None

    async def reserve(self, characters: int) -> Estimate | None:
        """Room for a request, as soon as the limits per minute and the caps leave some; None: a cap is reached."""
        if self.request_rate and not self.stopped:
            await self.request_rate.take(1)
        if self.token_rate and not self.stopped:
            await self.token_rate.take(self.estimate(characters).prompt)
        while cap := self._passed_cap(estimate := self.estimate(characters)):
            if not self.under_way:  # so what the message about the cap says is all that was spent
                self.stopped = cap
                return None
            await self.settled.wait()
        self._begin(estimate)
        return estimate

    def settle(self, estimate: Estimate, used: tuple[int, int] | None) -> None:
        """A request is over: it took `used` (prompt, completion) tokens; None: nobody knows, so what was reserved."""
        self.under_way.remove(estimate)
        self.charge(*(used or (round(estimate.prompt), round(estimate.completion))))
        if used:
            self.learn(estimate.characters, *used)
            if self.token_rate:
                self.token_rate.charge(sum(used) - estimate.prompt)
        self.settled.set()
        self.settled = asyncio.Event()  # who waits from now on waits for the next

    def charge(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Add what answers took; those that another run had asked for are added last, since no cap here is theirs."""
        prompt = self.spent.prompt_tokens + prompt_tokens
        completion = self.spent.completion_tokens + completion_tokens
        cost = compute_cost(prompt, completion, self.params)
        self.spent = replace(self.spent, prompt_tokens=prompt, completion_tokens=completion, cost=cost)

    def _begin(self, estimate: Estimate) -> None:
        self.under_way.append(estimate)
        self.spent = replace(self.spent, requests=self.spent.requests + 1)

    def _passed_cap(self, further: Estimate) -> str | None:
        """The cap that one more request would pass, or None."""
        params = self.params
        caps = {name: cap for name in CAPS if (cap := getattr(params, name)) is not None}
        expected = [*self.under_way, further] if caps else []
        prompt = self.spent.prompt_tokens + sum(estimate.prompt for estimate in expected)
        completion = self.spent.completion_tokens + sum(estimate.completion for estimate in expected)
        cost = compute_cost(prompt, completion, params) or 0.0
        after = {"max_requests": self.spent.requests + 1, "max_tokens_spent": prompt + completion, "max_cost": cost}
        return next((name for name, cap in caps.items() if after[name] > cap), None)


class Pace:
    """When the next request may go out: the run pauses as a whole while a teacher turns it away (status 429).

    A pause lasts as long as the server asks for, or else twice as long as the one before, to `LONGEST_PAUSE`. Requests
    after it come one by one, `SLOWEST` seconds apart, and closer with each answer, so that they do not return all at
    once. A run begins a little like that, too.
    """

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self.gap = FIRST_GAP  # seconds between two requests; 0: none
        self.next = self.paused_at = monotonic()
        self.length = 0.0  # of the pause, in seconds
        self.since: float | None = None  # when the teacher began to turn away everybody

    async def take(self) -> float:
        """Wait until a request may go out; returns when it does."""
        while (now := monotonic()) < self.next:
            await sleep(min(self.next - now, LOOK))  # an answer may bring it forward
        self.next = now + self.gap
        return now

    def note_answer(self, sent: float) -> None:
        """The teacher has answered what was sent at that time."""
        self.since = None
        if sent >= self.paused_at:  # what was sent before a pause says nothing of now
            self.length, self.gap = 0.0, self.gap * CLOSER if self.gap * CLOSER > LEAST_GAP else 0.0
            self.next = min(self.next, monotonic() + self.gap)

    def pause(self, sent: float, wait: float) -> bool:
        """The teacher has turned away what was sent at that time, and asks for `wait` seconds (0: names none).

        Returns: whether there is patience left to ask again.
        """
        now = monotonic()
        self.since = now if self.since is None else self.since
        if sent >= self.paused_at:
            self.length = min(2 * self.length or FIRST_PAUSE, LONGEST_PAUSE)
            self.paused_at = now
        self.gap = SLOWEST
        self.next = max(self.next, now + (wait or self.length) * random.uniform(1, 1.1))
        return now + wait - self.since < self.patience


class Bucket:
    """A token bucket: in no minute is more taken than `per_minute` and the second's worth that it holds when full.

    Takers are served in the order in which they come, each as soon as what those before it took has flowed back.
    """

    def __init__(self, per_minute: float) -> None:
        self.rate = per_minute / 60
        self.capacity = max(1.0, self.rate)
        self.level, self.updated = self.capacity, monotonic()

    async def take(self, amount: float) -> None:
        """Wait until `amount` may be used; more than the bucket holds is lent, and waited for."""
        self.charge(amount)
        if self.level < 0:
            await sleep(-self.level / self.rate)

    def charge(self, amount: float) -> None:
        """Take without waiting (those who come next will); a negative amount gives back."""
        now = monotonic()
        self.level = min(self.capacity, self.level + (now - self.updated) * self.rate) - amount
        self.updated = now


def compute_cost(prompt_tokens: float, completion_tokens: float, params: TeacherSettings) -> float | None:
    """What tokens cost, by prices per million of them and in their currency; None where one is unknown."""
    prompt_price, completion_price = params.prompt_price, params.completion_price
    if prompt_price is None or completion_price is None:
        return None
    return (prompt_tokens * prompt_price + completion_tokens * completion_price) / 1e6


def format_money(amount: float) -> str:
    """A cost in words, in whatever currency the prices are."""
    return f"{amount:,.2f}" if amount >= 1 or not amount else f"{amount:.4f}"
