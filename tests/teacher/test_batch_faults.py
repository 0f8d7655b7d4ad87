"""Batches that end badly: what their lines say is read, what one question did wrong is no fault of the others."""

import json

import pytest

from tests.teacher.batch_server import go, waits
from tests.teacher.server import completion


def test_a_question_that_the_host_turns_down_does_not_keep_the_others_from_ending(server):
    def answer(request, times):
        if request["messages"][0]["content"] == "b":
            return 400, {"error": {"error": {"message": "no such question"}}}
        return 200, completion("again" if len(request["messages"]) == 1 else "x")

    server.answer = answer
    waits(server, "b", "c")
    server.finish()
    waits(server, "b", "c")
    server.finish()
    assert go(server, "b", "c") == ["", "x"]
    assert sorted(server.asked.values()) == [1, 1, 1]


@pytest.mark.parametrize("gone", ["output_file_id", "content"])
def test_a_batch_without_its_output_is_submitted_again(server, gone):
    waits(server, "a", "b")
    server.finish()
    file = server.batches["batch_0"]["output_file_id"]
    if gone == "content":
        del server.files[file]
    else:
        server.batches["batch_0"]["output_file_id"] = None
    assert "2 failed (the batch completed without it); 2 questions submitted" in waits(server, "a", "b")
    server.finish()
    assert go(server, "a", "b") == ["a", "b"]


def test_an_answer_counts_however_often_and_in_whatever_order_its_lines_come(server):
    waits(server, "a", "b")
    server.finish()
    output = server.batches["batch_0"]["output_file_id"]
    lines = server.files[output].splitlines()
    broken = [json.dumps(json.loads(line) | {"response": None, "error": {"message": "no"}}).encode() for line in lines]
    server.files[output] = b"\n".join([*broken, *lines[::-1], *broken, *lines])
    assert go(server, "a", "b") == ["a", "b"]


def test_an_empty_answer_is_not_kept(server):
    server.answer = lambda request, times: (200, completion("" if times == 1 else "x"))
    waits(server, "a")
    server.finish()
    waits(server, "a")
    server.finish()
    assert go(server, "a") == ["x"]


def test_a_server_of_ones_own_needs_no_key(server, monkeypatch):
    monkeypatch.delenv("THINKREC_TEACHER_KEY")
    waits(server, "a")
    server.finish()
    assert go(server, "a") == ["a"]
