"""How fast a teacher may be asked: limits per minute. (How much in all: `budget`.)"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable


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
        self.full = max(1.0, self.rate)
        self.level, self.then = self.full, clock()
        self.clock, self.sleep = clock, sleep

    async def take(self, amount: float) -> None:
        """Wait until `amount` may be used; more than the bucket holds is lent, and waited for."""
        self.charge(amount)
        if self.level < 0:
            await self.sleep(-self.level / self.rate)

    def charge(self, amount: float) -> None:
        """Take without waiting (those who come next will); a negative amount gives back."""
        now = self.clock()
        self.level = min(self.full, self.level + (now - self.then) * self.rate) - amount
        self.then = now
