"""The ledger for people: one kept trace and one refused answer of each kind, in Markdown.

Titles, keywords and answers come from strangers, so all of them stand in fences longer than any within: they cannot
become headings, links or markup.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import pandas as pd

from thinkrec.synthesis.filters import FAULTS
from thinkrec.synthesis.prompts import Instance, as_data
from thinkrec.synthesis.verdict import WORDS

LONGEST = 2000  # characters of an answer that are shown


def write_examples(kept: pd.DataFrame, rejected: pd.DataFrame, read: Callable[[int], Instance]) -> str:
    """The first row of `kept`, and the first of `rejected` for each fault; `read` gives what the teacher saw of a row."""
    sections = ["# One trace, and one answer of each kind that was refused"]
    for trace in kept.head(1).itertuples():
        sections += [
            f"## Kept: row {trace.row}, label {WORDS[bool(trace.label)]}, answer {trace.turns}",
            _fenced(_shown(read(trace.row))),
            _fenced(trace.text),
        ]
    counts = rejected["fault"].value_counts()
    first = rejected.drop_duplicates("fault").set_index("fault")
    for fault in FAULTS:
        if fault in first.index:
            refused = first.loc[fault]
            sections += [
                f"## {fault}: {counts[fault]:,} refused; row {refused['row']}, label {WORDS[bool(refused['label'])]}, "
                f"answer {refused['turn']}",
                _fenced(_shown(read(refused["row"]))),
                _fenced(refused["text"]),
                "Found:",
                _fenced(refused["detail"]),
            ]
    return "\n\n".join(sections) + "\n"


def _shown(instance: Instance) -> str:
    return as_data(instance.history, instance.target)


def _fenced(text: str) -> str:
    """`text` in a fence that it cannot close, cut to what a page can bear; characters that print nothing are left out."""
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]} […]"
    text = "\n".join("".join(char for char in line if char.isprintable()) for line in text.splitlines())
    fence = "`" * max(3, 1 + max(map(len, _runs(text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def _runs(text: str) -> Iterable[str]:
    return re.findall("`+", text)
