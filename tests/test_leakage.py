"""Nothing of what a row must not know reaches it, through the whole chain: the same small project, run on changed data.

What single rooms promise is held where they are tested; here the artefacts of real runs are compared.
"""

import numpy as np

from tests.project import PIPELINE, copy_project, digests, run_stage, set_params
from thinkrec.artifacts import INTERACTIONS, MEASURES, PREDICTIONS, SCHEMAS, TRUTH, read_table, write_table
from thinkrec.evaluation.intervals import bootstrap, interval
from thinkrec.evaluation.models import HINDSIGHT
from thinkrec.features.artefact import load_features

STAGES = list(PIPELINE)
ONE_EPOCH = {f"{part}.epochs": 1 for part in ("features", "sft", "experts", "gate")}  # and so none for valid to choose


def rerun(project, change, stages):
    """Change the interactions of a project and run some of its stages on them, without writing reasons."""
    set_params(project, {"evaluate.reasons": 0})
    table = change(read_table(INTERACTIONS, root=project), np.random.default_rng(0))
    write_table(INTERACTIONS, table, root=project)
    for stage in stages:
        run_stage(project, stage)


def disturbed(table, rows, rng, *columns):
    """Other labels and, where asked for, other items in some rows."""
    label = table["label"].to_numpy().copy()
    label[rows] = 1 - label[rows]
    table = table.assign(label=label)
    if "item" in columns:
        item = table["item"].to_numpy().copy()
        item[rows] = rng.integers(0, item.max() + 1, rows.sum())
        table = table.assign(item=item)
    return table


def models_of(predictions):
    """The columns that claim not to have seen the labels."""
    return [name for name in predictions.columns.drop(SCHEMAS[PREDICTIONS].names) if name not in HINDSIGHT]


def telling(predictions):
    """The models whose test AUC is surely not one half: Bonferroni over the models, so .95 for all together."""
    test = predictions[predictions["split"] == "test"]
    models = models_of(predictions)
    drawn = bootstrap(test["user"], test["label"], {name: test[name] for name in models}, metrics=["auc"], seed=0)
    edges = {name: interval(one.draws["auc"], level=1 - 0.05 / len(models)) for name, one in drawn.items()}
    return {name for name, edge in edges.items() if not edge["low"] <= 0.5 <= edge["high"]}


def test_permuted_labels_leave_nothing_to_predict(finished, tmp_path):
    project = copy_project(finished, tmp_path / "project")
    write_table(TRUTH, read_table(TRUTH, root=project).iloc[:0], root=project)  # true of the labels that were
    rerun(
        project,
        lambda table, rng: table.assign(label=rng.permutation(table["label"].to_numpy())),
        STAGES[STAGES.index("features") : STAGES.index("report")],
    )
    assert telling(read_table(PREDICTIONS, root=project)) == set()
    # With the labels as they are the same measure does find something, in what learns and in what counts.
    assert {"mf", "running_rates", "item_like_rate"} <= telling(read_table(PREDICTIONS, root=finished))


def test_nothing_at_or_after_a_moment_moves_what_is_predicted_up_to_it(finished, tmp_path):
    table = read_table(INTERACTIONS, root=finished)
    time = table["timestamp"].to_numpy()
    moment = np.quantile(time[(table["split"] == "test").to_numpy()], 0.5, method="nearest")

    def change(table, rng):
        return disturbed(disturbed(table, time > moment, rng, "item"), time == moment, rng)

    project = copy_project(finished, tmp_path / "project")
    rerun(project, change, ["features", "baselines", "gate", "evaluate"])
    before, after = (read_table(PREDICTIONS, root=folder) for folder in (finished, project))
    up_to = time[before["row"]] <= moment
    assert (before["split"][up_to] == "test").any() and not up_to.all()
    models = models_of(before)
    assert models == models_of(after)
    np.testing.assert_allclose(before.loc[up_to, models], after.loc[up_to, models], atol=1e-5)
    moved = (before.loc[~up_to, models] - after.loc[~up_to, models]).abs().max()
    assert (moved > 0.001).all(), moved.sort_values()


def learned(folder, part):
    """The hashes of what a stage made, but for what it measured on valid."""
    return {name: digest for name, digest in digests(folder, part).items() if not name.endswith(MEASURES)}


def test_nothing_of_valid_or_test_is_in_what_is_fitted_but_which_epoch_is_kept(finished, tmp_path):
    fitting = [
        stage for stage in STAGES[STAGES.index("features") :] if stage not in ("baselines", "evaluate", "report")
    ]
    told, other = (copy_project(finished, tmp_path / name, ONE_EPOCH) for name in ("told", "other"))
    rerun(told, lambda table, _: table, fitting)
    rerun(
        other,
        lambda table, rng: disturbed(table, (table["split"] != "train").to_numpy(), rng, "item"),
        fitting,
    )
    assert digests(told, "out/ingest") != digests(other, "out/ingest")
    for part in ("out/backbone", "out/sft", "out/experts", "out/gate/gate.safetensors"):
        assert learned(told, part) == learned(other, part) != {}, part
    table = read_table(INTERACTIONS, root=told)
    users, train = int(table["user"].max()) + 1, np.flatnonzero(table["split"] == "train")
    one, two = (load_features(folder / "out/features/features.safetensors") for folder in (told, other))
    np.testing.assert_array_equal(one.user_vectors[:users], two.user_vectors[:users])
    np.testing.assert_array_equal(one.item_vectors, two.item_vectors)
    np.testing.assert_array_equal(one.user_vectors_of(train), two.user_vectors_of(train))
    np.testing.assert_array_equal(one.statistics[train], two.statistics[train])
