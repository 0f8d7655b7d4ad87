"""Sampled interactions -> reasoning traces by a teacher, kept if verified. Run: thinkrec-stage traces"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from stages._command import DryRun, note

if TYPE_CHECKING:
    import pandas as pd

    from thinkrec.params import Params
    from thinkrec.synthesis.traces import Synthesis
    from thinkrec.teacher.client import Teacher
    from thinkrec.teacher.quote import Quote


def traces(dry_run: DryRun = False) -> str:
    """Have a teacher write reasoning traces, keep what is right."""
    from dataclasses import asdict

    from thinkrec import artifacts
    from thinkrec.params import load
    from thinkrec.teacher.batch import carry_out
    from thinkrec.teacher.client import open_teacher
    from thinkrec.teacher.quote import show

    params = load()
    if dry_run:
        return show([price(params)])
    teacher = open_teacher(params.teacher_settings)
    try:
        made = carry_out(partial(ask, params), teacher)
    finally:
        note(**asdict(teacher.spent))
    artifacts.write_table(artifacts.TRACES, made.kept)
    artifacts.write_table(artifacts.REJECTED, made.rejected)
    artifacts.write_text(artifacts.EXAMPLES, made.examples)
    artifacts.write_metrics("traces", made.stats)
    return f"{len(made.kept):,} traces kept, {len(made.rejected):,} answers rejected; sent {teacher.spent}"


def price(params: Params) -> Quote:
    """What the stage would still ask the teacher, by the keywords of params.yaml, made or not."""
    from thinkrec import artifacts
    from thinkrec.synthesis.summaries import foresee
    from thinkrec.teacher.quote import quote

    words, changing = foresee(artifacts.read_table(artifacts.ITEMS), params.keywords, params.teacher_settings)
    work = partial(ask, params, words=words)
    return quote("traces", work, params.teacher_settings, turns=params.traces.max_turns, changing=changing)


def ask(params: Params, teacher: Teacher, *, words: pd.DataFrame | None = None) -> Synthesis:
    """What this teacher's answers to the stage's questions come to; `words`: keywords other than the pipeline's."""
    from thinkrec import artifacts
    from thinkrec.features import bank
    from thinkrec.synthesis.sampling import choose_instances
    from thinkrec.synthesis.traces import synthesise

    interactions = artifacts.read_table(artifacts.INTERACTIONS)
    train, held_out = choose_instances(interactions, params.traces, params.seed, score=lambda: bank.load().scores())
    return synthesise(
        interactions,
        artifacts.read_table(artifacts.ITEMS),
        artifacts.read_table(artifacts.KEYWORDS) if words is None else words,
        [*train, *held_out],
        teacher,
        prompt=params.prompt,
        traces=params.traces,
    )
