"""Every fault of a teacher, through the public door: what is asked again, what ends in one line, what the ledger shows.

The question's text names the fault that it meets (server.BEHAVIOURS), so one session meets them all.
"""

import asyncio
import io
import logging
import sqlite3
import time
import traceback
from contextlib import closing
from email.utils import formatdate

import pandas as pd
import pytest

from tests.builders import interactions, item_table
from tests.project import ROOT, teacher_params
from tests.teacher.server import BEHAVIOURS, Response, completion, serve
from thinkrec.claims.checker import Checker, thesaurus_of
from thinkrec.errors import UserError
from thinkrec.params import load
from thinkrec.synthesis.sampling import Sample
from thinkrec.synthesis.traces import synthesise
from thinkrec.teacher.answers import Reply
from thinkrec.teacher.client import open_session
from thinkrec.teacher.endpoint import open_teacher

KEY = "sk-do-not-show-me"
RETRIES = 2
AGAIN = RETRIES + 1  # requests where every retry is used
ITS_OWN_FAULT = f"still failed after up to {RETRIES} retries (Error code: 50"
TURNED_AWAY = f"still turned us away after up to {RETRIES} retries"
NO_SUCH_API = "answers, but not as an OpenAI-compatible API"

# What ends in one line: how many requests it takes, and what the line says.
FAILS = {
    "429": (AGAIN, TURNED_AWAY),
    "429 quota": (1, "says that the key's quota is used up"),
    "500": (AGAIN, ITS_OWN_FAULT),
    "502": (AGAIN, ITS_OWN_FAULT),
    "503": (AGAIN, ITS_OWN_FAULT),
    "cut": (AGAIN, "cannot be reached, or breaks off"),
    "cut in the body": (AGAIN, "cannot be reached, or breaks off"),
    "bad request": (1, "failed (Error code: 400 - context_length_exceeded: see ***)"),
    "detail": (1, "failed (Error code: 422 - not today,[31m ***)"),
    "error with 200": (1, "failed (upstream_failed: see ***)"),
    "endless": (1, "failed (its response is longer than any answer)"),
    "bad key": (1, "refused the key; set THINKREC_TEACHER_KEY"),
    "forbidden": (1, "forbids this key the model 'm'"),
    "no model": (1, "does not know the model 'm'"),
    **dict.fromkeys(
        ["html", "html as json", "broken json", "deep json", "no bytes", "broken utf-8", "list", "null"],
        (1, NO_SUCH_API),
    ),
    **dict.fromkeys(["null choices", "choices of text"], (1, NO_SUCH_API)),
}
FITS = {"text": "Yes. It fits."}
# What is an answer, if not always a good one: what of it is not as a good one has it.
ANSWERS = {
    "slow": {"text": "aslow", "reasoning": "because slow"},
    "no choices": {"text": "", "finish_reason": ""},
    "null choice": {"text": "", "finish_reason": ""},
    "no message": {"text": ""},
    **{
        fault: {"text": f"a{fault}", "reasoning": f"because {fault}", "prompt_tokens": 0, "completion_tokens": 0}
        for fault in ("no usage", "usage of text", "usage below zero", "usage beyond belief", "half a usage")
    },
    "no model named": {"text": "ano model named", "reasoning": "because no model named"},
    "text parts": FITS,
    "other parts": {"text": ""},
    "empty": {"text": ""},
    "null content": {"text": ""},
    "spaces": {"text": ""},
    "refusal": {"text": "", "refused": True},
    "content filter": {"text": "Yes. It", "finish_reason": "content_filter", "refused": True},
    "flagged": {
        "text": "", "finish_reason": "content_filter", "refused": True, "prompt_tokens": 0, "completion_tokens": 0
    },
    "can't help": {"text": "I can't help with that."},
    "truncated": {"text": "Yes. It fits because the user", "finish_reason": "length"},
    "truncated scratch": {"text": "", "finish_reason": "length"},
    "scratch": FITS,
    "scratch apart": FITS | {"reasoning": "No, wait."},
    "surrogates": {"text": "Yes. It ?fits?.", "reasoning": "?"},
    "huge": {"text": ("Yes. " + "It fits. " * 500_000).strip()},
    "echo": {"text": "Yes. *** fits."},
    "other model": FITS,
    "dated model": FITS,
}  # fmt: skip
# What is about waiting has tests of its own.
WAITS = {"429 bare", "429 seconds", "429 date", "hang", "dribble"}
# What the ledger calls an answer that is none.
FAULTS = {
    "no choices": "empty",
    "null choice": "empty",
    "no message": "empty",
    "other parts": "empty",
    "empty": "empty",
    "null content": "empty",
    "spaces": "empty",
    "refusal": "refused",
    "content filter": "refused",
    "flagged": "refused",
    "can't help": "refused",
    "truncated": "truncated",
    "truncated scratch": "truncated",
}


@pytest.fixture(scope="module", autouse=True)
def place_and_key(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("faults")
        patch.chdir(folder)
        patch.delenv("THINKREC_STORE", raising=False)
        patch.delenv("OPENAI_API_KEY", raising=False)
        patch.setenv("THINKREC_TEACHER_KEY", KEY)
        yield folder


def ask(endpoint, *texts, retries=RETRIES, **changes):
    """What comes of some questions asked at once, faults among it; the requests that took."""

    async def run():
        teacher = open_teacher(teacher_params(endpoint, concurrency=64, **changes), retries=retries)
        async with open_session(teacher) as session:
            asked = (session.ask([{"role": "user", "content": text}]) for text in texts)
            return await asyncio.gather(*asked, return_exceptions=True), session.teacher.spent.requests

    return asyncio.run(run())


@pytest.fixture(scope="module")
def met():
    """What comes of each fault, the server that made them, and all that was logged meanwhile."""
    log = io.StringIO()
    handler, root = logging.StreamHandler(log), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        with serve(lambda request: request.text) as server:
            names = [*FAILS, *ANSWERS]
            came = dict(zip(names, ask(server.endpoint, *names)[0], strict=True))
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    return came, server, log.getvalue()


def test_every_behaviour_of_the_server_is_expected_here():
    assert {*FAILS, *ANSWERS, *WAITS} == set(BEHAVIOURS)
    assert FAULTS.keys() <= ANSWERS.keys()


@pytest.mark.parametrize("fault", FAILS)
def test_what_cannot_be_mended_ends_in_one_line(met, fault):
    came, server, _ = met
    requests, said = FAILS[fault]
    error = came[fault]
    assert isinstance(error, UserError)
    assert said in str(error)
    assert str(error).startswith(f"teacher at {server.endpoint} ")
    assert "\n" not in str(error)
    assert KEY not in "".join(traceback.format_exception(error))
    assert error.__cause__ is None and (error.__context__ is None or error.__suppress_context__)
    assert server.came[fault] == requests


@pytest.mark.parametrize("fault", ANSWERS)
def test_what_is_an_answer_is_taken_as_it_is_and_paid_once(met, fault):
    came, server, _ = met
    good = {"finish_reason": "stop", "refused": False, "prompt_tokens": 7, "completion_tokens": 3}
    assert came[fault] == Reply(**{**good, **ANSWERS[fault]})
    assert server.came[fault] == 1


def test_answers_replay_as_they_came_and_failures_are_not_kept(met, place_and_key):
    came, server, _ = met
    with closing(sqlite3.connect(place_and_key / ".cache" / "responses.sqlite")) as store:
        assert store.execute("SELECT count(*) FROM responses").fetchone() == (len(ANSWERS),)
    replies, sent = ask(server.endpoint, *ANSWERS)  # the server is gone
    assert replies == [came[name] for name in ANSWERS]
    assert sent == 0


def test_the_key_is_in_no_log_and_not_in_the_store(met, place_and_key):
    _, server, log = met
    assert {request.key for request in server.heard} == {KEY}
    assert "/chat/completions" in log  # everything was listened to
    assert KEY not in log
    for path in (place_and_key / ".cache").iterdir():
        assert KEY.encode() not in path.read_bytes()


@pytest.mark.parametrize("fault", ["429", "500", "502", "503", "cut", "cut in the body"])
def test_what_passes_is_asked_again_until_it_does(fault):
    with serve([fault, fault]) as server:
        (reply,), sent = ask(server.endpoint, "x")
    assert (reply.text, server.came["x"], sent) == ("ax", 3, 3)


@pytest.mark.parametrize("fault", ["429 seconds", "429 date"])
def test_the_next_request_comes_no_sooner_than_the_server_says(fault):
    with serve([fault]) as server:  # the wait is no part of the timeout
        (reply,), _ = ask(server.endpoint, "x", retries=1, timeout=0.9)
    assert reply.text == "ax"
    first, second = server.heard
    assert second.at - first.at >= 0.99


def test_without_a_word_of_the_server_the_next_request_waits_a_little():
    with serve(["429 bare"]) as server:
        (reply,), _ = ask(server.endpoint, "x", retries=1)
    assert reply.text == "ax"
    first, second = server.heard
    assert second.at - first.at >= 0.3


@pytest.mark.parametrize("wait", ["121", "1e400", "-1", "soon", "", "date"])
def test_an_impossible_wait_is_not_waited_out(wait):
    header = formatdate(time.time() + 3600, usegmt=True) if wait == "date" else wait

    def script(request):
        return Response(body={"error": {"message": "no"}}, status=429, headers={"retry-after": header})

    with serve(script) as server:
        ((error,), sent) = ask(server.endpoint, "x", retries=1)
    assert "still turned us away after up to 1 retries" in str(error)
    assert sent <= 2


@pytest.mark.parametrize("fault", ["hang", "dribble"])
def test_what_does_not_end_is_given_up_after_the_timeout_of_each_try(fault):
    with serve(fault) as server:
        ((error,), sent) = ask(server.endpoint, "x", retries=1, timeout=0.3)
    assert "gave no answer within 0.3 s; raise run.timeout" in str(error)
    assert sent == len(server.heard) == 2


def test_one_fault_does_not_hold_up_other_questions():
    with serve(lambda request: "hang" if request.text == "x" else None) as server:
        (error, *replies), _ = ask(server.endpoint, "x", *map(str, range(20)), retries=0, timeout=3.0)
    assert isinstance(error, UserError)
    assert [reply.text for reply in replies] == [f"a{n}" for n in range(20)]


def test_an_endpoint_without_its_version_is_told_of():
    with serve() as server:
        ((error,), sent) = ask(server.endpoint.removesuffix("/v1"), "x")
    assert "is no such API; mend teacher.model or .endpoint" in str(error)
    assert sent == 1


def loop(script, rows, **changes):
    """The trace loop over `rows` of a small world, one row after another, against a server with `script`."""
    params, table = load(ROOT / "params.yaml"), interactions(ties=False)
    items = item_table()
    keywords = pd.DataFrame({"item": range(len(items)), "keywords": items["categories"]})
    with serve(script) as server:
        teacher = open_teacher(teacher_params(server.endpoint, concurrency=1), retries=RETRIES)
        checker = Checker(table, items, keywords, params.prompt, thesaurus_of(server.endpoint))
        made = synthesise(
            Sample.of(table, rows), checker, teacher, params.traces.model_copy(update=changes), progress=""
        )
    return made, server


def test_the_ledger_calls_each_answer_that_is_none_by_its_name():
    names, rows = list(FAULTS), range(1, len(FAULTS) + 1)  # no two of whose questions are equal
    given = iter(names)
    made, server = loop(lambda request: next(given), rows, max_turns=1)
    assert len(server.heard) == len(names)
    assert made.kept.empty
    assert made.rejected["row"].tolist() == list(rows)
    assert made.rejected.iloc[:, 3].tolist() == [FAULTS[name] for name in names]
    counts = pd.Series(FAULTS).value_counts().to_dict()
    assert {fault: count for fault, count in made.stats["rejected"].items() if count} == counts
    assert made.stats["given_up"] == made.stats["rejected"]
    counted = len(names) - 1  # a flagged question reached no model
    assert (made.stats["prompt_tokens"], made.stats["completion_tokens"]) == (7 * counted, 3 * counted)


def test_the_loop_bounds_its_turns_whatever_it_hears():
    made, server = loop("null content", [3, 15], max_turns=3)
    assert len(server.heard) == 6
    assert made.rejected["row"].tolist() == [3, 3, 3, 15, 15, 15]
    assert made.stats["given_up"]["empty"] == 2


def test_a_fault_of_the_teacher_stops_the_loop_in_one_line_and_the_next_run_goes_on():
    came = []

    def script(request):
        came.append(request.text)
        return "bad key" if len(came) == 3 else "null content"

    with pytest.raises(UserError, match="refused the key") as caught:
        loop(script, range(5), max_turns=1)
    assert "\n" not in str(caught.value) and KEY not in str(caught.value)
    assert len(came) == 3


def test_scratch_work_is_in_no_trace():
    def script(request):
        return Response(body=completion("<think>Thinking of the label</think>Yes.", reasoning_content="label"))

    made, _ = loop(script, range(6), max_turns=1)
    text = pd.concat([made.kept, made.rejected]).to_csv()
    assert "Yes" in text
    assert "hinking" not in text and "of the label" not in text
