"""A row's file: the figures of its run, and ThinkRec's lead over it on the same interactions and references."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from thinkrec import metrics
from thinkrec.campaign.collect import METEOR, joint_file, row_file
from thinkrec.campaign.experiments import Run
from thinkrec.campaign.rows import BASE, Row
from thinkrec.errors import UserError
from thinkrec.evaluation.intervals import HEADLINE, bootstrap, interval
from thinkrec.evaluation.reasons import meteor_exact_stem, score_reasons
from thinkrec.evaluation.tables import evaluate

MODELS = ["thinkrec", "mf", "thinkrec_static", "mf_static", "best"]
DRAWS = 400


def predictions(noise: float) -> pd.DataFrame:
    """600 rows of 40 users with known probabilities; `thinkrec` knows them up to `noise`."""
    rng = np.random.default_rng(3)
    rows = 600
    logit = 1.5 * rng.normal(size=rows)
    best = 1 / (1 + np.exp(-logit))
    return pd.DataFrame(
        {
            "row": 10 + np.arange(rows),
            "split": pd.Categorical(np.where(np.arange(rows) % 2, "test", "valid")),
            "user": rng.integers(0, 40, rows),
            "item": rng.integers(0, 30, rows),
            "label": (rng.random(rows) < best).astype(np.int8),
            "warm": rng.random(rows) < 0.7,
            "history": 5,
            "popularity": 5,
            "group": 0,
            "case": 0,
            "thinkrec": 1 / (1 + np.exp(-(logit + noise * rng.normal(size=rows)))),
            "mf": rng.random(rows),
            "thinkrec_static": 1 / (1 + np.exp(-(logit + 2 * rng.normal(size=rows)))),
            "mf_static": rng.random(rows),
            "best": best,
        }
    )


def reasons(texts: dict[int, str], teacher: dict[int, str]) -> pd.DataFrame:
    rows = sorted(texts)
    return pd.DataFrame(
        {
            "row": rows,
            "label": 1,
            "probability": 0.9,
            "reason": [texts[row] for row in rows],
            "teacher": [teacher.get(row, "") for row in rows],
        }
    )


def run(name: str, frame: pd.DataFrame, said: pd.DataFrame) -> Run:
    table = evaluate(frame, MODELS, seed=7, draws=DRAWS)
    metrics_file = {"reasons": score_reasons(said)}
    return Run(id=name, commit="abc1234", table=table, metrics=metrics_file, predictions=frame, reasons=said)


def row(name: str) -> Row:
    return Row(name=name, overrides={}, params={"seed": 7}, experiment=f"any-{name}")


TEACHER = {11: "yes it fits you well", 13: "no it is slow", 15: "yes the theme is revenge"}
GOOD = reasons({11: "yes it fits you well", 13: "no it is slow", 15: "yes it fits"}, TEACHER)
# Another run: its teacher said other things of row 11, and nothing of row 13.
BAD = reasons({11: "yes", 13: "no", 17: "yes"}, {11: "yes a witty one", 17: "yes it fits"})


@pytest.fixture(scope="module")
def base() -> Run:
    return run("base", predictions(0.3), GOOD)


@pytest.fixture(scope="module")
def worse() -> Run:
    return run("worse", predictions(3.0), BAD)


@pytest.fixture(scope="module")
def base_file(base: Run) -> dict[str, Any]:
    return row_file(row(BASE), base, base, draws=DRAWS)


@pytest.fixture(scope="module")
def worse_file(worse: Run, base: Run) -> dict[str, Any]:
    return row_file(row("no_thinking"), worse, base, draws=DRAWS)


def test_the_base_rows_file_has_a_line_per_model_of_the_run(base: Run, base_file: dict[str, Any]) -> None:
    assert list(base_file["lines"]) == MODELS
    test = base.predictions[base.predictions["split"] == "test"]
    for model in MODELS:
        entry = base_file["lines"][model]["test"]["auc"]
        assert entry["value"] == round(metrics.auc(test["label"], test[model]), 4)
        assert entry["low"] < entry["value"] < entry["high"]
        assert ("lead" in entry) == (model in ("mf", "mf_static"))  # neither itself nor the bound
    assert base_file["lines"]["mf"]["test"]["auc"]["lead"]["low"] > 0
    assert base_file["lines"]["best"]["test"]["possible_lift"] == 1
    assert base_file["counts"]["test"]["rows"] == 300


def test_a_static_line_is_compared_with_static_thinkrec(base: Run, base_file: dict[str, Any]) -> None:
    test = base.predictions[base.predictions["split"] == "test"]
    ours, theirs = (metrics.auc(test["label"], test[f"{model}_static"]) for model in ("thinkrec", "mf"))
    assert base_file["lines"]["mf_static"]["test"]["auc"]["lead"]["value"] == round(ours - theirs, 4)


def test_another_rows_file_has_one_line_of_its_name(worse: Run, base: Run, worse_file: dict[str, Any]) -> None:
    assert list(worse_file["lines"]) == ["no_thinking"]
    for split in ("valid", "test"):
        held = base.predictions["split"] == split
        label = base.predictions["label"][held]
        ours, theirs = (metrics.auc(label, made.predictions["thinkrec"][held]) for made in (base, worse))
        entry = worse_file["lines"]["no_thinking"][split]["auc"]
        assert entry["value"] == round(theirs, 4)
        assert entry["lead"]["value"] == round(ours - theirs, 4)
        assert 0 < entry["lead"]["low"] < entry["lead"]["value"] < entry["lead"]["high"]
        assert entry["lead"]["p"] == round(2 / (DRAWS + 1), 4)
    assert (worse_file["experiment"], worse_file["compared_with"]) == ("worse", "base")


def test_a_row_with_the_same_predictions_has_no_lead(base: Run) -> None:
    twin = Run(**{name: getattr(base, name) for name in base.__slots__} | {"id": "twin"})
    lead = row_file(row("no_experts"), twin, base, draws=DRAWS)["lines"]["no_experts"]["test"]["uauc"]["lead"]
    assert lead == {"value": 0, "low": 0, "high": 0, "p": 1}


def test_predictions_of_other_interactions_are_refused(base: Run, worse: Run) -> None:
    moved = worse.predictions.assign(row=worse.predictions["row"] + 1)
    other = run("other", moved, BAD)
    with pytest.raises(UserError, match="no_thinking: its predictions are of other interactions"):
        row_file(row("no_thinking"), other, base, draws=DRAWS)


def test_meteors_lead_is_over_common_rows_against_the_base_runs_references(worse_file: dict[str, Any]) -> None:
    entry = worse_file["lines"]["no_thinking"]["reasons"][METEOR]
    own = [meteor_exact_stem("yes", "yes a witty one"), meteor_exact_stem("yes", "yes it fits")]
    assert entry["value"] == round(float(np.mean(own)), 4)
    common = [
        meteor_exact_stem(TEACHER[11], TEACHER[11]) - meteor_exact_stem("yes", TEACHER[11]),
        meteor_exact_stem(TEACHER[13], TEACHER[13]) - meteor_exact_stem("no", TEACHER[13]),
    ]
    assert entry["lead"]["value"] == round(float(np.mean(common)), 4)
    assert entry["lead"]["rows"] == 2
    # One row per user: draws reach from the smaller difference to the larger.
    assert (entry["lead"]["low"], entry["lead"]["high"]) == (round(min(common), 4), round(max(common), 4))


def test_the_base_row_has_no_lead_over_itself(base_file: dict[str, Any]) -> None:
    entry = base_file["lines"][BASE]["reasons"][METEOR]
    assert entry["value"] > 0.5
    assert "lead" not in entry


def test_a_run_that_wrote_no_reasons_has_none(base: Run) -> None:
    silent = run("silent", base.predictions, reasons({}, {}))
    assert "reasons" not in row_file(row("no_thinking"), silent, base, draws=DRAWS)["lines"]["no_thinking"]


def test_reasons_without_references_have_no_meteor(base: Run) -> None:
    alone = run("alone", base.predictions, reasons({17: "yes", 19: "no"}, {}))
    entry = row_file(row("no_thinking"), alone, base, draws=DRAWS)["lines"]["no_thinking"]["reasons"]
    assert entry["rows"] == 2
    assert entry[METEOR] == {
        **{"value": None, "low": None, "high": None},
        "lead": {"value": None, "low": None, "high": None, "p": 1, "rows": 0},
    }


class TestJointLead:
    def test_of_one_and_the_same_seed_twice_it_is_the_lead_of_that_seed(
        self, worse: Run, base: Run, worse_file: dict[str, Any]
    ) -> None:
        file = joint_file("no_thinking", {7: (worse, base), 1: (worse, base)}, draws=DRAWS, seed=7)
        assert file["runs"] == {"7": ["base", "worse"], "1": ["base", "worse"]}
        single = worse_file["lines"]["no_thinking"]["test"]
        assert file["leads"] == {"no_thinking": {metric: single[metric]["lead"] for metric in HEADLINE}}

    def test_its_interval_is_of_the_seeds_mean_in_each_draw_of_users(self, worse: Run, base: Run) -> None:
        runs = {7: (worse, base), 1: (base, worse), 2: (worse, base)}
        lead = joint_file("no_thinking", runs, draws=DRAWS, seed=7)["leads"]["no_thinking"]["uauc"]
        test = base.predictions[base.predictions["split"] == "test"]
        scores = {run.id: run.predictions.loc[test.index, "thinkrec"] for run in (base, worse)}
        drawn = bootstrap(test["user"], test["label"], scores, draws=DRAWS, seed=7)
        difference = drawn["base"].draws["uauc"] - drawn["worse"].draws["uauc"]
        # One seed the other way round: two thirds of the difference less a third of it are left.
        assert (lead["low"], lead["high"]) == pytest.approx(interval(difference / 3), abs=1e-4)
        assert lead["value"] == pytest.approx(
            (drawn["base"].value["uauc"] - drawn["worse"].value["uauc"]) / 3, abs=1e-4
        )

    def test_the_base_rows_has_each_baseline_of_the_same_seed_and_no_static_line_nor_hindsight(self, base: Run) -> None:
        moved = base.predictions.assign(mf=base.predictions["thinkrec"], thinkrec=base.predictions["mf"])
        other = run("other", moved, GOOD)
        leads = joint_file(BASE, {7: (base, base), 1: (other, other)}, draws=DRAWS, seed=7)["leads"]
        assert list(leads) == ["mf"]
        # In one seed ThinkRec leads by what it is behind in the other.
        assert leads["mf"]["auc"] == {"value": 0, "low": 0, "high": 0, "p": 1}

    def test_a_baseline_that_the_run_of_one_seed_does_not_have_has_none(self, base: Run) -> None:
        more = base.predictions.assign(running_rates=base.predictions["mf"])
        newer = replace(
            base, id="newer", predictions=more, table=evaluate(more, [*MODELS, "running_rates"], seed=7, draws=9)
        )
        for runs in ({7: (base, base), 1: (newer, newer)}, {7: (newer, newer), 1: (base, base)}):
            assert list(joint_file(BASE, runs, draws=9, seed=7)["leads"]) == ["mf"]

    def test_predictions_of_other_interactions_are_refused(self, base: Run) -> None:
        moved = run("other", base.predictions.assign(row=base.predictions["row"] + 1), GOOD)
        with pytest.raises(UserError, match="no_thinking of seed 1: its predictions are of other interactions"):
            joint_file("no_thinking", {7: (base, base), 1: (moved, moved)}, draws=DRAWS, seed=7)
