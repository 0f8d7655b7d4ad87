"""The tables filled by experiments that take no time."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.campaign.runs import make_reasons, make_run
from tests.predictions import make_predictions
from tests.project import ROOT, SMALL, set_params
from thinkrec.campaign import fill as filling
from thinkrec.campaign.experiments import Run
from thinkrec.campaign.fill import fill
from thinkrec.campaign.render import page_path, write_page
from thinkrec.campaign.rows import BASE, JOINT, read_rows, read_seeds, row_path
from thinkrec.campaign.spread import spread_over_seeds
from thinkrec.errors import UserError

DATASET = "synthetic-small"


class Experiments:
    """In the place of DVC: a ThinkRec that is worse with fewer experts, and that fails with four, or with seed 2."""

    def __init__(self):
        self.started: list[str] = []  # names of experiments, in the order in which they began
        self.finished: dict[str, Run] = {}  # by name, what they left
        self.code = 1.0  # how good ThinkRec is with the present code
        self.stops_after = 1000  # runs, after which an interruption comes

    def run_experiments(self, experiments, *, jobs):
        for name, overrides in experiments.items():
            if len(self.started) == self.stops_after:
                raise KeyboardInterrupt
            self.started.append(name)
            experts, seed = overrides.get("experts.n", 3), overrides.get("seed", 7)
            if experts == 4 or seed == 2:
                yield name, "Traceback\nAssertionError: an unlucky one"
                continue
            noise = 3 / (self.code * (experts + 1)) + 0.01 * seed
            predictions = make_predictions(400, users=40, thinkrec=noise, mf=None)
            reasons = make_reasons({11: "yes it fits"}, {11: "yes it fits"})
            run = make_run(f"run {len(self.started)}", predictions, reasons, "thinkrec", "mf", seed=seed, draws=50)
            self.finished[name] = run
            yield name, ""

    def fetch_run(self, name_or_id):
        by_id = {run.id: run for run in self.finished.values()}
        return self.finished.get(name_or_id) or by_id.get(name_or_id)

    def kinds(self):
        """Whether each experiment that began is of the row `no_experts`."""
        return ["-no_experts-" in name for name in self.started]


@pytest.fixture
def experiments(tmp_path, monkeypatch):
    """The working directory has params.yaml alone."""
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    set_params(tmp_path, SMALL | {"experts.n": 3})
    monkeypatch.chdir(tmp_path)
    fake = Experiments()
    for name in ("run_experiments", "fetch_run"):
        monkeypatch.setattr(filling, name, getattr(fake, name))
    monkeypatch.setattr(filling, "check_repository", lambda: None)
    for name in ("row_file", "joint_file"):
        monkeypatch.setattr(filling, name, partial(getattr(filling, name), draws=200))
    return fake


def run(*names, seeds=("7",), say=print, **options):
    """The summary of a call."""
    return fill(DATASET, names=names, seeds=seeds, say=say, **options)


def auc_of(name, files):
    return dict(files[name]["lines"][name]["test"]["auc"])


def test_what_fails_is_named_and_the_others_go_on(experiments):
    with pytest.raises(UserError, match="no such file; run its row first"):
        write_page(DATASET)
    lines = []
    with pytest.raises(UserError) as error:
        run("no_experts", "experts_4", seeds=("7", "1", "2"), say=lines.append)
    assert str(error.value) == (
        "3 rows not done: thinkrec of seed 2 (failed, see above); experts_4 (failed, see above); "
        "no_experts of seed 2 (needs thinkrec of seed 2)"
    )
    assert "experts_4: failed\nTraceback\nAssertionError: an unlucky one" in lines
    done = [BASE, "no_experts"]
    assert {seed: list(files) for seed, files in read_seeds(DATASET).items()} == {7: done, 1: done}


def test_what_is_not_done_runs_base_rows_first_and_its_files_and_page_are_written(experiments):
    assert run("no_experts", seeds=("7", "1")).startswith("4 rows added, 0 were done")
    assert experiments.kinds() == [False, False, True, True]
    assert run("no_experts", seeds=("7", "1")) == f"0 rows added, 4 were done; {page_path(DATASET)} written"
    assert len(experiments.started) == 4
    by_seed = read_seeds(DATASET)
    for seed, files in by_seed.items():
        file, ours, theirs = files["no_experts"], auc_of(BASE, files), auc_of("no_experts", files)
        assert (file["params"]["experts"]["n"], file["params"]["seed"]) == (0, seed)
        assert file["compared_with"] == files[BASE]["experiment"]
        assert theirs["lead"]["value"] == pytest.approx(ours["value"] - theirs["value"], abs=2e-4)
        assert theirs["lead"]["low"] > 0
    spread = spread_over_seeds(by_seed, read_rows(DATASET, JOINT))
    leads = [auc_of("no_experts", files)["lead"]["value"] for files in by_seed.values()]
    assert spread["no_experts"]["lead"]["auc"]["value"] == pytest.approx(sum(leads) / 2, abs=2e-4)
    assert set(spread) == {BASE, "no_experts", "mf"}
    page = page_path(DATASET).read_text(encoding="utf-8")
    assert "Not run yet: no_thinking" in page and "## Over seeds" in page


def test_interrupted_it_goes_on_with_what_is_not_finished(experiments):
    experiments.stops_after = 2
    with pytest.raises(UserError, match="interrupted; the same command goes on"):
        run("no_experts", "experts_1")
    row_path(DATASET, "no_experts").unlink(missing_ok=True)  # finished, and the interruption came before its file
    experiments.stops_after = 1000
    run("no_experts", "experts_1")
    assert list(read_rows(DATASET)) == [BASE, "no_experts", "experts_1"]
    assert len(experiments.started) == 3


def test_a_base_row_whose_predictions_are_gone_runs_again(experiments):
    run(BASE)
    experiments.finished.clear()
    run("no_experts")
    assert experiments.kinds() == [False, False, True]


def test_only_again_runs_a_row_that_is_done_with_the_present_code(experiments):
    run("no_experts")
    before = read_rows(DATASET)
    experiments.code = 0.5
    run("no_experts")
    assert read_rows(DATASET) == before
    run("no_experts", again=True)
    after = read_rows(DATASET)
    assert after[BASE] == before[BASE]
    assert auc_of("no_experts", after)["value"] < auc_of("no_experts", before)["value"]


def test_joint_leads_are_of_the_runs_that_the_files_name_though_parameters_are_new(experiments):
    run("no_experts", seeds=("7", "1"))
    before = read_rows(DATASET, JOINT)["no_experts"]
    set_params(Path(), {"evaluate.candidates": 9})
    lines = []
    run("no_experts", seeds=("7", "1"), say=lines.append)  # to seed 1, which writes no reasons, they are nothing
    assert [line for line in lines if ": to run" in line] == [
        f"{name}: to run, as parameters changed: evaluate.candidates 3 -> 9" for name in (BASE, "no_experts")
    ]
    after = read_rows(DATASET, JOINT)["no_experts"]
    assert after["runs"]["1"] == before["runs"]["1"] and after["runs"]["7"] != before["runs"]["7"]
