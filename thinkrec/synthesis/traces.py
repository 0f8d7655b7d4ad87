"""Verified reasoning traces: the bounded reflect loop (METHOD section 2) and the ledger of what it refused.

A teacher answers sampled interactions. An answer is kept only if its parsed verdict equals the label and none of
`filters.FILTERS` finds fault with it. A wrong verdict is followed by a reflect turn that says which one turned out
right, any other fault by what was wrong with the answer, at most `max_turns` answers in all. Traces that are too like
earlier ones go last. Every answer refused on the way is in the ledger and none of it in a kept trace. Train rows give
training traces; test rows give references for the evaluation of reasons and are never trained on.

Of a reasoning model's scratch work nothing is kept, sent back or checked: it weighs both verdicts and speaks of what it
was told, so none of the filters' rules fits it. It tells an answer that never came (`empty`) from one that was all
thought.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from thinkrec.artifacts import REJECTED, SCHEMAS, TRACES
from thinkrec.claims.instances import catalogue_of, instance_reader
from thinkrec.claims.prompts import Fault, Instance, follow_up, gives_label_away, question
from thinkrec.claims.structure import Parts, trace_text
from thinkrec.claims.verifier import thesaurus_of
from thinkrec.params import PromptParams, TraceParams
from thinkrec.synthesis.examples import write_examples
from thinkrec.synthesis.filters import FAULTS, NEAR_DUPLICATE, Given, Rules, find_fault, near_duplicates
from thinkrec.teacher.client import Session, ask_about
from thinkrec.teacher.endpoint import Teacher

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One refused answer."""

    turn: int
    fault: Fault
    text: str
    detail: str  # what the filter found


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of one interaction: the kept trace's parts, or None, and every answer refused on the way."""

    kept: Parts | None = None
    turns: int = 0
    first_verdict: bool | None = None  # the teacher's own: the first that could be read, before any hint
    refused: list[Attempt] = field(default_factory=list)
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Synthesis:
    """`kept` and `rejected` in the schemas of the artefacts TRACES and REJECTED, `examples` of both in Markdown, and
    what the stage reports.
    """

    kept: pd.DataFrame
    rejected: pd.DataFrame
    examples: str
    stats: dict[str, Any]


def synthesise(
    interactions: pd.DataFrame,
    items: pd.DataFrame,
    keywords: pd.DataFrame,
    rows: npt.ArrayLike,
    teacher: Teacher,
    *,
    prompt: PromptParams,
    traces: TraceParams,
    progress: str = "traces",
) -> Synthesis:
    """Ask `teacher` about `rows` and keep the traces that hold; output is in the order of `rows`, however they finish.

    `progress` names the bar on stderr (shown on a terminal only); an empty name shows none.

    Raises:
        Unanswered: the teacher answers from the store alone, and some answers are not there; all rows were walked.
        UserError: the teacher cannot be reached or refuses to work.
    """
    rows = np.asarray(rows, dtype=np.int64)
    labels = interactions["label"].to_numpy()[rows].astype(bool)
    read = instance_reader(interactions, items, keywords, prompt)
    rules = Rules(
        limits=traces,
        catalogue=catalogue_of(items, keywords),
        thesaurus=thesaurus_of(teacher.params.endpoint),
    )
    outcomes = _ask(read, rows, labels, teacher, rules, progress)
    held_out = interactions["split"].astype(str).to_numpy()[rows] != "train"
    _drop_near_duplicates(outcomes, rows, labels, held_out, traces.max_similarity)
    kept = _table(
        TRACES,
        [
            (row, label, outcome.turns, trace_text(label, outcome.kept), *outcome.kept.values())
            for row, label, outcome in zip(rows, labels, outcomes, strict=True)
            if outcome.kept is not None
        ],
    )
    rejected = _table(
        REJECTED,
        [
            (row, label, attempt.turn, attempt.fault, attempt.detail, attempt.text)
            for row, label, outcome in zip(rows, labels, outcomes, strict=True)
            for attempt in outcome.refused
        ],
    )
    return Synthesis(
        kept=kept,
        rejected=rejected,
        examples=write_examples(kept, rejected, read),
        stats=_stats(outcomes, labels, held_out),
    )


async def reflect(instance: Instance, *, label: bool, session: Session, rules: Rules) -> Outcome:
    """Ask until an answer can be kept, at most `max_turns` times; each refused answer is followed by why."""
    outcome, hinted = Outcome(), False
    messages = question(instance.history, instance.target)
    for turn in range(1, rules.limits.max_turns + 1):
        reply = await session.ask(messages)
        outcome.turns = turn
        outcome.prompt_tokens += reply.prompt_tokens
        outcome.completion_tokens += reply.completion_tokens
        given = Given(reply=reply, instance=instance, label=label, again=turn > 1, rules=rules)
        if outcome.first_verdict is None and not hinted:
            outcome.first_verdict = given.verdict
        found = find_fault(given)
        if found is None:
            outcome.kept = given.parts
            break
        fault, detail = found
        outcome.refused.append(Attempt(turn=turn, fault=fault, text=reply.text, detail=detail))
        hinted = hinted or gives_label_away(fault)
        messages = [
            *messages,
            {"role": "assistant", "content": reply.text},
            follow_up(fault, label=label, turn=turn),
        ]
    return outcome


def _ask(
    read: Callable[[int], Instance],
    rows: Rows,
    labels: npt.NDArray[np.bool_],
    teacher: Teacher,
    rules: Rules,
    progress: str,
) -> list[Outcome]:
    """The outcome of every row."""

    async def converse(session: Session, place: int) -> Outcome:
        instance, label = read(int(rows[place])), bool(labels[place])
        return await reflect(instance, label=label, session=session, rules=rules)

    return ask_about(teacher, range(len(rows)), converse, progress=progress, unit="row")


def _drop_near_duplicates(
    outcomes: Sequence[Outcome],
    rows: Rows,
    labels: npt.NDArray[np.bool_],
    held_out: npt.NDArray[np.bool_],
    most: float,
) -> None:
    """Move traces that are too like the trace of an earlier row to the ledger.

    Of train alone: what is learned twice weighs twice. References of the evaluation stand for rows that people may ask
    about, alike or not.
    """
    places = [place for place in np.argsort(rows).tolist() if outcomes[place].kept is not None and not held_out[place]]
    texts = [trace_text(bool(labels[place]), outcomes[place].kept or {}) for place in places]
    for place, text, found in zip(places, texts, near_duplicates(texts, most), strict=True):
        if found is not None:
            other, likeness = found
            outcome, detail = outcomes[place], f"{likeness:.2f} like the trace of row {rows[places[other]]}"
            outcome.refused.append(Attempt(turn=outcome.turns, fault=NEAR_DUPLICATE, text=text, detail=detail))
            outcome.kept = None


def _table(path: Any, records: Sequence[tuple[Any, ...]]) -> pd.DataFrame:
    """Records as a frame in the columns and types of an artefact's schema."""
    schema = SCHEMAS[path]
    frame = pd.DataFrame.from_records(records, columns=schema.names)
    return frame.astype({field.name: field.type.to_pandas_dtype() for field in schema if field.type != "string"})


def _stats(
    outcomes: Sequence[Outcome], labels: npt.NDArray[np.bool_], held_out: npt.NDArray[np.bool_]
) -> dict[str, Any]:
    """What the stage reports; `rejected` counts refused answers, `given_up` the rows that ended without a trace."""
    rejected = Counter(attempt.fault for outcome in outcomes for attempt in outcome.refused)
    given_up = Counter(outcome.refused[-1].fault for outcome in outcomes if outcome.kept is None)
    parts = {"train": np.flatnonzero(~held_out), "held_out": np.flatnonzero(held_out)}
    return {
        **{name: _summary([outcomes[place] for place in part.tolist()], labels[part]) for name, part in parts.items()},
        "rejected": {fault: rejected[fault] for fault in FAULTS},
        "given_up": {fault: given_up[fault] for fault in FAULTS},
        **_tokens(outcomes),
    }


def _summary(outcomes: Sequence[Outcome], labels: npt.NDArray[np.bool_]) -> dict[str, float | int | None]:
    """One split's counts. The accuracy is that of the teacher's own verdicts, whatever else was wrong with the answer,
    over the rows that have one.
    """
    own = [
        outcome.first_verdict == label
        for outcome, label in zip(outcomes, labels.tolist(), strict=True)
        if outcome.first_verdict is not None
    ]
    kept = sum(outcome.kept is not None for outcome in outcomes)
    turns = sum(outcome.turns for outcome in outcomes)
    return {
        "asked": len(outcomes),
        "kept": kept,
        "accuracy_before_hint": _mean(own),
        "without_own_verdict": len(outcomes) - len(own),
        "turns_per_row": turns / len(outcomes) if outcomes else None,
        "turns_per_kept_trace": turns / kept if kept else None,
    }


def _tokens(outcomes: Sequence[Outcome]) -> dict[str, float | int | None]:
    """The tokens of all answers, refused ones and those of the store included."""
    kept = sum(outcome.kept is not None for outcome in outcomes)
    prompt = sum(outcome.prompt_tokens for outcome in outcomes)
    completion = sum(outcome.completion_tokens for outcome in outcomes)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "tokens_per_kept_trace": (prompt + completion) / kept if kept else None,
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
