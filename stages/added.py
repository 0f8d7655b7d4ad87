"""Files of user ids -> an expert more for each, those that are there as they were. Run: thinkrec-stage added"""


def added() -> str:
    """Add an expert for each file of users in experts.added.

    DVC knows these files by name: one that has changed wants a new name. For a run elsewhere (--temp, --queue) their
    paths are absolute, or git has the files.
    """
    from thinkrec import artifacts
    from thinkrec.experts import groups as grouping
    from thinkrec.lm import identity
    from thinkrec.params import load

    params = load()
    groups = grouping.load(artifacts.EXPERTS)
    made_with = {"experts": identity.hash_of(artifacts.EXPERTS)}
    if not params.experts.added:  # most runs: no model is loaded
        with artifacts.atomic(artifacts.ADDED) as partial:
            grouping.save(groups, partial)
            identity.stamp(partial, made_with)
        artifacts.write_metrics("added", {"experts": []})
        return "no experts to add"

    import torch

    from thinkrec.experts.added import add_group, read_members
    from thinkrec.lm.adapters import train_experts
    from thinkrec.lm.trainer import resumable
    from thinkrec.lm.workbench import open_global

    torch.manual_seed(params.seed)
    members, counts = read_members(params.experts.added, artifacts.read_table(artifacts.USERS), groups)
    traces = artifacts.read_table(artifacts.TRACES) if params.sft.think_share else None
    bench = open_global(params.prompt, traces=traces)
    numbers = range(len(groups.centroids) + 1, len(groups.centroids) + len(members) + 1)
    for users in members:
        groups = add_group(groups, users, bench.features.user_vectors)
    with resumable(params.run), artifacts.atomic(artifacts.ADDED) as partial:
        grouping.save(groups, partial)
        identity.stamp(partial, made_with)
        results = train_experts(
            bench,
            groups.group,
            numbers,
            partial,
            params.experts,
            params.lora,
            params.sft,
            params.trainer,
            seed=params.seed,
        )
    apart = grouping.separation(groups, bench.features.user_vectors)
    learned = [result | count for result, count in zip(results, counts, strict=True)]
    artifacts.write_metrics("added", {**apart, "experts": learned})
    return f"{len(results)} more experts, for {', '.join(str(count['users']) for count in counts)} users"
