"""The response store: nothing is paid for twice, whatever is killed, repeated or run side by side."""

import asyncio
import os
import signal
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.teacher.asking import STORE, ask, message, start, teacher_at, texts_of
from tests.teacher.server import serve
from thinkrec.errors import UserError
from thinkrec.teacher.answers import Answer
from thinkrec.teacher.client import ask_about, open_session
from thinkrec.teacher.store import open_store, request_key, store_lock

ANSWER = Answer(content="Yes. ä", finish_reason="stop", prompt_tokens=3, completion_tokens=2)
CONCURRENCY = 8


def ask_all(endpoint, count, order=1, timeout=5.0):
    """Print the answers to so many questions, and how many requests they took."""
    teacher = teacher_at(endpoint, concurrency=CONCURRENCY, timeout=timeout)

    async def converse(session, number):
        return (await session.ask(message(number))).text

    try:
        answers = ask_about(teacher, range(count)[::order], converse, progress="", unit="")
        print(*answers, teacher.spent.requests)
    except UserError as error:
        sys.exit(str(error))


def wait_for(server, count, process):
    """Until the server has heard so many questions of a process that runs."""
    while len(server.heard) < count:
        assert process.is_alive()
        time.sleep(0.005)


def end_of(process, log):
    """What a process printed by its end."""
    process.join(60)
    return log.read_text()


def finish(endpoint, count, sent):
    """Run again: all answers are there, and so many requests were sent."""
    assert end_of(*start(ask_all, endpoint, count)).split() == [*(f"a{number}" for number in range(count)), str(sent)]


def count_stored():
    with open_store(STORE) as store:
        return store.rows("SELECT count(*) FROM responses")[0][0]


@pytest.mark.integration
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_told_to_stop_keeps_what_is_under_way_and_the_next_goes_on(number):
    with serve(seconds=0.5) as server:
        process, log = start(ask_all, server.endpoint, 40)
        wait_for(server, 12, process)
        os.kill(process.pid, number)
        error = end_of(process, log)
        sent = len(server.heard)
        assert error == f"stopped by {number.name}; all that was answered is in {STORE}; run again to go on\n"
        assert process.exitcode == 1
        assert 12 <= sent < 40
        assert count_stored() == sent
        finish(server.endpoint, 40, 40 - sent)
    assert set(server.came.values()) == {1}


@pytest.mark.integration
@pytest.mark.parametrize(("timeout", "signals"), [(2.0, [signal.SIGTERM]), (600.0, [signal.SIGINT, signal.SIGTERM])])
def test_a_run_that_is_told_to_stop_waits_no_longer_than_the_time_out_or_the_second_signal(timeout, signals):
    with serve("hang") as server:
        process, log = start(ask_all, server.endpoint, 40, 1, timeout)
        wait_for(server, 8, process)
        for number in signals:
            os.kill(process.pid, number)
            time.sleep(0.5)
        error = end_of(process, log)
    assert len(server.heard) == 8  # nothing is tried again
    assert process.exitcode == (1 if len(signals) == 1 else -signal.SIGTERM)
    assert len(signals) == 2 or error.startswith("stopped by SIGTERM; ")


@pytest.mark.integration
def test_after_a_killed_run_the_next_asks_only_what_is_not_kept():
    with serve(seconds=0.2) as server:
        process, _ = start(ask_all, server.endpoint, 40)
        wait_for(server, 20, process)
        process.kill()
        process.join()
        stored = count_stored()
        assert stored >= 20 - CONCURRENCY
        finish(server.endpoint, 40, 40 - stored)


@pytest.mark.integration
def test_of_two_runs_at_once_one_asks_and_the_other_finds_its_answers():
    with serve() as server:
        with store_lock(STORE):  # as a third one would
            both = [start(ask_all, server.endpoint, 100, order) for order in (1, -1)]
            line = f"waiting for another run, which holds {STORE.with_suffix('.lock')}\n"
            while any(log.read_text() != line for _, log in both):
                assert all(process.is_alive() for process, _ in both)
                time.sleep(0.01)
            assert not server.heard
        texts = [end_of(process, log).removeprefix(line).split() for process, log in both]
    assert texts[0][:-1] == texts[1][:-1][::-1] == [f"a{number}" for number in range(100)]
    assert sorted(int(words[-1]) for words in texts) == [0, 100]
    assert set(server.came.values()) == {1}


def test_the_same_questions_again_make_no_call():
    with serve() as server:
        first = ask(teacher_at(server.endpoint), *range(20))
    again = teacher_at(server.endpoint)
    assert ask(again, *range(20)) == first
    assert (len(server.heard), again.spent.requests) == (20, 0)


def test_a_remote_teacher_answers_from_the_store_without_a_key(no_key):
    place = "https://teacher.invalid/v1"
    with open_store(STORE) as store:
        store.put(request_key(place, {"model": "m", "messages": message("x")}), ANSWER)
    assert ask(teacher_at(place), "x") == [ANSWER]
    with pytest.raises(UserError, match="needs a key; set THINKREC_TEACHER_KEY"):
        ask(teacher_at(place), "y")


def test_equal_questions_under_way_share_one_call():
    with serve(seconds=0.05) as server:
        assert set(texts_of(ask(teacher_at(server.endpoint), *["x"] * 5))) == {"ax"}
    assert server.came["x"] == 1


def test_of_two_answers_to_one_question_the_first_stands_for_both():
    with open_store(Path("s/r.sqlite")) as first, open_store(Path("s/r.sqlite")) as second:
        assert first.put("k", ANSWER) == ANSWER
        assert second.put("k", Answer(content="No.")) == ANSWER
        assert second.get("k") == first.get("k") == ANSWER
        assert second.get("other") is None


def test_an_answer_under_way_is_kept_though_another_question_fails():
    with serve(seconds=0.2) as server:

        async def run():
            async with open_session(teacher_at(server.endpoint, retries=0)) as session, asyncio.TaskGroup() as group:
                group.create_task(session.ask(message("paid")))
                while not server.heard:
                    await asyncio.sleep(0.01)
                raise UserError("something else")

        with pytest.raises(ExceptionGroup):
            asyncio.run(run())
    assert server.came["paid"] == count_stored() == 1


def test_a_change_of_place_model_or_request_asks_anew():
    request = {"model": "m", "messages": message("x")}
    keys = {
        request_key("https://a/v1", request),
        request_key("https://b/v1", request),
        request_key("https://a/v1", {**request, "model": "n"}),
        request_key("https://a/v1", {**request, "messages": message("y")}),
    }
    assert len(keys) == 4
    assert request_key("https://a/v1", dict(reversed(request.items()))) in keys  # order means nothing


def execute(statement):
    with closing(sqlite3.connect(STORE)) as connection, connection:
        connection.execute(statement)


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (lambda: STORE.write_bytes(b"not a database, but long enough to look like one" * 20), "damaged .*move it away"),
        (lambda: execute("UPDATE responses SET answer = '{\"content\": 3}'"), "damaged .*move it away"),
        (lambda: execute("PRAGMA user_version = 9"), "of another version"),
        (lambda: (STORE.unlink(), STORE.mkdir()), "cannot be used"),
    ],
)
def test_a_store_that_cannot_be_used_is_a_user_error_in_one_line(spoil, line):
    with open_store(STORE) as store:
        store.put("k", ANSWER)
    spoil()
    pattern = rf"responses\.sqlite: the response store (is )?{line}"
    with pytest.raises(UserError, match=pattern), open_store(STORE) as store:
        store.get("k")


@pytest.mark.parametrize("made_elsewhere", [False, True])
def test_a_store_serves_without_shared_memory(made_elsewhere, tmp_path):
    path = tmp_path / "store.sqlite"
    if made_elsewhere:
        with open_store(path) as store:
            store.put("k", ANSWER)
    (tmp_path / "store.sqlite-shm" / "in the way").mkdir(parents=True)
    for _ in range(2):
        with open_store(path) as store, open_store(path) as other:
            assert store.put("k", ANSWER) == other.get("k") == ANSWER


def test_an_environment_variable_names_another_store_which_holds_no_password(monkeypatch, tmp_path):
    monkeypatch.setenv("THINKREC_STORE", str(tmp_path / "other" / "elsewhere.sqlite"))
    with serve() as server:
        ask(teacher_at(server.endpoint.replace("//", "//user:pass-word@")), "x")
    files = list((tmp_path / "other").iterdir())
    assert files and not any(b"pass-word" in path.read_bytes() for path in files)
    assert not STORE.parent.exists()


def test_the_cap_stops_in_one_line_keeps_what_is_paid_and_the_next_run_goes_on():
    with serve(seconds=0.01) as server:
        for total in (12, 24):
            with pytest.raises(UserError, match=r"all run\.max_requests=12 of this run are sent; .*go on"):
                ask(teacher_at(server.endpoint, max_requests=12), *range(30))
            assert (len(server.heard), count_stored()) == (total, total)
        teacher = teacher_at(server.endpoint, max_requests=12)
        assert texts_of(ask(teacher, *range(30))) == [f"a{n}" for n in range(30)]
    assert teacher.spent.requests == 6
    assert set(server.came.values()) == {1}


def test_retries_count_towards_the_cap():
    with serve("500") as server, pytest.raises(UserError, match=r"max_requests=3"):
        ask(teacher_at(server.endpoint, max_requests=3), "x")
    assert server.came["x"] == 3
