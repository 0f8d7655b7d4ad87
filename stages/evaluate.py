"""Everything before -> metrics beside the baselines, predictions, reasons, plots. Run: thinkrec-stage evaluate"""

HEADLINES = (
    *("test.auc", "test.uauc", "test.*", "valid.auc", "valid.uauc", "reasons.accuracy", "reasons.meteor_exact_stem"),
    *("reasons.claims.ours.*_true_share.literally", "reasons.truth.ours.named_share"),
)


def evaluate() -> str:
    """Score valid and test rows, write reasons, compare with baselines."""
    import typer

    from thinkrec import artifacts
    from thinkrec.evaluation.evaluate import evaluate_project
    from thinkrec.evaluation.models import OURS
    from thinkrec.params import load

    evaluation = evaluate_project(load())
    artifacts.write_table(artifacts.PREDICTIONS, evaluation.predictions)
    artifacts.write_table(artifacts.REASONS, evaluation.reasons)
    artifacts.write_metrics("evaluate", evaluation.metrics, *HEADLINES)
    artifacts.write_json(artifacts.TABLE, artifacts.rounded(evaluation.table, 4))
    for name, points in evaluation.curves().items():
        artifacts.write_json(artifacts.PLOTS / f"{name}.json", artifacts.rounded(points, 5))
    evaluation.draw(artifacts.PLOTS)
    typer.echo(evaluation.text)
    ours = evaluation.table["test"]["models"][OURS]["all"]
    return f"test AUC {ours['auc']:.4f}, UAUC {ours['uauc']:.4f}, {len(evaluation.reasons)} reasons written"
