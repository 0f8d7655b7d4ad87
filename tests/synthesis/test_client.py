"""The client: any endpoint through one door, and faults in one line that holds no key."""

import asyncio
import json
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.project import teacher_params
from thinkrec.errors import UserError
from thinkrec.synthesis.client import open_teacher
from thinkrec.synthesis.embedded import complete
from thinkrec.synthesis.prompts import Shown, question

KEY = "sk-do-not-show-me"
MESSAGES = question([Shown(title="Dusk", keywords=["war"], liked=True)], Shown(title="Dawn", keywords=["war"]))


def params(endpoint="embedded", **changes):
    return teacher_params(endpoint, **{"concurrency": 2, **changes})


def ask(teacher, messages=MESSAGES):
    async def run():
        async with teacher.session() as session:
            return await session.ask(messages)

    return asyncio.run(run())


@contextmanager
def server(status, body, content_type="application/json"):
    """An HTTP server on the loopback that says the same to everyone; `body` may be a function of the request."""
    heard = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            heard.append((self.path, self.headers["authorization"], request))
            said = body(request) if callable(body) else body
            content = said.encode() if isinstance(said, str) else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("content-type", content_type)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}/v1", heard
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def key(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # where the response store will be
    monkeypatch.delenv("THINKREC_STORE", raising=False)
    monkeypatch.setenv("THINKREC_TEACHER_KEY", KEY)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def test_the_embedded_teacher_and_a_server_with_its_answers_agree():
    with server(200, complete) as (endpoint, heard):
        over_http = ask(open_teacher(params(endpoint)))
    assert over_http == ask(open_teacher(params()))
    assert over_http.text.startswith("Verdict: Yes\n")
    assert over_http.finish_reason == "stop"
    (path, authorization, request) = heard[0]
    assert (path, authorization) == ("/v1/chat/completions", f"Bearer {KEY}")
    assert request == {"model": "m", "messages": MESSAGES}


def test_one_teacher_serves_several_event_loops():
    teacher = open_teacher(params())
    assert ask(teacher) == ask(teacher)


@pytest.mark.parametrize(
    ("status", "said"),
    [(401, "refused the key"), (403, "forbids"), (404, "does not know the model 'm'"), (429, "rate limit"), (400, "x")],
)
def test_a_refusal_is_one_line_without_the_key(status, said):
    body = {"error": {"message": f"x: {KEY}\nis wrong", "type": "t", "param": None, "code": None}}
    with server(status, body) as (endpoint, heard), pytest.raises(UserError, match=said) as caught:
        ask(open_teacher(params(endpoint), retries=0))
    assert KEY not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert len(heard) == 1


def test_an_unreachable_teacher_is_a_user_error():
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with pytest.raises(UserError, match=r"cannot be reached; check teacher\.endpoint"):
            ask(open_teacher(params(endpoint), retries=0))


@pytest.mark.parametrize("content_type", ["text/html", "application/json"])
def test_a_server_that_is_no_such_api_is_a_user_error(content_type):
    with server(200, "<html>hello</html>", content_type) as (endpoint, _), pytest.raises(UserError):
        ask(open_teacher(params(endpoint), retries=0))


def test_a_teacher_that_hangs_is_given_up():
    async def hang(scope, receive, send):
        await asyncio.sleep(60)

    with pytest.raises(UserError, match="no answer within"):
        ask(open_teacher(params(timeout=0.1), app=hang, retries=0))


def test_never_more_questions_at_a_time_than_asked_for():
    busy = most = 0

    async def slow(scope, receive, send):
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0.02)
        busy -= 1
        from thinkrec.synthesis import embedded

        await embedded.app(scope, receive, send)

    async def run():
        async with open_teacher(params(concurrency=3), app=slow).session() as session:
            await asyncio.gather(*(session.ask(MESSAGES) for _ in range(9)))

    asyncio.run(run())
    assert most == 3


def test_gaps_that_generic_servers_leave_are_filled():
    with server(200, {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": []}) as (at, _):
        reply = ask(open_teacher(params(at)))
    assert (reply.text, reply.prompt_tokens) == ("", 0)


def test_scratch_work_is_no_part_of_the_answer():
    choice = {"index": 0, "finish_reason": "stop"}
    said = {"role": "assistant", "content": "<think>No, wait</think>\nYes. It fits."}
    body = {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{**choice, "message": said}],
    }
    with server(200, body) as (endpoint, _):
        assert ask(open_teacher(params(endpoint))).text == "Yes. It fits."


def test_a_remote_teacher_needs_a_key_and_a_local_one_does_not(monkeypatch):
    monkeypatch.delenv("THINKREC_TEACHER_KEY")
    with pytest.raises(UserError, match="set THINKREC_TEACHER_KEY"):
        ask(open_teacher(params("https://user:secret@teacher.invalid/v1")))
    open_teacher(params("http://localhost:8000/v1"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert KEY not in repr(open_teacher(params("https://teacher.invalid/v1")))


@pytest.mark.parametrize("endpoint", ["", "embeded", "teacher.invalid/v1", "ftp://x/v1", "http://", "http://[::1/v1"])
def test_an_endpoint_that_is_no_address_is_a_user_error(endpoint):
    with pytest.raises(UserError, match=r"teacher\.endpoint"):
        open_teacher(params(endpoint))


def test_a_key_that_no_header_can_carry_is_a_user_error(monkeypatch):
    monkeypatch.setenv("THINKREC_TEACHER_KEY", "kéy")
    with pytest.raises(UserError, match="key has characters") as caught:
        open_teacher(params("https://teacher.invalid/v1"))
    assert "kéy" not in str(caught.value)
