"""Global model and user vectors -> user groups and one LoRA per group. Run: thinkrec-stage experts"""


def experts() -> str:
    """Group users, train one LoRA expert per group.

    Files of user ids in experts.added make a group and an expert more each. DVC knows these files by name: one that has
    changed wants a new name. For a run elsewhere (--temp, --queue) their paths are absolute, or git has the files.
    """
    import torch

    from thinkrec import artifacts
    from thinkrec.experts.training import fit_experts
    from thinkrec.lm.loaded import open_global
    from thinkrec.lm.trainer import resumable
    from thinkrec.params import load

    params = load()
    torch.manual_seed(params.seed)
    loaded = open_global(params, with_reasons=True)
    with resumable(params.run), artifacts.atomic(artifacts.EXPERTS) as partial:
        metrics = fit_experts(loaded, params, partial)
    artifacts.write_metrics("experts", metrics, "groups", "smallest_cohens_d")
    sizes = [*metrics["users"], *(expert["users"] for expert in metrics["experts"] if "users" in expert)]
    return f"{len(sizes)} experts for groups of {', '.join(map(str, sizes)) or 'no'} users"
