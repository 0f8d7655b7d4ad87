"""Quotes: figures by hand from what the store knows and what it does not, before anything is sent."""

import json
import re
from contextlib import suppress

import numpy as np
import pytest

from tests.project import SMALL, run_command, set_params, teacher_params, teacher_project
from tests.teacher.asking import STORE, teacher_at
from tests.teacher.batch_server import batch_server, questions
from tests.teacher.server import completion
from thinkrec.teacher.batch import Waiting
from thinkrec.teacher.job import Job, carry_out, describe_weakness
from thinkrec.teacher.quote import Quote, describe_quotes, quote_job
from thinkrec.teacher.store import open_store, request_key

PLACE = "https://teacher.invalid/v1"
A, B = "aaaa", "bbbbbbbb"  # four and eight characters; each answer takes 7 and 3 tokens (server.completion)
pytestmark = pytest.mark.usefixtures("no_key")


def quoted(*texts, turns=3, endpoint=PLACE, changing="", **changes):
    params = teacher_params(endpoint, **changes)
    return quote_job(Job(stage="traces", work=questions(*texts), teacher=params, turns=turns, changing=changing))


def ask(server, *texts, **changes):
    carry_out(questions(*texts), teacher_at(server.endpoint, **changes))


def span(least, most=None):
    """A range, as it is compared."""
    return pytest.approx([least, least if most is None else most])


def test_nothing_is_known_of_a_new_teacher_and_everything_assumed_is_said():
    quote = quoted(A, B)
    assert (quote.questions, quote.answered, quote.submitted) == (2, 0, 0)
    assert quote.requests == span(2, 6)
    # Characters / 4; each of two further turns repeats the question, and 1 + 2 times 200 of an answer and 60 after it.
    assert quote.prompt_tokens == span(12 / 4, 3 * 12 / 4 + 2 * 3 * 260)
    assert quote.completion_tokens == span(2 * 200, 6 * 200)
    assert np.isnan(quote.cost).all()
    assert quote.seconds == span(3)  # at least an answer's time
    notes = " ".join(quote.notes)
    for part in ("4 characters", "200 an answer assumed", "no price set: give run.prompt_price", "3 s an answer"):
        assert part in notes


def test_prices_are_of_a_million_tokens_and_one_alone_makes_no_cost():
    quote = quoted(A, B, turns=1, prompt_price=2.0, completion_price=8.0)
    assert quote.cost == span((3 * 2 + 400 * 8) / 1e6)
    assert "price" not in " ".join(quote.notes)
    for price in ("prompt_price", "completion_price"):
        assert np.isnan(quoted(A, **{price: 1.0}).cost).all()


@pytest.mark.parametrize(("name", "ceiling", "least"), [("max_tokens", 1000, 200), ("max_completion_tokens", 50, 50)])
def test_a_ceiling_of_the_requests_bounds_the_answers(name, ceiling, least):
    assert quoted(A, turns=1, request={name: ceiling}).completion_tokens == span(least, ceiling)


def test_answers_in_the_store_cost_nothing_and_teach_what_others_take(server):
    ask(server, A)
    quote = quoted(A, B, endpoint=server.endpoint)
    assert (quote.questions, quote.answered) == (2, 1)
    assert quote.requests == span(1, 3)
    per_character = 7 / 4
    assert quote.prompt_tokens == span(8 * per_character, 3 * 8 * per_character + 3 * (3 + 60))
    assert quote.completion_tokens == span(3, 9)
    assert "3 an answer" in " ".join(quote.notes)
    ask(server, B)
    quote = quoted(A, B, endpoint=server.endpoint)
    assert quote.answered == 2
    assert quote.requests == span(0)
    assert quote.cost == span(0)
    assert quote.notes == ("traces: all answers are in the store",)


def test_a_second_turn_that_is_open_leaves_fewer_to_come(server):
    server.answer = lambda request, _: (200, completion("again"))
    ask(server, A)
    assert quoted(A, endpoint=server.endpoint).requests == span(0)  # the helper asks twice at most
    turns = [("user", A), ("assistant", "again"), ("user", "so?")]
    messages = [{"role": role, "content": content} for role, content in turns]
    with open_store(STORE) as store:
        key = request_key(server.endpoint, {"model": "m", "messages": messages})
        assert store.get(key)
        store.rows("DELETE FROM responses WHERE key = ?", key)
    quote = quoted(A, endpoint=server.endpoint)
    assert (quote.questions, quote.answered) == (1, 1)
    assert quote.requests == span(1, 2)


def test_answers_to_questions_that_will_change_tell_of_tokens_alone(server):
    ask(server, A)
    quote = quoted(A, turns=1, endpoint=server.endpoint, changing="because")
    assert (quote.questions, quote.answered) == (1, 0)
    assert quote.requests == span(1)
    assert quote.completion_tokens == span(3)
    assert quote.notes[0] == "traces: because"


def test_equal_questions_are_sent_once_and_may_part_after_the_first_answer():
    quote = quoted(A, A, A, turns=2, max_requests=5)
    assert (quote.questions, quote.requests) == (1, span(1, 4))
    assert "run.max_requests=5 may end a run before that" in " ".join(quote.notes)


def test_without_questions_there_is_nothing_to_send():
    assert quoted().requests == span(0)


@pytest.mark.parametrize(
    ("limits", "seconds"),
    [
        ({"concurrency": 1}, span(6)),
        ({"requests_per_minute": 1}, span(120)),
        ({"tokens_per_minute": 100}, span((3 + 400) / 100 * 60)),
        ({"mode": "batch"}, span(0, 24 * 3600)),
    ],
)
def test_time_is_that_of_the_tightest_limit(limits, seconds):
    assert quoted(A, B, turns=1, **limits).seconds == seconds


def test_what_is_under_way_in_batches_is_not_sent_again(server, monkeypatch):
    monkeypatch.setenv("THINKREC_TEACHER_KEY", "k")
    with suppress(Waiting):
        ask(server, A, mode="batch")
    quote = quoted(A, B, turns=1, endpoint=server.endpoint, mode="batch")
    assert quote.submitted == 1
    assert quote.requests == span(1)


def test_a_total_has_a_cost_only_if_all_have():
    priced = Quote(stage="a", requests=np.array([1.0, 2.0]), cost=np.array([3.0, 4.0]))
    unpriced = Quote(stage="b", cost=np.full(2, np.nan))
    both, one = describe_quotes([priced, priced]), describe_quotes([priced, unpriced])
    assert both["summary"] == "nothing sent; to send: 2 to 4 requests, cost 6.00 to 8.00"
    assert one["summary"] == "nothing sent; to send: 1 to 2 requests, no price set"
    assert both["document"]["total"]["cost"] == [6, 8] and one["document"]["total"]["cost"] == [None, None]


@pytest.mark.integration
def test_a_quote_of_both_stages_needs_no_key_and_holds(tmp_path):
    with batch_server() as server:
        settings = {"teacher.endpoint": server.endpoint, "keywords.source": "teacher", "run.prompt_price": 1.0,
                    "run.completion_price": 1.0}  # fmt: skip
        folder = teacher_project(tmp_path / "p", settings, "ingest")
        quote = run_command(folder, "quote").output
        assert all(name in quote for name in ("keywords", "traces", "total"))
        bounds = re.search(r"nothing sent; to send: ([\d,]+)(?: to ([\d,]+))? requests, cost \d", quote)
        assert bounds, quote
        least, most = (int((bound or bounds[1]).replace(",", "")) for bound in bounds.groups())
        assert not (server.heard or (folder / "out" / "keywords").exists())
        assert run_command(folder, "keywords").exit_code == run_command(folder, "traces").exit_code == 0
        assert 0 < least <= len(server.heard) <= most
        server.heard.clear()
        assert "to send: 0 requests, cost 0.00" in run_command(folder, "quote").output
        assert not server.heard
    set_params(folder, {"teacher.endpoint": "offline", "teacher.model": "offline"})
    free = run_command(folder, "quote").output
    assert "the offline teacher is free" in free and "to send: 0 requests" in free


@pytest.mark.integration
def test_keywords_still_to_come_make_new_questions_of_all_whatever_is_in_the_store(tmp_path):
    def to_send(folder):
        output = run_command(folder, "quote").output
        return re.search(r"to send: ([\d,]+)", output)[1], "still to come" in output

    with batch_server() as server:
        folder = teacher_project(tmp_path / "p", {"teacher.endpoint": server.endpoint}, "ingest")
        assert run_command(folder, "keywords").exit_code == run_command(folder, "traces").exit_code == 0
        assert to_send(folder) == ("0", False)
        set_params(folder, {"keywords.source": "teacher"})
        assert to_send(folder) == (str(80 + SMALL["traces.train"] + SMALL["traces.held_out"]), True)  # 80 items
        # Once the answers are there, the table of other keywords that an earlier run has left is not looked at.
        before = (folder / "out/keywords/keywords.parquet").read_bytes()
        assert run_command(folder, "keywords").exit_code == run_command(folder, "traces").exit_code == 0
        (folder / "out/keywords/keywords.parquet").write_bytes(before)
        assert to_send(folder) == ("0", False)


@pytest.mark.integration
@pytest.mark.parametrize("weak", [False, True])
def test_a_trial_asks_a_few_rows_which_the_stage_does_not_ask_again_and_knows_a_weak_teacher(tmp_path, weak):
    with batch_server() as server:
        if weak:
            server.answer = lambda request, _: (200, completion("Movies are \x1b[31mgreat"))
        settings = {"teacher.endpoint": server.endpoint, "teacher.mode": "batch"}
        folder = teacher_project(tmp_path / "p", settings, "ingest", "keywords")
        tried = run_command(folder, "quote", "--try", "3").output
        asked = len(server.heard)
        assert tried.count("answer 1: ") == 3
        assert tried.count("row ") == asked and tried.count(": kept\n") == 3 * (not weak)
        assert ("the teacher is too weak: 0 of 3" in tried, tried.count("no_verdict (Movies are [31mgreat)")) == (
            weak,
            9 * weak,
        )
        assert "\x1b" not in tried and not (folder / "out" / "traces").exists()
        set_params(folder, {"teacher.mode": "live"})
        stage = run_command(folder, "traces").stdout
        heard = [json.dumps(request) for request in server.heard]
        assert len(heard) == len(set(heard)) > asked
        assert ("the teacher is too weak" in stage) is weak


@pytest.mark.parametrize(
    ("useful", "most", "words"),
    [(5, "empty", None), (4, "malformed", "most faults were malformed; name a stronger"), (0, "truncated", "longer")],
)
def test_a_teacher_is_weak_where_most_of_what_it_is_asked_comes_to_nothing(useful, most, words):
    line = describe_weakness(useful, 10, {"refused": 1, most: 7})
    assert line == "" if words is None else words in line and f"{useful} of 10" in line
