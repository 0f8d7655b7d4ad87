"""The ledger for people: one kept trace and one refused answer of each kind, in Markdown.

Titles, keywords and answers come from strangers, so all of them stand in fences longer than any within: they cannot
become headings, links or markup.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from textwrap import indent
from typing import Any

import pandas as pd

from thinkrec.claims.answers import WORDS
from thinkrec.claims.checker import Checker
from thinkrec.teacher.trace_prompts import FAULTS, write_data

LONGEST_TEXT = 4000  # characters of a prompt or an answer that are shown


def write_examples(kept: pd.DataFrame, rejected: pd.DataFrame, checker: Checker) -> str:
    """The first of `kept` and the first of `rejected` for each fault, each after what the teacher was shown."""
    sections = ["# One trace, and one refused answer of each kind"]
    for trace in kept.head(1).to_dict("records"):
        sections += [
            f"## Kept: {_which(trace, trace['turns'])}",
            _fenced(write_data(checker.shown(trace["row"]))),
            _fenced(trace["text"]),
        ]
    first = {refused["fault"]: refused for refused in rejected.iloc[::-1].to_dict("records")}
    counts = rejected["fault"].value_counts().to_dict()
    for refused in (first[fault] for fault in FAULTS if fault in first):
        sections += [
            f"## {refused['fault']} ({counts[refused['fault']]:,}): {_which(refused, refused['turn'])}",
            _fenced(write_data(checker.shown(refused["row"]))),
            _fenced(refused["text"]),
            "Found:",
            _fenced(refused["detail"]),
        ]
    return "\n\n".join(sections) + "\n"


def list_answers(kept: pd.DataFrame, rejected: pd.DataFrame) -> str:
    """Every answer, kept or refused and why, row by row, for a terminal."""
    refused = rejected.rename(columns={"turn": "turns"})
    refused["fault"] += " (" + refused["detail"] + ")"
    answers = pd.concat([refused, kept.assign(fault="kept")])
    return "\n".join(
        f"{_which(answer, answer['turns'])}: {_printable(answer['fault'])}\n"
        f"{indent(_printable(answer['text']), '    ')}"
        for answer in answers.sort_values(["row", "turns"], kind="stable").to_dict("records")
    )


def _which(record: Mapping[Hashable, Any], turn: int) -> str:
    return f"row {record['row']}, label {WORDS[bool(record['label'])]}, answer {turn}"


def _fenced(text: str) -> str:
    """`text` in a fence that it cannot close."""
    text = _printable(text)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def _printable(text: str) -> str:
    """`text` cut to what a page can bear, without characters that print nothing."""
    text = text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]} […]"
    return "\n".join("".join(char for char in line if char.isprintable()) for line in text.splitlines())
