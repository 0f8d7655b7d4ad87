"""Small worlds for keywords and traces, and how tests have teachers asked about them."""

import numpy as np
import pandas as pd

from tests.teacher.asking import teacher_at
from thinkrec.claims.checker import Checker, thesaurus_of
from thinkrec.params import PromptParams, TraceParams
from thinkrec.synthesis.sampling import as_sample
from thinkrec.synthesis.traces import synthesise
from thinkrec.teacher.trace_prompts import write_question

PROMPT = PromptParams(layout="stream", history=3, max_tokens=2048, keywords=2, slots=(), soft_tokens=0)
TRACE = TraceParams(train=6, held_out=2, max_turns=3, learn="answer")


def items_of(*rows):
    """Items of (title, year, categories, description)."""
    frame = pd.DataFrame(rows, columns=["title", "year", "categories", "description"])
    frame.insert(0, "item", np.arange(len(frame), dtype=np.int32))
    return frame.astype({"year": "Int16"})


def interactions_of(items):
    """Four users with ten rows each about so many items, the last three of them in test; odd rows are liked."""
    return pd.DataFrame(
        {
            "user": np.repeat(np.arange(4, dtype=np.int32), 10),
            "item": np.random.default_rng(0).integers(0, items, 40).astype(np.int32),
            "label": (np.arange(40) % 2).astype(np.int8),
            "timestamp": np.tile(np.arange(10, dtype=np.int64), 4),
            "split": pd.Categorical((["train"] * 7 + ["test"] * 3) * 4),
        }
    )


def lines(verdict, fit="So much for that."):
    """An answer in the form asked for."""
    return f"Verdict: {verdict}\nHistory: There is one.\nTaste: They have one.\nFit: {fit}"


def trace(verdict, fit="So much for that."):
    """The trace that is made of it."""
    return f"{verdict}. There is one. They have one. {fit}"


def make_traces(tables, rows, respond=None, *, prompt=PROMPT, concurrency=3, learn="answer"):
    """The traces of some rows, by the offline teacher or another in this process."""
    checker = Checker(*tables, prompt, thesaurus_of("synthetic"))
    teacher = teacher_at(respond=respond, retries=0, concurrency=concurrency)
    limits = TRACE.model_copy(update={"learn": learn})
    return synthesise(as_sample(tables[0], rows), checker, teacher, limits, progress="")


def questions_about(tables):
    """A function from a row number to the text that asks about it."""
    checker = Checker(*tables, PROMPT, thesaurus_of("synthetic"))
    return lambda row: write_question(checker.shown(row))[1]["content"]
