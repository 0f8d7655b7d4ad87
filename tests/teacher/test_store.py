"""The response store: nothing is paid for twice, whatever is killed, repeated or run side by side."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.project import teacher_params
from tests.teacher.server import serve
from thinkrec.errors import UserError
from thinkrec.teacher.client import open_teacher
from thinkrec.teacher.store import Answer, open_store, owner, request_key

ROOT = Path(__file__).resolve().parents[2]
KEY = "sk-do-not-keep-me"
ANSWER = Answer(
    content="Yes. ä", reasoning_content="", refusal="", finish_reason="stop", prompt_tokens=3, completion_tokens=2
)
CONCURRENCY = 8
ASK_ALL = """
import asyncio, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
from tests.project import teacher_params
from thinkrec.teacher.client import open_teacher
endpoint, numbers = sys.argv[1], range(int(sys.argv[2]))[:: int(sys.argv[3])]
params = teacher_params(endpoint, concurrency=8)
async def run():
    async with open_teacher(params).session() as session:
        replies = await asyncio.gather(*(session.ask([{"role": "user", "content": str(n)}]) for n in numbers))
        print(*(reply.text for reply in replies), session.spent.requests)
asyncio.run(run())
"""


def params(endpoint, **changes):
    return teacher_params(endpoint, **{"concurrency": CONCURRENCY, **changes})


def message(text):
    return [{"role": "user", "content": str(text)}]


def ask(teacher, *texts):
    """The replies to some questions asked at once, and how many requests that took."""

    async def run():
        async with teacher.session() as session:
            return await asyncio.gather(*(session.ask(message(text)) for text in texts)), session.spent.requests

    return asyncio.run(run())


@pytest.fixture(autouse=True)
def place_and_key(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("THINKREC_STORE", raising=False)
    monkeypatch.setenv("THINKREC_TEACHER_KEY", KEY)


def start(endpoint, count, order=1):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", ASK_ALL, endpoint, str(count), str(order)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def eventually(holds, seconds=5.0):
    until = time.monotonic() + seconds
    while not (found := holds()) and time.monotonic() < until:
        time.sleep(0.01)
    return found


def claimants():
    with open_store(Path(".cache/responses.sqlite")) as store:
        return [name for (name,) in store.connection.execute("SELECT owner FROM claims")]


def stored():
    with open_store(Path(".cache/responses.sqlite")) as store:
        return store.connection.execute("SELECT count(*) FROM responses").fetchone()[0]


def test_a_killed_run_and_the_next_pay_for_nothing_twice():
    with serve(seconds=0.2) as server:
        first = start(server.endpoint, 100)
        while len(server.heard) < 30:
            assert first.poll() is None
            time.sleep(0.005)
        first.send_signal(signal.SIGKILL)
        first.wait()
        again = start(server.endpoint, 100)  # what the first one's sender still waits for is waited for
        said = again.communicate(timeout=60)[0].split()
    assert said[:-1] == [f"a{n}" for n in range(100)]
    assert set(server.came.values()) == {1} and len(server.heard) == 100
    assert int(said[-1]) <= 100 - 30
    assert (stored(), claimants()) == (100, [])


def test_an_interrupted_run_keeps_what_is_under_way_and_sends_nothing_more():
    with serve(seconds=0.5) as server:
        process = start(server.endpoint, 100)
        while not server.heard:
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        sent = len(server.heard)
        assert 0 < sent < 100
        assert stored() == sent
        time.sleep(0.3)
        assert len(server.heard) == sent


def test_a_sender_that_is_killed_is_told_of_in_one_line():
    with serve(seconds=0.5) as server:

        async def run():
            async with open_teacher(params(server.endpoint)).session() as session:
                asking = asyncio.create_task(session.ask(message("x")))
                while not server.heard:
                    await asyncio.sleep(0.01)
                os.kill(int(claimants()[0].split()[1]), signal.SIGKILL)
                with pytest.raises(UserError, match=r"asks the teacher ended .*signal 9.*run again") as caught:
                    await asking
                assert "\n" not in str(caught.value)
                with pytest.raises(UserError, match="ended"):
                    await session.ask(message("y"))

        asyncio.run(run())
        ((reply,), sent) = ask(open_teacher(params(server.endpoint)), "x")  # its claim is anybody's
    assert (reply.text, sent, server.came["x"]) == ("ax", 1, 2)


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc")
def test_the_sender_holds_the_key_in_its_environment_alone():
    with serve(seconds=0.3) as server:

        async def run():
            async with open_teacher(params(server.endpoint)).session() as session:
                asking = asyncio.create_task(session.ask(message("x")))
                while not server.heard:
                    await asyncio.sleep(0.01)
                sender = Path("/proc") / claimants()[0].split()[1]
                await asking
                return [(sender / name).read_bytes() for name in ("cmdline", "environ")]

        command, environment = asyncio.run(run())
    assert b"thinkrec.teacher.sender" in command and KEY.encode() not in command
    assert KEY.encode() in environment


def test_a_claim_of_a_living_process_stands_and_one_of_a_dead_process_falls():
    path = Path("r.sqlite")
    gone = subprocess.Popen(["sleep", "60"])
    with open_store(path) as store:
        for key, process in {"theirs": os.getppid(), "gone": gone.pid, "reused": os.getppid()}.items():
            assert store.claim(key)
            name = owner(process) if key != "reused" else owner(process) + "0"  # began at another time
            store.connection.execute("UPDATE claims SET owner = ? WHERE key = ?", (name, key))
        assert not store.claim("theirs")
        assert not store.claim("gone")
        gone.kill()
        assert eventually(lambda: store.claim("gone"))  # not waited for by its parent, and dead all the same
        assert store.claim("reused")
        store.release("theirs")  # not ours to give up
        assert not store.claim("theirs")
        store.put("theirs", ANSWER)
        assert not store.claim("theirs")  # there is nothing to ask
        assert store.connection.execute("SELECT key FROM claims ORDER BY key").fetchall() == [("gone",), ("reused",)]
    gone.wait()


def test_a_question_that_failed_may_be_asked_again_at_once():
    with serve(["bad request"]) as server:
        teacher = open_teacher(params(server.endpoint), apart=False)
        with pytest.raises(UserError):
            ask(teacher, "x")
        (reply,), _ = ask(teacher, "x")
    assert (reply.text, server.came["x"]) == ("ax", 2)


def test_the_same_questions_again_make_no_call():
    with serve() as server:
        first, sent = ask(open_teacher(params(server.endpoint)), *range(20))
        again, sent_again = ask(open_teacher(params(server.endpoint)), *range(20))
    assert (sent, sent_again, len(server.heard)) == (20, 0, 20)
    assert again == first
    assert (first[4].text, first[4].reasoning) == ("a4", "because 4")
    assert (first[4].prompt_tokens, first[4].completion_tokens) == (7, 3)


def test_what_the_store_knows_needs_no_key(monkeypatch):
    monkeypatch.delenv("THINKREC_TEACHER_KEY")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    place = "https://teacher.invalid/v1"
    with open_store(Path(".cache/responses.sqlite")) as store:
        store.put(request_key(place, {"model": "m", "messages": message("x")}), ANSWER)
    (reply,), sent = ask(open_teacher(params(place)), "x")
    assert (reply.text, sent) == (ANSWER.content, 0)
    with pytest.raises(UserError, match="needs a key"):
        ask(open_teacher(params(place)), "y")


def test_equal_questions_under_way_share_one_call():
    with serve(seconds=0.05) as server:
        replies, sent = ask(open_teacher(params(server.endpoint)), *["x"] * 5)
    assert (sent, server.came["x"]) == (1, 1)
    assert {reply.text for reply in replies} == {"ax"}


def test_two_processes_share_a_store_and_agree():
    with serve(seconds=0.002) as server:
        both = [start(server.endpoint, 200, order) for order in (1, -1)]  # they meet in the middle
        said = [process.communicate(timeout=60)[0].split() for process in both]
        assert said[0][:-1] == said[1][:-1][::-1] == [f"a{n}" for n in range(200)]
        assert len(server.heard) == 200  # nothing was sent by both
        assert int(said[0][-1]) + int(said[1][-1]) == 200
    assert stored() == 200


def test_of_two_answers_to_one_question_the_first_stands_for_both():
    other = Answer(
        content="No.", reasoning_content="", refusal="", finish_reason="stop", prompt_tokens=1, completion_tokens=1
    )
    with open_store(Path("s/r.sqlite")) as first, open_store(Path("s/r.sqlite")) as second:
        assert first.put("k", ANSWER) == ANSWER
        assert second.put("k", other) == ANSWER
        assert second.get("k") == first.get("k") == ANSWER
        assert second.get("other") is None


def test_an_answer_under_way_is_kept_though_another_question_fails():
    with serve(seconds=0.2) as server:

        async def run():
            async with (
                open_teacher(params(server.endpoint), retries=0).session() as session,
                asyncio.TaskGroup() as group,
            ):
                group.create_task(session.ask(message("paid")))
                while not server.heard:
                    await asyncio.sleep(0.01)
                raise UserError("something else")

        with pytest.raises(ExceptionGroup):
            asyncio.run(run())
    assert server.came["paid"] == stored() == 1


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


def test_no_key_and_no_password_is_in_the_file():
    with serve() as server:
        teacher = open_teacher(params(server.endpoint.replace("//", "//user:pass-word@")))
        ask(teacher, "x")
    for path in Path(".cache").iterdir():
        content = path.read_bytes()
        assert KEY.encode() not in content and b"pass-word" not in content


@pytest.mark.parametrize("content", [b"not a database at all, but long enough to look like one" * 20, None])
def test_a_damaged_store_is_a_user_error_in_one_line(content):
    path = Path(".cache/responses.sqlite")
    with open_store(path) as store:
        store.put("k", ANSWER)
        if content is None:
            store.connection.execute("UPDATE responses SET answer = '{\"content\": 3}'")
    if content is not None:
        path.write_bytes(content)
    said = r"responses\.sqlite: the response store is damaged .*move it away"
    with pytest.raises(UserError, match=said) as caught, open_store(path) as store:
        store.get("k")
    assert "\n" not in str(caught.value)


def test_a_store_that_another_version_wrote_is_left_alone():
    path = Path("r.sqlite")
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(UserError, match="another version"), open_store(path):
        pass


def test_a_store_that_cannot_be_written_is_a_user_error():
    Path("file").write_text("")
    with pytest.raises(UserError, match="cannot be used"), open_store(Path("file/r.sqlite")):
        pass


def test_an_environment_variable_names_another_store(monkeypatch, tmp_path):
    monkeypatch.setenv("THINKREC_STORE", str(tmp_path / "elsewhere.sqlite"))
    with serve() as server:
        ask(open_teacher(params(server.endpoint)), "x")
    assert (tmp_path / "elsewhere.sqlite").exists()
    assert not Path(".cache").exists()


def test_the_offline_teacher_leaves_no_store():
    assert open_teacher(params("offline")).store is None


def test_the_cap_stops_in_one_line_keeps_what_is_paid_and_the_next_run_goes_on():
    with serve(seconds=0.01) as server:
        for total in (12, 24):
            with pytest.raises(UserError, match=r"all run\.max_requests=12 of this run are sent; .*go on") as caught:
                ask(open_teacher(params(server.endpoint, max_requests=12)), *range(30))
            assert "\n" not in str(caught.value)
            assert (len(server.heard), stored()) == (total, total)
        replies, sent = ask(open_teacher(params(server.endpoint, max_requests=12)), *range(30))
    assert sent == 6
    assert [reply.text for reply in replies] == [f"a{n}" for n in range(30)]
    assert set(server.came.values()) == {1}


def test_retries_count_towards_the_cap():
    with serve("500") as server, pytest.raises(UserError, match=r"max_requests=3"):
        ask(open_teacher(params(server.endpoint, max_requests=3)), "x")
    assert server.came["x"] == 3
