"""The reflect loop: bounded, verified by rule, and its output independent of who finishes first."""

import asyncio
import json

import numpy as np
import pandas as pd
import pytest

from tests.project import teacher_params
from thinkrec.artifacts import REJECTED, TRACES, write_table
from thinkrec.errors import UserError
from thinkrec.params import PromptParams, TraceParams
from thinkrec.synthesis.client import Reply, open_teacher
from thinkrec.synthesis.traces import find_fault, mentions_hint, prompt_writer, synthesise
from thinkrec.synthesis.verdict import parse_verdict

PROMPT = PromptParams(
    layout="stream", history=3, history_labels="both", max_tokens=2048, keywords=2, slots=(), soft_tokens=0
)
TRACE = TraceParams(choice="balanced", train=6, held_out=2, max_turns=3)


@pytest.fixture(scope="module")
def world():
    """Four users with ten rows each, the last three of them in test; odd rows are liked."""
    random = np.random.default_rng(0)
    interactions = pd.DataFrame(
        {
            "user": np.repeat(np.arange(4, dtype=np.int32), 10),
            "item": random.integers(0, 6, 40).astype(np.int32),
            "rating": np.float32(3),
            "label": (np.arange(40) % 2).astype(np.int8),
            "timestamp": np.tile(np.arange(10, dtype=np.int64), 4),
            "split": pd.Categorical(["train"] * 7 + ["test"] * 3).tolist() * 4,
        }
    ).astype({"split": "category"})
    items = pd.DataFrame({"item": np.arange(6, dtype=np.int32), "title": [f"Title {n}" for n in range(6)]})
    keywords = pd.DataFrame(
        {"item": items["item"], "keywords": [["drama", "war" if n % 2 else "love", "x"] for n in range(6)]}
    )
    return interactions, items, keywords


def scripted(reply):
    """An in-process teacher that says `reply(messages)`, and the conversations it heard."""
    heard = []

    async def app(scope, receive, send):
        messages = json.loads((await receive())["body"])["messages"]
        heard.append(messages)
        said = reply(messages)
        content, finish = said if isinstance(said, tuple) else (said, "stop")
        await asyncio.sleep(0.001 * (len(heard) % 3))  # so that they finish out of order
        body = {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": "m",
            "choices": [{"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content}}],
            "usage": {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3},
        }
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})

    return app, heard


def run(world, rows, app=None, traces=TRACE, concurrency=3, prompt=PROMPT):
    teacher = open_teacher(
        teacher_params("embedded", concurrency=concurrency),
        app=app,
        retries=0,
    )
    return synthesise(*world, np.array(rows), teacher, prompt=prompt, traces=traces, progress="")


def told(messages):
    """The verdict that the last message calls right, or None."""
    last = messages[-1]["content"] if len(messages) > 2 else ""
    return "Yes" if "Yes" in last else "No" if "No" in last.replace("Not", "") else None


def test_a_teacher_that_is_always_wrong_is_asked_max_turns_times_and_nothing_is_kept(world):
    rows = [4, 6, 14, 16]  # labels are all 0
    app, heard = scripted(lambda messages: "Yes. It fits.")
    made = run(world, rows, app)
    assert len(heard) == len(rows) * TRACE.max_turns
    assert made.kept.empty
    assert made.rejected["row"].tolist() == [row for row in rows for _ in range(3)]
    assert made.rejected["turns"].tolist() == [1, 2, 3] * 4
    assert set(made.rejected["reason"]) == {"wrong_verdict"}
    assert made.stats["given_up"]["wrong_verdict"] == 4
    assert made.stats["train"] == {"asked": 4, "kept": 0, "first_turn_accuracy": 0.0, "mean_turns": 3.0}
    assert made.stats["held_out"] == {"asked": 0, "kept": 0, "first_turn_accuracy": None, "mean_turns": None}
    assert made.stats["prompt_tokens"] == 24


def test_a_right_first_answer_is_kept_in_canonical_form(world):
    app, heard = scripted(lambda messages: "**No**, it\ndoes not fit.")
    made = run(world, [4, 8], app)
    assert len(heard) == 2
    assert made.kept.to_dict("records") == [
        {"row": row, "label": 0, "turns": 1, "text": "No. It does not fit."} for row in (4, 8)
    ]
    assert made.stats["train"]["first_turn_accuracy"] == made.stats["held_out"]["first_turn_accuracy"] == 1.0


def test_nothing_is_no_verdict_and_its_follow_up_gives_no_hint(world):
    app, heard = scripted(lambda messages: "Nothing fits." if len(messages) == 2 else "No. It does not fit.")
    made = run(world, [4], app)
    assert made.rejected["reason"].tolist() == ["no_verdict"]
    assert made.kept["turns"].tolist() == [2]
    assert told(heard[1]) is None
    assert made.stats["train"]["first_turn_accuracy"] == 0.0


def test_a_corrected_teacher_is_kept_without_its_wrong_answer(world):
    app, heard = scripted(lambda messages: f"{told(messages) or 'Yes'}. Because of love.")
    made = run(world, [4], app)
    assert made.kept[["turns", "text"]].values.tolist() == [[2, "No. Because of love."]]
    assert made.rejected["text"].tolist() == ["Yes. Because of love."]
    assert [message["role"] for message in heard[1]] == ["system", "user", "assistant", "user"]


def test_a_leaked_hint_is_refused_and_asked_for_again(world):
    script = ["Yes. It fits.", "No. As you said, the correct answer is No.", "No. It is about war."]
    app, _ = scripted(lambda messages: script[(len(messages) - 2) // 2])
    made = run(world, [4], app)
    assert made.rejected["reason"].tolist() == ["wrong_verdict", "leaked_hint"]
    assert made.kept["text"].tolist() == ["No. It is about war."]


@pytest.mark.parametrize(
    ("text", "leaks"),
    [
        ("You are right, the correct answer is Yes.", True),
        ("You\u2019re right.", True),
        ("As you pointed out, it fits.", True),
        ("Given the hint, yes.", True),
        ("After the correction it fits.", True),
        ("I was told that it fits.", True),
        ("I overlooked the war films; sorry, I apologise.", True),
        ("Upon further reflection it fits.", True),
        ("My previous answer ignored war.", True),
        ("It has a hint of melancholy and a right turn.", False),
        ("The user liked what was incorrectly filed.", False),
        ("Liked war (3 of 3). It fits.", False),
        ("A family that reflects on its past.", False),
    ],
)
def test_hints_are_found_by_rule(text, leaks):
    assert mentions_hint(text) is leaks


@pytest.mark.parametrize(
    ("text", "changes", "fault"),
    [
        ("Yes. It fits.", {}, None),
        ("No. It does not.", {}, "wrong_verdict"),
        ("Nothing", {}, "no_verdict"),
        ("Yes.", {}, "empty"),
        ("", {}, "empty"),
        ("Yes. It fi", {"finish_reason": "length"}, "truncated"),
        ("", {"finish_reason": "length"}, "truncated"),
        ("", {"refused": True}, "refused"),
        ("I'm sorry, I can't help with that.", {}, "refused"),
    ],
)
def test_each_fault_has_its_name(text, changes, fault):
    reply = Reply(**{"text": text, "finish_reason": "stop", "refused": False, "prompt_tokens": 0,
                     "completion_tokens": 0, **changes})  # fmt: skip
    assert find_fault(reply, label=True, hinted=False) == fault


def test_output_does_not_depend_on_concurrency_and_fits_its_schemas(world, tmp_path):
    rows = list(range(40))
    first, again = run(world, rows, concurrency=1), run(world, rows, concurrency=7)
    pd.testing.assert_frame_equal(first.kept, again.kept)
    pd.testing.assert_frame_equal(first.rejected, again.rejected)
    assert first.stats == again.stats
    assert first.kept["row"].is_monotonic_increasing
    assert [parse_verdict(text) for text in first.kept["text"]] == first.kept["label"].astype(bool).tolist()
    write_table(TRACES, first.kept, root=tmp_path)
    write_table(REJECTED, first.rejected, root=tmp_path)


def test_no_rows_make_empty_tables_in_the_right_schemas(world, tmp_path):
    made = run(world, [])
    write_table(TRACES, made.kept, root=tmp_path)
    write_table(REJECTED, made.rejected, root=tmp_path)
    assert made.stats["train"]["asked"] == 0


def test_a_failing_teacher_stops_the_loop_with_one_line(world):
    async def broken(scope, receive, send):
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": b"oops"})

    with pytest.raises(UserError, match="teacher at embedded"):
        run(world, [4, 6, 8], broken)


def test_a_prompt_shows_the_last_earlier_rows_with_their_verdicts(world):
    interactions, items, keywords = world
    lines = prompt_writer(interactions, items, keywords, PROMPT)(16)[1]["content"].splitlines()
    history = [json.loads(line) for line in lines[1:4]]
    item, label = interactions["item"], interactions["label"]
    assert [shown["title"] for shown in history] == [f"Title {item[row]}" for row in (13, 14, 15)]
    assert [shown["verdict"] == "liked" for shown in history] == [bool(label[row]) for row in (13, 14, 15)]
    assert all(len(shown["keywords"]) == 2 for shown in history)
    assert json.loads(lines[6])["title"] == f"Title {item[16]}"


def test_hidden_dislikes_make_the_history_shorter(world):
    likes = PROMPT.model_copy(update={"history_labels": "likes"})
    lines = prompt_writer(*world, likes)(16)[1]["content"].splitlines()
    assert lines.index("</history>") == 3  # of rows 13, 14 and 15 the first and last were liked
    assert "disliked" not in "".join(lines)


def test_a_prompt_does_not_change_with_its_own_row_or_later_ones(world):
    interactions, items, keywords = world
    changed = interactions.copy()
    changed.loc[16:19, "label"] = 1 - changed.loc[16:19, "label"]
    changed.loc[17:19, "item"] = 0
    assert prompt_writer(changed, items, keywords, PROMPT)(16) == prompt_writer(*world, PROMPT)(16)
