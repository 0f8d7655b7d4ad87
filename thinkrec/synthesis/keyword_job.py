"""The stage `keywords`: which artefacts it reads, whom it asks, and what that would take."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from thinkrec.artifacts import ITEMS, read_table
from thinkrec.params import Params
from thinkrec.synthesis.summaries import Summaries, summarise
from thinkrec.teacher.budget import Spent
from thinkrec.teacher.endpoint import Teacher
from thinkrec.teacher.job import Job, run_job
from thinkrec.teacher.quote import Quote, quote_job


def make_keywords(params: Params, report: Callable[..., None]) -> tuple[Summaries, Spent | None]:
    """The keywords of all items, and what asking for them took (also told to `report`); None: nobody was asked.

    Raises:
        UserError: as `run_job`.
    """
    if params.keywords.source == "tfidf":
        return _summarise(params, None), None
    return run_job(keyword_job(params), report)


def quote_keywords(params: Params) -> Quote:
    """What `make_keywords` would still ask the teacher."""
    if params.keywords.source == "tfidf":
        return Quote(stage="keywords", notes=("keywords: extracted without a teacher, as keywords.source has it",))
    return quote_job(keyword_job(params))


def keyword_job(params: Params) -> Job[Summaries]:
    """The stage's questions, where keywords.source is `teacher`."""
    return Job(stage="keywords", work=partial(_summarise, params), teacher=params.teacher_settings, turns=1)


def _summarise(params: Params, teacher: Teacher | None) -> Summaries:
    return summarise(read_table(ITEMS), teacher, max_per_item=params.keywords.max_per_item)
