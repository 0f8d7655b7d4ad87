"""Interactions -> user and item vectors, causal statistics. Run: thinkrec-stage features"""


def features() -> str:
    """Fit the feature model and compute causal statistics."""
    from thinkrec import artifacts
    from thinkrec.features import bank
    from thinkrec.params import load

    params = load()
    fitted, metrics = bank.fit_features(
        artifacts.read_table(artifacts.INTERACTIONS),
        artifacts.read_table(artifacts.ITEMS),
        params.features,
        seed=params.seed,
    )
    bank.save(fitted)
    artifacts.write_metrics("features", metrics)
    return f"{len(fitted.statistic_names)} statistics, feature model's valid AUC {metrics['valid_auc']:.4f}"
