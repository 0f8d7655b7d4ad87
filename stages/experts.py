"""Global model and user vectors -> user groups and one LoRA per group. Run: thinkrec-stage experts"""


def experts() -> str:
    """Group users, train one LoRA expert per group."""
    import torch

    from thinkrec import artifacts
    from thinkrec.experts import groups as grouping
    from thinkrec.lm import identity
    from thinkrec.lm.adapters import train_experts
    from thinkrec.lm.trainer import resumable
    from thinkrec.lm.workbench import open_global
    from thinkrec.params import load

    params = load()
    torch.manual_seed(params.seed)
    traces = artifacts.read_table(artifacts.TRACES) if params.sft.think_share else None
    bench = open_global(params.prompt, traces=traces)
    groups, stats = grouping.group_users(
        bench.features.user_vectors[: int(bench.user.max()) + 1],
        n=params.experts.n,
        grouping=params.experts.grouping,
        space=params.experts.space,
        min_users=params.experts.min_users,
        seed=params.seed,
    )
    with resumable(params.run), artifacts.atomic(artifacts.EXPERTS) as partial:
        grouping.save(groups, partial)
        identity.stamp(partial, {"sft": identity.hash_of(artifacts.SFT)})
        every = range(1, len(groups.centroids) + 1)
        results = train_experts(
            bench,
            groups.group,
            every,
            partial,
            params.experts,
            params.lora,
            params.sft,
            params.trainer,
            seed=params.seed,
        )
    artifacts.write_metrics("experts", {**stats, "experts": results})
    return f"{len(results)} experts for groups of {', '.join(map(str, stats['users'])) or 'no'} users"
