"""Limits per minute, on a clock that only moves when somebody sleeps."""

import asyncio

import pytest

from thinkrec.teacher.limits import Bucket


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        self.now += seconds


def taken(bucket, clock, amounts):
    """When each of some amounts was to be had, one taker after another."""

    async def run():
        moments = []
        for amount in amounts:
            await bucket.take(amount)
            moments.append(clock.now)
        return moments

    return asyncio.run(run())


def bucket(per_minute):
    clock = Clock()
    return Bucket(per_minute, clock=clock, sleep=clock.sleep), clock


def test_requests_come_at_the_rate():
    limit, clock = bucket(30)  # one every two seconds, one at once
    assert taken(limit, clock, [1] * 4) == pytest.approx([0, 2, 4, 6])


@pytest.mark.parametrize("per_minute", [1, 7, 60, 600])
def test_no_minute_holds_more_than_the_limit_and_a_seconds_worth(per_minute):
    limit, clock = bucket(per_minute)
    moments = taken(limit, clock, [1] * (3 * per_minute))
    most = max(sum(begin <= moment < begin + 60 - 1e-6 for moment in moments) for begin in moments)
    assert most <= per_minute + max(1, per_minute / 60)


def test_idle_time_saves_up_no_more_than_the_bucket_holds():
    limit, clock = bucket(120)
    clock.now = 1000.0
    assert taken(limit, clock, [1] * 4) == pytest.approx([1000, 1000, 1000.5, 1001])


def test_a_large_amount_is_lent_and_waited_for():
    limit, clock = bucket(600)  # ten a second
    assert taken(limit, clock, [100, 10]) == pytest.approx([9, 10])


def test_what_an_answer_turned_out_to_cost_is_waited_for_by_those_who_come_next():
    limit, clock = bucket(600)
    limit.charge(60)
    assert taken(limit, clock, [10]) == pytest.approx([6])


def test_takers_at_once_are_served_one_after_another():
    limit, _ = bucket(60)
    waits = []

    async def sleep(seconds):
        waits.append(seconds)

    limit.sleep = sleep

    async def run():
        await asyncio.gather(*(limit.take(1) for _ in range(3)))

    asyncio.run(run())
    assert waits == pytest.approx([1, 2])
