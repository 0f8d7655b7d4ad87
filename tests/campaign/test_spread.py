"""What lines have over seeds, from hand-made row files."""

import pytest

from thinkrec.campaign.spread import spread_over_seeds

SEEDS = (7, 1, 2)
LEAD = {"auc": {"value": 0.09, "low": 0.08, "high": 0.1, "p": 0.01}}
JOINT = {"row": "thinkrec", "leads": {"mf": LEAD}, "new_items": {"mf": LEAD}}


def file(experiment, **auc):
    lines = {name: {"test": {"auc": {"value": value}, "possible_lift": 0.5}} for name, value in auc.items()}
    return {"experiment": experiment, "commit": f"of {experiment}", "lines": lines}


@pytest.fixture
def by_seed():
    """Base rows of three seeds, and one ablation of the first."""
    by_seed = {
        seed: {"thinkrec": file(f"a{seed}", thinkrec=auc, mf=0.6, mf_static=0.5, best=0.9)}
        for seed, auc in zip(SEEDS, (0.70, 0.72, 0.74), strict=True)
    }
    by_seed[7]["neither"] = file("b7", neither=0.7)
    return by_seed


def test_mean_and_deviation_of_a_sample_are_those_worked_out_by_hand_of_online_lines_with_several_seeds(by_seed):
    spread = spread_over_seeds(by_seed, {})
    assert set(spread) == {"thinkrec", "mf"}
    assert spread["thinkrec"]["metrics"]["auc"] == pytest.approx({"mean": 0.72, "std": 0.02})
    assert spread["thinkrec"]["metrics"]["possible_lift"] == pytest.approx({"mean": 0.5, "std": 0})
    assert spread["mf"]["commit"] == {7: "of a7", 1: "of a1", 2: "of a2"}


def test_a_metric_that_a_seed_lacks_is_left_out(by_seed):
    by_seed[2]["thinkrec"]["lines"]["thinkrec"]["test"]["auc"]["value"] = None
    del by_seed[1]["thinkrec"]["lines"]["mf"]["test"]["possible_lift"]
    spread = spread_over_seeds(by_seed, {})
    assert [list(spread[line]["metrics"]) for line in ("thinkrec", "mf")] == [["possible_lift"], ["auc"]]


def test_new_items_have_their_own_spread_and_joint_leads(by_seed):
    for seed, auc in zip(SEEDS, (0.5, 0.52, 0.54), strict=True):
        by_seed[seed]["thinkrec"]["lines"]["mf"]["test"]["new_items"] = {"auc": {"value": auc}}
    file = JOINT | {"runs": {str(seed): [f"a{seed}"] * 2 for seed in SEEDS}}
    spread = spread_over_seeds(by_seed, {"thinkrec": file})
    assert spread["mf"]["new_items"]["metrics"]["auc"] == pytest.approx({"mean": 0.52, "std": 0.02})
    assert spread["mf"]["new_items"]["lead"] == LEAD
    assert spread["thinkrec"]["new_items"] == {"metrics": {}, "lead": {}}  # its files are older


@pytest.mark.parametrize(
    ("runs", "lead"), [(("a7", "a1", "a2"), LEAD), (("a7", "a1"), {}), (("a7", "a1", "older"), {})]
)
def test_a_joint_lead_counts_only_if_it_is_of_the_runs_that_the_files_are_of(runs, lead, by_seed):
    ids = {str(seed): [run, run] for seed, run in zip(SEEDS, runs, strict=False)}
    assert spread_over_seeds(by_seed, {"thinkrec": JOINT | {"runs": ids}})["mf"]["lead"] == lead
