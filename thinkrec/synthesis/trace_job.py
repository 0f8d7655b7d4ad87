"""The stage `traces`: which artefacts it reads, what it asks, and what that would take."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pandas as pd

from thinkrec.artifacts import INTERACTIONS, ITEMS, KEYWORDS, read_table
from thinkrec.claims.checker import Checker, thesaurus_of
from thinkrec.features.artefact import load_features
from thinkrec.params import Params
from thinkrec.synthesis.sampling import sample_rows
from thinkrec.synthesis.summaries import foresee
from thinkrec.synthesis.traces import Synthesis, synthesise
from thinkrec.teacher.budget import Spent
from thinkrec.teacher.endpoint import Teacher
from thinkrec.teacher.job import Job, run_job
from thinkrec.teacher.quote import Quote, quote_job


def make_traces(params: Params, report: Callable[..., None]) -> tuple[Synthesis, Spent]:
    """The traces, and what asking for them took (also told to `report`).

    Raises:
        UserError: as `run_job`.
    """
    return run_job(trace_job(params), report)


def quote_traces(params: Params) -> Quote:
    """What `make_traces` would still ask the teacher, by the keywords of params.yaml, made or not."""
    keywords, changing = foresee(read_table(ITEMS), params.keywords, params.teacher_settings)
    return quote_job(trace_job(params, keywords=keywords, changing=changing))


def trace_job(params: Params, *, keywords: pd.DataFrame | None = None, changing: str = "") -> Job[Synthesis]:
    """The stage's questions; `keywords` are others than the pipeline's, `changing` why they will be others again."""
    work = partial(_synthesise, params, keywords)
    turns = params.traces.max_turns
    return Job(stage="traces", work=work, teacher=params.teacher_settings, turns=turns, changing=changing)


def _synthesise(params: Params, keywords: pd.DataFrame | None, teacher: Teacher) -> Synthesis:
    interactions = read_table(INTERACTIONS)
    sample = sample_rows(interactions, params.traces, params.seed, score=lambda: load_features().scores())
    checker = Checker(
        interactions,
        read_table(ITEMS),
        read_table(KEYWORDS) if keywords is None else keywords,
        params.prompt,
        thesaurus_of(params.teacher.endpoint),
    )
    return synthesise(sample, checker, teacher, params.traces)
