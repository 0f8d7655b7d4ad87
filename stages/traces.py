"""Sampled interactions -> reasoning traces by a teacher, kept if verified. Run: thinkrec-stage traces"""


def traces() -> str:
    """Have a teacher write reasoning traces, keep what is right."""
    from thinkrec import artifacts
    from thinkrec.params import load
    from thinkrec.synthesis.client import open_teacher
    from thinkrec.synthesis.traces import choose_instances, synthesise

    params = load()
    interactions = artifacts.read_table(artifacts.INTERACTIONS)
    train, held_out = choose_instances(interactions, params.traces, params.seed)
    made = synthesise(
        interactions,
        artifacts.read_table(artifacts.ITEMS),
        artifacts.read_table(artifacts.KEYWORDS),
        [*train, *held_out],
        open_teacher(params.teacher),
        prompt=params.prompt,
        traces=params.traces,
        progress="traces",
    )
    artifacts.write_table(artifacts.TRACES, made.kept)
    artifacts.write_table(artifacts.REJECTED, made.rejected)
    artifacts.write_metrics("traces", made.stats)
    return f"{len(made.kept):,} traces kept, {len(made.rejected):,} answers rejected"
