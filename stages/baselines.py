"""Interactions -> scores of every baseline, online and frozen. Run: thinkrec-stage baselines"""


def baselines() -> str:
    """Fit the baselines on train and score valid and test rows."""
    from thinkrec import artifacts
    from thinkrec.evaluation.baselines import baseline_fits, baseline_scores
    from thinkrec.params import load

    scores, metrics = baseline_scores(
        artifacts.read_table(artifacts.INTERACTIONS), artifacts.read_table(artifacts.ITEMS), baseline_fits(load())
    )
    artifacts.write_table(artifacts.BASELINES, scores)
    artifacts.write_metrics("baselines", metrics)
    best = max(metrics, key=lambda name: sum(metrics[name].values()))
    auc, uauc = metrics[best].values()
    return f"{len(metrics)} baselines, the best on valid {best}: AUC {auc:.4f}, UAUC {uauc:.4f}"
