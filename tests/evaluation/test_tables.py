"""The metrics file: what it holds, that paired comparisons find what was planted, and its text form."""

import json

import numpy as np
import pandas as pd
import pytest

from tests.predictions import make_predictions
from thinkrec import metrics
from thinkrec.artifacts import rounded
from thinkrec.evaluation.intervals import HEADLINE
from thinkrec.evaluation.models import display_name
from thinkrec.evaluation.tables import (
    KINDS,
    LEAST_USERS,
    NEW_ITEMS_METRICS,
    SLICE_METRICS,
    cut_slices,
    evaluate,
    headlines,
    possible_lift,
    to_text,
)

MODELS = ["thinkrec", "thinkrec_static", "expert_oracle", "twin", "weak_static", "weak", "best"]


@pytest.fixture(scope="module")
def predictions():
    """A model that knows most of the true probabilities, its monotone twin, and others near chance."""
    frame = make_predictions(1600, users=120, thinkrec=0.7, weak=None, thinkrec_static=2.0, weak_static=None)
    return frame.assign(twin=frame["thinkrec"] ** 2, expert_oracle=frame[["thinkrec", "best"]].mean(axis=1))


@pytest.fixture(scope="module")
def with_new_items(predictions):
    """The same, where the item of every third row is one that train never saw."""
    return predictions.assign(popularity=np.where(predictions["row"] % 3, 9, 0))


@pytest.fixture(scope="module")
def evaluated(predictions):
    return evaluate(predictions, MODELS, seed=0, draws=500)


def test_it_holds_every_model_on_valid_and_test(predictions, evaluated):
    assert list(evaluated) == ["valid", "test"]
    test = predictions[predictions["split"] == "test"]
    for model in MODELS:
        entry = evaluated["test"]["models"][model]
        assert entry["all"]["auc"] == metrics.auc(test["label"], test[model])
        assert entry["warm"]["rows"] + entry["cold"]["rows"] == entry["all"]["rows"] == 800
        for name, edges in entry["interval"].items():
            assert edges["low"] < entry["all"][name] < edges["high"]


def test_rows_fall_into_the_bins_that_name_them():
    counts = [0, 1, 9, 10, 49, 50, 4000]
    frame = pd.DataFrame(
        {"history": counts, "popularity": counts[::-1], "group": [-1, 0, 2] * 2 + [0], "case": [0, 2] * 3 + [2]}
    )
    rows_of = {
        name: {bin_name: np.flatnonzero(held).tolist() for bin_name, held in bins.items()}
        for name, bins in cut_slices(frame).items()
    }
    assert rows_of == {
        "history": {"0": [0], "1-9": [1, 2], "10-49": [3, 4], "50+": [5, 6]},
        "popularity": {"0": [6], "1-9": [4, 5], "10-49": [2, 3], "50+": [0, 1]},
        "group": {"unseen": [0, 3], "1": [1, 4, 6], "3": [2, 5]},  # nobody is of group 2
        "case": {"averaged": [0, 2, 4], "mixed": [1, 3, 5, 6]},
    }
    without_experts = frame.assign(group=-1, case=0, history=60)
    assert list(cut_slices(without_experts)) == ["popularity"]  # a slice of one bin is left out


def test_a_bins_figures_are_those_of_its_rows(predictions, evaluated):
    test = predictions[predictions["split"] == "test"]
    held = test[test["popularity"].between(1, 9)]
    of_model = evaluated["test"]["models"]["weak"]["slices"]["popularity"]["1-9"]
    assert list(of_model) == list(SLICE_METRICS)
    assert of_model["auc"] == metrics.auc(held["label"], held["weak"])
    assert of_model["log_loss"] == metrics.log_loss(held["label"], held["weak"])
    value, users = metrics.uauc(held["user"], held["label"], held["weak"])
    size = evaluated["test"]["slices"]["popularity"]["1-9"]
    assert (of_model["uauc"], size["users"]["uauc"], size["rows"]) == (value, users, len(held))
    assert of_model["ndcg@5"] == metrics.per_user(held["user"], held["label"], held["weak"], seed=0).means()["ndcg@5"]


def test_a_bin_leaves_out_means_over_a_handful_of_users(predictions):
    few = predictions.assign(group=np.where(predictions["user"] < 20, 0, 1))  # 20 users against 100
    bins = evaluate(few, ["weak"], seed=0, draws=2)["test"]["models"]["weak"]["slices"]["group"]
    assert list(bins["1"]) == []
    assert list(bins["2"]) == list(SLICE_METRICS)


def test_all_models_are_measured_on_the_same_slices(evaluated):
    for table in evaluated.values():
        sizes = {name: list(bins) for name, bins in table["slices"].items()}
        for model in table["models"].values():
            assert {name: list(bins) for name, bins in model["slices"].items()} == sizes
        for bins in table["slices"].values():
            assert sum(size["rows"] for size in bins.values()) == table["models"]["weak"]["all"]["rows"]


def test_a_planted_difference_is_found_and_an_absent_one_is_not(evaluated):
    differences = evaluated["test"]["differences"]
    assert list(differences) == ["twin", "weak", "weak_static"]  # the truth and the oracle have hindsight: no rivals
    assert differences["weak"]["auc"]["low"] > 0.1 and differences["weak"]["auc"]["p_holm"] < 0.06
    # Like with like: static models are left behind by ours static, and have a family of their own.
    models = evaluated["test"]["models"]
    assert differences["weak_static"]["auc"]["difference"] == pytest.approx(
        models["thinkrec_static"]["all"]["auc"] - models["weak_static"]["all"]["auc"]
    )
    assert differences["weak_static"]["auc"]["p_holm"] <= len(HEADLINE) * differences["weak_static"]["auc"]["p"]
    assert differences["twin"]["auc"] == {"difference": 0, "low": 0, "high": 0, "p": 1, "p_holm": 1}
    assert all(pair["p_holm"] >= pair["p"] for model in differences.values() for pair in model.values())


def test_new_items_have_intervals_and_paired_leads_of_their_rows(with_new_items):
    table = evaluate(with_new_items, MODELS, seed=0, draws=200)["test"]
    new = table["new_items"]
    held = with_new_items[(with_new_items["split"] == "test") & (with_new_items["popularity"] == 0)]
    assert (new["rows"], new["users"]) == (len(held), held["user"].nunique())
    assert list(new["models"]) == MODELS
    for name, model in new["models"].items():
        assert model["all"]["auc"] == metrics.auc(held["label"], held[name])
        assert list(model["interval"]) == list(NEW_ITEMS_METRICS)
        assert model["interval"]["auc"]["low"] < model["all"]["auc"] < model["interval"]["auc"]["high"]
    assert new["models"]["best"]["possible_lift"] == 1
    lead = new["differences"]["weak"]["auc"]
    ours, theirs = (new["models"][name]["all"]["auc"] for name in ("thinkrec", "weak"))
    assert lead["difference"] == ours - theirs and 0.05 < lead["low"] < lead["difference"]
    assert list(new["differences"]) == list(table["differences"])
    assert headlines({"test": table})["test"]["new_items"] == {
        "rows": len(held),
        **{name: new["models"]["thinkrec"]["all"][name] for name in NEW_ITEMS_METRICS},
    }


@pytest.mark.parametrize("fault", ["one class", "few users", "none"])
def test_where_new_items_are_too_few_only_their_number_is_given(with_new_items, fault):
    new = with_new_items["popularity"] == 0
    if fault == "one class":
        frame = with_new_items.assign(label=with_new_items["label"].where(~new, 1))
    else:
        least = {"few users": LEAST_USERS - 1, "none": 0}[fault]
        frame = with_new_items.assign(popularity=np.where(new & (with_new_items["user"] < least), 0, 9))
    table = evaluate(frame, ["thinkrec", "weak"], seed=0, draws=2)["test"]
    rows = int(((frame["popularity"] == 0) & (frame["split"] == "test")).sum())
    assert set(table["new_items"]) == {"rows", "users"} and table["new_items"]["rows"] == rows
    assert headlines({"test": table})["test"]["new_items"] == {"rows": rows}
    assert "new AUC" not in to_text({"test": table})


def test_the_possible_lift_is_0_at_chance_and_1_for_the_truth(evaluated):
    assert (possible_lift(0.5, 0.8), possible_lift(0.65, 0.8)) == (0, pytest.approx(0.5))
    models = evaluated["test"]["models"]
    assert models["best"]["possible_lift"] == 1
    assert 0.6 < models["thinkrec"]["possible_lift"] < 1
    assert abs(models["weak"]["possible_lift"]) < 0.2


def test_without_the_truth_or_our_model_their_parts_are_absent(predictions):
    table = evaluate(predictions, ["weak"], seed=0, draws=20)["valid"]
    assert "possible_lift" not in table["models"]["weak"]
    assert table["differences"] == {}


def test_the_order_of_models_changes_no_figure(predictions):
    one, other = (evaluate(predictions, models, seed=0, draws=20) for models in (MODELS, MODELS[::-1]))
    assert rounded(other, 12) == rounded(one, 12)  # which turns NaN, which equals nothing, into null


def test_it_is_json_with_null_for_what_cannot_be_computed(predictions):
    one_class = predictions.assign(label=1)
    table = rounded(evaluate(one_class, MODELS, seed=0, draws=20), 4)
    assert json.loads(json.dumps(table, allow_nan=False))["test"]["models"]["weak"]["all"]["auc"] is None
    assert "-" in to_text(table)


def test_the_text_is_aligned_and_marks_what_differs(evaluated):
    text = to_text(evaluated)
    assert text == to_text(json.loads(json.dumps(evaluated)))
    block = text.split("\n\n")[1].splitlines()
    assert block[0].startswith("test: 800 rows")
    lines = {name: line for line in block[1:] for name in MODELS if line.startswith(f"{display_name(name)} ")}
    assert len({line.index(" [") for line in lines.values()}) == 1
    assert "*" in lines["weak"] and "*" not in lines["twin"] + lines["best"] + lines["thinkrec"]
    assert max(map(len, block)) <= 150


def test_the_text_has_a_column_for_new_items_where_they_are_measured(with_new_items):
    evaluated = evaluate(with_new_items, MODELS, seed=0, draws=200)
    block = to_text(evaluated).split("\n\n")[1].splitlines()
    new = evaluated["test"]["new_items"]
    assert f"; new: {new['rows']} rows about items that train never saw" in block[0]
    at = block[1].index("new AUC")
    of_weak = next(line for line in block if line.startswith("weak "))[at:].split()[0]
    assert of_weak == f"{new['models']['weak']['all']['auc']:.4f}*".removeprefix("0")


def test_the_text_lists_online_models_then_static_ones_then_hindsight(evaluated):
    lines = to_text(evaluated).split("\n\n")[1].splitlines()[2:-1]
    names = {display_name(name): name for name in ("thinkrec", "twin", "weak", "weak_static", "expert_oracle", "best")}
    firsts = [line if line.startswith("--") else names[line.split("  ")[0]] for line in lines]
    static, hindsight = f"-- {KINDS['static']}", f"-- {KINDS['hindsight']}"
    assert firsts[:3] == ["thinkrec", "twin", "weak"]
    assert firsts[3:] == [static, "thinkrec", "weak_static", hindsight, "expert_oracle", "best"]
    alone = {split: table | {"models": {"weak": table["models"]["weak"]}} for split, table in evaluated.items()}
    assert "--" not in to_text(alone)


def test_the_headlines_are_ours_from_the_table(evaluated):
    short = headlines(evaluated)
    assert set(short) == {"valid", "test"}
    for split, values in short.items():
        assert values["auc"] == evaluated[split]["models"]["thinkrec"]["all"]["auc"]
        assert {"auc", "uauc", "ndcg@5", "map@5"} <= set(values)
