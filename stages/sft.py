"""Backbone, features and traces -> the global model, slot projector and soft prompt. Run: thinkrec-stage sft"""


def sft() -> str:
    """Fine-tune the global model on recommending and reasoning."""
    from functools import partial

    import torch

    from thinkrec import artifacts
    from thinkrec.claims.checker import open_checker
    from thinkrec.lm.loaded import open_untrained
    from thinkrec.lm.sft import fit_global, save_global
    from thinkrec.lm.trainer import resumable
    from thinkrec.params import load
    from thinkrec.reasons.refinement import refine

    params = load()
    torch.manual_seed(params.seed)
    loaded = open_untrained(params)
    checker = open_checker(params, loaded.interactions)
    with resumable(params.run):
        results, adapter = fit_global(loaded, params, partial(refine, checker=checker))
        with artifacts.atomic(artifacts.SFT) as folder:
            save_global(loaded, adapter, folder, recipe=params.sft.recipe)
    epochs = [(phase, epoch) for phase, result in results.items() for epoch in result.epochs]
    curve = [
        {"phase": phase, **epoch, "epoch": number}
        for number, (phase, epoch) in enumerate(epochs, start=1)
        if "objective" in epoch  # no scores are measured where reasons alone are learned
    ]
    best = {phase: result.best for phase, result in results.items()}
    headlines = ("best.*.auc", "best.*.uauc", "best.*.think_loss", "best.*.reward", "best.*.wholly_true")
    measured = {"best": best, "traces": len(loaded.layout.reasons), "curve": curve}
    artifacts.write_metrics("sft", measured, *headlines)
    artifacts.write_json(artifacts.PLOTS / "sft.json", artifacts.rounded(curve, 4))
    phase = next((name for name in reversed(results) if "auc" in best[name]), "")
    if not phase:
        return f"{len(results)} phases, none of which learns to recommend"
    return (
        f"epoch {best[phase]['epoch']:.0f} of phase {phase}: "
        f"valid AUC {best[phase]['auc']:.4f}, UAUC {best[phase]['uauc']:.4f}"
    )
