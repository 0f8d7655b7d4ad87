"""Interactions -> scores of every baseline, online and frozen. Run: thinkrec-stage baselines"""


def baselines() -> str:
    """Fit the baselines on train and score valid and test rows."""
    from thinkrec import artifacts
    from thinkrec.evaluation.baselines import baseline_fits, baseline_scores
    from thinkrec.features import bank
    from thinkrec.history import PROTOCOLS
    from thinkrec.params import load

    scores, metrics = baseline_scores(
        artifacts.read_table(artifacts.INTERACTIONS),
        artifacts.read_table(artifacts.ITEMS),
        baseline_fits(load()),
        {protocol: bank.load(protocol=protocol) for protocol in PROTOCOLS},
    )
    artifacts.write_table(artifacts.BASELINES, scores)
    artifacts.write_metrics("baselines", metrics)
    slots = metrics["logistic_slots"]
    return (
        f"{len(metrics)} baselines; logistic regression on what slots are told: "
        f"valid AUC {slots['valid_auc']:.4f}, UAUC {slots['valid_uauc']:.4f}"
    )
