"""Sampled interactions -> reasoning traces by a teacher, kept if verified. Run: thinkrec-stage traces"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from thinkrec.params import Params
    from thinkrec.synthesis.client import Teacher
    from thinkrec.synthesis.traces import Synthesis


def traces() -> str:
    """Have a teacher write reasoning traces, keep what is right."""
    from dataclasses import asdict

    from stages._command import note
    from thinkrec import artifacts
    from thinkrec.params import load
    from thinkrec.synthesis.client import open_teacher

    params = load()
    teacher = open_teacher(params.teacher)
    try:
        made = ask(params, teacher)
    finally:
        note(**asdict(teacher.spent))
    artifacts.write_table(artifacts.TRACES, made.kept)
    artifacts.write_table(artifacts.REJECTED, made.rejected)
    artifacts.write_text(artifacts.EXAMPLES, made.examples)
    artifacts.write_metrics("traces", made.stats)
    return f"{len(made.kept):,} traces kept, {len(made.rejected):,} answers rejected; sent {teacher.spent}"


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
