"""Backbone, features and traces -> the global model, slot projector and soft prompt. Run: thinkrec-stage sft"""


def sft() -> str:
    """Fine-tune the global model on recommending and reasoning."""
    import torch

    from thinkrec import artifacts
    from thinkrec.lm.loaded import open_untrained
    from thinkrec.lm.sft import fit_global, save_global
    from thinkrec.lm.trainer import resumable
    from thinkrec.params import load

    params = load()
    torch.manual_seed(params.seed)
    loaded = open_untrained(params)
    with resumable(params.run):
        results, adapter = fit_global(loaded, params)
        with artifacts.atomic(artifacts.SFT) as partial:
            save_global(loaded, adapter, partial, recipe=params.sft.recipe)
    epochs = [(phase, epoch) for phase, result in results.items() for epoch in result.epochs]
    curve = [
        {"phase": phase, **epoch, "epoch": number}
        for number, (phase, epoch) in enumerate(epochs, start=1)
        if "objective" in epoch  # no scores are measured where reasons alone are learned
    ]
    best = {phase: result.best for phase, result in results.items()}
    headlines = ("best.*.auc", "best.*.uauc", "best.*.think_loss")
    measured = {"best": best, "traces": len(loaded.layout.reasons), "curve": curve}
    artifacts.write_metrics("sft", measured, *headlines)
    artifacts.write_json(artifacts.PLOTS / "sft.json", artifacts.rounded(curve, 4))
    phase = list(results)[-1]
    return (
        f"epoch {best[phase]['epoch']:.0f} of phase {phase}: "
        f"valid AUC {best[phase]['auc']:.4f}, UAUC {best[phase]['uauc']:.4f}"
    )
