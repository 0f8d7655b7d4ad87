"""The tables filled by experiments that take no time; and the committed pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.project import ROOT, SMALL, set_params
from thinkrec.campaign import fill as filling
from thinkrec.campaign.experiments import Run
from thinkrec.campaign.fill import fill, page_path, write_page
from thinkrec.campaign.render import render
from thinkrec.campaign.rows import BASE, Overrides, read_joint, read_rows, read_seeds, row_path
from thinkrec.campaign.spread import across
from thinkrec.errors import UserError
from thinkrec.evaluation.reasons import score_reasons
from thinkrec.evaluation.tables import evaluate

DATASET = "synthetic-small"


class Experiments:
    """In the place of DVC: a ThinkRec that is worse with fewer experts, and that fails with four, or with seed 2.

    Attributes:
        started: names of experiments, in the order in which they began.
        finished: by name, what they left.
        code: how good ThinkRec is with the present code.
        stops_after: an interruption comes after so many runs.
    """

    def __init__(self) -> None:
        self.started: list[str] = []
        self.finished: dict[str, Run] = {}
        self.code = 1.0
        self.stops_after = 1000

    def run_experiments(self, experiments: Mapping[str, Overrides], *, jobs: int) -> Iterator[tuple[str, str]]:
        for name, overrides in experiments.items():
            if len(self.started) == self.stops_after:
                raise KeyboardInterrupt
            self.started.append(name)
            experts, seed = overrides.get("experts.n", 3), overrides.get("seed", 7)
            if experts == 4 or seed == 2:
                yield name, "Traceback\nAssertionError: an unlucky one"
            else:
                self.finished[name] = make_run(f"run {len(self.started)}", self.code * (experts + 1), seed)
                yield name, ""

    def fetch_run(self, name_or_id: str) -> Run | None:
        by_id = {run.id: run for run in self.finished.values()}
        return self.finished.get(name_or_id) or by_id.get(name_or_id)


def make_run(name: str, skill: float, seed: int) -> Run:
    rng = np.random.default_rng(0)
    row = np.arange(400)
    label = rng.integers(0, 2, 400)
    noise = np.random.default_rng(seed).normal(size=400)
    predictions = pd.DataFrame(
        {
            "row": row,
            "split": pd.Categorical(np.where(row % 2, "test", "valid")),
            **{"user": row % 20, "item": 0, "label": label, "warm": True},
            **{"history": 0, "popularity": 0, "group": 0, "case": 0},
            "thinkrec": 1 / (1 + np.exp(-(skill * (label - 0.5) + noise))),
            "mf": rng.random(400),
        }
    )
    text = "yes it fits"
    reasons = pd.DataFrame({"row": [1, 3], "label": 1, "probability": 0.9, "reason": text, "teacher": text})
    table = evaluate(predictions, ["thinkrec", "mf"], seed=seed, draws=50)
    metrics = {"reasons": score_reasons(reasons)}
    return Run(id=name, commit="abc1234", table=table, metrics=metrics, predictions=predictions, reasons=reasons)


@pytest.fixture
def experiments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Experiments:
    """The working directory has params.yaml alone."""
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    set_params(tmp_path, SMALL | {"experts.n": 3})
    monkeypatch.chdir(tmp_path)
    fake = Experiments()
    for name in ("run_experiments", "fetch_run"):
        monkeypatch.setattr(filling, name, getattr(fake, name))
    monkeypatch.setattr(filling, "check_repository", lambda: None)
    return fake


def run(*names: str, seeds: tuple[str, ...] = ("7",), **options: Any) -> tuple[str, list[str]]:
    """The summary of a call, and what was said meanwhile."""
    lines: list[str] = []
    summary = fill(DATASET, names=names, seeds=seeds, say=lines.append, **options)
    return summary, lines


def test_what_fails_is_named_and_the_others_go_on(experiments: Experiments) -> None:
    with pytest.raises(UserError, match="no such file; run its row first"):
        write_page(DATASET)
    lines: list[str] = []
    with pytest.raises(UserError) as error:
        fill(DATASET, names=["no_experts", "experts_4"], seeds=("7", "1", "2"), say=lines.append)
    assert str(error.value) == (
        "3 rows not done: thinkrec of seed 2 (failed, see above); experts_4 (failed, see above); "
        "no_experts of seed 2 (needs thinkrec of seed 2)"
    )
    assert "experts_4: failed\nTraceback\nAssertionError: an unlucky one" in lines
    done = [BASE, "no_experts"]
    assert {seed: list(files) for seed, files in read_seeds(DATASET).items()} == {7: done, 1: done}


def test_base_rows_run_first_and_what_is_done_is_not_run_again(experiments: Experiments) -> None:
    assert run("no_experts", seeds=("7", "1"))[0].startswith("4 rows added, 0 were done")
    assert ["-no_experts-" in name for name in experiments.started] == [False, False, True, True]
    assert run("no_experts", seeds=("7", "1")) == (f"0 rows added, 4 were done; {page_path(DATASET)} written", [])
    assert len(experiments.started) == 4


def test_files_hold_the_run_and_the_lead_over_it(experiments: Experiments) -> None:
    run("no_experts", seeds=("7", "1"))
    for seed, files in read_seeds(DATASET).items():
        file = files["no_experts"]
        assert (file["params"]["experts"]["n"], file["params"]["seed"]) == (0, seed)
        assert file["compared_with"] == files[BASE]["experiment"]
        ours, theirs = (files[name]["lines"][name]["test"]["auc"] for name in (BASE, "no_experts"))
        assert theirs["lead"]["value"] == pytest.approx(ours["value"] - theirs["value"], abs=2e-4)
        assert theirs["lead"]["low"] > 0


def test_the_page_shows_them_with_the_joint_lead_over_seeds(experiments: Experiments) -> None:
    run("no_experts", seeds=("7", "1"))
    files = read_seeds(DATASET)
    spread = across(files, read_joint(DATASET))
    leads = [rows["no_experts"]["lines"]["no_experts"]["test"]["auc"]["lead"]["value"] for rows in files.values()]
    assert spread["no_experts"]["lead"]["auc"]["value"] == pytest.approx(sum(leads) / 2, abs=2e-4)
    assert set(spread) == {BASE, "no_experts", "mf"}
    page = page_path(DATASET).read_text(encoding="utf-8")
    assert page == render(DATASET, read_rows(DATASET), spread)
    assert "Not run yet: no_thinking" in page and "## Over seeds" in page


def test_interrupted_it_goes_on_with_what_is_not_finished(experiments: Experiments) -> None:
    experiments.stops_after = 2
    with pytest.raises(UserError, match="interrupted; the same command goes on"):
        run("no_experts", "experts_1")
    row_path(DATASET, "no_experts").unlink(missing_ok=True)  # finished, and the interruption came before its file
    experiments.stops_after = 1000
    run("no_experts", "experts_1")
    assert list(read_rows(DATASET)) == [BASE, "no_experts", "experts_1"]
    assert len(experiments.started) == 3


def test_a_base_row_whose_predictions_are_gone_runs_again(experiments: Experiments) -> None:
    run(BASE)
    experiments.finished.clear()
    run("no_experts")
    assert ["-no_experts-" in name for name in experiments.started] == [False, False, True]


def test_only_again_runs_a_row_that_is_done_with_the_present_code(experiments: Experiments) -> None:
    run("no_experts")
    before = read_rows(DATASET)
    experiments.code = 0.5
    run("no_experts")
    assert read_rows(DATASET) == before
    run("no_experts", again=True)
    after = read_rows(DATASET)
    assert after[BASE] == before[BASE]
    auc = [files["no_experts"]["lines"]["no_experts"]["test"]["auc"]["value"] for files in (before, after)]
    assert auc[1] < auc[0]


def test_joint_leads_are_of_the_runs_that_the_files_name_though_parameters_are_new(experiments: Experiments) -> None:
    run("no_experts", seeds=("7", "1"))
    before = read_joint(DATASET)["no_experts"]
    set_params(Path(), {"evaluate.candidates": 9})
    _, lines = run("no_experts", seeds=("7", "1"))  # to seed 1, which writes no reasons, they are nothing
    assert [line for line in lines if ": to run" in line] == [
        f"{name}: to run, as parameters changed: evaluate.candidates 3 -> 9" for name in (BASE, "no_experts")
    ]
    after = read_joint(DATASET)["no_experts"]
    assert after["runs"]["1"] == before["runs"]["1"] and after["runs"]["7"] != before["runs"]["7"]


def test_committed_pages_are_what_the_committed_files_render() -> None:
    datasets = {folder.name for folder in (ROOT / "tables").iterdir()}
    assert {"synthetic", "ml-1m"} <= datasets
    for dataset in datasets:
        spread = across(read_seeds(dataset, root=ROOT), read_joint(dataset, root=ROOT))
        page = (ROOT / page_path(dataset)).read_text(encoding="utf-8")
        assert page == render(dataset, read_rows(dataset, root=ROOT), spread)
