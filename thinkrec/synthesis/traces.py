"""Verified reasoning traces: the bounded reflect loop (METHOD section 2) and the ledger of refused answers.

A teacher answers sampled interactions. An answer is kept only if its verdict equals the label and `filters` finds no
fault with it. A wrong verdict is followed by a reflect turn that names the right one, any other fault by what was wrong
with the answer, up to `max_turns` answers in all. In train, a trace that repeats an earlier one goes too. Every refused
answer is in the ledger and none of it in a trace. Train rows give training traces. Test rows give references for the
evaluation of reasons and are never trained on.

A reasoning model's scratch work is never sent back or checked: it weighs both verdicts and speaks of its instructions,
so the filters' rules do not fit it. With `traces.learn=reasoning` it is the trace of an answer that can be kept; there
a wrong verdict is not followed by another turn, whose scratch work would speak of the right one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from thinkrec.artifacts import INTERACTIONS, ITEMS, KEYWORDS, REJECTED, TRACES, read_table
from thinkrec.claims.answers import WORDS, parse_verdict, read_parts, trace_text
from thinkrec.claims.checker import Checker, thesaurus_of
from thinkrec.errors import UserError
from thinkrec.params import Params, TraceParams
from thinkrec.synthesis.examples import write_examples
from thinkrec.synthesis.filters import find_fault
from thinkrec.synthesis.sampling import sample_rows
from thinkrec.synthesis.summaries import as_table, foresee_keywords
from thinkrec.teacher.budget import Spent
from thinkrec.teacher.client import Session, ask_about
from thinkrec.teacher.endpoint import OFFLINE, Teacher
from thinkrec.teacher.job import Job, describe_weakness, run_job
from thinkrec.teacher.quote import Quote, quote_job
from thinkrec.teacher.trace_prompts import FAULTS, NO_ANSWER, Fault, write_follow_up, write_question


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of one interaction: the trace's text, or None, and every answer refused on the way."""

    row: int
    label: bool
    held_out: bool
    trace: str | None = None
    turns: int = 0
    first_verdict: bool | None = None  # the teacher's own: the first that could be read, before any hint
    refused: list[tuple[int, Fault, str, str]] = field(default_factory=list)  # turn, fault, its detail, the answer
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Synthesis:
    """`kept` and `rejected` in the schemas of TRACES and REJECTED, `examples` of both, and what the stage reports."""

    kept: pd.DataFrame
    rejected: pd.DataFrame
    examples: str
    stats: dict[str, Any]

    def __str__(self) -> str:
        asked = self.stats["train"]["asked"] + self.stats["held_out"]["asked"]
        weakness = describe_weakness(len(self.kept), asked, self.stats["rejected"])
        return f"{len(self.kept):,} traces kept, {len(self.rejected):,} answers rejected{weakness}"


def synthesise(
    sample: pd.DataFrame, checker: Checker, teacher: Teacher, limits: TraceParams, *, progress: str = "traces"
) -> Synthesis:
    """Ask `teacher` about a sample (see `as_sample`) and keep its sound traces, in its order, however they finish.

    `progress` names the bar on stderr; an empty name shows none.
    """
    entries = sample[["row", "label", "held_out"]].itertuples(index=False)
    outcomes = [Outcome(row=row, label=label, held_out=held_out) for row, label, held_out in entries]

    async def converse(session: Session, outcome: Outcome) -> None:
        await reflect(outcome, checker, session, limits)

    ask_about(teacher, outcomes, converse, progress=progress, unit="row")
    _drop_duplicates(outcomes)
    kept = [(outcome.row, outcome.label, outcome.turns, outcome.trace) for outcome in outcomes if outcome.trace]
    rejected = [(outcome.row, outcome.label, *refused) for outcome in outcomes for refused in outcome.refused]
    tables = as_table(TRACES, kept), as_table(REJECTED, rejected)
    return Synthesis(
        kept=tables[0], rejected=tables[1], examples=write_examples(*tables, checker), stats=_stats(outcomes)
    )


def quote_traces(params: Params) -> Quote:
    """What `trace_job` would still ask the teacher, by the keywords of params.yaml, made or not."""
    keywords, changing = foresee_keywords(params)
    return quote_job(replace(trace_job(params, keywords), changing=changing))


def try_traces(params: Params, rows: int, report: Callable[..., None]) -> tuple[Synthesis, Spent]:
    """What the teacher makes of so many of the rows, asked for real: the stage itself need not ask those again."""
    keywords, _ = foresee_keywords(params)
    job = trace_job(params, keywords, rows=rows)
    return run_job(replace(job, teacher=job.teacher.model_copy(update={"mode": "live"})), report)


def trace_job(params: Params, keywords: pd.DataFrame | None = None, *, rows: int | None = None) -> Job[Synthesis]:
    """The stage's questions, or those about so many of its rows, by the pipeline's keywords or others.

    Raises:
        UserError: the offline teacher's scratch work is to be learned.
    """
    if params.traces.learn == "reasoning" and params.teacher.endpoint == OFFLINE:
        raise UserError("traces.learn=reasoning: the offline teacher has none; name another teacher.endpoint")

    def work(teacher: Teacher) -> Synthesis:
        interactions, items = read_table(INTERACTIONS), read_table(ITEMS)
        sample = sample_rows(interactions, params.traces, params.seed)
        if rows is not None:  # from all over the sample
            sample = sample.iloc[:: max(len(sample) // rows, 1)].head(rows)
        shown_keywords = read_table(KEYWORDS) if keywords is None else keywords
        checker = Checker(interactions, items, shown_keywords, params.prompt, thesaurus_of(params.dataset.name))
        return synthesise(sample, checker, teacher, params.traces)

    return Job(stage="traces", work=work, teacher=params.teacher_settings, turns=params.traces.max_turns)


async def reflect(outcome: Outcome, checker: Checker, session: Session, limits: TraceParams) -> None:
    """Ask until an answer can be kept, at most `max_turns` times; each refused answer is followed by why."""
    row, label, hinted = outcome.row, outcome.label, False
    messages = write_question(checker.shown(row))
    for turn in range(1, limits.max_turns + 1):
        answer = await session.ask(messages)
        text = answer.text
        outcome.turns = turn
        outcome.prompt_tokens += answer.prompt_tokens
        outcome.completion_tokens += answer.completion_tokens
        if outcome.first_verdict is None and not hinted:
            outcome.first_verdict = parse_verdict(text)
        finding = find_fault(answer, row, label, checker, reflected=turn > 1, learn=limits.learn)
        if finding is None:
            lines = trace_text(label, read_parts(text))
            outcome.trace = lines if limits.learn == "answer" else f"{WORDS[label]}. {answer.scratch}"
            return
        fault, detail = finding
        outcome.refused.append((turn, fault, detail, text))
        if answer.final or (limits.learn == "reasoning" and fault == "wrong_verdict"):
            return
        hinted = hinted or fault == "wrong_verdict"
        turned_down = {"role": "assistant", "content": text or NO_ANSWER}
        messages = [*messages, turned_down, write_follow_up(fault, label=label, turn=turn)]


def _drop_duplicates(outcomes: Sequence[Outcome]) -> None:
    """Move train's traces that say what the trace of an earlier row says (case and spaces aside) to the ledger.

    What is learned twice weighs twice. References of the evaluation stand for rows that people may ask about, alike or
    not.
    """
    first: dict[str, int] = {}  # text -> row
    for outcome in sorted(outcomes, key=lambda outcome: outcome.row):
        if outcome.trace is None or outcome.held_out:
            continue
        row = first.setdefault(" ".join(outcome.trace.lower().split()), outcome.row)
        if row != outcome.row:
            outcome.refused.append((outcome.turns, "duplicate", f"the trace of row {row}", outcome.trace))
            outcome.trace = None


def _stats(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """What the stage reports; `rejected` counts refused answers, `given_up` the rows that ended without a trace."""
    rejected = Counter(fault for outcome in outcomes for _, fault, _, _ in outcome.refused)
    given_up = Counter(outcome.refused[-1][1] for outcome in outcomes if outcome.trace is None)
    kept = len(outcomes) - given_up.total()
    prompt = sum(outcome.prompt_tokens for outcome in outcomes)  # of all answers, refused and stored ones included
    completion = sum(outcome.completion_tokens for outcome in outcomes)
    return {
        "train": _split_stats([outcome for outcome in outcomes if not outcome.held_out]),
        "held_out": _split_stats([outcome for outcome in outcomes if outcome.held_out]),
        "rejected": {fault: rejected[fault] for fault in FAULTS},
        "given_up": {fault: given_up[fault] for fault in FAULTS},
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "tokens_per_kept_trace": (prompt + completion) / kept if kept else None,
    }


def _split_stats(outcomes: Sequence[Outcome]) -> dict[str, float | int | None]:
    """One split's counts. The accuracy is that of the teacher's own verdicts, over the rows that have one."""
    right = [outcome.first_verdict == outcome.label for outcome in outcomes if outcome.first_verdict is not None]
    kept = sum(outcome.trace is not None for outcome in outcomes)
    turns = sum(outcome.turns for outcome in outcomes)
    return {
        "asked": len(outcomes),
        "kept": kept,
        "accuracy_before_hint": float(np.mean(right)) if right else None,
        "without_own_verdict": len(outcomes) - len(right),
        "turns_per_row": turns / len(outcomes) if outcomes else None,
        "turns_per_kept_trace": turns / kept if kept else None,
    }
