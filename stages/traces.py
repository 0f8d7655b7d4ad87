"""Sampled interactions -> reasoning traces by a teacher, kept if verified. Run: thinkrec-stage traces"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from stages._command import DryRun, note

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from thinkrec.params import Params
    from thinkrec.synthesis.client import Teacher
    from thinkrec.synthesis.quote import Quote
    from thinkrec.synthesis.traces import Synthesis


def traces(dry_run: DryRun = False) -> str:
    """Have a teacher write reasoning traces, keep what is right."""
    from dataclasses import asdict

    from thinkrec import artifacts
    from thinkrec.params import load
    from thinkrec.synthesis.batch import carry_out
    from thinkrec.synthesis.client import open_teacher
    from thinkrec.synthesis.quote import show

    params = load()
    if dry_run:
        return show([price(params)])
    teacher = open_teacher(params.teacher)
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
    """What the stage would still ask the teacher; where no keywords are there yet, extracted ones stand in for them."""
    from thinkrec import artifacts
    from thinkrec.synthesis.keywords import extract_keywords
    from thinkrec.synthesis.quote import quote

    words = None
    if not artifacts.KEYWORDS.exists():
        items = artifacts.read_table(artifacts.ITEMS)
        words, _ = extract_keywords(items, max_per_item=params.keywords.max_per_item)
    return quote("traces", partial(ask, params, words=words), params.teacher, turns=params.traces.max_turns)


def ask(params: Params, teacher: Teacher, *, words: pd.DataFrame | None = None) -> Synthesis:
    """What this teacher's answers to the stage's questions come to; `words`: keywords other than the pipeline's."""
    from thinkrec import artifacts
    from thinkrec.features import bank
    from thinkrec.synthesis.choice import choose_instances
    from thinkrec.synthesis.traces import synthesise

    interactions = artifacts.read_table(artifacts.INTERACTIONS)
    train, held_out = choose_instances(
        interactions,
        params.traces,
        params.seed,
        score=lambda: bank.load().scores(),
        group=lambda: groups(params, interactions["user"].to_numpy()),
    )
    return synthesise(
        interactions,
        artifacts.read_table(artifacts.ITEMS),
        artifacts.read_table(artifacts.KEYWORDS) if words is None else words,
        [*train, *held_out],
        teacher,
        prompt=params.prompt,
        traces=params.traces,
        progress="traces",
    )


def groups(params: Params, user: NDArray[np.int32]) -> NDArray[np.int32]:
    """The group of each of these users, as the experts stage will make them; -1 for those that train never saw."""
    from thinkrec.features import bank
    from thinkrec.gate.groups import group_users

    found, _ = group_users(
        bank.load().user_bank[: int(user.max()) + 1],
        n=params.experts.n,
        grouping=params.experts.grouping,
        space=params.experts.space,
        min_users=params.experts.min_users,
        seed=params.seed,
    )
    return found.group[user]
