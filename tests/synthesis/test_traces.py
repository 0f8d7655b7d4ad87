"""The reflect loop: bounded, verified by rule, and its output independent of who finishes first."""

import json

import numpy as np
import pandas as pd
import pytest

from tests.project import teacher_params
from tests.teacher.scripted import scripted
from thinkrec.artifacts import REJECTED, TRACES, write_table
from thinkrec.claims.answers import parse_verdict
from thinkrec.claims.checker import Checker, thesaurus_of
from thinkrec.errors import UserError
from thinkrec.params import PromptParams, TraceParams
from thinkrec.synthesis.sampling import Sample
from thinkrec.synthesis.traces import synthesise
from thinkrec.teacher.endpoint import open_teacher
from thinkrec.teacher.trace_prompts import FAULTS, question

PROMPT = PromptParams(layout="stream", history=3, max_tokens=2048, keywords=2, slots=(), soft_tokens=0)
TRACE = TraceParams(sampling="balanced", train=6, held_out=2, max_turns=3, min_words=5, max_words=60)


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


def lines(verdict, fit="So much for that."):
    """An answer in the form asked for."""
    return f"Verdict: {verdict}\nHistory: There is one.\nTaste: They have one.\nFit: {fit}"


def text(verdict, fit="So much for that."):
    return f"{verdict}. There is one. They have one. {fit}"


def run(world, rows, app=None, traces=TRACE, concurrency=3, prompt=PROMPT, **teacher):
    teacher = open_teacher(
        teacher_params("offline", concurrency=concurrency, **teacher),
        app=app,
        retries=0,
    )
    checker = Checker(*world, prompt, thesaurus_of("offline"))
    return synthesise(Sample.of(world[0], rows), checker, teacher, traces, progress="")


def messages_of(*tables):
    """A function from a row number to the messages that ask about it."""
    checker = Checker(*tables, str)
    return lambda row: question(checker.shown(row))


def told(messages):
    """The verdict that the last message calls right, or None."""
    last = messages[-1]["content"] if len(messages) > 2 else ""
    return "Yes" if "Yes" in last else "No" if "No" in last.replace("Not", "") else None


def test_a_teacher_that_is_always_wrong_is_asked_max_turns_times_and_nothing_is_kept(world):
    rows = [4, 6, 14, 16]  # labels are all 0
    app, heard = scripted(lambda messages: lines("Yes"))
    made = run(world, rows, app)
    assert len(heard) == len(rows) * TRACE.max_turns
    assert made.kept.empty
    assert made.rejected["row"].tolist() == [row for row in rows for _ in range(3)]
    assert made.rejected["turn"].tolist() == [1, 2, 3] * 4
    assert set(made.rejected["fault"]) == {"wrong_verdict"}
    assert set(made.rejected["detail"]) == {"Yes, not No"}
    assert made.stats["given_up"] == {**dict.fromkeys(FAULTS, 0), "wrong_verdict": 4}
    assert made.stats["train"] == {
        "asked": 4,
        "kept": 0,
        "accuracy_before_hint": 0.0,
        "without_own_verdict": 0,
        "turns_per_row": 3.0,
        "turns_per_kept_trace": None,
    }
    assert made.stats["held_out"]["accuracy_before_hint"] is None
    assert (made.stats["prompt_tokens"], made.stats["tokens_per_kept_trace"]) == (24, None)


def test_a_right_first_answer_is_kept_in_canonical_form(world):
    app, heard = scripted(
        lambda messages: "**Verdict:** No\n\n## History\nwar\n\n- *Taste*: love\n- Fit: it\u2019s not it"
    )
    made = run(world, [4, 8], app)
    assert len(heard) == 2
    kept = {"label": 0, "turns": 1, "text": "No. War. Love. It\u2019s not it."}
    assert made.kept.to_dict("records") == [{"row": row, **kept} for row in (4, 8)]
    assert made.stats["train"]["accuracy_before_hint"] == made.stats["held_out"]["accuracy_before_hint"] == 1.0
    assert made.stats["tokens_per_kept_trace"] == 3.0


@pytest.mark.parametrize(
    ("first", "fault"),
    [
        ("Nothing fits.", "no_verdict"),
        ("No. It does not fit.", "malformed"),
        (lines("No").replace("Taste", "Flavour"), "malformed"),
        ((lines("No"), "length"), "truncated"),
        ("No.", "empty"),
        ("I'm sorry, I can't.", "refused"),
        ("No\nHistory: a\nTaste: b\nFit: c", "too_short"),
        (lines("No", "word " * 70), "too_long"),
        (lines("No", "War is war. " * 9), "repetitive"),
        (lines("No", "\u043f\u043b\u043e\u0445\u043e " * 3), "wrong_language"),
        (lines("No", "The correct answer is No."), "leaked_hint"),
    ],
)
def test_what_is_at_fault_is_said_without_a_hint(world, first, fault):
    app, heard = scripted(lambda messages: first if len(messages) == 2 else lines("No"))
    made = run(world, [4], app)
    assert made.rejected["fault"].tolist() == [fault]
    assert made.kept[["turns", "text"]].values.tolist() == [[2, text("No")]]
    assert told(heard[1]) is None


def test_the_teachers_own_accuracy_counts_first_verdicts_whatever_else_is_wrong(world):
    script = {4: ["Nothing", "Yes", lines("Yes"), "?"], 6: ["No", lines("No")], 8: ["?", "??", "???"]}

    def say(messages):
        row = next(row for row in script if heard_of(row) == messages[1])
        return script[row][len(messages) // 2 - 1]

    write = messages_of(*world, PROMPT)
    heard_of = {row: write(row)[1] for row in script}.__getitem__
    made = run(world, list(script), scripted(say)[0])
    assert made.stats["train"]["accuracy_before_hint"] == 0.5  # row 4 says Yes at last, wrongly; row 6 No at once
    assert made.stats["train"]["without_own_verdict"] == 0
    assert made.stats["held_out"]["without_own_verdict"] == 1


def test_a_verdict_after_a_hint_is_not_the_teachers_own(world):
    app, _ = scripted(lambda messages: lines(told(messages) or "Yes"))
    made = run(world, [4], app)
    assert made.kept["turns"].tolist() == [2]
    assert made.stats["train"]["accuracy_before_hint"] == 0.0
    assert made.stats["train"]["turns_per_kept_trace"] == 2.0


def test_a_trace_takes_its_refused_answers_tokens_too(world):
    app, _ = scripted(lambda messages: lines(told(messages) or "Yes"))
    # Two answers a trace, each of 2 prompt and 1 completion tokens.
    assert run(world, [4], app).stats["tokens_per_kept_trace"] == 6


def test_a_corrected_teacher_is_kept_without_its_wrong_answer(world):
    app, heard = scripted(lambda messages: lines(told(messages) or "Yes", "Because of love."))
    made = run(world, [4], app)
    assert made.kept[["turns", "text"]].values.tolist() == [[2, text("No", "Because of love.")]]
    assert made.rejected["text"].tolist() == [lines("Yes", "Because of love.")]
    assert [message["role"] for message in heard[1]] == ["system", "user", "assistant", "user"]


def test_a_leaked_hint_is_refused_and_asked_for_again(world):
    script = [lines("Yes"), lines("No", "As you said, it is not."), lines("No", "It is not for them.")]
    app, heard = scripted(lambda messages: script[(len(messages) - 2) // 2])
    made = run(world, [4], app)
    assert made.rejected["fault"].tolist() == ["wrong_verdict", "leaked_hint"]
    assert made.rejected["detail"].tolist() == ["Yes, not No", "As you said"]
    assert made.kept["text"].tolist() == [text("No", "It is not for them.")]
    assert told(heard[2]) is None  # it has been told once


def test_what_a_reasoning_model_thinks_is_in_no_trace(world):
    app, heard = scripted(lambda messages: f"Yes, I was told No </think> so.\n</think>\n{lines('No')}\n<think>Or Yes?")
    made = run(world, [4], app)
    assert len(heard) == 1
    assert made.kept["text"].tolist() == [text("No")]


def test_traces_of_train_that_repeat_an_earlier_one_go_and_cost_no_turn(world):
    ends = {4: "So much for that.", 6: "so  much for That.", 14: "So much for this."}
    write = messages_of(*world, PROMPT)
    end_of = {write(row)[1]["content"]: end for row, end in ends.items()}
    app, heard = scripted(lambda messages: lines("No", end_of.get(messages[1]["content"], ends[4])))
    rows = [16, 14, 6, 4, 8, 18]  # 8 and 18 are held out
    made = run(world, rows, app)
    assert len(heard) == len(rows)
    assert made.kept["row"].tolist() == [14, 4, 8, 18]
    assert made.rejected[["row", "turn", "fault", "detail"]].values.tolist() == [
        [row, 1, "duplicate", "the trace of row 4"] for row in (16, 6)
    ]
    assert made.stats["rejected"]["duplicate"] == made.stats["given_up"]["duplicate"] == 2
    assert made.stats["train"]["kept"] == 2 and made.stats["train"]["turns_per_kept_trace"] == 2.0


def test_every_fault_is_in_the_ledger_with_its_count_and_an_example(world):
    def answers(right, wrong):
        return [
            "I'm sorry, I can't help with that.",
            (lines(right), "length"),
            "",
            lines(right, f"The correct answer is {right}."),
            "Nothing fits.",
            lines(wrong),
            f"{right}. There is one. They have one.",
            lines(right, "\u0434\u0430 " * 9),
            f"{right}\nHistory: a\nTaste: b\nFit: c",
            lines(right, " ".join(f"word{n}" for n in range(60))),
            lines(right, "So it is. " * 9),
            lines(right, 'Liked "Midnight Noon".'),
            lines(right, "4 of 9 titles were liked."),
        ]

    write = messages_of(*world, PROMPT)
    rows = list(range(1, 1 + 2 * (len(FAULTS) - 1), 2))  # all of them liked
    at = {write(row)[1]["content"]: place for place, row in enumerate(rows)}
    faulty = answers("Yes", "No")
    app, _ = scripted(lambda messages: faulty[at[messages[1]["content"]]] if len(messages) == 2 else lines("Yes"))
    made = run(world, rows, app)
    train = (world[0]["split"][rows] == "train").sum()
    assert made.stats["rejected"] == {**dict.fromkeys(FAULTS, 1), "duplicate": train - 1}
    headings = [line.split()[1] for line in made.examples.splitlines() if line.startswith("## ")]
    assert headings == ["Kept:", *FAULTS]


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

    with pytest.raises(UserError, match="teacher at offline"):
        run(world, [4, 6, 8], broken)


def test_a_prompt_shows_the_last_earlier_rows_with_their_verdicts(world):
    interactions, items, keywords = world
    prompt = messages_of(interactions, items, keywords, PROMPT)(16)[1]["content"].splitlines()
    history = [json.loads(line) for line in prompt[1:4]]
    item, label = interactions["item"], interactions["label"]
    assert [shown["title"] for shown in history] == [f"Title {item[row]}" for row in (13, 14, 15)]
    assert [shown["verdict"] == "liked" for shown in history] == [bool(label[row]) for row in (13, 14, 15)]
    assert all(len(shown["keywords"]) == 2 for shown in history)
    assert json.loads(prompt[6])["title"] == f"Title {item[16]}"


def test_what_a_claim_is_held_against_is_what_the_prompt_shows(world):
    interactions, items, keywords = world
    odd = items.assign(title=[f"Title\n\x00 {n}" + "!" * 300 for n in range(6)])
    row = Checker(interactions, odd, keywords, PROMPT, str).shown(16)
    shown = messages_of(interactions, odd, keywords, PROMPT)(16)[1]["content"].splitlines()
    assert json.loads(shown[6]) == {"title": row.target.title, "keywords": row.target.keywords}
    first = json.loads(shown[1])
    assert (row.history[0].title, row.history[0].keywords) == (first["title"], first["keywords"])


def test_a_prompt_does_not_change_with_its_own_row_or_later_ones(world):
    interactions, items, keywords = world
    changed = interactions.copy()
    changed.loc[16:19, "label"] = 1 - changed.loc[16:19, "label"]
    changed.loc[17:19, "item"] = 0
    assert messages_of(changed, items, keywords, PROMPT)(16) == messages_of(*world, PROMPT)(16)
