"""Interactions and keywords -> user and item vectors, causal statistics, their model. Run: thinkrec-stage features"""


def features() -> str:
    """Fit the feature model and compute causal statistics."""
    import joblib

    from thinkrec import artifacts
    from thinkrec.features.artefact import save_features
    from thinkrec.features.fitting import fit_features
    from thinkrec.features.models import save_model
    from thinkrec.params import load

    params = load()
    with joblib.parallel_config(n_jobs=-1):
        by_protocol, metrics, model = fit_features(
            artifacts.read_table(artifacts.INTERACTIONS),
            artifacts.read_items_with_keywords(),
            params.features,
            params.recommender(params.features.model),
            seed=params.seed,
        )
    save_features(by_protocol)
    save_model(model, artifacts.FEATURE_MODEL)
    artifacts.write_metrics("features", metrics, "valid_auc", "valid_uauc")
    return (
        f"{metrics['statistics']} statistics, {metrics['model']}'s valid AUC {metrics['valid_auc']:.4f}, "
        f"UAUC {metrics['valid_uauc']:.4f}"
    )
