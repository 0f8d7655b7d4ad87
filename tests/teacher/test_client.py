"""The client: any endpoint through one door; what is no address or no key is refused (test_faults: the rest)."""

import asyncio
import socket

import pytest

from tests.teacher.asking import KEY, ask, message, teacher_at
from tests.teacher.server import Response, serve
from thinkrec.errors import UserError
from thinkrec.teacher import offline

ITEM = '<item>\n{"title": "Dusk", "categories": ["war"]}\n</item>'


def test_the_offline_teacher_and_a_server_with_its_answers_agree():
    with serve(lambda request: Response(body=offline.complete(request.body))) as server:
        over_http = ask(teacher_at(server.endpoint, request={"temperature": 0.7, "top_k": 5}), ITEM)
    teacher = teacher_at()
    assert over_http == ask(teacher, ITEM) == ask(teacher, ITEM)  # in another event loop
    assert teacher.store is None
    assert "war" in over_http[0].text and over_http[0].finish_reason == "stop"
    (request,) = server.heard
    assert (request.path, request.key) == ("/v1/chat/completions", KEY)
    assert request.body == {"model": "m", "messages": message(ITEM), "temperature": 0.7, "top_k": 5}


def test_an_unreachable_teacher_is_a_user_error():
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with pytest.raises(UserError, match=r"cannot be reached, or breaks off; check teacher\.endpoint"):
            ask(teacher_at(endpoint, retries=0), "x")


def test_never_more_questions_at_a_time_than_asked_for():
    busy = most = 0

    async def slow(request):
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0.02)
        busy -= 1
        return await offline.respond(request)

    ask(teacher_at(concurrency=3, respond=slow), *[ITEM] * 9)
    assert most == 3


@pytest.mark.parametrize(
    "endpoint", ["http://localhost:8000/v1", "http://127.8.8.8/v1", "http://[::1]:1/v1", "http://gpu.lan:8000/v1"]
)
def test_a_teacher_at_home_needs_no_key(no_key, endpoint):
    teacher_at(endpoint).require_key()


@pytest.mark.parametrize(
    ("endpoint", "at_home"),
    [("https://api.openai.com/v1", True), ("https://eu.api.openai.com/v1", True),
     ("https://x.openai.azure.com/openai/v1", True), ("https://api.openai.com.evil.invalid/v1", False),
     ("https://xapi.openai.com/v1", False), ("https://teacher.invalid/v1", False), ("http://api.openai.com/v1", False)],
)  # fmt: skip
def test_openais_key_goes_to_openais_own_hosts_alone(no_key, monkeypatch, endpoint, at_home):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    teacher = teacher_at(endpoint)
    assert (teacher.key == KEY) is at_home
    assert KEY not in repr(teacher)
    monkeypatch.setenv("THINKREC_TEACHER_KEY", "another")
    assert teacher_at(endpoint).key == "another"


def test_another_host_hears_nothing_of_the_accounts_at_openai(no_key, monkeypatch):
    secrets = {"OPENAI_API_KEY": KEY, "OPENAI_ORG_ID": "org-of-ours", "OPENAI_PROJECT_ID": "project-of-ours"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    with serve() as server:
        ask(teacher_at(server.endpoint), "x")
    assert not any(value in str(server.heard[0].headers) for value in secrets.values())


@pytest.mark.parametrize("endpoint", ["http://gpu.lan:8000/v1", "http://10.0.0.5/v1", "http://localhost.invalid/v1"])
def test_no_key_goes_over_plain_http_to_another_machine(endpoint):
    with pytest.raises(UserError, match="no key goes over plain http") as caught:
        ask(teacher_at(endpoint), "x")
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("endpoint", ["", "embeded", "teacher.invalid/v1", "ftp://x/v1", "http://", "http://[::1/v1"])
def test_an_endpoint_that_is_no_address_is_a_user_error(endpoint):
    with pytest.raises(UserError, match=r"teacher\.endpoint"):
        teacher_at(endpoint)


def test_a_key_that_no_header_can_carry_is_a_user_error(monkeypatch):
    monkeypatch.setenv("THINKREC_TEACHER_KEY", "kéy")
    with pytest.raises(UserError, match="key has characters") as caught:
        teacher_at("https://teacher.invalid/v1")
    assert "kéy" not in str(caught.value)
