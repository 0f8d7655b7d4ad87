"""The response store: nothing is paid for twice, whatever is killed, repeated or run side by side."""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.project import teacher_params
from thinkrec.errors import UserError
from thinkrec.synthesis.client import open_teacher
from thinkrec.synthesis.store import Answer, open_store, owner, request_key

ROOT = Path(__file__).resolve().parents[2]
KEY = "sk-do-not-keep-me"
ANSWER = Answer(
    content="Yes. ä", reasoning_content="", refusal="", finish_reason="stop", prompt_tokens=3, completion_tokens=2
)
CONCURRENCY = 8
ASK_ALL = """
import asyncio, sys
from tests.project import teacher_params
from thinkrec.synthesis.client import open_teacher
endpoint, numbers = sys.argv[1], range(int(sys.argv[2]))[:: int(sys.argv[3])]
params = teacher_params(endpoint, concurrency=8)
async def run():
    async with open_teacher(params).session() as session:
        replies = await asyncio.gather(*(session.ask([{"role": "user", "content": str(n)}]) for n in numbers))
        print(*(reply.text for reply in replies), session.sent)
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
            return await asyncio.gather(*(session.ask(message(text)) for text in texts)), session.sent

    return asyncio.run(run())


@contextmanager
def server(script=None, seconds=0.0):
    """A loopback server that repeats the question; `script(times asked)` may give (status, headers) to refuse with.

    Yields its base URL, and how often each question has come and been answered.
    """
    came, answered, lock = Counter(), Counter(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            text = request["messages"][-1]["content"]
            with lock:
                came[text] += 1
                times = came[text]
            time.sleep(seconds)
            status, headers = (script and script(times)) or (200, {})
            said = {"role": "assistant", "content": f"a{text}", "reasoning_content": f"because {text}"}
            body = {
                "id": "x",
                "object": "chat.completion",
                "created": 0,
                "model": "m",
                "choices": [{"index": 0, "finish_reason": "stop", "message": said}],
                "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
            }
            content = json.dumps(body if status == 200 else {"error": {"message": "no"}}).encode()
            self.send_response(status)
            for name, value in {"content-type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            with lock:
                answered[text] += status == 200

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64  # with the default of 5, connections of two processes are reset now and then

        def handle_error(self, *_):  # a client that was killed
            pass

    httpd = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}/v1", came, answered
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


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


def stored():
    with open_store(Path(".cache/responses.sqlite")) as store:
        return store.connection.execute("SELECT count(*) FROM responses").fetchone()[0]


def test_a_killed_run_and_the_next_pay_for_nothing_twice():
    with server(seconds=0.2) as (endpoint, came, _):
        first = start(endpoint, 100)
        while sum(came.values()) < 30:
            assert first.poll() is None
            time.sleep(0.005)
        first.send_signal(signal.SIGKILL)
        first.wait()
        again = start(endpoint, 100)  # what the first one's sender still waits for is waited for
        said = again.communicate(timeout=60)[0].split()
    assert said[:-1] == [f"a{n}" for n in range(100)]
    assert set(came.values()) == {1} and sum(came.values()) == 100
    assert int(said[-1]) <= 100 - 30
    assert stored() == 100


def test_an_interrupted_run_keeps_what_is_under_way_and_sends_nothing_more():
    with server(seconds=0.5) as (endpoint, came, _):
        process = start(endpoint, 100)
        while not came:
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        sent = sum(came.values())
        assert 0 < sent < 100
        assert stored() == sent
        time.sleep(0.3)
        assert sum(came.values()) == sent


def test_a_sender_that_is_killed_is_told_of_in_one_line():
    with server(seconds=0.5) as (endpoint, came, _):

        async def run():
            async with open_teacher(params(endpoint)).session() as session:
                asking = asyncio.create_task(session.ask(message("x")))
                while not came:
                    await asyncio.sleep(0.01)
                with open_store(Path(".cache/responses.sqlite")) as store:
                    (claimant,) = store.connection.execute("SELECT owner FROM claims").fetchone()
                os.kill(int(claimant.split()[1]), signal.SIGKILL)
                with pytest.raises(UserError, match=r"asks the teacher ended .*signal 9.*run again") as caught:
                    await asking
                assert "\n" not in str(caught.value)
                with pytest.raises(UserError, match="ended"):
                    await session.ask(message("y"))

        asyncio.run(run())
        ((reply,), sent) = ask(open_teacher(params(endpoint)), "x")  # its claim is anybody's
    assert (reply.text, sent, came["x"]) == ("ax", 1, 2)


def test_the_sender_holds_the_key_in_its_environment_alone():
    with server(seconds=0.5) as (endpoint, came, _):

        async def run():
            async with open_teacher(params(endpoint)).session() as session:
                asking = asyncio.create_task(session.ask(message("x")))
                while not came:
                    await asyncio.sleep(0.01)
                command = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
                await asking
                return command

        command = asyncio.run(run())
    assert "thinkrec.synthesis.sender" in command and KEY not in command


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
    with server(lambda times: (400, {}) if times == 1 else None) as (endpoint, came, _):
        teacher = open_teacher(params(endpoint), apart=False)
        with pytest.raises(UserError):
            ask(teacher, "x")
        (reply,), _ = ask(teacher, "x")
    assert (reply.text, came["x"]) == ("ax", 2)


def test_the_same_questions_again_make_no_call():
    with server() as (endpoint, came, _):
        first, sent = ask(open_teacher(params(endpoint)), *range(20))
        again, sent_again = ask(open_teacher(params(endpoint)), *range(20))
    assert (sent, sent_again, sum(came.values())) == (20, 0, 20)
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
    with server(seconds=0.05) as (endpoint, came, _):
        replies, sent = ask(open_teacher(params(endpoint)), *["x"] * 5)
    assert (sent, came["x"]) == (1, 1)
    assert {reply.text for reply in replies} == {"ax"}


def test_two_processes_share_a_store_and_agree():
    with server(seconds=0.002) as (endpoint, came, _):
        both = [start(endpoint, 200, order) for order in (1, -1)]  # they meet in the middle
        said = [process.communicate(timeout=60)[0].split() for process in both]
        assert said[0][:-1] == said[1][:-1][::-1] == [f"a{n}" for n in range(200)]
        assert sum(came.values()) == 200  # nothing was sent by both
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
    with server(seconds=0.2) as (endpoint, came, _):

        async def run():
            async with open_teacher(params(endpoint), retries=0).session() as session, asyncio.TaskGroup() as group:
                group.create_task(session.ask(message("paid")))
                while not came:
                    await asyncio.sleep(0.01)
                raise UserError("something else")

        with pytest.raises(ExceptionGroup):
            asyncio.run(run())
    assert came["paid"] == stored() == 1


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
    with server() as (endpoint, _, _):
        teacher = open_teacher(params(endpoint.replace("//", "//user:pass-word@")))
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
    with server() as (endpoint, _, _):
        ask(open_teacher(params(endpoint)), "x")
    assert (tmp_path / "elsewhere.sqlite").exists()
    assert not Path(".cache").exists()


def test_the_embedded_teacher_leaves_no_store():
    assert open_teacher(params("embedded")).store is None


@pytest.mark.parametrize("headers", [{"retry-after": "1"}, {"retry-after-ms": "300"}])
def test_a_429_is_asked_again_when_the_server_says(headers):
    moments = []

    def script(times):
        moments.append(time.monotonic())
        return (429, headers) if times == 1 else None

    with server(script) as (endpoint, came, _):
        (reply,), sent = ask(open_teacher(params(endpoint, timeout=0.9)), "x")  # the wait is no part of the timeout
    asked_for = float(headers.get("retry-after", 0.3))
    assert moments[1] - moments[0] >= asked_for - 0.01
    assert (reply.text, came["x"], sent) == ("ax", 2, 2)


def test_the_cap_stops_in_one_line_keeps_what_is_paid_and_the_next_run_goes_on():
    with server(seconds=0.01) as (endpoint, came, _):
        for total in (12, 24):
            with pytest.raises(
                UserError, match=r"all teacher\.max_requests=12 of this run are sent; .*go on"
            ) as caught:
                ask(open_teacher(params(endpoint, max_requests=12)), *range(30))
            assert "\n" not in str(caught.value)
            assert (sum(came.values()), stored()) == (total, total)
        replies, sent = ask(open_teacher(params(endpoint, max_requests=12)), *range(30))
    assert sent == 6
    assert [reply.text for reply in replies] == [f"a{n}" for n in range(30)]
    assert set(came.values()) == {1}


def test_retries_count_towards_the_cap():
    failing = server(lambda times: (500, {"retry-after-ms": "1"}))
    with failing as (endpoint, came, _), pytest.raises(UserError, match=r"max_requests=3"):
        ask(open_teacher(params(endpoint, max_requests=3)), "x")
    assert came["x"] == 3
