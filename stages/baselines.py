"""Interactions and keywords -> scores of every baseline under both protocols. Run: thinkrec-stage baselines"""


def baselines() -> str:
    """Fit the baselines on train and score valid and test rows."""
    import joblib

    from thinkrec import artifacts
    from thinkrec.baselines.scores import score_baselines
    from thinkrec.features.artefact import load_features
    from thinkrec.history import PROTOCOLS
    from thinkrec.params import load

    with joblib.parallel_config(n_jobs=-1):
        scores, metrics = score_baselines(
            artifacts.read_table(artifacts.INTERACTIONS),
            artifacts.read_items_with_keywords(),
            {protocol: load_features(protocol=protocol) for protocol in PROTOCOLS},
            load(),
        )
    artifacts.write_table(artifacts.BASELINES, scores)
    artifacts.write_metrics("baselines", metrics, "*.valid_auc")
    slots = metrics["logistic_slots"]
    return (
        f"{len(metrics)} baselines; logistic regression on the statistics in slots: "
        f"valid AUC {slots['valid_auc']:.4f}, UAUC {slots['valid_uauc']:.4f}"
    )
