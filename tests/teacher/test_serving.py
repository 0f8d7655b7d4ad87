"""A real server as the teacher: `transformers serve` with a tiny random model, which says nothing that makes sense."""

import copy
from types import SimpleNamespace

import pandas as pd
import pytest

from tests.builders import causal_lm, interactions, item_table, tokenizer
from tests.claims.rows import LITERAL
from tests.project import ROOT
from tests.serving import SERVED, transformers_serve
from tests.teacher.asking import ask, message, teacher_at
from thinkrec.claims.checker import Checker
from thinkrec.errors import UserError
from thinkrec.lm.backbone import save_model
from thinkrec.params import load
from thinkrec.synthesis.sampling import as_sample
from thinkrec.synthesis.traces import synthesise

pytestmark = SERVED

LONGEST = 24  # tokens of an answer
TURNS = 2
ROWS = list(range(0, 36, 6))
CHAT = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}assistant:"
QUESTION = "Yes or no?"


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
        settings = {"model": str(model), "timeout": 60.0, "request": {"max_completion_tokens": LONGEST}, **changes}
        return teacher_at(endpoint, retries=0, **settings)

    def loop(**changes):
        checker = Checker(table, items, keywords, params.prompt.model_copy(update={"history": 2}), LITERAL)
        limits = params.traces.model_copy(update={"max_turns": TURNS})
        return synthesise(as_sample(table, ROWS), checker, teacher(**changes), limits, progress="")

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("THINKREC_STORE", "THINKREC_TEACHER_KEY", "OPENAI_API_KEY"):
            patch.delenv(name, raising=False)
        with transformers_serve(folder / "model", folder / "home") as endpoint:
            (answer,), synthesis = ask(teacher(), QUESTION), loop()
            with pytest.raises(UserError) as other:
                loop(model="another-model")  # every question is turned down, so it is not the questions' own fault
        with pytest.raises(UserError) as gone:
            ask(teacher(request={}), QUESTION)
        return SimpleNamespace(
            answer=answer, synthesis=synthesis, again=loop(), other=other.value, gone=gone.value, words=words
        )


def test_a_served_model_answers_with_its_usage(served):
    answer = served.answer
    shown = served.words.apply_chat_template(message(QUESTION), add_generation_prompt=True)
    assert answer.text
    assert answer.prompt_tokens == len(shown["input_ids"])
    assert 0 < answer.completion_tokens <= LONGEST
    assert (answer.finish_reason == "length") == (answer.completion_tokens == LONGEST)
    assert not answer.refused


def test_the_loop_survives_whatever_a_random_model_says(served):
    kept, rejected, stats = served.synthesis.kept, served.synthesis.rejected, served.synthesis.stats
    turns = rejected["row"].value_counts()
    assert set(kept["row"]) | set(turns.index) == set(ROWS)
    assert (turns[list(set(ROWS) - set(kept["row"]))] == TURNS).all()
    assert sum(stats["rejected"].values()) == len(rejected)
    answers = len(rejected) + len(kept)
    assert 0 < stats["completion_tokens"] <= LONGEST * answers
    assert stats["prompt_tokens"] > answers


def test_the_store_replays_it_with_the_server_gone(served):
    assert "cannot be reached" in str(served.gone)
    pd.testing.assert_frame_equal(served.again.kept, served.synthesis.kept)
    pd.testing.assert_frame_equal(served.again.rejected, served.synthesis.rejected)
    assert served.again.stats == served.synthesis.stats


def test_a_model_that_is_not_served_is_told_of_in_one_line(served):
    assert "pinned to" in str(served.other) and "requested 'another-model'" in str(served.other)
