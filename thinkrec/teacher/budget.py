"""What a run may spend, and what it has spent: a cap holds before the money is gone, not after.

Whatever is about to be sent reserves what it will probably take, and settles by what the server counted (`usage`) or,
where it does not count or counts what cannot be, as reserved. A prompt is reserved by its characters, at the rate that
the server's counts teach; a completion by the request's own ceiling (`max_completion_tokens` or `max_tokens` in
teacher.request) or else as the longest so far.

How far a cap on tokens or money may be overshot: with such a ceiling by the error of the prompts' estimates alone, of
what is under way together; without one also by what those answers (at most `concurrency`) take beyond the longest one
before them. The cap on requests is exact. Of prices: what providers give off for cached prompts is not known here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from thinkrec.params import TeacherSettings

TOKENS_PER_CHARACTER = 1 / 4  # of a prompt, until the server has counted one
FIRST_COMPLETION = 1000  # tokens reserved for an answer before any has come
MOST_TOKENS = 10_000_000  # of a prompt or an answer, beyond any model there is
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
            took = f"{self.prompt_tokens + self.completion_tokens:,} tokens"
        else:
            took = f"cost {money(self.cost)}"
        return f"{self.requests:,} requests, {took}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a request under way is taken for; its `characters` teach the next ones."""

    characters: int
    prompt: float  # tokens
    completion: float  # tokens


class Budget:
    """A run's account and its caps."""

    def __init__(self, params: TeacherSettings) -> None:
        self.params = params
        self.spent = Spent(cost=cost_of(0, 0, params))
        self.stopped: str | None = None  # the cap that has kept something back
        self.longest = float(next((params.request[name] for name in CEILINGS if name in params.request), 0))
        self.bounded = bool(self.longest)  # by the request itself
        self.counted = [0, 0]  # characters of prompts, and the tokens that the server counted in them
        self.under_way: list[Estimate] = []
        self.pledged = (0.0, 0.0)  # (prompt, completion) tokens of what another run will collect
        self.settled = asyncio.Event()

    def prompt(self, characters: int) -> float:
        """How many tokens a prompt will turn out to be."""
        known, tokens = self.counted
        return characters * (tokens / known if known else TOKENS_PER_CHARACTER)

    def learn(self, characters: int, prompt: int, completion: int) -> None:
        """Take an answer's tokens for the measure of those to come."""
        if prompt:
            self.counted = [self.counted[0] + characters, self.counted[1] + prompt]
        if not self.bounded:
            self.longest = max(self.longest, completion)

    def pledge(self, characters: int) -> bool:
        """Count in a request whose answer another run will have (see `collect`); False: a cap keeps it back."""
        wanted = self._estimate(characters)
        cap = self._missed([*self.under_way, wanted])
        if cap is None:
            self.pledged = (self.pledged[0] + wanted.prompt, self.pledged[1] + wanted.completion)
            self.spent = self._with(requests=1)
        self.stopped = self.stopped or cap
        return cap is None

    def collect(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Add what answers took that another run had asked for; caps of this one do not mind, so add it last."""
        self.spent = self._with(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)

    async def reserve(self, characters: int) -> Estimate | None:
        """Room for a request, at once or once what is under way has left some; None: a cap is reached."""
        while True:
            wanted = self._estimate(characters)
            cap = self._missed([*self.under_way, wanted])
            if cap is None:
                self.under_way.append(wanted)
                self.spent = self._with(requests=1)
                return wanted
            if not self.under_way:  # so what is said of a stop is what was spent
                self.stopped = cap
                return None
            await self.settled.wait()

    def settle(self, estimate: Estimate, used: tuple[int, int] | None) -> None:
        """A request is over: it took `used` (prompt, completion) tokens; None: nobody knows, so what was reserved."""
        self.under_way.remove(estimate)
        prompt, completion = used or (round(estimate.prompt), round(estimate.completion))
        self.spent = self._with(prompt_tokens=prompt, completion_tokens=completion)
        if used:
            self.learn(estimate.characters, *used)
        self.settled.set()
        self.settled = asyncio.Event()  # who waits from now on waits for the next

    def _estimate(self, characters: int) -> Estimate:
        return Estimate(
            characters=characters, prompt=self.prompt(characters), completion=self.longest or FIRST_COMPLETION
        )

    def _with(self, *, requests: int = 0, prompt_tokens: int = 0, completion_tokens: int = 0) -> Spent:
        prompt = self.spent.prompt_tokens + prompt_tokens
        completion = self.spent.completion_tokens + completion_tokens
        return Spent(
            requests=self.spent.requests + requests,
            prompt_tokens=prompt,
            completion_tokens=completion,
            cost=cost_of(prompt, completion, self.params),
        )

    def _missed(self, under_way: list[Estimate]) -> str | None:
        """The cap that would not hold with all of this under way, or None."""
        params, spent = self.params, self.spent
        if params.max_requests is not None and spent.requests >= params.max_requests:
            return "max_requests"
        if params.max_tokens_spent is None and params.max_cost is None:
            return None
        prompt = spent.prompt_tokens + self.pledged[0] + sum(estimate.prompt for estimate in under_way)
        completion = spent.completion_tokens + self.pledged[1] + sum(estimate.completion for estimate in under_way)
        if params.max_tokens_spent is not None and prompt + completion > params.max_tokens_spent:
            return "max_tokens_spent"
        cost = cost_of(prompt, completion, params)
        return "max_cost" if params.max_cost is not None and cost is not None and cost > params.max_cost else None


def cost_of(prompt_tokens: float, completion_tokens: float, params: TeacherSettings) -> float | None:
    """What tokens cost, by prices per million of them and in their currency; None where one is unknown."""
    of_prompt, of_completion = params.prompt_price, params.completion_price
    if of_prompt is None or of_completion is None:
        return None
    return (prompt_tokens * of_prompt + completion_tokens * of_completion) / 1e6


def money(amount: float) -> str:
    """A cost in words, in whatever currency the prices are."""
    return f"{amount:,.2f}" if amount >= 1 or not amount else f"{amount:.4f}"


def usage(body: Mapping[str, Any]) -> tuple[int, int] | None:
    """The (prompt, completion) tokens that a server's answer says it took.

    None where it does not say, or says what cannot be: a prompt of none, less than nothing, more than `MOST_TOKENS`.
    """
    found = body.get("usage")
    if not isinstance(found, dict):
        return None
    prompt, completion = (found.get(name) for name in ("prompt_tokens", "completion_tokens"))
    if not (type(prompt) is int and type(completion) is int):
        return None
    return (prompt, completion) if 1 <= prompt <= MOST_TOKENS and 0 <= completion <= MOST_TOKENS else None
