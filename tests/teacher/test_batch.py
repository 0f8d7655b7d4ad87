"""The Batch API: the same answers as live, nothing submitted twice whatever is killed, failures bounded."""

import asyncio
import json
import signal
import sqlite3
from collections import Counter
from contextlib import closing
from multiprocessing.connection import wait
from pathlib import Path

import pytest

from tests.project import digests, run_command, teacher_project
from tests.teacher.asking import KEY, STORE, start, teacher_at
from tests.teacher.batch_server import batch_server, go, questions, waits
from tests.teacher.server import completion
from thinkrec.errors import UserError
from thinkrec.teacher import batch
from thinkrec.teacher.job import carry_out
from thinkrec.teacher.store import open_store


def run(endpoint):
    carry_out(questions("a", "b"), teacher_at(endpoint, mode="batch"))


def fails(server, *texts, **changes):
    """The line of a run that fails."""
    return waits(server, *texts, error=UserError, **changes)


def stored(path=STORE):
    with open_store(path) as store:
        return sorted(store.rows("SELECT key, answer FROM responses"))


@pytest.mark.integration
@pytest.mark.parametrize(("stage", "source", "waves"), [("traces", "tfidf", 3), ("keywords", "teacher", 1)])
def test_batches_make_what_a_live_run_makes_byte_for_byte_and_the_run_log_says_what_they_took(
    tmp_path, stage, source, waves
):
    with batch_server() as server:
        settings = {"teacher.endpoint": server.endpoint, "keywords.source": source}
        before = ["ingest"] if stage == "keywords" else ["ingest", "keywords"]
        live = teacher_project(tmp_path / "live", settings, *before)
        assert run_command(live, stage).exit_code == 0
        batches = teacher_project(tmp_path / "batches", settings | {"teacher.mode": "batch"}, *before)
        for wave in range(waves):
            result = run_command(batches, stage)
            assert result.exit_code == 1
            assert result.stderr.startswith(f"{stage}: waiting for the teacher at {server.endpoint}: ")
            assert len(server.batches) == wave + 1
            assert not (batches / "out" / stage).exists()
            server.finish()
        assert run_command(batches, stage).exit_code == 0
    assert len(server.batches) == waves
    assert set(server.asked.values()) == {1}
    artefacts = (f"out/{stage}", f"metrics/{stage}.json")
    assert len(digests(live, *artefacts)) >= 3
    assert digests(batches, *artefacts) == digests(live, *artefacts)
    assert stored(batches / STORE) == stored(live / STORE)
    assert sum(server.asked.values()) == len(stored(live / STORE)) == len(server.heard)
    log = [json.loads(line) for line in (batches / ".cache" / "runs.jsonl").read_text().splitlines()][-waves - 1 :]
    stats = json.loads((batches / "out" / stage / "measures.json").read_text())
    assert [line["done"] for line in log] == [*[False] * waves, True]
    assert [sum(line[name] for line in log) for name in ("requests", "prompt_tokens")] == [
        len(server.heard), stats["prompt_tokens"]
    ]  # fmt: skip


def test_a_run_while_batches_are_under_way_says_how_far_they_are_and_submits_nothing(server):
    line = waits(server, "a", "b", "c")
    assert f"waiting for the teacher at {server.endpoint}: 3 questions submitted (batch_0); run again" in line
    server.batches["batch_0"]["request_counts"] = {"total": 3, "completed": 2, "failed": 1}
    line = waits(server, "a", "b", "c")
    assert "2 of 3 questions under way answered, 1 failed; run again" in line
    assert len(server.batches) == 1


def test_equal_questions_are_submitted_once_and_what_the_store_knows_needs_no_key(server, monkeypatch):
    assert "1 question submitted" in waits(server, "a", "a", "a")
    server.finish()
    assert go(server, "a", "a", "a") == ["a"] * 3
    monkeypatch.delenv("THINKREC_TEACHER_KEY")
    assert go(server, "a") == ["a"]
    server.endpoint = "https://teacher.invalid/v1"
    assert "needs a key; set THINKREC_TEACHER_KEY" in fails(server, "b")


def answers(wrong, status, body, *, until=10):
    """Answers whoever asks again with "x", a first question with "again", and the question `wrong` with a fault."""

    def answer(request, times):
        if request["messages"][-1]["content"] == wrong and times < until:
            return status, body
        return 200, completion("again" if len(request["messages"]) == 1 else "x")

    return answer


def test_what_failed_is_submitted_again_with_the_next_turns(server):
    server.answer = answers("b", 429, {"error": {"message": "too many"}}, until=2)
    waits(server, "a", "b")
    server.finish()
    assert "1 answer collected; 1 failed (too many); 2 questions submitted (batch_1)" in waits(server, "a", "b")
    server.finish()
    assert "1 question submitted (batch_2)" in waits(server, "a", "b")
    server.finish()
    assert go(server, "a", "b") == ["x", "x"]
    assert sorted(server.asked.values()) == [1, 1, 1, 2]


BROKEN = [
    (400, {"error": {"message": f"bad {KEY}\nrequest"}}),
    (200, {"object": "what?"}),
    (200, completion("")),
    (200, ["not", "an", "object"]),
    '{"custom_id": "unknown", "response": {"status_code": 200, "body": {"choices": []}}}',
    '{"custom_id": 3, "response": []}',
    '{"half a li',
    "[]",
    None,
]


def test_a_question_fails_in_so_many_batches_and_no_more(server):
    texts = [str(place) for place in range(len(BROKEN))]
    server.answer = lambda request, _: BROKEN[int(request["messages"][0]["content"])]
    for _ in range(batch.ATTEMPTS):
        assert f"{len(BROKEN)} questions submitted" in waits(server, *texts)
        server.finish()
    line = fails(server, *texts)
    assert f"{server.endpoint}: {len(BROKEN)} questions without an answer after {batch.ATTEMPTS} batches (" in line
    assert len(server.batches) == batch.ATTEMPTS
    assert not any(KEY.encode() in path.read_bytes() for path in Path(".cache").iterdir())
    server.answer = lambda request, _: (200, completion("x"))
    waits(server, *texts)  # after that line they are asked anew
    server.finish()
    assert go(server, *texts) == ["x"] * len(BROKEN)


def test_the_others_are_answered_before_failures_end_the_run(server):
    server.answer = answers("b", 500, {"error": {"message": "no"}})
    for _ in range(batch.ATTEMPTS):
        waits(server, "b", "c")
        server.finish()
    assert "1 question without" in fails(server, "b", "c")
    assert len(stored()) == 2  # both turns of "c"


def test_a_question_that_the_host_turns_down_does_not_keep_the_others_from_ending(server):
    server.answer = answers("b", 400, {"error": {"error": {"message": "no such question"}}})
    for _ in range(2):
        waits(server, "b", "c")
        server.finish()
    assert go(server, "b", "c") == ["", "x"]
    assert sorted(server.asked.values()) == [1, 1, 1]


@pytest.mark.parametrize(
    ("status", "body", "refusal"),
    [
        (200, completion(None, refusal="not I"), ["not I", "stop"]),
        (400, {"error": {"code": "content_filter", "message": f"not {KEY}"}}, ["not ***", "content_filter"]),
    ],
)
def test_a_refusal_is_an_answer_as_in_a_live_run(server, status, body, refusal):
    server.answer = lambda *_: (status, body)
    waits(server, "a")
    server.finish()
    assert go(server, "a") == [""]
    stored_answer = json.loads(stored()[0][1])
    assert [stored_answer["refusal"], stored_answer["finish_reason"]] == refusal


def test_an_expired_batch_keeps_what_it_answered_and_the_rest_is_submitted_again(server):
    waits(server, *"abcdef")
    server.finish("expired", keep=lambda place: place < 4)
    line = waits(server, *"abcdef")
    assert "4 answers collected; 2 failed (This request could not be executed in time.); 2 questions submitted" in line
    server.finish()
    assert go(server, *"abcdef") == list("abcdef")
    assert set(server.asked.values()) == {1}


def test_a_batch_that_the_server_refuses_as_a_whole_counts_as_failed_and_says_why(server):
    for _ in range(batch.ATTEMPTS):
        waits(server, "a")
        server.finish("failed")
    assert "(Too many tokens.)" in fails(server, "a")


def test_a_cancelled_batch_stops_the_run_once_and_the_next_submits_the_rest(server):
    waits(server, "a", "b", "c")
    server.batches["batch_0"]["status"] = "cancelling"
    waits(server, "a", "b", "c")
    server.batches["batch_0"]["status"] = "in_progress"
    server.finish("cancelled", keep=lambda place: place == 0)
    line = fails(server, "a", "b", "c")
    assert "batch_0 cancelled before the end; 1 answer kept" in line
    assert len(server.batches) == 1
    assert "2 questions submitted (batch_1)" in waits(server, "a", "b", "c")


def test_files_keep_to_the_limits_of_the_api(server, monkeypatch):
    monkeypatch.setattr(batch, "MOST_REQUESTS", 3)
    texts = [f"{n}" for n in range(8)]
    assert "8 questions submitted (batch_0, batch_1, batch_2)" in waits(server, *texts)
    assert [submitted["request_counts"]["total"] for submitted in server.batches.values()] == [3, 3, 2]
    monkeypatch.setattr(batch, "MOST_BYTES", len(server.files["file-0"]))
    more = ["x" * 40, *"abcde"]
    waits(server, *texts, *more)
    sizes = [len(server.files[submitted["input_file_id"]]) for submitted in server.batches.values()]
    assert max(sizes) <= batch.MOST_BYTES and len(sizes) == 6
    server.finish()
    assert go(server, *texts, *more) == [*texts, *more]


def test_batches_that_end_one_by_one_are_collected_one_by_one(server, monkeypatch):
    monkeypatch.setattr(batch, "MOST_REQUESTS", 1)
    server.answer = lambda request, _: (200, completion("again" if len(request["messages"]) == 1 else "x"))
    waits(server, "a", "b")
    server.batches["batch_1"]["status"] = "validating"
    server.finish()
    line = waits(server, "a", "b")
    assert "1 answer collected; 1 question submitted (batch_2); 0 of 1 question under way answered" in line


def test_a_cap_cuts_what_one_run_submits_in_the_words_of_a_live_run(server):
    for place in range(2):
        line = waits(server, *"abcde", max_requests=2)
        assert f"2 questions submitted (batch_{place}); all run.max_requests=2 of this run are sent" in line
        server.finish()
    assert "1 question submitted (batch_2); run again" in waits(server, *"abcde", max_requests=2)


def test_a_cap_on_money_leaves_room_for_the_longest_answers(server):
    # Some 100 characters are 25 tokens of a prompt, and an answer may be 100: 0.001 x 125 each.
    settings = {"prompt_price": 1000.0, "completion_price": 1000.0, "request": {"max_tokens": 100}}
    no_room = "run.max_cost={} has no room for another request"
    assert no_room.format(0.1) in fails(server, *"abcde", **settings, max_cost=0.1)
    assert not server.files
    line = waits(server, *"abcde", **settings, max_cost=0.4)
    assert f"3 questions submitted (batch_0); {no_room.format(0.4)}" in line


@pytest.mark.integration
@pytest.mark.parametrize("call", ["POST files", "POST batches"])
@pytest.mark.parametrize("ended", [False, True])  # by the time somebody comes back
def test_killed_between_any_two_steps_nothing_is_submitted_twice(server, call, ended):
    """The server kills the run after it has done what was asked for, before the run hears of that."""
    server.faults[call] = [lambda: (running.kill(), wait([running.sentinel]))]
    running, _ = start(run, server.endpoint)
    running.join(60)
    assert running.exitcode == -signal.SIGKILL
    for n in range(3):  # of the same account, created since
        other = {"id": f"other-{n}", "input_file_id": f"none-{n}", "status": "completed", "created_at": 2_000_000_000}
        server.batches[other["id"]] = {**other, "object": "batch"}
    if ended:
        server.finish()
    if not ended or call == "POST files":
        waits(server, "a", "b")
        server.finish()
    assert go(server, "a", "b") == ["a", "b"]
    assert len([submitted for submitted in server.batches.values() if submitted["input_file_id"] in server.files]) == 1
    assert set(server.asked.values()) == {1}


def test_a_creation_that_was_refused_is_made_again_and_an_upload_that_failed_is_repeated_whole(server):
    server.faults |= {"POST files": ["500"], "POST batches": ["500"]}
    fails(server, "a", "b")
    assert len(server.files["file-0"].splitlines()) == 2
    assert "2 questions submitted" in waits(server, "a", "b")
    assert len(server.batches) == 1


@pytest.mark.parametrize("fault", ["cut", "500", "page"])
def test_an_output_that_does_not_arrive_whole_is_fetched_again(server, fault):
    waits(server, "a", "b")
    server.finish()
    server.faults["GET files"] = [fault] * 2
    fails(server, "a", "b")
    server.faults.clear()
    assert go(server, "a", "b") == ["a", "b"]
    assert len(server.batches) == 1


@pytest.mark.parametrize("call", ["POST files", "POST batches"])
def test_a_server_without_batches_is_one_line_and_can_be_asked_live(server, call):
    server.faults[call] = ["404"]
    assert "has no Batch API; set teacher.mode=live" in fails(server, "a")
    assert go(server, "a", mode="live") == ["a"]


@pytest.mark.parametrize("call", ["POST files", "POST batches", "GET batches"])
def test_a_web_page_in_place_of_an_answer_is_one_line(server, call):
    if call == "GET batches":  # to look for a batch that was created without an answer
        server.faults["POST batches"] = ["cut"]
        fails(server, "a")
    server.faults[call] = ["page"]
    assert "not as an OpenAI-compatible API" in fails(server, "a")
    waits(server, "a")
    assert len(server.batches) == 1


def test_a_batch_that_is_gone_is_one_line_that_says_the_way_out(server):
    waits(server, "a")
    server.batches.clear()
    line = fails(server, "a")
    assert "does not know our batch; use the key that submitted it or, if it is gone, move .cache" in line
    Path(line.partition("move ")[2].removesuffix(" away")).rename("elsewhere")
    assert "1 question submitted" in waits(server, "a")


def test_a_record_of_an_earlier_version_is_a_user_error_in_one_line(server):
    waits(server, "a")
    with closing(sqlite3.connect(".cache/responses-batches.sqlite")) as connection, connection:
        connection.execute("ALTER TABLE batches DROP COLUMN keys")
    assert "the record of submitted batches cannot be used (no such column: keys)" in fails(server, "a")


def test_a_live_run_does_not_pay_for_what_is_under_way(server):
    waits(server, "a", "b")
    assert "2 questions are under way in batches, and would be paid for twice" in fails(server, "a", "b", mode="live")
    assert not server.heard
    assert go(server, "c", mode="live") == ["c"]  # of which no batch knows
    server.finish()
    assert go(server, "a", "b") == go(server, "a", "b", mode="live") == ["a", "b"]
    assert len(server.heard) == 1


def test_two_runs_at_a_time_submit_once(server):
    async def both():
        return await asyncio.gather(*(asyncio.to_thread(waits, server, "a", "b") for _ in range(2)))

    line = asyncio.run(both())
    assert Counter("submitted" in line for line in line) == {True: 1, False: 1}
    assert len(server.batches) == 1


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
