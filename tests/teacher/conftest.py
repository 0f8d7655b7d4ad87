"""Every test of the teacher: in a folder of its own, where the response store will be, with a key to look for."""

import pytest

from tests.teacher.asking import KEY
from tests.teacher.batch_server import batch_server
from tests.teacher.server import completion


@pytest.fixture(autouse=True)
def place_and_key(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("THINKREC_STORE", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("THINKREC_TEACHER_KEY", KEY)


@pytest.fixture
def no_key(monkeypatch, place_and_key):
    monkeypatch.delenv("THINKREC_TEACHER_KEY")


@pytest.fixture
def server():
    """A server that repeats what it is asked."""
    with batch_server() as running:
        running.answer = lambda request, _: (200, completion(request["messages"][-1]["content"]))
        yield running
