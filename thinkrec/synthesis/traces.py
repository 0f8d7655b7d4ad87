"""Verified reasoning traces: the bounded reflect loop (METHOD section 2) and the ledger of what it refused.

A teacher answers sampled interactions. An answer is kept only if its parsed verdict equals the label and its
explanation can stand alone; otherwise a reflect turn says which verdict turned out right, at most `max_turns`
answers in all. Every answer refused on the way is in the ledger and none of it in a kept trace. Train rows give
training traces; test rows give references for the evaluation of reasons and are never trained on.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm import tqdm

from thinkrec.artifacts import REJECTED, SCHEMAS, TRACES, keyword_lists
from thinkrec.data.histories import history_bounds
from thinkrec.errors import UserError
from thinkrec.params import PromptParams, TraceParams
from thinkrec.synthesis.budget import Spent
from thinkrec.synthesis.client import Reply, Session, Teacher, Unanswered
from thinkrec.synthesis.prompts import Fault, Message, Shown, follow_up, gives_label_away, question
from thinkrec.synthesis.refusal import is_refusal
from thinkrec.synthesis.verdict import canonical, split_verdict

Rows = npt.NDArray[np.int64]

FAULTS: tuple[Fault, ...] = ("wrong_verdict", "no_verdict", "leaked_hint", "truncated", "empty", "refused")

# An explanation that was written with the verdict at hand must not say so. Phrases, not single common words: an
# explanation may well speak of "a hint of melancholy" or of a "right turn".
_LEAKS = re.compile(
    r"""\b(?:
        (?:correct|right|true|actual|expected)\s+(?:answer|verdict|label)
      | correct(?:ed|ions?)
      | (?:yes|no)\s+is\s+(?:right|correct)
      | hint(?:s|ed)?\b(?!\s+(?:of|at)\b)
      | (?:you(?:'re|\u2019re|\s+are|\s+were)|that(?:'s|\u2019s|\s+is))\s+(?:right|correct)
      | (?:as\s+)?you\s+(?:have\s+|just\s+)?(?:told|said|pointed|noted|mentioned|stated|indicated|informed|suggested)
      | (?:was|were|been|being)\s+(?:told|informed|advised)
      | I\s+(?:was|were|had\s+been)\s+(?:wrong|mistaken|incorrect)
      | I\s+(?:had\s+|have\s+)?(?:overlooked|missed|misjudged|misread)
      | my\s+(?:previous|earlier|first|initial|last|original|prior)\b
      | (?:on|upon|after)\s+(?:further\s+|closer\s+)?(?:reflection|reconsideration|second\s+thoughts?)
      | in\s+hindsight
      | reconsider(?:ed|ing)?
      | apolog(?:y|ies|i[sz]e)
      | my\s+mistake
    )\b""",
    re.IGNORECASE | re.VERBOSE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One refused answer."""

    turn: int
    fault: Fault
    text: str


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of one interaction: the kept trace, or None, and every answer refused on the way."""

    kept: str | None = None
    turns: int = 0
    refused: list[Attempt] = field(default_factory=list)
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Synthesis:
    """`kept` and `rejected` in the schemas of the artefacts TRACES and REJECTED, and what the stage reports."""

    kept: pd.DataFrame
    rejected: pd.DataFrame
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
    write = prompt_writer(interactions, items, keywords, prompt)
    with tqdm(total=len(rows), desc=progress, unit="row", disable=None if progress else True) as bar:

        def done(spent: Spent) -> None:
            bar.set_postfix_str(str(spent), refresh=False)
            bar.update()

        outcomes = asyncio.run(_ask_all(write, rows, labels, teacher, traces.max_turns, done))
    held_out = interactions["split"].astype(str).to_numpy()[rows] != "train"
    return Synthesis(
        kept=_table(
            TRACES,
            [
                (row, label, outcome.turns, outcome.kept)
                for row, label, outcome in zip(rows, labels, outcomes, strict=True)
                if outcome.kept is not None
            ],
        ),
        rejected=_table(
            REJECTED,
            [
                (row, label, attempt.turn, attempt.fault, attempt.text)
                for row, label, outcome in zip(rows, labels, outcomes, strict=True)
                for attempt in outcome.refused
            ],
        ),
        stats=_stats(outcomes, held_out),
    )


def prompt_writer(
    interactions: pd.DataFrame, items: pd.DataFrame, keywords: pd.DataFrame, prompt: PromptParams
) -> Callable[[int], list[Message]]:
    """A function from a row number to the messages that ask about it, so that no prompt exists before its turn."""
    start, end = _bounds(interactions)
    item, label = interactions["item"].to_numpy(), interactions["label"].to_numpy().astype(bool)
    titles, words = items["title"].tolist(), keyword_lists(keywords, prompt.keywords)

    def write(row: int) -> list[Message]:
        earlier = range(max(start[row], end[row] - prompt.history), end[row])
        history = [
            Shown(title=titles[item[past]], keywords=words[item[past]], liked=bool(label[past]))
            for past in earlier
            if label[past] or prompt.history_labels == "both"
        ]
        return question(history, Shown(title=titles[item[row]], keywords=words[item[row]]))

    return write


def find_fault(reply: Reply, *, label: bool, hinted: bool) -> Fault | None:
    """Why an answer cannot be kept, or None; `hinted` says whether the teacher has been told the right verdict."""
    if reply.refused or is_refusal(reply.text):
        return "refused"
    if reply.finish_reason == "length":
        return "truncated"
    if not reply.text:
        return "empty"
    if hinted and mentions_hint(reply.text):
        return "leaked_hint"
    parts = split_verdict(reply.text)
    if parts is None:
        return "no_verdict"
    if parts[0] != label:
        return "wrong_verdict"
    return None if parts[1] else "empty"  # a bare verdict explains nothing


def mentions_hint(text: str) -> bool:
    """Whether an explanation speaks of having been corrected, told or hinted at."""
    return _LEAKS.search(text) is not None


async def reflect(messages: list[Message], *, label: bool, session: Session, max_turns: int) -> Outcome:
    """Ask until an answer can be kept, at most `max_turns` times; each refused answer is followed by why."""
    outcome, hinted = Outcome(), False
    for turn in range(1, max_turns + 1):
        reply = await session.ask(messages)
        outcome.turns = turn
        outcome.prompt_tokens += reply.prompt_tokens
        outcome.completion_tokens += reply.completion_tokens
        fault = find_fault(reply, label=label, hinted=hinted)
        if fault is None:
            parts = split_verdict(reply.text)
            assert parts is not None  # an answer without a verdict has a fault
            outcome.kept = canonical(*parts)
            break
        outcome.refused.append(Attempt(turn=turn, fault=fault, text=reply.text))
        hinted = hinted or gives_label_away(fault)
        messages = [
            *messages,
            {"role": "assistant", "content": reply.text},
            follow_up(fault, label=label, turn=turn),
        ]
    return outcome


async def _ask_all(
    write: Callable[[int], list[Message]],
    rows: Rows,
    labels: npt.NDArray[np.bool_],
    teacher: Teacher,
    max_turns: int,
    done: Callable[[Spent], None],
) -> list[Outcome]:
    """The outcome of every row: `concurrency` workers share one queue, so a slow answer holds up only its own.

    `done` is called after each row with what the run has spent so far.
    """
    outcomes = [Outcome() for _ in rows]
    unanswered: list[Unanswered] = []
    queue: Iterator[int] = iter(range(len(rows)))

    async def work(session: Session) -> None:
        for place in queue:
            messages, label = write(int(rows[place])), bool(labels[place])
            try:
                outcomes[place] = await reflect(messages, label=label, session=session, max_turns=max_turns)
            except Unanswered as error:  # the others are walked all the same: whoever replays learns what is open
                unanswered[:] = unanswered or [error]
            done(session.spent)

    try:
        async with teacher.session() as session, asyncio.TaskGroup() as group:
            for _ in range(min(teacher.params.concurrency, len(rows))):
                group.create_task(work(session))
    except* UserError as errors:
        first: BaseException = errors
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        failure = str(first)
    else:
        if not unanswered:
            return outcomes
        raise unanswered[0]
    raise UserError(failure)  # outside, or it would be wrapped in a group again


def _bounds(interactions: pd.DataFrame) -> tuple[Rows, Rows]:
    return history_bounds(interactions["user"].to_numpy(), interactions["timestamp"].to_numpy())


def _table(path: Any, records: Sequence[tuple[Any, ...]]) -> pd.DataFrame:
    """Records as a frame in the columns and types of an artefact's schema."""
    schema = SCHEMAS[path]
    frame = pd.DataFrame.from_records(records, columns=schema.names)
    return frame.astype({field.name: field.type.to_pandas_dtype() for field in schema if field.type != "string"})


def _stats(outcomes: Sequence[Outcome], held_out: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """What the stage reports; `rejected` counts refused answers, `given_up` the rows that ended without a trace."""
    rejected = Counter(attempt.fault for outcome in outcomes for attempt in outcome.refused)
    given_up = Counter(outcome.refused[-1].fault for outcome in outcomes if outcome.kept is None)
    parts = {
        "train": [outcome for outcome, out in zip(outcomes, held_out, strict=True) if not out],
        "held_out": [outcome for outcome, out in zip(outcomes, held_out, strict=True) if out],
    }
    return {
        **{name: _summary(part) for name, part in parts.items()},
        "rejected": {fault: rejected[fault] for fault in FAULTS},
        "given_up": {fault: given_up[fault] for fault in FAULTS},
        "prompt_tokens": sum(outcome.prompt_tokens for outcome in outcomes),
        "completion_tokens": sum(outcome.completion_tokens for outcome in outcomes),
    }


def _summary(outcomes: Sequence[Outcome]) -> dict[str, float | int | None]:
    """One split's counts; the first-turn accuracy is the teacher's own, before any hint (None where none was asked)."""
    kept = [outcome for outcome in outcomes if outcome.kept is not None]
    return {
        "asked": len(outcomes),
        "kept": len(kept),
        "first_turn_accuracy": _mean([outcome.turns == 1 and outcome.kept is not None for outcome in outcomes]),
        "mean_turns": _mean([outcome.turns for outcome in outcomes]),
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
