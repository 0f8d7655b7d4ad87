"""Every fault of a teacher, through the public door: what is asked again, what ends in one line, what the ledger shows.

The question's text names the fault that it meets (server.BEHAVIOURS), so one session meets them all.
"""

import io
import logging
import sqlite3
import time
import traceback
from collections import Counter
from contextlib import closing
from email.utils import formatdate

import pandas as pd
import pytest

from tests.builders import interactions, item_table
from tests.project import ROOT
from tests.teacher.asking import KEY, STORE, ask, teacher_at, texts_of, try_to_ask
from tests.teacher.server import BEHAVIOURS, Response, completion, serve
from thinkrec.claims.checker import Checker, thesaurus_of
from thinkrec.errors import UserError
from thinkrec.params import load
from thinkrec.synthesis import filters
from thinkrec.synthesis.sampling import as_sample
from thinkrec.synthesis.traces import synthesise
from thinkrec.teacher import budget

RETRIES = 2
AGAIN = RETRIES + 1  # requests where every retry is used
ITS_OWN_FAULT = f"still failed after up to {RETRIES} retries (Error code: 50"
HICCUP = f"still failed after up to {RETRIES} retries (an answer without a word)"
NO_SUCH_API = "answers, but not as an OpenAI-compatible API"

# What ends in one line: how many requests it takes, and what the line says.
FAILS = {
    **dict.fromkeys(["429 quota", "429 quota by type"], (1, "says that the key's quota is used up")),
    "500": (AGAIN, ITS_OWN_FAULT),
    "502": (AGAIN, ITS_OWN_FAULT),
    "503": (AGAIN, ITS_OWN_FAULT),
    "cut": (AGAIN, "cannot be reached, or breaks off"),
    "cut in the body": (AGAIN, "cannot be reached, or breaks off"),
    "error with 200": (AGAIN, f"still failed after up to {RETRIES} retries (upstream_failed: see ***)"),
    "endless": (1, "does not know the model 'm', or is no such API"),
    "bad key": (1, "refused the key; set THINKREC_TEACHER_KEY"),
    "forbidden": (1, "forbids this key the model 'm'"),
    "no filter": (1, "forbids this key the model 'm'"),
    "no model": (1, "does not know the model 'm'"),
    **dict.fromkeys(["html", "html as json", "deep json", "list", "null"], (1, NO_SUCH_API)),
    **dict.fromkeys(["choices missing", "choices of text"], (1, NO_SUCH_API)),
    **dict.fromkeys(["broken json", "no bytes", "broken utf-8"], (AGAIN, NO_SUCH_API)),  # cut off on the way
    **dict.fromkeys(["null choices", "no choices", "null choice", "no message"], (AGAIN, HICCUP)),
    **dict.fromkeys(["nothing said", "broke off", "broke off in the text"], (AGAIN, HICCUP)),
    "error in a choice": (AGAIN, f"still failed after up to {RETRIES} retries (Upstream)"),
}
# What is an answer, if not always a good one: what of it is not as a good one has it, and what the ledger calls it.
FITS = {"text": "Yes. It fits."}
UNCOUNTED = {"prompt_tokens": 0, "completion_tokens": 0}
EMPTY, REFUSED, CUT = ({"text": "", "fault": fault} for fault in ("empty", "refused", "truncated"))
ANSWERS = {
    "slow": {"text": "aslow", "reasoning_content": "because slow"},
    **{
        fault: {"text": f"a{fault}", "reasoning_content": f"because {fault}", **UNCOUNTED}
        for fault in ("no usage", "usage of text", "usage below zero", "usage beyond belief", "half a usage")
    },
    "no model named": {"text": "ano model named", "reasoning_content": "because no model named"},
    "text parts": FITS,
    "other parts": EMPTY,
    "empty": EMPTY,
    "null content": EMPTY,
    "spaces": EMPTY,
    "refusal": REFUSED | {"refused": True},
    "content filter": REFUSED | {"text": "Yes. It", "finish_reason": "content_filter", "refused": True},
    "error object with 200": REFUSED | {"finish_reason": "not_taken", "refused": True, **UNCOUNTED},
    "bad request": REFUSED | {"finish_reason": "not_taken", "refused": True, **UNCOUNTED},
    "detail": REFUSED | {"finish_reason": "set_aside", "refused": True, **UNCOUNTED},
    "error in a list": REFUSED | {"finish_reason": "not_taken", "refused": True, **UNCOUNTED},
    "flagged": REFUSED | {"finish_reason": "content_filter", "refused": True, **UNCOUNTED},
    "moderated": REFUSED | {"finish_reason": "content_filter", "refused": True, **UNCOUNTED},
    "filtered": REFUSED | {"finish_reason": "content_filter", "refused": True},
    "unsafe": REFUSED | {"finish_reason": "content_filter", "refused": True, "completion_tokens": 0},
    "can't help": REFUSED | {"text": "I can't help with that."},
    "truncated": CUT | {"text": "Yes. It fits because the user", "finish_reason": "length"},
    "truncated elsewhere": CUT | {"text": "Yes. It fits because the user", "finish_reason": "length"},
    "truncated scratch": CUT | {"finish_reason": "length"},
    "scratch": FITS,
    "scratch apart": FITS | {"reasoning_content": "No, wait."},
    "surrogates": {"text": "Yes. It ?fits?.", "reasoning_content": "?"},
    "huge": {"text": ("Yes. " + "It fits. " * 500_000).strip()},
    "echo": {"text": "Yes. *** fits."},
    "other model": FITS,
    "dated model": FITS,
}
KEPT = [name for name, answer in ANSWERS.items() if answer.get("fault") != "empty" and name != "detail"]
WAITS = {"429", "429 bare", "429 seconds", "429 date", "hang", "dribble"}  # what is about waiting has tests of its own


@pytest.fixture(scope="module")
def met(tmp_path_factory):
    """What comes of each fault, the server that made them, all that was logged meanwhile, the folder of the store."""
    log, folder = io.StringIO(), tmp_path_factory.mktemp("faults")
    handler, root = logging.StreamHandler(log), logging.getLogger()
    with pytest.MonkeyPatch.context() as patch, serve(lambda request: request.text) as server:
        patch.chdir(folder)
        patch.delenv("THINKREC_STORE", raising=False)
        patch.setenv("THINKREC_TEACHER_KEY", KEY)
        names, level = [*FAILS, *ANSWERS], root.level
        root.addHandler(handler)
        root.setLevel(logging.DEBUG)
        outcomes = try_to_ask(teacher_at(server.endpoint, concurrency=64, retries=RETRIES), *names)
        root.setLevel(level)
        root.removeHandler(handler)
    return dict(zip(names, outcomes, strict=True)), server, log.getvalue(), folder


def test_every_behaviour_of_the_server_is_expected_here():
    assert {*FAILS, *ANSWERS, *WAITS} == set(BEHAVIOURS)


@pytest.mark.parametrize("fault", FAILS)
def test_what_cannot_be_mended_ends_in_one_line(met, fault):
    outcomes, server, _, _ = met
    requests, line = FAILS[fault]
    error = outcomes[fault]
    assert isinstance(error, UserError)
    assert line in str(error)
    assert str(error).startswith(f"teacher at {server.endpoint} ")
    assert KEY not in "".join(traceback.format_exception(error))
    assert error.__cause__ is None and (error.__context__ is None or error.__suppress_context__)
    assert server.came[fault] == requests


@pytest.mark.parametrize("fault", ANSWERS)
def test_what_is_an_answer_is_taken_as_it_is_and_paid_once(met, fault):
    outcomes, server, _, _ = met
    good = {"finish_reason": "stop", "refused": False, "prompt_tokens": 7, "completion_tokens": 3}
    expected = {**good, "reasoning_content": "", **ANSWERS[fault]}
    expected.pop("fault", None)
    assert {name: getattr(outcomes[fault], name) for name in expected} == expected
    assert server.came[fault] == 1


def test_answers_replay_as_they_came_and_what_is_empty_or_failed_is_not_kept(met, monkeypatch):
    outcomes, server, _, folder = met
    monkeypatch.chdir(folder)
    with closing(sqlite3.connect(STORE)) as store:
        assert store.execute("SELECT count(*) FROM responses").fetchone() == (len(KEPT),)
    assert ask(teacher_at(server.endpoint), *KEPT) == [outcomes[name] for name in KEPT]  # the server is gone


def test_the_key_is_in_no_log_and_not_in_the_store(met):
    _, server, log, folder = met
    assert {request.key for request in server.heard} == {KEY}
    assert "/chat/completions" in log  # everything was listened to
    assert KEY not in log
    assert all(KEY.encode() not in path.read_bytes() for path in (folder / STORE).parent.iterdir())


@pytest.mark.parametrize("fault", ["429", "500", "502", "503", "cut", "cut in the body"])
def test_what_passes_is_asked_again_until_it_does(fault):
    with serve([fault, fault]) as server:
        teacher = teacher_at(server.endpoint, retries=RETRIES)
        assert texts_of(ask(teacher, "x")) == ["ax"]
    assert server.came["x"] == teacher.spent.requests == 3


@pytest.mark.parametrize(("fault", "seconds"), [("429 seconds", 0.99), ("429 date", 0.99), ("429 bare", 0.3)])
def test_the_next_request_comes_no_sooner_than_the_server_says_or_a_little_later_where_it_does_not(fault, seconds):
    with serve([fault]) as server:  # the wait is no part of the timeout
        assert texts_of(ask(teacher_at(server.endpoint, retries=1, timeout=0.9), "x")) == ["ax"]
    first, second = server.heard
    assert second.at - first.at >= seconds


@pytest.mark.parametrize("wait", ["301", "1e400", "date"])
def test_an_impossible_wait_is_not_waited_out(wait):
    header = formatdate(time.time() + 3600, usegmt=True) if wait == "date" else wait
    response = Response(body={"error": {"message": "no"}}, status=429, headers={"retry-after": header})
    with serve(lambda request: response) as server, pytest.raises(UserError, match="turned us away for 300 s on end"):
        ask(teacher_at(server.endpoint), "x")
    assert len(server.heard) == 1


@pytest.mark.parametrize("wait", ["nan", "-1", "soon", ""])
def test_a_wait_that_is_no_number_is_asked_again_as_without_one(wait, monkeypatch):
    monkeypatch.setattr(budget, "FIRST_PAUSE", 0.01)
    refusals = iter([Response(body={"error": {"message": "no"}}, status=429, headers={"retry-after": wait})])
    with serve(lambda request: next(refusals, None)) as server:
        assert texts_of(ask(teacher_at(server.endpoint, retries=1), "x")) == ["ax"]


@pytest.mark.parametrize(("word", "requests"), [("true", 2), ("false", 1)])
def test_a_server_may_say_whether_to_ask_again(word, requests):
    headers = {"x-should-retry": word, "retry-after-ms": "1"}
    response = Response(body={}, status=400 if word == "true" else 500, headers=headers)
    with serve(lambda request: response) as server, pytest.raises(UserError):
        ask(teacher_at(server.endpoint, retries=1), "x")
    assert len(server.heard) == requests


@pytest.mark.parametrize("fault", ["hang", "dribble"])
def test_what_does_not_end_is_given_up_after_the_timeout_of_each_try_and_sent_twice_at_most(fault):
    with serve(fault) as server, pytest.raises(UserError, match=r"gave no answer within 0.3 s; raise run\.timeout"):
        teacher = teacher_at(server.endpoint, timeout=0.3)
        ask(teacher, "x")
    assert teacher.spent.requests == len(server.heard) == 2


def test_one_fault_does_not_hold_up_other_questions():
    with serve(lambda request: "hang" if request.text == "x" else None) as server:
        teacher = teacher_at(server.endpoint, concurrency=64, retries=0, timeout=1.5)
        error, *answers = try_to_ask(teacher, "x", *range(20))
    assert isinstance(error, UserError)
    assert texts_of(answers) == [f"a{n}" for n in range(20)]


def loop(script, rows, **changes):
    """The trace loop over `rows` of a small world, one row after another, against a server with `script`."""
    params, table = load(ROOT / "params.yaml"), interactions(ties=False)
    items = item_table()
    keywords = pd.DataFrame({"item": range(len(items)), "keywords": items["categories"]})
    with serve(script) as server:
        teacher = teacher_at(server.endpoint, concurrency=1, retries=RETRIES)
        checker = Checker(table, items, keywords, params.prompt, thesaurus_of("synthetic"))
        limits = params.traces.model_copy(update=changes)
        return synthesise(as_sample(table, rows), checker, teacher, limits, progress=""), server


def test_the_ledger_calls_each_answer_that_is_none_by_its_name():
    faults = {name: answer["fault"] for name, answer in ANSWERS.items() if "fault" in answer}
    rows, script = range(1, len(faults) + 1), iter(faults)  # no two of the rows' questions are equal
    synthesis, server = loop(lambda request: next(script), rows, max_turns=1)
    assert len(server.heard) == len(faults)
    assert synthesis.kept.empty
    assert synthesis.rejected["row"].tolist() == list(rows)
    assert synthesis.rejected["fault"].tolist() == list(faults.values())
    counts = {fault: count for fault, count in synthesis.stats["rejected"].items() if count}
    assert counts == Counter(faults.values())
    assert synthesis.stats["given_up"] == synthesis.stats["rejected"]
    for kind, tokens in (("prompt_tokens", 7), ("completion_tokens", 3)):  # what was flagged, or not taken, has none
        assert synthesis.stats[kind] == sum(ANSWERS[fault].get(kind, tokens) for fault in faults)


def test_scratch_work_is_in_no_trace(monkeypatch):
    monkeypatch.setattr(filters, "SHORTEST", 1)
    text = "Yes, says the label </think> so.\n</think>\nVerdict: Yes\nHistory: a\nTaste: b\nFit: c\n<think>Or No?"
    body = completion(text, reasoning_content="the label")
    synthesis, _ = loop(lambda request: Response(body=body), range(6), max_turns=1)
    kept, rejected = synthesis.kept["text"], synthesis.rejected["text"]
    assert set(kept) == {"Yes. A. B. C."}
    assert not pd.concat([kept, rejected]).str.contains("think|label").any()


def test_a_run_that_is_turned_away_goes_on_when_it_may(monkeypatch):
    monkeypatch.setattr(budget, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(budget, "SLOWEST", 0.002)
    with serve(lambda request: "429 bare" if len(server.heard) <= 6 else None) as server:
        answers = texts_of(ask(teacher_at(server.endpoint, retries=0), *range(30)))
    assert answers == [f"a{number}" for number in range(30)]
    assert len(server.heard) == 36


def test_a_host_that_turns_a_run_away_for_good_ends_it_in_one_line():
    with serve("429") as server, pytest.raises(UserError, match=r"turned us away for 0.05 s on end \(Error code: 429"):
        ask(teacher_at(server.endpoint, patience=0.05), "x")


def test_a_server_that_works_on_one_answer_at_a_time_hears_each_question_once():
    free = [0.0]

    def one_by_one(request):
        free[0] = max(free[0], request.at) + 0.1
        return Response(body=completion("x"), seconds=free[0] - request.at)

    with serve(one_by_one) as server:
        ask(teacher_at(server.endpoint, concurrency=8, timeout=0.7), *range(12))
    assert set(server.came.values()) == {1}


def test_thoughts_are_read_from_whichever_field_they_come_in():
    details = [{"type": "reasoning.text", "text": "hm"}]
    fields = {"reasoning_content": "hm", "reasoning": "hm", "reasoning_details": details}
    script = iter([Response(body=completion(None, **{name: value})) for name, value in fields.items()])
    with serve(lambda request: next(script)) as server:
        answers = ask(teacher_at(server.endpoint, concurrency=1), *fields)
    assert [(answer.text, answer.reasoning_content) for answer in answers] == [("", "hm")] * 3


def no_such_field(request):
    error = {"message": "Unsupported parameter.", "param": "max_tokens", "code": "unsupported_parameter"}
    return Response(body={"error": error}, status=400)


def test_one_question_that_the_host_turns_down_goes_to_the_ledger_and_is_not_asked_further():
    place = iter(range(100))
    synthesis, _ = loop(lambda request: no_such_field(request) if next(place) == 2 else None, range(6), max_turns=2)
    refused = synthesis.rejected[synthesis.rejected["fault"] == "refused"]
    assert len(refused) == 1
    assert synthesis.stats["train"]["asked"] == 6


@pytest.mark.parametrize(("rows", "requests"), [(range(3), 3), (range(12), 10)])
def test_a_host_that_turns_down_every_question_ends_the_run_in_its_own_words(rows, requests):
    heard = []

    def script(request):
        heard.append(request)
        return no_such_field(request)

    with pytest.raises(UserError, match=r"Unsupported parameter. \(max_tokens\)"):
        loop(script, rows)
    assert len(heard) == requests


def test_no_turn_repeats_an_empty_answer():
    script = iter(["empty", None] * 3)
    _, server = loop(lambda request: next(script), range(3), max_turns=2)
    assert len(server.heard) == 6
    assert all(message["content"] for request in server.heard for message in request.body["messages"])
