"""`thinkrec serve` answers what the API answers, to the bit, however many ask at once, and says no in one line."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests
import uvicorn

from tests.project import ENVIRONMENT, LIKED_AND_NOT, ROOT, run_command
from thinkrec.answers.explanation import Scored, as_rows
from thinkrec.errors import UserError
from thinkrec.recommender import Recommender
from thinkrec.serve.batching import Busy, ModelThread
from thinkrec.serve.guard import LARGEST
from thinkrec.serve.server import TOKEN, check_host, make_app

HISTORY = [{"item": item, "liked": liked} for item, liked in LIKED_AND_NOT]


@contextmanager
def served(recommender: Recommender, **settings: Any) -> Iterator[str]:
    """The address of a server over `recommender`, in a thread of this process."""
    guard = make_app(recommender, **settings)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(guard, log_config=None, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def address(recommender: Recommender) -> Iterator[str]:
    with served(recommender) as address:
        yield address


def post(address: str, path: str, **body: Any) -> Any:
    reply = requests.post(f"{address}{path}", json=body, timeout=60)
    assert reply.status_code == 200, reply.text
    return reply.json()


def documents(table: Any) -> list[dict[str, Any]]:
    return [row.model_dump() for row in as_rows(table, Scored)]


def test_answers_are_the_apis_to_the_bit_whoever_asks_at_the_same_time(address: str, recommender: Recommender) -> None:
    asked: list[tuple[str, dict[str, Any], Callable[[], Any]]] = []
    for number in range(24):
        user, items = f"u{number:05d}", [f"i{item:05d}" for item in range(number, 40 + number, 1 + number % 3)]
        asked.append(("/score", {"user": user, "items": items}, lambda u=user, i=items: recommender.score_items(u, i)))
        asked.append(("/recommend", {"user": user, "k": 7}, lambda u=user: recommender.recommend(u, 7)))
    asked.append(("/recommend", {"history": HISTORY}, lambda: recommender.recommend(LIKED_AND_NOT)))
    asked.append(("/score", {"history": [], "items": ["i00003"]}, lambda: recommender.score_items([], ["i00003"])))
    with ThreadPoolExecutor(len(asked)) as clients:
        answers = list(clients.map(lambda question: post(address, question[0], **question[1]), asked))
    for (path, body, alone), answer in zip(asked, answers, strict=True):
        assert answer == documents(alone()), (path, body)
    lines = dict(line.rsplit(" ", 1) for line in requests.get(f"{address}/metrics").text.splitlines() if line[0] != "#")
    assert int(lines["thinkrec_passes_total"]) < int(lines["thinkrec_questions_total"]) == len(asked)
    assert int(lines['thinkrec_requests_total{path="/score",status="200"}']) == 25


def test_an_explanation_is_the_document_that_json_prints(address: str, project: Path) -> None:
    printed = run_command(project, "explain", "--user", "u00003", "--item", "i00009", "--json").stdout
    assert post(address, "/explain", user="u00003", item="i00009") == json.loads(printed)
    title = requests.get(f"{address}/items", params={"text": "i00009"}).json()[0]["title"]
    assert post(address, "/explain", history=HISTORY, item=title)["history"][0]["liked"] is True
    schema = requests.get(f"{address}/openapi.json").json()["components"]["schemas"]
    assert "standing" in schema["Evidence"]["properties"] and "evidence" in schema["Explanation"]["properties"]


@pytest.mark.parametrize(
    ("path", "body", "status", "detail"),
    [
        ("/recommend", {"user": "x"}, 400, "user 'x': unknown"),
        ("/score", {"user": "u00001", "items": ["No such title"]}, 400, "item 'No such title': unknown"),
        ("/explain", {"history": HISTORY * 2, "item": "i00009"}, 400, "stands in it twice"),
        ("/recommend", {"user": "u00001", "history": []}, 422, "one of the two"),
        ("/recommend", {"user": "u00001", "k": 10**9}, 422, "less than or equal"),
        ("/recommend", {"user": "u00001", "n": 3}, 422, "Extra inputs"),
        ("/recommend", {"user": "u00001", "k": "many"}, 422, '{"detail":"k: Input should be a valid integer'),
        ("/score", {"user": "u00001", "items": ["x" * LARGEST]}, 413, "larger than"),
        ("/none", {}, 404, "Not Found"),
    ],
)
def test_what_cannot_be_answered_is_refused_by_name(
    address: str, path: str, body: dict[str, Any], status: int, detail: str
) -> None:
    reply = requests.post(f"{address}{path}", json=body, timeout=60)
    assert (reply.status_code, detail in reply.text) == (status, True), reply.text


def test_a_full_queue_refuses_and_a_question_that_takes_too_long_is_given_up(recommender: Recommender) -> None:
    go, slow = threading.Event(), Recommender.__new__(Recommender)
    slow.__dict__ |= recommender.__dict__ | {"answer": lambda rankings: go.wait(60) and [None] * len(rankings)}
    with served(slow, waiting=1, timeout=1) as address:
        question = {"url": f"{address}/recommend", "json": {"user": "u00001"}}
        with ThreadPoolExecutor(8) as clients:
            statuses = list(clients.map(lambda _: requests.post(**question, timeout=60).status_code, range(8)))
        health = requests.get(f"{address}/health", timeout=60).json()["status"]
        go.set()
    assert (set(statuses), health) == ({429, 504}, "ok")


def test_a_models_error_reaches_those_who_asked_and_the_next_is_answered() -> None:
    models = ModelThread(lambda _: [], waiting=2)

    def fail() -> None:
        raise UserError("no")

    with pytest.raises(UserError, match="no"):
        models.submit(fail).result()
    assert models.submit(lambda: 7).result() == 7
    started, go = threading.Event(), threading.Event()
    models.submit(lambda: started.set() or go.wait())
    started.wait()
    last = [models.submit(lambda number=number: number) for number in range(2)]
    with pytest.raises(Busy):
        models.submit(lambda: 0)
    go.set()
    models.close()  # what waits is answered first
    assert [future.result() for future in last] == [0, 1]


def test_where_others_reach_it_a_token_is_needed(recommender: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN, raising=False)
    assert check_host("127.0.0.1") is check_host("localhost") is check_host("::1") is None
    with pytest.raises(UserError, match=f"others can reach that; set {TOKEN}"):
        check_host("0.0.0.0")
    monkeypatch.setenv(TOKEN, "secret")
    with served(recommender, token=check_host("0.0.0.0"), host=None) as address:
        for header, status in ((None, 401), ("Bearer other", 401), ("Bearer secret", 200)):
            headers = {} if header is None else {"Authorization": header}
            assert requests.get(f"{address}/users", headers=headers).status_code == status
        assert requests.get(f"{address}/health").status_code == requests.get(address).status_code == 200


def test_a_page_of_another_name_does_not_reach_a_local_server(address: str) -> None:
    assert requests.get(f"{address}/users", headers={"Host": "elsewhere.test"}).status_code == 400


def test_a_port_that_is_taken_is_one_line_and_an_end(project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        server = run_in(project, "serve", "--port", port)
    assert server.returncode == 1
    assert f"--port {port}: cannot listen there" in server.stderr.splitlines()[-1]


@pytest.mark.parametrize("host", ["127.0.0.2", "localhost", "[::1]"])
def test_a_local_server_answers_to_the_name_that_it_was_given(recommender: Recommender, host: str) -> None:
    with served(recommender, host=host) as address:
        assert requests.get(f"{address}/health", headers={"Host": f"{host}:8000"}, timeout=60).status_code == 200


def run_in(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "thinkrec.cli", *words],
        cwd=project,
        env={**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_stopped_under_load_it_answers_all_that_it_began(project: Path) -> None:
    server = subprocess.Popen(
        [sys.executable, "-m", "thinkrec.cli", "serve", "--port", "0"],
        cwd=project,
        env={**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None and server.stderr is not None
    address = next(line.split()[1] for line in server.stderr if line.startswith("serve: http"))
    statuses: list[int] = []

    def ask() -> None:
        with suppress(requests.ConnectionError):  # nothing listens any more
            while True:
                statuses.append(requests.post(f"{address}recommend", json={"user": "u00001"}).status_code)

    clients = [threading.Thread(target=ask) for _ in range(16)]
    for client in clients:
        client.start()
    while len(statuses) < 32:
        time.sleep(0.01)
    server.send_signal(signal.SIGTERM)
    for client in clients:
        client.join()
    closing = server.communicate()[0]
    assert server.returncode == 0
    assert f"serve: stopped; {len(statuses):,} requests answered (" in closing  # each has reached its client
    assert set(statuses) == {200}
