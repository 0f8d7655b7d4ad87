"""The budget: reserved before it is spent, settled by what the server counted, caps that hold, limits per minute."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.project import teacher_params
from tests.teacher.asking import teacher_at, try_to_ask
from tests.teacher.server import says, serve
from thinkrec.errors import UserError
from thinkrec.teacher import budget
from thinkrec.teacher.answers import read_usage
from thinkrec.teacher.budget import FIRST_COMPLETION, LONGEST_PAUSE, Bucket, Budget, Pace, Spent

PRICES = {"prompt_price": 2.0, "completion_price": 8.0}


def account_of(**changes):
    return Budget(teacher_params("offline", **changes))


def spend(account, *used, characters=400):
    """Requests one after another; what was reserved for each."""

    async def run():
        estimates = []
        for tokens in used:
            estimates.append(await account.reserve(characters))
            account.settle(estimates[-1], tokens)
        return estimates

    return asyncio.run(run())


def test_cost_is_by_the_million_and_unknown_without_both_prices():
    account = account_of(**PRICES)
    spend(account, (500_000, 250_000), (1, 0))
    assert account.spent == Spent(requests=2, prompt_tokens=500_001, completion_tokens=250_000, cost=3.000002)
    assert str(account.spent) == "2 requests, cost 3.00"
    unpriced = account_of(prompt_price=2.0)
    spend(unpriced, (1500, 500))
    assert (unpriced.spent.cost, str(unpriced.spent)) == (None, "1 requests, 2,000 tokens")


def test_prompts_are_estimated_as_the_server_counts_them_in_answers_and_as_the_store_knows_them():
    account = account_of()
    assert account.estimate(400).prompt == 100
    spend(account, (200, 10), (400, 10), characters=400)  # 600 tokens in 800 characters
    assert account.estimate(400).prompt == 300
    account.learn(400, 600, 50)
    assert (account.estimate(400).prompt, account.longest) == (400, 50)


def test_an_answer_is_reserved_as_the_longest_so_far_or_as_the_request_allows():
    free, bounded = account_of(), account_of(request={"max_completion_tokens": 64})
    used = (1, 0), (1, 300), (1, 20), (1, 20)
    assert [estimate.completion for estimate in spend(free, *used)] == [FIRST_COMPLETION, FIRST_COMPLETION, 300, 300]
    assert {estimate.completion for estimate in spend(bounded, *used)} == {64}


def test_what_another_run_collects_counts_towards_the_caps_and_not_as_spent():
    # 100 + 100 tokens each, by the characters and the request's ceiling.
    account = account_of(max_tokens_spent=500, request={"max_tokens": 100})
    assert [account.pledge(400) for _ in range(3)] == [True, True, False]
    assert (account.stopped, account.spent) == ("max_tokens_spent", Spent(requests=2))
    few = account_of(max_requests=1)
    assert [few.pledge(4), few.pledge(4)] == [True, False]


def test_what_is_under_way_counts_and_what_it_leaves_is_used():
    async def run():
        account = account_of(max_tokens_spent=1000, request={"max_tokens": 300})
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
    account = account_of(request={"max_tokens": 50})
    spend(account, None, (0, 0))  # given up; refused
    assert account.spent == Spent(requests=2, prompt_tokens=100, completion_tokens=50)
    assert account.estimate(400).prompt == 100  # and teaches nothing


@given(st.lists(st.integers(1, 500), min_size=1, max_size=60), st.integers(1, 8), st.integers(1000, 20_000))
def test_with_a_ceiling_no_order_of_answers_overspends(lengths, workers, cap):
    account = account_of(max_tokens_spent=cap, request={"max_tokens": 500})
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
    ("caps", "sent"),
    [({"max_tokens_spent": 520}, 10), ({"max_cost": 0.0015, **PRICES}, 5)],  # 50 tokens each, 0.00028 each
)
def test_a_cap_stops_before_it_is_passed_and_says_what_was_spent(caps, sent):
    with serve(says("Yes.", tokens=(20, 30))) as server:
        teacher = teacher_at(server.endpoint, concurrency=3, request={"max_completion_tokens": 30}, **caps)
        outcomes = try_to_ask(teacher, *(f"{number:02}" for number in range(40)))
    (line,) = {str(outcome) for outcome in outcomes if isinstance(outcome, UserError)}
    name = next(iter(caps))
    assert f"run.{name}={caps[name]} has no room for another request; what they brought ({sent} requests" in line
    assert len(server.heard) == teacher.spent.requests == sent


@pytest.fixture
def clock(monkeypatch):
    """A clock (its first entry) that only moves when somebody sleeps."""
    now = [0.0]

    async def sleep(seconds):
        now[0] += seconds

    monkeypatch.setattr(budget, "monotonic", lambda: now[0])
    monkeypatch.setattr(budget, "sleep", sleep)
    return now


def take(limit, clock, amounts):
    """When each of some amounts was to be had, one taker after another."""

    async def run():
        moments = []
        for amount in amounts:
            await limit.take(amount)
            moments.append(clock[0])
        return moments

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("per_minute", "charged", "amounts", "moments"),
    [
        (30, 0, [1] * 4, [0, 2, 4, 6]),  # one every two seconds, one at once
        (600, 0, [100, 10], [9, 10]),  # a large amount is lent and waited for
        (600, 60, [10], [6]),  # what an answer turned out to cost is waited for by those who come next
    ],
)
def test_requests_come_at_the_rate(clock, per_minute, charged, amounts, moments):
    limit = Bucket(per_minute)
    limit.charge(charged)
    assert take(limit, clock, amounts) == pytest.approx(moments)


@pytest.mark.parametrize("per_minute", [1, 7, 60, 600])
def test_no_minute_holds_more_than_the_limit_and_a_seconds_worth(clock, per_minute):
    moments = take(Bucket(per_minute), clock, [1] * (3 * per_minute))
    most = max(sum(begin <= moment < begin + 60 - 1e-6 for moment in moments) for begin in moments)
    assert most <= per_minute + max(1, per_minute / 60)


def test_idle_time_saves_up_no_more_than_the_bucket_holds(clock):
    limit = Bucket(120)
    clock[0] = 1000.0
    assert take(limit, clock, [1] * 4) == pytest.approx([1000, 1000, 1000.5, 1001])


def test_takers_at_once_are_served_one_after_another(clock, monkeypatch):
    limit, waits = Bucket(60), []

    async def sleep(seconds):
        waits.append(seconds)

    async def run():
        await asyncio.gather(*(limit.take(1) for _ in range(3)))

    monkeypatch.setattr(budget, "sleep", sleep)
    asyncio.run(run())
    assert waits == pytest.approx([1, 2])


@pytest.mark.parametrize("wait", [0.0, 20.0])
def test_a_run_that_is_turned_away_pauses_as_a_whole_and_returns_little_by_little(clock, monkeypatch, wait):
    storm, sent, answered = 65.0, [], []
    pace = Pace(300.0)

    async def sleep(seconds):
        until = clock[0] + seconds
        while clock[0] < until:
            await asyncio.sleep(0)

    async def tick():
        while True:  # a little each time that all others have had their turn
            clock[0] += 0.02
            await asyncio.sleep(0)

    async def work():
        while len(answered) < 200:
            at = await pace.take()
            sent.append(at)
            await sleep(0.01)
            if at < storm:
                assert pace.pause(at, wait)
            else:
                answered.append(at)
                pace.note_answer(at)

    async def run():
        ticking = asyncio.create_task(tick())
        await asyncio.gather(*(work() for _ in range(16)))
        ticking.cancel()

    monkeypatch.setattr(budget, "sleep", sleep)
    asyncio.run(run())
    turned_away = [at for at in sent if at < storm]
    assert len(turned_away) <= (16 if not wait else 8)
    assert all(sum(0 <= other - at < 1 for other in turned_away) < 5 for at in turned_away)
    assert answered[0] < storm + max(wait, LONGEST_PAUSE) * 1.1 + 1
    assert sum(at < answered[0] + 0.9 for at in answered) <= 12


def test_patience_is_counted_from_the_last_answer(clock):
    pace = Pace(60.0)
    assert pace.pause(clock[0], 0.0)
    clock[0] = 59.0
    assert pace.pause(clock[0], 0.0)
    pace.note_answer(clock[0])
    clock[0] = 100.0
    assert pace.pause(clock[0], 0.0)
    assert not pace.pause(clock[0], 61.0)
    clock[0] = 161.0
    assert not pace.pause(clock[0], 0.0)


@pytest.mark.parametrize(
    ("usage", "counts"),
    [((10, 0, 60, None), (10, 50)), ((10, 20, 30, 5), (10, 20)), ((10, 20, 330, 300), (10, 320)),
     ((10, 20, 30, 300), (10, 320)), ((10, 20, 5, None), (10, 20)), ((0, 20, 50, None), (30, 20)),
     ((None, 20, 50, None), (30, 20)), ((10, None, 50, None), (10, 40)), ((10, 3, "many", None), (10, 3)),
     ((5, 0, None, None), (5, 0)), ((None, None, 50, None), None), ((5, "many", None, None), None),
     ((5, None, None, None), None), ((5.0, 2, None, None), None), ((True, 2, None, None), None),
     ((0, 0, None, None), None), ((-5, -2, None, None), None), ((5, -2, None, None), None),
     ((10**400, 3, None, None), None), ((5, 10**8, None, None), None)],
)  # fmt: skip
def test_a_usage_is_charged_by_its_largest_reading_that_is_consistent_and_what_cannot_be_is_not_believed(usage, counts):
    prompt, completion, total, thoughts = usage
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}
    for where in ({"reasoning_tokens": thoughts}, {"completion_tokens_details": {"reasoning_tokens": thoughts}}):
        assert read_usage({"usage": usage | where}) == counts
    assert read_usage({"usage": None}) is read_usage({"usage": 3}) is read_usage({"usage": {}}) is None
