"""Everything before -> metrics beside the baselines, predictions, reasons, plots. Run: thinkrec-stage evaluate"""


def evaluate() -> str:
    """Score valid and test rows, write reasons, compare with baselines."""
    import numpy as np
    import typer

    from thinkrec import artifacts
    from thinkrec.claims.checker import Checker, thesaurus_of
    from thinkrec.evaluation import plots, reason_first, tables
    from thinkrec.evaluation.faithfulness import interventions
    from thinkrec.evaluation.learned import score_likeness
    from thinkrec.evaluation.predict import predict, write_reasons
    from thinkrec.evaluation.reasons import score_claims, score_reasons, score_truth
    from thinkrec.experts.routing import open_finished
    from thinkrec.params import load
    from thinkrec.reasons.judging import ReasonJudge, Tastes

    params = load()
    loaded, routing = open_finished(params)

    truth, traces = artifacts.read_table(artifacts.TRUTH), artifacts.read_table(artifacts.TRACES)
    baselines = artifacts.read_table(artifacts.BASELINES)
    predictions, models = predict(loaded, routing, baselines, truth)
    items, keywords = artifacts.read_table(artifacts.ITEMS), artifacts.read_table(artifacts.KEYWORDS)
    checker = Checker(loaded.interactions, items, keywords, params.prompt, thesaurus_of(params.teacher.endpoint))

    tastes = Tastes.of(loaded.features, checker.keywords, params.prompt.slots)
    judge = ReasonJudge(checker=checker, tastes=tastes, features=loaded.features)
    reasons = write_reasons(loaded, predictions, traces, judge, params.evaluate, seed=params.seed)
    artifacts.write_table(artifacts.PREDICTIONS, predictions)
    artifacts.write_table(artifacts.REASONS, reasons)
    moved = interventions(loaded, reasons, checker, seed=params.seed)
    thought, seconds = reason_first.measure(
        loaded, rows=params.evaluate.reason_first,
        max_new_tokens=params.evaluate.max_new_tokens, seed=params.seed,
    )  # fmt: skip
    likeness = {"bertscore": params.evaluate.bertscore, "bleurt": params.evaluate.bleurt}
    written = {
        **score_reasons(reasons),
        **score_likeness(reasons["reason"].tolist(), reasons["teacher"].tolist(), likeness),
        "claims": score_claims(reasons, checker),
        "truth": score_truth(reasons, truth["reason"].tolist(), checker, loaded.user, seed=params.seed),
        "interventions": moved,
        "reason_first": thought,
    }
    metrics = tables.evaluate(predictions, models, seed=params.seed)
    artifacts.write_metrics("evaluate", {**tables.headlines(metrics), "reasons": written})
    artifacts.write_json(artifacts.TABLE, artifacts.rounded(metrics, 4))
    test = predictions[predictions["split"] == "test"]
    # Points of our own curves, for `dvc plots diff` to lay revisions over each other; pictures show the others, too.
    for name, points in (("roc", plots.roc_points), ("calibration", plots.calibration_points)):
        artifacts.write_json(artifacts.PLOTS / f"{name}.json", artifacts.rounded(points(test, [tables.OURS]), 5))
    plots.draw_roc(artifacts.PLOTS / "roc.png", test, plots.shown(models))
    plots.draw_calibration(artifacts.PLOTS / "calibration.png", test)
    vectors = loaded.features.user_vectors[: len(routing.groups.group)]
    seen = np.flatnonzero(np.any(vectors != 0, axis=1))
    group = routing.groups.group[seen].clip(min=0)  # without experts everyone is of one group
    plots.draw_gate(artifacts.PLOTS / "gate.png", routing.weights[seen], group)
    plots.draw_groups(artifacts.PLOTS / "groups.png", vectors[seen], group)
    typer.echo("\n\n".join([tables.to_text(metrics), *([reason_first.to_text(thought, seconds)] if thought else [])]))
    ours = metrics["test"]["models"][tables.OURS]["all"]
    return f"test AUC {ours['auc']:.4f}, UAUC {ours['uauc']:.4f}, {len(reasons)} reasons written"
