"""What lines have over seeds, from hand-made row files."""

import pytest

from thinkrec.campaign.spread import spread_over_seeds

SEEDS = (7, 1, 2)
LEAD = {"auc": {"value": 0.09, "low": 0.08, "high": 0.1, "p": 0.01}}


def file(experiment, **auc):
    lines = {name: {"test": {"auc": {"value": value}, "possible_lift": 0.5}} for name, value in auc.items()}
    return {"experiment": experiment, "commit": f"of {experiment}", "lines": lines}


def files(*auc_of_thinkrec):
    """Base rows of three seeds, and one ablation of the first."""
    by_seed = {
        seed: {"thinkrec": file(f"a{seed}", thinkrec=auc, mf=0.6, mf_static=0.5, best=0.9)}
        for seed, auc in zip(SEEDS, auc_of_thinkrec, strict=True)
    }
    by_seed[7]["neither"] = file("b7", neither=0.7)
    return by_seed


def joint(*runs):
    ids = {str(seed): [run, run] for seed, run in zip(SEEDS, runs, strict=False)}
    return {"thinkrec": {"row": "thinkrec", "runs": ids, "leads": {"mf": LEAD}}}


def test_mean_and_deviation_of_a_sample_are_those_worked_out_by_hand():
    spread = spread_over_seeds(files(0.70, 0.72, 0.74), {})
    assert spread["thinkrec"]["metrics"]["auc"] == pytest.approx({"mean": 0.72, "deviation": 0.02})
    assert spread["thinkrec"]["metrics"]["possible_lift"] == pytest.approx({"mean": 0.5, "deviation": 0})
    assert spread["mf"]["commit"] == {7: "of a7", 1: "of a1", 2: "of a2"}


def test_lines_of_one_seed_static_ones_and_hindsight_have_none():
    assert set(spread_over_seeds(files(0.7, 0.7, 0.7), {})) == {"thinkrec", "mf"}


def test_a_metric_that_a_seed_lacks_is_left_out():
    by_seed = files(0.7, 0.7, None)
    del by_seed[1]["thinkrec"]["lines"]["mf"]["test"]["possible_lift"]
    spread = spread_over_seeds(by_seed, {})
    assert [list(spread[line]["metrics"]) for line in ("thinkrec", "mf")] == [["possible_lift"], ["auc"]]


def test_new_items_have_their_own_spread_and_joint_leads():
    by_seed = files(0.7, 0.7, 0.7)
    for seed, auc in zip(SEEDS, (0.5, 0.52, 0.54), strict=True):
        by_seed[seed]["thinkrec"]["lines"]["mf"]["test"]["new_items"] = {"auc": {"value": auc}}
    file = joint("a7", "a1", "a2")["thinkrec"] | {"new_items": {"mf": LEAD}}
    spread = spread_over_seeds(by_seed, {"thinkrec": file})
    assert spread["mf"]["new_items"]["metrics"]["auc"] == pytest.approx({"mean": 0.52, "deviation": 0.02})
    assert spread["mf"]["new_items"]["lead"] == LEAD
    assert spread["thinkrec"]["new_items"] == {"metrics": {}, "lead": {}}  # its files are older


@pytest.mark.parametrize(
    ("runs", "lead"), [(("a7", "a1", "a2"), LEAD), (("a7", "a1"), {}), (("a7", "a1", "older"), {})]
)
def test_a_joint_lead_counts_only_if_it_is_of_the_runs_that_the_files_are_of(runs, lead):
    assert spread_over_seeds(files(0.7, 0.7, 0.7), joint(*runs))["mf"]["lead"] == lead
