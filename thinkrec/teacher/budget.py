"""What a run may spend, what it has spent, and how fast it may ask: a cap holds before the money is gone, not after.

Whatever is about to be sent reserves what it will probably take, and settles by what the server counted or, where it
does not count or counts what cannot be, as reserved. A prompt is reserved by its characters, at the rate that the
server's counts teach; a completion by the request's own ceiling (`max_completion_tokens` or `max_tokens` in
teacher.request) or else as the longest so far.

How far a cap on tokens or money may be overshot: with such a ceiling by the error of the prompts' estimates alone, of
what is under way together; without one also by what those answers (at most `concurrency`) take beyond the longest one
before them. The cap on requests is exact. Discounts of providers for cached prompts are not known here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from thinkrec.params import TeacherSettings

TOKENS_PER_CHARACTER = 1 / 4  # of a prompt, until the server has counted one
FIRST_COMPLETION = 1000  # tokens reserved for an answer before any has come
CEILINGS = ("max_completion_tokens", "max_tokens")


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
        self.spent = Spent(cost=cost_of(0, 0, params))
        self.stopped: str | None = None  # the cap that has kept something back
        self.longest = float(next((params.request[name] for name in CEILINGS if name in params.request), 0))
        self.bounded = bool(self.longest)  # by the request itself
        self.counted = (0, 0)  # characters of prompts, and the tokens that the server counted in them
        self.under_way: list[Estimate] = []
        self.pledged: list[Estimate] = []  # whose answers another run will collect
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
            self.pledged.append(estimate)
            self._spend(requests=1)
        self.stopped = self.stopped or cap
        return cap is None

    def collect(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Add what answers took that another run had asked for; this run's caps ignore them, so add them last."""
        self._spend(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)

    async def reserve(self, characters: int) -> Estimate | None:
        """Room for a request, as soon as the limits per minute and the caps leave some; None: a cap is reached."""
        if self.request_rate and not self.stopped:
            await self.request_rate.take(1)
        if self.token_rate and not self.stopped:
            await self.token_rate.take(self.estimate(characters).prompt)
        while True:
            estimate = self.estimate(characters)
            cap = self._passed_cap(estimate)
            if cap is None:
                self.under_way.append(estimate)
                self._spend(requests=1)
                return estimate
            if not self.under_way:  # so what the message about the cap says is all that was spent
                self.stopped = cap
                return None
            await self.settled.wait()

    def settle(self, estimate: Estimate, used: tuple[int, int] | None) -> None:
        """A request is over: it took `used` (prompt, completion) tokens; None: nobody knows, so what was reserved."""
        self.under_way.remove(estimate)
        prompt, completion = used or (round(estimate.prompt), round(estimate.completion))
        self._spend(prompt_tokens=prompt, completion_tokens=completion)
        if used:
            self.learn(estimate.characters, *used)
            if self.token_rate:
                self.token_rate.charge(sum(used) - estimate.prompt)
        self.settled.set()
        self.settled = asyncio.Event()  # who waits from now on waits for the next

    def _spend(self, *, requests: int = 0, prompt_tokens: int = 0, completion_tokens: int = 0) -> None:
        prompt = self.spent.prompt_tokens + prompt_tokens
        completion = self.spent.completion_tokens + completion_tokens
        self.spent = Spent(
            requests=self.spent.requests + requests,
            prompt_tokens=prompt,
            completion_tokens=completion,
            cost=cost_of(prompt, completion, self.params),
        )

    def _passed_cap(self, further: Estimate) -> str | None:
        """The cap that one more request would pass, or None."""
        params, spent = self.params, self.spent
        if params.max_requests is not None and spent.requests >= params.max_requests:
            return "max_requests"
        if params.max_tokens_spent is None and params.max_cost is None:
            return None
        expected = [*self.pledged, *self.under_way, further]
        prompt = spent.prompt_tokens + sum(estimate.prompt for estimate in expected)
        completion = spent.completion_tokens + sum(estimate.completion for estimate in expected)
        if params.max_tokens_spent is not None and prompt + completion > params.max_tokens_spent:
            return "max_tokens_spent"
        cost = cost_of(prompt, completion, params)
        return "max_cost" if params.max_cost is not None and cost is not None and cost > params.max_cost else None


class Bucket:
    """A token bucket: in no minute is more taken than `per_minute` and the second's worth that it holds when full.

    Takers are served in the order in which they come, each as soon as what those before it took has flowed back.
    """

    def __init__(
        self,
        per_minute: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.rate = per_minute / 60
        self.capacity = max(1.0, self.rate)
        self.level, self.updated = self.capacity, clock()
        self.clock, self.sleep = clock, sleep

    async def take(self, amount: float) -> None:
        """Wait until `amount` may be used; more than the bucket holds is lent, and waited for."""
        self.charge(amount)
        if self.level < 0:
            await self.sleep(-self.level / self.rate)

    def charge(self, amount: float) -> None:
        """Take without waiting (those who come next will); a negative amount gives back."""
        now = self.clock()
        self.level = min(self.capacity, self.level + (now - self.updated) * self.rate) - amount
        self.updated = now


def cost_of(prompt_tokens: float, completion_tokens: float, params: TeacherSettings) -> float | None:
    """What tokens cost, by prices per million of them and in their currency; None where one is unknown."""
    prompt_price, completion_price = params.prompt_price, params.completion_price
    if prompt_price is None or completion_price is None:
        return None
    return (prompt_tokens * prompt_price + completion_tokens * completion_price) / 1e6


def format_money(amount: float) -> str:
    """A cost in words, in whatever currency the prices are."""
    return f"{amount:,.2f}" if amount >= 1 or not amount else f"{amount:.4f}"
