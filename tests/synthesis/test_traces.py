"""The reflect loop: bounded, verified by rule, and its output independent of who finishes first."""

import pandas as pd
import pytest

from tests.project import params_with
from tests.synthesis.worlds import TRACE, interactions_of, items_of, lines, make_traces, questions_about, trace
from tests.teacher.scripted import scripted
from tests.teacher.server import completion
from thinkrec.artifacts import REJECTED, TRACES, write_table
from thinkrec.claims.answers import parse_verdict
from thinkrec.errors import UserError
from thinkrec.synthesis.traces import trace_job
from thinkrec.teacher.trace_prompts import FAULTS

ITEMS = items_of(*((f"Title {n}", None, [], "") for n in range(6)))
KEYWORDS = pd.DataFrame({"item": range(6), "keywords": [["drama", "war" if n % 2 else "love", "x"] for n in range(6)]})
WORLD = interactions_of(6), ITEMS, KEYWORDS
QUESTION = questions_about(WORLD)


def corrected(messages):
    """The verdict that the last message calls right, or None."""
    last = messages[-1]["content"] if len(messages) > 2 else ""
    return "Yes" if "Yes" in last else "No" if "No" in last.replace("Not", "") else None


def by_row(answers):
    """A reply by a dictionary from row to its answers, one a turn (the last one again and again)."""
    row_of = {QUESTION(row): row for row in answers}

    def reply(messages):
        turns = answers[row_of[messages[1]["content"]]]
        return turns[min(len(messages) // 2, len(turns)) - 1]

    return reply


def test_a_teacher_that_is_always_wrong_is_asked_max_turns_times_and_nothing_is_kept():
    rows = [4, 6, 14, 16]  # labels are all 0
    respond, heard = scripted(lambda messages: lines("Yes"))
    synthesis = make_traces(WORLD, rows, respond)
    assert len(heard) == len(rows) * TRACE.max_turns
    assert synthesis.kept.empty
    assert synthesis.rejected[["row", "turn"]].values.tolist() == [[row, turn] for row in rows for turn in (1, 2, 3)]
    assert set(zip(synthesis.rejected["fault"], synthesis.rejected["detail"], strict=True)) == {
        ("wrong_verdict", "Yes, not No")
    }
    stats = synthesis.stats
    assert stats["given_up"] == {**dict.fromkeys(FAULTS, 0), "wrong_verdict": 4}
    counts = {"asked": 4, "kept": 0, "without_own_verdict": 0}
    means = {"accuracy_before_hint": 0.0, "turns_per_row": 3.0, "turns_per_kept_trace": None}
    assert stats["train"] == counts | means
    assert stats["held_out"]["accuracy_before_hint"] is None
    assert (stats["prompt_tokens"], stats["tokens_per_kept_trace"]) == (24, None)


def test_a_right_first_answer_is_kept_in_the_form_that_models_learn():
    answer = "**Verdict:** No\n\n## History\nwar\n\n- *Taste*: love\n- Fit: it\u2019s not it, all in all"
    respond, heard = scripted(lambda messages: answer)
    synthesis = make_traces(WORLD, [4, 8], respond)
    assert len(heard) == 2
    kept = {"label": 0, "turns": 1, "text": "No. War. Love. It\u2019s not it, all in all."}
    assert synthesis.kept.to_dict("records") == [{"row": row, **kept} for row in (4, 8)]
    stats = synthesis.stats
    assert stats["train"]["accuracy_before_hint"] == stats["held_out"]["accuracy_before_hint"] == 1.0
    assert stats["tokens_per_kept_trace"] == 3.0


@pytest.mark.parametrize(
    ("first", "fault"),
    [
        ("Nothing fits.", "no_verdict"),
        (lines("No", "The correct answer is No."), "leaked_hint"),
        (lines("No", 'Liked "Midnight Noon".'), "ungrounded"),
    ],
)
@pytest.mark.parametrize("corrections", [0, 1])  # before that: the right verdict is named once
def test_what_is_at_fault_is_said_without_a_hint_and_stands_in_the_ledger_with_an_example(first, fault, corrections):
    respond, heard = scripted(by_row({4: [*[lines("Yes")] * corrections, first, lines("No")]}))
    synthesis = make_traces(WORLD, [4], respond)
    faults = [*["wrong_verdict"] * corrections, fault]
    assert synthesis.rejected["fault"].tolist() == faults
    assert synthesis.stats["rejected"] == {**dict.fromkeys(FAULTS, 0), **dict.fromkeys(faults, 1)}
    assert synthesis.kept[["turns", "text"]].values.tolist() == [[2 + corrections, trace("No")]]
    assert corrected(heard[-1]) is None
    assert f"## {fault} (1): row 4" in synthesis.examples


def test_the_teachers_own_accuracy_counts_first_verdicts_whatever_else_is_wrong():
    answers = {4: ["Nothing", "Yes", lines("Yes"), "?"], 6: ["No", lines("No")], 8: ["?", "??", "???"]}
    stats = make_traces(WORLD, list(answers), scripted(by_row(answers))[0]).stats
    assert stats["train"]["accuracy_before_hint"] == 0.5  # row 4 says Yes at last, wrongly; row 6 No at once
    assert stats["train"]["without_own_verdict"] == 0
    assert stats["held_out"]["without_own_verdict"] == 1


def test_a_reflect_turn_gives_a_trace_without_its_wrong_answer_whose_verdict_is_not_the_teachers_own():
    respond, heard = scripted(lambda messages: lines(corrected(messages) or "Yes", "Because of love."))
    synthesis = make_traces(WORLD, [4], respond)
    assert synthesis.kept[["turns", "text"]].values.tolist() == [[2, trace("No", "Because of love.")]]
    assert synthesis.rejected["text"].tolist() == [lines("Yes", "Because of love.")]
    assert [message["role"] for message in heard[1]] == ["system", "user", "assistant", "user"]
    assert synthesis.stats["train"]["accuracy_before_hint"] == 0.0
    assert synthesis.stats["train"]["turns_per_kept_trace"] == 2.0
    assert synthesis.stats["tokens_per_kept_trace"] == 6  # two answers, each of 2 prompt and 1 completion tokens


def test_traces_of_train_that_repeat_an_earlier_one_go_and_cost_no_turn():
    that = lines("No", "So much for that.")
    answers = {4: that, 6: lines("No", "so  much for That."), 14: lines("No", "So much for this.")}
    rows = [16, 14, 6, 4, 8, 18]  # 8 and 18 are held out
    respond, heard = scripted(by_row({row: [answers.get(row, that)] for row in rows}))
    synthesis = make_traces(WORLD, rows, respond)
    assert len(heard) == len(rows)
    assert synthesis.kept["row"].tolist() == [14, 4, 8, 18]
    assert synthesis.rejected[["row", "turn", "fault", "detail"]].values.tolist() == [
        [row, 1, "duplicate", "the trace of row 4"] for row in (16, 6)
    ]
    assert synthesis.stats["rejected"]["duplicate"] == synthesis.stats["given_up"]["duplicate"] == 2
    assert synthesis.stats["train"]["kept"] == 2 and synthesis.stats["train"]["turns_per_kept_trace"] == 2.0


def test_output_does_not_depend_on_concurrency_and_fits_its_schemas(tmp_path):
    rows = list(range(40))
    first, again = (make_traces(WORLD, rows, concurrency=concurrency) for concurrency in (1, 7))
    pd.testing.assert_frame_equal(first.kept, again.kept)
    pd.testing.assert_frame_equal(first.rejected, again.rejected)
    assert first.stats == again.stats
    assert first.kept["row"].is_monotonic_increasing
    assert [parse_verdict(text) for text in first.kept["text"]] == first.kept["label"].astype(bool).tolist()
    for synthesis in (first, make_traces(WORLD, [])):
        write_table(TRACES, synthesis.kept, root=tmp_path)
        write_table(REJECTED, synthesis.rejected, root=tmp_path)


def test_a_prompt_does_not_change_with_its_own_row_or_later_ones():
    changed = WORLD[0].copy()
    changed.loc[16:19, "label"] = 1 - changed.loc[16:19, "label"]
    changed.loc[17:19, "item"] = 0
    assert questions_about((changed, ITEMS, KEYWORDS))(16) == QUESTION(16)


THOUGHTS = "They might\nlike it. But no: the answer is No."


@pytest.mark.parametrize(
    "message",
    [
        {"content": lines("No"), "reasoning_content": THOUGHTS},
        {"content": lines("No"), "reasoning": THOUGHTS},
        {"content": f"<think>\n{THOUGHTS}\n</think>\n\n{lines('No')}"},
        {"content": f"{THOUGHTS}</think>{lines('No')}"},
    ],
    ids=["reasoning_content", "reasoning", "in the content", "opened by the prompt"],
)
def test_a_reasoning_teachers_scratch_work_can_be_what_is_learned(message):
    async def respond(request):
        return 200, completion(**message)

    kept = make_traces(WORLD, [4], respond, learn="reasoning").kept
    assert kept["text"].tolist() == ["No. They might like it. But no: the answer is No."]
    assert make_traces(WORLD, [4], respond).kept["text"].tolist() == [trace("No")]


@pytest.mark.parametrize(
    ("verdict", "thoughts", "finding"),
    [
        ("No", "", ("empty", "no reasoning beside the answer")),
        ("No", "so " * 1001, ("too_long", "1001 words of reasoning")),
        ("Yes", "Well.", ("wrong_verdict", "Yes, not No")),
    ],
    ids=["none", "long", "wrong"],
)
def test_scratch_work_that_cannot_be_learned_is_refused_and_none_is_asked_for_behind_a_hint(verdict, thoughts, finding):
    async def respond(request):
        return 200, completion(lines(verdict), reasoning_content=thoughts)

    synthesis = make_traces(WORLD, [4], respond, learn="reasoning")
    turns = 1 if finding[0] == "wrong_verdict" else TRACE.max_turns
    assert synthesis.kept.empty
    assert list(zip(synthesis.rejected["fault"], synthesis.rejected["detail"], strict=True)) == [finding] * turns


def test_the_offline_teacher_has_no_scratch_work_to_learn():
    with pytest.raises(UserError, match=r"traces\.learn=reasoning: the offline teacher has none"):
        trace_job(params_with({"traces.learn": "reasoning"}))
