"""A real server as the teacher: `transformers serve` with a tiny random model, which says nothing that makes sense."""

import asyncio
import copy
import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from types import SimpleNamespace

import pandas as pd
import pytest

from tests.builders import causal_lm, interactions, item_table, tokenizer
from tests.project import ROOT, teacher_params
from thinkrec.claims.checker import Checker
from thinkrec.errors import UserError
from thinkrec.lm.backbone import save_model
from thinkrec.params import load
from thinkrec.synthesis.sampling import Sample
from thinkrec.synthesis.traces import synthesise
from thinkrec.teacher.client import open_session
from thinkrec.teacher.endpoint import open_teacher

MISSING = [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        bool(MISSING), reason=f"transformers serve needs {' and '.join(MISSING)}: pip install 'thinkrec[serving]'"
    ),
]

LONGEST = 24  # tokens of an answer
STARTED = 120.0  # seconds, on a busy machine
TURNS = 2
ROWS = list(range(0, 36, 6))
CHAT = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}assistant:"
QUESTION = [{"role": "user", "content": "Yes or no?"}]


@contextmanager
def transformers_serve(model, home):
    """The base URL of `transformers serve` for one model directory, with no hub and no key."""
    (home / "hub").mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(model), "--device", "cpu"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    log = home / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            command,
            env={**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            latest = time.monotonic() + STARTED
            while not _healthy(port):
                assert process.poll() is None and time.monotonic() < latest, log.read_text()[-2000:]
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait()


def _healthy(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


def ask(teacher):
    async def run():
        async with open_session(teacher) as session:
            return await session.ask(QUESTION)

    return asyncio.run(run())


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """What came of questions and of the trace loop while the server ran; it is gone by now."""
    folder = tmp_path_factory.mktemp("serving")
    words = copy.deepcopy(tokenizer())
    words.chat_template = CHAT
    save_model(causal_lm(), words, folder / "model")
    table, items, params = interactions(ties=False), item_table(), load(ROOT / "params.yaml")
    keywords = pd.DataFrame({"item": range(len(items)), "keywords": items["categories"]})

    def teacher(model=folder / "model", **changes):
        given = {"model": str(model), "timeout": 60.0, "request": {"max_completion_tokens": LONGEST}, **changes}
        return open_teacher(teacher_params(endpoint, **given), retries=0)

    def loop(**changes):
        checker = Checker(table, items, keywords, params.prompt.model_copy(update={"history": 2}), str)
        limits = params.traces.model_copy(update={"max_turns": TURNS})
        return synthesise(Sample.of(table, ROWS), checker, teacher(**changes), limits, progress="")

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("THINKREC_STORE", "THINKREC_TEACHER_KEY", "OPENAI_API_KEY"):
            patch.delenv(name, raising=False)
        with transformers_serve(folder / "model", folder / "home") as endpoint:
            reply, made = ask(teacher()), loop()
            with pytest.raises(UserError) as other:
                ask(teacher("another-model"))
        with pytest.raises(UserError) as gone:
            ask(teacher(request={}))
        return SimpleNamespace(
            reply=reply, made=made, again=loop(), other=str(other.value), gone=str(gone.value), words=words
        )


def test_a_served_model_answers_with_its_usage(served):
    reply = served.reply
    shown = served.words.apply_chat_template(QUESTION, add_generation_prompt=True)
    assert reply.text
    assert reply.prompt_tokens == len(shown["input_ids"])
    assert 0 < reply.completion_tokens <= LONGEST
    assert (reply.finish_reason == "length") == (reply.completion_tokens == LONGEST)
    assert not reply.refused


def test_the_loop_survives_whatever_a_random_model_says(served):
    made = served.made
    rejected = made.rejected["row"].value_counts().to_dict()
    assert set(made.kept["row"]) | set(rejected) == set(ROWS)
    for row in set(ROWS) - set(made.kept["row"]):
        assert rejected[row] == TURNS
    assert sum(made.stats["rejected"].values()) == len(made.rejected)
    assert made.stats["train"]["asked"] + made.stats["held_out"]["asked"] == len(ROWS)
    answers = len(made.rejected) + len(made.kept)
    assert 0 < made.stats["completion_tokens"] <= LONGEST * answers
    assert made.stats["prompt_tokens"] > answers


def test_the_store_replays_it_with_the_server_gone(served):
    assert "cannot be reached" in served.gone
    pd.testing.assert_frame_equal(served.again.kept, served.made.kept)
    pd.testing.assert_frame_equal(served.again.rejected, served.made.rejected)
    assert served.again.stats == served.made.stats


def test_a_model_that_is_not_served_is_told_of_in_one_line(served):
    assert "pinned to" in served.other and "requested 'another-model'" in served.other
    assert "\n" not in served.other
