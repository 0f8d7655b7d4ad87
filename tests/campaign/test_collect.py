"""A row's file: the figures of its run, and ThinkRec's lead over it on the same interactions and references."""

from dataclasses import replace

import numpy as np
import pytest

from tests.campaign.runs import make_reasons, make_run
from tests.predictions import make_predictions
from thinkrec import metrics
from thinkrec.campaign.collect import METEOR, joint_file, row_file
from thinkrec.campaign.rows import BASE, Row
from thinkrec.errors import UserError
from thinkrec.evaluation.intervals import HEADLINE, bootstrap, interval
from thinkrec.evaluation.reasons import meteor_exact_stem

MODELS = ["thinkrec", "mf", "thinkrec_static", "mf_static", "best"]
DRAWS = 400
TEACHER = {11: "yes it fits you well", 13: "no it is slow", 15: "yes the theme is revenge"}
GOOD = make_reasons({11: "yes it fits you well", 13: "no it is slow", 15: "yes it fits"}, TEACHER)
# Another run: its teacher said other things of row 11, and nothing of row 13.
BAD = make_reasons({11: "yes", 13: "no", 17: "yes"}, {11: "yes a witty one", 17: "yes it fits"})


def run_of(name, noise, reasons):
    """A run whose `thinkrec` knows the true probabilities up to `noise`; the items of half of its rows are new."""
    frame = make_predictions(600, users=40, seed=3, thinkrec=noise, mf=None, thinkrec_static=2.0, mf_static=None)
    frame["popularity"] = frame["row"] % 4 // 2
    return make_run(name, frame, reasons, *MODELS, seed=7, draws=DRAWS)


def file_of(name, run, base):
    row = Row(name=name, overrides={}, params={"seed": 7}, experiment=f"any-{name}")
    return row_file(row, run, base, draws=DRAWS)


def joint_of(name, *runs):
    """The file of joint leads of runs and their base rows, a pair a seed."""
    return joint_file(name, dict(enumerate(runs)), draws=DRAWS, seed=7)


@pytest.fixture(scope="module")
def base():
    return run_of("base", 0.3, GOOD)


@pytest.fixture(scope="module")
def worse():
    return run_of("worse", 3.0, BAD)


@pytest.fixture(scope="module")
def base_file(base):
    return file_of(BASE, base, base)


@pytest.fixture(scope="module")
def worse_file(worse, base):
    return file_of("no_thinking", worse, base)


def test_the_base_rows_file_has_a_line_per_model_and_leads_over_those_without_hindsight(base, base_file):
    assert list(base_file["lines"]) == MODELS
    test = base.predictions[base.predictions["split"] == "test"]
    auc = {model: metrics.auc(test["label"], test[model]) for model in MODELS}
    entries = {model: line["test"]["auc"] for model, line in base_file["lines"].items()}
    for model, entry in entries.items():
        assert entry["value"] == round(auc[model], 4)
        assert entry["low"] < entry["value"] < entry["high"]
    assert {model: entry["lead"]["value"] for model, entry in entries.items() if "lead" in entry} == {
        "mf": round(auc["thinkrec"] - auc["mf"], 4),
        "mf_static": round(auc["thinkrec_static"] - auc["mf_static"], 4),  # like with like
    }
    assert base_file["lines"]["best"]["test"]["possible_lift"] == 1
    assert base_file["counts"]["test"]["rows"] == 300


def test_another_rows_file_has_one_line_of_its_name_with_figures_of_all_rows_and_of_new_items(worse, base, worse_file):
    assert (worse_file["experiment"], worse_file["compared_with"]) == ("worse", "base")
    ((name, line),) = worse_file["lines"].items()
    assert name == "no_thinking" and set(line["test"]["new_items"]) == {"auc", "uauc", "possible_lift"}
    valid, test = (base.predictions[base.predictions["split"] == split] for split in ("valid", "test"))
    new = test[test["popularity"] == 0]
    assert worse_file["counts"]["test"]["new_items"] == {"rows": len(new), "users": new["user"].nunique()}
    for rows, entries in ((valid, line["valid"]), (test, line["test"]), (new, line["test"]["new_items"])):
        ours, theirs = (
            metrics.auc(rows["label"], run.predictions.loc[rows.index, "thinkrec"]) for run in (base, worse)
        )
        lead = entries["auc"]["lead"]
        assert (entries["auc"]["value"], lead["value"]) == (round(theirs, 4), round(ours - theirs, 4))
        assert 0 < lead["low"] < lead["value"] < lead["high"]
    assert line["test"]["auc"]["lead"]["p"] == round(2 / (DRAWS + 1), 4)


def test_a_row_with_the_same_predictions_has_no_lead(base):
    lead = file_of("no_experts", replace(base, id="twin"), base)["lines"]["no_experts"]["test"]["uauc"]["lead"]
    assert lead == {"value": 0, "low": 0, "high": 0, "p": 1}


def test_predictions_of_other_interactions_are_refused(worse, base):
    moved = replace(worse, predictions=worse.predictions.assign(row=worse.predictions["row"] + 1))
    with pytest.raises(UserError, match="no_thinking: its predictions are of other interactions"):
        file_of("no_thinking", moved, base)
    with pytest.raises(UserError, match="no_thinking of seed 1: its predictions are of other interactions"):
        joint_of("no_thinking", (base, base), (moved, moved))


def test_meteors_lead_is_over_common_rows_against_the_base_runs_references(base_file, worse_file):
    assert "lead" not in base_file["lines"][BASE]["reasons"][METEOR]
    entry = worse_file["lines"]["no_thinking"]["reasons"][METEOR]
    own = [meteor_exact_stem("yes", "yes a witty one"), meteor_exact_stem("yes", "yes it fits")]
    assert entry["value"] == round(float(np.mean(own)), 4)
    common = [
        meteor_exact_stem(TEACHER[11], TEACHER[11]) - meteor_exact_stem("yes", TEACHER[11]),
        meteor_exact_stem(TEACHER[13], TEACHER[13]) - meteor_exact_stem("no", TEACHER[13]),
    ]
    # One row per user: draws reach from the smaller difference to the larger.
    low, high, mean = (round(float(value), 4) for value in (min(common), max(common), np.mean(common)))
    lead = entry["lead"]
    assert (lead["value"], lead["low"], lead["high"], lead["rows"]) == (mean, low, high, 2)


def test_without_reasons_or_references_there_is_nothing_to_compare(base):
    silent, alone = (
        file_of("no_thinking", replace(base, id="other", reasons=reasons), base)["lines"]["no_thinking"]
        for reasons in (make_reasons({}, {}), make_reasons({17: "yes", 19: "no"}, {}))
    )
    assert "reasons" not in silent
    nothing = {"low": None, "high": None}
    assert alone["reasons"][METEOR]["lead"] == {"value": None, **nothing, "p": 1, "rows": 0}


def test_the_joint_lead_of_one_seed_twice_is_the_lead_of_that_seed(worse, base, worse_file):
    file = joint_of("no_thinking", (worse, base), (worse, base))
    assert file["runs"] == {"0": ["base", "worse"], "1": ["base", "worse"]}
    single = worse_file["lines"]["no_thinking"]["test"]
    assert file["leads"] == {"no_thinking": {metric: single[metric]["lead"] for metric in HEADLINE}}
    new = single["new_items"]
    assert file["new_items"] == {"no_thinking": {metric: new[metric]["lead"] for metric in ("auc", "uauc")}}


def test_the_interval_of_a_joint_lead_is_of_the_seeds_mean_in_each_draw_of_users(worse, base):
    file = joint_of("no_thinking", (worse, base), (base, worse), (worse, base))
    lead = file["leads"]["no_thinking"]["uauc"]
    test = base.predictions[base.predictions["split"] == "test"]
    scores = {run.id: run.predictions.loc[test.index, "thinkrec"] for run in (base, worse)}
    drawn = bootstrap(test["user"], test["label"], scores, draws=DRAWS, seed=7)
    # One seed the other way round: two thirds of the difference less a third of it are left.
    value = (drawn["base"].value["uauc"] - drawn["worse"].value["uauc"]) / 3
    edges = interval((drawn["base"].draws["uauc"] - drawn["worse"].draws["uauc"]) / 3)
    del lead["p"]
    assert lead == pytest.approx({"value": value, **edges}, abs=1e-4)


def test_the_base_rows_joint_leads_are_over_online_baselines_that_every_seed_has(base):
    swapped = base.predictions.assign(mf=base.predictions["thinkrec"], thinkrec=base.predictions["mf"], newer=0.5)
    other = make_run("other", swapped, GOOD, *MODELS, "newer", seed=7, draws=2)
    for runs in ([(base, base), (other, other)], [(other, other), (base, base)]):
        leads = joint_of(BASE, *runs)["leads"]
        assert list(leads) == ["mf"]
        # In one seed ThinkRec leads by what it is behind in the other.
        assert leads["mf"]["auc"] == {"value": 0, "low": 0, "high": 0, "p": 1}
