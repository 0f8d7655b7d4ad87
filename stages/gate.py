"""Experts and user vectors -> the routing matrix. Run: thinkrec-stage gate"""


def gate() -> str:
    """Route every user to a mixture of the experts."""
    from thinkrec import artifacts
    from thinkrec.experts import groups as grouping
    from thinkrec.experts.fit import fit_routing, save
    from thinkrec.history import late_train_rows
    from thinkrec.lm.adapters import install_experts
    from thinkrec.lm.trainer import resumable
    from thinkrec.lm.workbench import open_global
    from thinkrec.params import load

    params = load()
    bench = open_global(params.prompt)
    groups = grouping.load(artifacts.ADDED)
    router = install_experts(bench, len(groups.centroids))
    with resumable(params.run):
        fitted, metrics = fit_routing(
            bench,
            router,
            groups,
            params.gate,
            params.trainer,
            late=late_train_rows(bench.interactions, params.experts.holdout),
            batch_tokens=params.sft.batch_tokens,
            seed=params.seed,
        )
        save(fitted, artifacts.GATE, temperature=params.gate.temperature)
    artifacts.write_metrics("gate", metrics)
    shares = ", ".join(f"{name} {share:.0%}" for name, share in metrics["cases"].items())
    return f"{params.gate.kind} gate over {len(groups.centroids)} experts (users by the paper's rule: {shares})"
