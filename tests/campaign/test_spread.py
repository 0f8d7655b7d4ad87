"""What lines have over seeds, from hand-made row files."""

from __future__ import annotations

from typing import Any

import pytest

from thinkrec.campaign.spread import across


def file(experiment: str, **auc: float) -> dict[str, Any]:
    lines = {name: {"test": {"auc": {"value": value}, "possible_lift": value / 2}} for name, value in auc.items()}
    return {"experiment": experiment, "commit": f"of {experiment}", "lines": lines}


def seeds() -> dict[int, dict[str, Any]]:
    return {
        7: {
            "thinkrec": file("a7", thinkrec=0.70, mf=0.60, mf_static=0.5, best=0.9),
            "neither": file("b7", neither=0.7),
        },
        1: {"thinkrec": file("a1", thinkrec=0.72, mf=0.66, mf_static=0.5, best=0.9)},
        2: {"thinkrec": file("a2", thinkrec=0.74, mf=0.63, mf_static=0.5, best=0.9)},
    }


LEAD = {"auc": {"value": 0.09, "low": 0.08, "high": 0.1, "p": 0.01}}


def joint(*pairs: str) -> dict[str, Any]:
    runs = {str(seed): [run, run] for seed, run in zip((7, 1, 2), pairs, strict=False)}
    return {"thinkrec": {"row": "thinkrec", "runs": runs, "leads": {"mf": LEAD}}}


def test_mean_and_deviation_of_a_sample_are_those_worked_out_by_hand() -> None:
    found = across(seeds(), {})
    assert found["thinkrec"]["metrics"]["auc"] == pytest.approx({"mean": 0.72, "deviation": 0.02})
    assert found["thinkrec"]["metrics"]["possible_lift"] == pytest.approx({"mean": 0.36, "deviation": 0.01})
    assert found["thinkrec"]["seeds"] == [7, 1, 2]
    assert found["mf"]["commit"] == {7: "of a7", 1: "of a1", 2: "of a2"}


def test_lines_of_one_seed_static_ones_and_hindsight_have_none() -> None:
    assert set(across(seeds(), {})) == {"thinkrec", "mf"}


def test_a_metric_that_a_seed_lacks_is_left_out() -> None:
    made = seeds()
    made[2]["thinkrec"]["lines"]["thinkrec"]["test"]["auc"]["value"] = None
    assert set(across(made, {})["thinkrec"]["metrics"]) == {"possible_lift"}
    del made[1]["thinkrec"]["lines"]["mf"]["test"]["possible_lift"]
    assert set(across(made, {})["mf"]["metrics"]) == {"auc"}


def test_a_joint_lead_counts_only_if_it_is_of_the_runs_that_the_files_are_of() -> None:
    assert across(seeds(), joint("a7", "a1", "a2"))["mf"]["lead"] == LEAD
    for stale in (joint("a7", "a1"), joint("a7", "a1", "older")):
        assert across(seeds(), stale)["mf"]["lead"] == {}
