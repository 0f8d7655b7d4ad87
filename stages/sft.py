"""Backbone, features and traces -> the global model, slot projector and soft prompt. Run: thinkrec-stage sft"""


def sft() -> str:
    """Fine-tune the global model on recommending and reasoning."""
    import torch

    from thinkrec import artifacts
    from thinkrec.lm.backbone import save_model
    from thinkrec.lm.finetune import finetune
    from thinkrec.lm.trainer import TrainSettings
    from thinkrec.lm.workbench import open_workbench
    from thinkrec.params import load

    params = load()
    torch.manual_seed(params.seed)
    traces = artifacts.read_table(artifacts.TRACES) if params.sft.think_share else None
    bench = open_workbench(artifacts.BACKBONE, params.prompt, traces=traces, slot_dropout=params.sft.slot_dropout)
    result = finetune(
        bench.model,
        bench.layout,
        train_rows=bench.rows("train"),
        valid_rows=bench.rows("valid"),
        user=bench.user,
        params=params.sft,
        settings=TrainSettings(
            name="sft",
            epochs=params.sft.epochs,
            learning_rate=params.sft.learning_rate,
            weight_decay=params.sft.weight_decay,
            seed=params.seed,
            patience=params.sft.patience,
            metric=params.trainer.metric,
            trainer=params.trainer,
        ),
    )
    with artifacts.atomic(artifacts.SFT) as partial:
        save_model(bench.model.backbone, bench.tokenizer, partial / "model")
        bench.model.save_inputs(partial)
    artifacts.write_metrics("sft", {"best": result.best, "traces": len(bench.layout.reasons)})
    artifacts.write_json(artifacts.PLOTS / "sft.json", artifacts.rounded(result.epochs, 4))
    best = result.best
    return f"epoch {best['epoch']:.0f}: valid AUC {best['auc']:.4f}, UAUC {best['uauc']:.4f}"
