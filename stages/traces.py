"""Sampled interactions -> reasoning traces by a teacher, kept if verified. Run: thinkrec-stage traces"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from thinkrec.params import Params
    from thinkrec.synthesis.client import Teacher
    from thinkrec.synthesis.traces import Synthesis


def traces() -> str:
    """Have a teacher write reasoning traces, keep what is right."""
    from thinkrec import artifacts
    from thinkrec.params import load
    from thinkrec.synthesis.client import open_teacher

    params = load()
    made = ask(params, open_teacher(params.teacher))
    artifacts.write_table(artifacts.TRACES, made.kept)
    artifacts.write_table(artifacts.REJECTED, made.rejected)
    artifacts.write_text(artifacts.EXAMPLES, made.examples)
    artifacts.write_metrics("traces", made.stats)
    return f"{len(made.kept):,} traces kept, {len(made.rejected):,} answers rejected"


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
