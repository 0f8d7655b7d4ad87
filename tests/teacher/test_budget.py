"""The budget: reserved before it is spent, settled by what the server counted, caps that hold, limits per minute."""

import asyncio
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.project import teacher_params
from thinkrec.errors import UserError
from thinkrec.teacher.answers import read_usage
from thinkrec.teacher.budget import FIRST_COMPLETION, Bucket, Budget, Spent
from thinkrec.teacher.client import open_session
from thinkrec.teacher.endpoint import open_teacher

PRICES = {"prompt_price": 2.0, "completion_price": 8.0}


def budget(**changes):
    return Budget(teacher_params("offline", **changes))


def spend(account, *used, characters=400):
    """Requests one after another; how many were let through."""

    async def run():
        for count, tokens in enumerate(used):
            estimate = await account.reserve(characters)
            if estimate is None:
                return count
            account.settle(estimate, tokens)
        return len(used)

    return asyncio.run(run())


def test_cost_is_by_the_million_and_unknown_without_both_prices():
    account = budget(**PRICES)
    spend(account, (500_000, 250_000), (1, 0))
    assert account.spent == Spent(requests=2, prompt_tokens=500_001, completion_tokens=250_000, cost=3.000002)
    assert str(account.spent) == "2 requests, cost 3.00"
    unpriced = budget(prompt_price=2.0)
    spend(unpriced, (1500, 500))
    assert (unpriced.spent.cost, str(unpriced.spent)) == (None, "1 requests, 2,000 tokens")


def test_prompts_are_estimated_as_the_server_counts_them():
    account = budget()
    assert account.estimate(400).prompt == 100
    spend(account, (200, 10), (400, 10), characters=400)  # 600 tokens in 800 characters
    assert account.estimate(400).prompt == 300


def test_what_another_run_collects_counts_towards_the_caps_and_not_as_spent():
    # 100 + 100 tokens each, by the characters and the request's ceiling.
    account = budget(max_tokens_spent=500, request={"max_tokens": 100})
    assert [account.pledge(400) for _ in range(3)] == [True, True, False]
    assert account.stopped == "max_tokens_spent"
    assert account.spent == Spent(requests=2)
    account.collect(30, 20)
    assert account.spent == Spent(requests=2, prompt_tokens=30, completion_tokens=20)
    few = budget(max_requests=1)
    assert [few.pledge(4), few.pledge(4)] == [True, False]


def test_answers_of_the_store_teach_what_others_will_take():
    account = budget()
    account.learn(400, 200, 50)
    assert (account.estimate(400).prompt, account.longest) == (200, 50)


def test_an_answer_is_reserved_as_the_longest_so_far_or_as_the_request_allows():
    async def reserved(account):
        estimate = await account.reserve(4)
        account.settle(estimate, (1, 0))
        return estimate.completion

    free, bounded = budget(), budget(request={"max_completion_tokens": 64})
    assert asyncio.run(reserved(free)) == FIRST_COMPLETION
    for account in (free, bounded):
        spend(account, (1, 300), (1, 20))
    assert (asyncio.run(reserved(free)), asyncio.run(reserved(bounded))) == (300, 64)


def test_what_is_under_way_counts_and_what_it_leaves_is_used():
    async def run():
        account = budget(max_tokens_spent=1000, request={"max_tokens": 300})
        first, second = [await account.reserve(400) for _ in range(2)]  # 400 tokens each
        third = asyncio.create_task(account.reserve(400))
        await asyncio.sleep(0.01)
        assert not third.done()  # 1,200 would be too many, though nothing is spent
        account.settle(first, (100, 50))
        assert await third is not None  # 150 + 400 + 400
        account.settle(second, (100, 300))
        account.settle(await third, (100, 300))
        assert await account.reserve(400) is None
        return account

    account = asyncio.run(run())
    assert account.stopped == "max_tokens_spent"
    assert account.spent.prompt_tokens + account.spent.completion_tokens == 950


def test_what_brought_no_count_is_taken_as_reserved():
    account = budget(request={"max_tokens": 50})
    spend(account, None, (0, 0))  # given up; refused
    assert account.spent == Spent(requests=2, prompt_tokens=100, completion_tokens=50)
    assert account.estimate(400).prompt == 100  # and teaches nothing


@settings(deadline=None)  # a busy machine may stall any one example
@given(st.lists(st.integers(1, 500), min_size=1, max_size=60), st.integers(1, 8), st.integers(1000, 20_000))
def test_with_a_ceiling_no_order_of_answers_overspends(lengths, workers, cap):
    account = budget(max_tokens_spent=cap, request={"max_tokens": 500})
    queue = iter(lengths)

    async def work():
        for length in queue:
            estimate = await account.reserve(400)
            if estimate is None:
                return
            await asyncio.sleep(0)
            account.settle(estimate, (100, length))

    async def run():
        await asyncio.gather(*(work() for _ in range(workers)))

    asyncio.run(run())
    spent = account.spent.prompt_tokens + account.spent.completion_tokens
    assert spent <= cap
    assert account.spent.requests == len(lengths) or spent + 600 > cap  # and no room is left over


@pytest.mark.parametrize(
    "said",
    [None, 3, {}, (5, "many"), (5, None), (5.0, 2), (True, 2), (0, 0), (-5, -2), (5, -2), (10**400, 3), (5, 10**8)],
)
def test_an_answer_without_a_usage_to_believe_is_no_free_answer(said):
    if isinstance(said, tuple):
        said = dict(zip(("prompt_tokens", "completion_tokens"), said, strict=True))
    assert read_usage({} if said is None else {"usage": said}) is None


def test_an_answer_of_no_tokens_took_its_prompt():
    assert read_usage({"usage": {"prompt_tokens": 5, "completion_tokens": 0}}) == (5, 0)


def answering(completion=30):
    heard = []

    async def app(scope, receive, send):
        heard.append(json.loads((await receive())["body"]))
        message = {"role": "assistant", "content": "Yes."}
        body = {
            "choices": [{"message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 20, "completion_tokens": completion},
        }
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})

    return app, heard


def ask(teacher, count):
    async def run():
        async with open_session(teacher) as session, asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(session.ask([{"role": "user", "content": f"{number:02}"}]))

    asyncio.run(run())


@pytest.mark.parametrize(
    ("caps", "sent"),
    [({"max_tokens_spent": 520}, 10), ({"max_cost": 0.0015, **PRICES}, 5)],  # 50 tokens each, 0.00028 each
)
def test_a_cap_stops_before_it_is_passed_and_says_what_was_spent(caps, sent):
    app, heard = answering()
    teacher = open_teacher(
        teacher_params("offline", concurrency=3, request={"max_completion_tokens": 30}, **caps), app=app, retries=0
    )
    with pytest.raises(ExceptionGroup) as caught:
        ask(teacher, 40)
    (error, *_) = caught.value.exceptions
    assert isinstance(error, UserError)
    name = next(iter(caps))
    assert f"run.{name}={caps[name]} has no room for another request; what they brought ({sent} requests" in str(error)
    assert len(heard) == teacher.spent.requests == sent


def test_further_fields_are_sent_and_are_part_of_the_question(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    app, heard = answering()
    plain = open_teacher(teacher_params("offline"), app=app)
    warm = open_teacher(teacher_params("offline", request={"temperature": 0.7, "top_k": 5}), app=app)
    ask(plain, 1)
    ask(warm, 1)
    messages = [{"role": "user", "content": "00"}]
    assert heard == [
        {"model": "m", "messages": messages},
        {"model": "m", "messages": messages, "temperature": 0.7, "top_k": 5},
    ]
    assert not Path(".cache").exists()


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
    """A bucket on a clock that only moves when somebody sleeps."""
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
