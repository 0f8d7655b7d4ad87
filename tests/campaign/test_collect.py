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


def run_of(name, predictions, reasons, *more):
    return make_run(name, predictions, reasons, *MODELS, *more, seed=7, draws=DRAWS)


def predictions(noise):
    """`thinkrec` knows the true probabilities up to `noise`; the items of half of the rows are new."""
    frame = make_predictions(600, users=40, seed=3, thinkrec=noise, mf=None, thinkrec_static=2.0, mf_static=None)
    return frame.assign(popularity=frame["row"] % 4 // 2)


def file_of(name, run, base):
    row = Row(name=name, overrides={}, params={"seed": 7}, experiment=f"any-{name}")
    return row_file(row, run, base, draws=DRAWS)


@pytest.fixture(scope="module")
def base():
    return run_of("base", predictions(0.3), GOOD)


@pytest.fixture(scope="module")
def worse():
    return run_of("worse", predictions(3.0), BAD)


@pytest.fixture(scope="module")
def moved(worse):
    """A run whose predictions are of other interactions."""
    return replace(worse, id="moved", predictions=worse.predictions.assign(row=worse.predictions["row"] + 1))


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
    for model in MODELS:
        entry = base_file["lines"][model]["test"]["auc"]
        assert entry["value"] == round(auc[model], 4)
        assert entry["low"] < entry["value"] < entry["high"]
    leads = {model: line["test"]["auc"].get("lead", {}).get("value") for model, line in base_file["lines"].items()}
    assert leads == {
        **dict.fromkeys(["thinkrec", "thinkrec_static", "best"]),
        "mf": round(auc["thinkrec"] - auc["mf"], 4),
        "mf_static": round(auc["thinkrec_static"] - auc["mf_static"], 4),  # like with like
    }
    assert base_file["lines"]["best"]["test"]["possible_lift"] == 1
    assert base_file["counts"]["test"]["rows"] == 300


def test_another_rows_file_has_one_line_of_its_name(worse, base, worse_file):
    assert list(worse_file["lines"]) == ["no_thinking"]
    for split in ("valid", "test"):
        held = base.predictions["split"] == split
        label = base.predictions["label"][held]
        ours, theirs = (metrics.auc(label, run.predictions["thinkrec"][held]) for run in (base, worse))
        entry = worse_file["lines"]["no_thinking"][split]["auc"]
        assert entry["value"] == round(theirs, 4)
        assert entry["lead"]["value"] == round(ours - theirs, 4)
        assert 0 < entry["lead"]["low"] < entry["lead"]["value"] < entry["lead"]["high"]
        assert entry["lead"]["p"] == round(2 / (DRAWS + 1), 4)
    assert (worse_file["experiment"], worse_file["compared_with"]) == ("worse", "base")


def test_lines_have_figures_and_leads_on_new_items_and_files_count_their_rows(worse, base, worse_file, base_file):
    new = base.predictions[(base.predictions["split"] == "test") & (base.predictions["popularity"] == 0)]
    counts = {"rows": len(new), "users": new["user"].nunique()}
    ours, theirs = (metrics.auc(new["label"], run.predictions.loc[new.index, "thinkrec"]) for run in (base, worse))
    for file, name, auc in (
        (worse_file, "no_thinking", theirs),
        (base_file, "mf", metrics.auc(new["label"], new["mf"])),
    ):
        assert file["counts"]["test"]["new_items"] == counts
        line = file["lines"][name]["test"]["new_items"]
        assert set(line) == {"auc", "uauc", "possible_lift"}
        assert line["auc"]["value"] == round(auc, 4)
        assert line["auc"]["lead"]["value"] == round(ours - auc, 4)
        assert 0 < line["auc"]["lead"]["low"] < line["auc"]["lead"]["value"] < line["auc"]["lead"]["high"]
    joint = joint_file("no_thinking", {7: (worse, base), 1: (worse, base)}, draws=DRAWS, seed=7)["new_items"]
    line = worse_file["lines"]["no_thinking"]["test"]["new_items"]
    assert joint == {"no_thinking": {metric: line[metric]["lead"] for metric in ("auc", "uauc")}}


def test_a_row_with_the_same_predictions_has_no_lead(base):
    lead = file_of("no_experts", replace(base, id="twin"), base)["lines"]["no_experts"]["test"]["uauc"]["lead"]
    assert lead == {"value": 0, "low": 0, "high": 0, "p": 1}


def test_predictions_of_other_interactions_are_refused(base, moved):
    with pytest.raises(UserError, match="no_thinking: its predictions are of other interactions"):
        file_of("no_thinking", moved, base)
    with pytest.raises(UserError, match="no_thinking of seed 1: its predictions are of other interactions"):
        joint_file("no_thinking", {7: (base, base), 1: (moved, moved)}, draws=DRAWS, seed=7)


def test_meteors_lead_is_over_common_rows_against_the_base_runs_references(worse_file):
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


def test_the_base_row_has_no_lead_over_its_own_reasons(base_file):
    entry = base_file["lines"][BASE]["reasons"][METEOR]
    assert entry["value"] > 0.5 and "lead" not in entry


def test_without_reasons_or_references_there_is_nothing_to_compare(base):
    silent = run_of("silent", base.predictions, make_reasons({}, {}))
    assert "reasons" not in file_of("no_thinking", silent, base)["lines"]["no_thinking"]
    alone = run_of("alone", base.predictions, make_reasons({17: "yes", 19: "no"}, {}))
    entry = file_of("no_thinking", alone, base)["lines"]["no_thinking"]["reasons"]
    nothing = {"value": None, "low": None, "high": None}
    assert entry["rows"] == 2 and entry[METEOR] == {**nothing, "lead": {**nothing, "p": 1, "rows": 0}}


def test_the_joint_lead_of_one_seed_twice_is_the_lead_of_that_seed(worse, base, worse_file):
    file = joint_file("no_thinking", {7: (worse, base), 1: (worse, base)}, draws=DRAWS, seed=7)
    assert file["runs"] == {"7": ["base", "worse"], "1": ["base", "worse"]}
    single = worse_file["lines"]["no_thinking"]["test"]
    assert file["leads"] == {"no_thinking": {metric: single[metric]["lead"] for metric in HEADLINE}}


def test_the_interval_of_a_joint_lead_is_of_the_seeds_mean_in_each_draw_of_users(worse, base):
    runs = {7: (worse, base), 1: (base, worse), 2: (worse, base)}
    lead = joint_file("no_thinking", runs, draws=DRAWS, seed=7)["leads"]["no_thinking"]["uauc"]
    test = base.predictions[base.predictions["split"] == "test"]
    scores = {run.id: run.predictions.loc[test.index, "thinkrec"] for run in (base, worse)}
    drawn = bootstrap(test["user"], test["label"], scores, draws=DRAWS, seed=7)
    # One seed the other way round: two thirds of the difference less a third of it are left.
    value = (drawn["base"].value["uauc"] - drawn["worse"].value["uauc"]) / 3
    edges = interval((drawn["base"].draws["uauc"] - drawn["worse"].draws["uauc"]) / 3)
    del lead["p"]
    assert lead == pytest.approx({"value": value, **edges}, abs=1e-4)


def test_the_base_rows_joint_leads_are_over_online_baselines_that_every_seed_has(base):
    swapped = base.predictions.assign(mf=base.predictions["thinkrec"], thinkrec=base.predictions["mf"])
    more = swapped.assign(running_rates=0.5)
    other, newer = run_of("other", swapped, GOOD), run_of("newer", more, GOOD, "running_rates")
    leads = joint_file(BASE, {7: (base, base), 1: (other, other)}, draws=DRAWS, seed=7)["leads"]
    assert list(leads) == ["mf"]
    # In one seed ThinkRec leads by what it is behind in the other.
    assert leads["mf"]["auc"] == {"value": 0, "low": 0, "high": 0, "p": 1}
    for runs in ({7: (base, base), 1: (newer, newer)}, {7: (newer, newer), 1: (base, base)}):
        assert joint_file(BASE, runs, draws=DRAWS, seed=7)["leads"] == leads
