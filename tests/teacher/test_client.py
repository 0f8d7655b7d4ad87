"""The client: any endpoint through one door; what is no address or no key is refused (test_faults: the rest)."""

import asyncio
import socket

import pytest

from tests.claims.rows import item
from tests.project import teacher_params
from tests.teacher.server import Response, serve
from thinkrec.errors import UserError
from thinkrec.shown import ShownRow
from thinkrec.teacher import offline
from thinkrec.teacher.client import open_session
from thinkrec.teacher.endpoint import open_teacher
from thinkrec.teacher.trace_prompts import question

KEY = "sk-do-not-show-me"
MESSAGES = question(ShownRow(history=[item("Dusk", "war", liked=True)], target=item("Dawn", "war")))


def params(endpoint="offline", **changes):
    return teacher_params(endpoint, **{"concurrency": 2, **changes})


def ask(teacher, messages=MESSAGES):
    async def run():
        async with open_session(teacher) as session:
            return await session.ask(messages)

    return asyncio.run(run())


@pytest.fixture(autouse=True)
def key(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # where the response store will be
    monkeypatch.delenv("THINKREC_STORE", raising=False)
    monkeypatch.setenv("THINKREC_TEACHER_KEY", KEY)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def test_the_offline_teacher_and_a_server_with_its_answers_agree():
    with serve(lambda request: Response(body=offline.complete(request.body))) as server:
        over_http = ask(open_teacher(params(server.endpoint)))
    assert over_http == ask(open_teacher(params()))
    assert over_http.text.startswith("Verdict: Yes\n")
    assert over_http.finish_reason == "stop"
    (request,) = server.heard
    assert (request.path, request.key) == ("/v1/chat/completions", KEY)
    assert request.body == {"model": "m", "messages": MESSAGES}


def test_one_teacher_serves_several_event_loops():
    teacher = open_teacher(params())
    assert ask(teacher) == ask(teacher)


def test_an_unreachable_teacher_is_a_user_error():
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with pytest.raises(UserError, match=r"cannot be reached, or breaks off; check teacher\.endpoint"):
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
        await offline.app(scope, receive, send)

    async def run():
        async with open_session(open_teacher(params(concurrency=3), app=slow)) as session:
            await asyncio.gather(*(session.ask(MESSAGES) for _ in range(9)))

    asyncio.run(run())
    assert most == 3


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
