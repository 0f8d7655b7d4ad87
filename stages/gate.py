"""Experts and user vectors -> the routing weights. Run: thinkrec-stage gate"""


def gate() -> str:
    """Route every user to a mixture of the experts."""
    from thinkrec import artifacts
    from thinkrec.experts.routing import fit_routing, open_experts, save_routing
    from thinkrec.lm.trainer import resumable
    from thinkrec.params import load

    params = load()
    loaded, experts = open_experts(params)
    with resumable(params.run):
        routing, metrics = fit_routing(loaded, experts.groups, params)
        save_routing(routing, params.gate)
    artifacts.write_metrics("gate", metrics, "valid.*.auc", "valid.*.uauc")
    shares = ", ".join(f"{name} {share:.0%}" for name, share in metrics["cases"].items())
    return f"{params.gate.kind} gate over {len(experts.folders)} experts (users by the paper's rule: {shares})"
