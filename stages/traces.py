"""Sampled interactions -> reasoning traces by a teacher, kept if verified. Run: thinkrec-stage traces"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from stages._command import DryRun

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

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
    artifacts.write_text(artifacts.EXAMPLES, made.examples)
    artifacts.write_metrics("traces", made.stats)
    return f"{len(made.kept):,} traces kept, {len(made.rejected):,} answers rejected"


def price(params: Params) -> Quote:
    """What the stage would still ask the teacher."""
    from thinkrec.synthesis.quote import quote

    return quote("traces", partial(ask, params), params.teacher, turns=params.traces.max_turns)


def ask(params: Params, teacher: Teacher) -> Synthesis:
    """What this teacher's answers to the stage's questions come to."""
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
        artifacts.read_table(artifacts.KEYWORDS),
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
