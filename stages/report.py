"""Everything that was measured and written -> one HTML page to read it on. Run: thinkrec-stage report"""


def report() -> str:
    """Write the report: tables, curves, experts, and a browser of users with their reasons."""
    from thinkrec import artifacts
    from thinkrec.claims.checker import thesaurus_of
    from thinkrec.evaluation.tables import OURS
    from thinkrec.experts.groups import load_groups
    from thinkrec.experts.routing import load_routing
    from thinkrec.features.artefact import load_features
    from thinkrec.params import load
    from thinkrec.report.contents import Artefacts, contents
    from thinkrec.report.page import page

    params = load()
    features, groups = load_features(artifacts.FEATURES), load_groups(artifacts.EXPERTS)
    routing = load_routing(groups, params.gate, states=len(features.user_vectors))
    predictions = artifacts.read_table(artifacts.PREDICTIONS)
    inputs = Artefacts(
        interactions=artifacts.read_table(artifacts.INTERACTIONS),
        items=artifacts.read_table(artifacts.ITEMS),
        users=artifacts.read_table(artifacts.USERS),
        keywords=artifacts.read_table(artifacts.KEYWORDS),
        truth=artifacts.read_table(artifacts.TRUTH),
        predictions=predictions,
        reasons=artifacts.read_table(artifacts.REASONS),
        weights=routing.weights[features.state[predictions["row"]]],
        table=artifacts.read_json(artifacts.TABLE),
        written=artifacts.read_json(artifacts.METRICS / "evaluate.json")["reasons"],
    )
    # Nothing of where or when: a path's last part is a model's name.
    settings = {
        "dataset": params.dataset.name,
        "language model": params.backbone.name.rstrip("/").rsplit("/", 1)[-1],
        "recipe": params.sft.recipe,
        "features": params.features.model,
        "gate": params.gate.kind,
        "experts": str(len(groups.centroids)),
        "seed": str(params.seed),
    }
    shown = contents(inputs, settings, params.prompt, thesaurus_of(params.teacher.endpoint))
    artifacts.write_text(artifacts.REPORT, page(shown))
    shown_users, all_users = shown["included"]["users"]
    auc = inputs.table["test"]["models"][OURS]["all"]["auc"]
    size = artifacts.REPORT.stat().st_size / 1e6
    return f"{artifacts.REPORT}, {size:.1f} MB: test AUC {auc:.4f}, {shown_users} of {all_users} test users to browse"
