"""Sampled interactions -> reasoning traces by a teacher, kept if verified. Run: thinkrec-stage traces"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from stages._command import DryRun

if TYPE_CHECKING:
    from thinkrec.params import Params
    from thinkrec.synthesis.client import Teacher
    from thinkrec.synthesis.quote import Quote
    from thinkrec.synthesis.traces import Synthesis


def traces(dry_run: DryRun = False) -> str:
    """Have a teacher write reasoning traces, keep what is right."""
    from thinkrec import artifacts
    from thinkrec.params import load
    from thinkrec.synthesis.batch import carry_out
    from thinkrec.synthesis.client import open_teacher
    from thinkrec.synthesis.quote import show

    params = load()
    if dry_run:
        return show([price(params)])
    made = carry_out(partial(ask, params), open_teacher(params.teacher))
    artifacts.write_table(artifacts.TRACES, made.kept)
    artifacts.write_table(artifacts.REJECTED, made.rejected)
    artifacts.write_metrics("traces", made.stats)
    return f"{len(made.kept):,} traces kept, {len(made.rejected):,} answers rejected"


def price(params: Params) -> Quote:
    """What the stage would still ask the teacher."""
    from thinkrec.synthesis.quote import quote

    return quote("traces", partial(ask, params), params.teacher, turns=params.traces.max_turns)


def ask(params: Params, teacher: Teacher) -> Synthesis:
    """What this teacher's answers to the stage's questions come to."""
    from thinkrec import artifacts
    from thinkrec.synthesis.traces import choose_instances, synthesise

    interactions = artifacts.read_table(artifacts.INTERACTIONS)
    train, held_out = choose_instances(interactions, params.traces, params.seed)
    return synthesise(
        interactions,
        artifacts.read_table(artifacts.ITEMS),
        artifacts.read_table(artifacts.KEYWORDS),
        [*train, *held_out],
        teacher,
        prompt=params.prompt,
        traces=params.traces,
        progress="traces",
    )
