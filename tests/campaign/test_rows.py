"""Rows: each is a valid change of params.yaml, queued as written, and done only with the parameters of now."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.hydra import apply_overrides

from tests.project import ROOT, SMALL, set_params
from thinkrec.artifacts import write_json
from thinkrec.campaign.experiments import literal
from thinkrec.campaign.rows import (
    BASE,
    FURTHER_SEEDS,
    NO_REASONS,
    ROWS,
    SEEDED,
    Row,
    campaign,
    changed_params,
    plan,
    read_seeds,
    result_params,
    row_path,
    seeds_called,
)
from thinkrec.errors import UserError
from thinkrec.params import load

HARD = "/tmp/a folder, it's = [b]: c\\d/ml-1m.zip"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with nothing but params.yaml."""
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("row", ROWS)
def test_a_row_changes_what_it_says_and_nothing_else(row: str, project: Path) -> None:
    dataset = load().dataset.name
    base, changed = (plan(dataset, raw=None, names=[name])[name] for name in (BASE, row))
    assert {change.split()[0] for change in changed_params(changed, {"params": base.params})} == set(ROWS[row])


@pytest.mark.parametrize("row", ROWS)
def test_dvc_writes_the_parameters_that_the_row_is_result_params(row: str, project: Path) -> None:
    planned = plan("synthetic", raw=None, names=[row])[row]
    apply_overrides(str(project / "params.yaml"), [f"{k}={literal(v)}" for k, v in planned.overrides.items()])
    assert result_params(load(project / "params.yaml")) == planned.params


@pytest.mark.parametrize(
    "value", [None, True, 0, 3, 0.25, "synthetic-small", HARD, "\\'", "\\", "null", "3", [], ["user", "item"]]
)
def test_a_value_survives_dvcs_command_line(value: Any, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("a: {b: 1}\n")
    apply_overrides(str(tmp_path / "params.yaml"), [f"a.b={literal(value)}"])
    assert yaml.safe_load((tmp_path / "params.yaml").read_text()) == {"a": {"b": value}}


class TestDone:
    def test_with_the_same_parameters(self, project: Path) -> None:
        row = plan("synthetic-small", raw=None, names=["no_experts"])["no_experts"]
        assert changed_params(row, {"params": row.params}) == []

    def test_not_after_a_change_and_it_says_which(self, project: Path) -> None:
        before = plan("synthetic-small", raw=None, names=[BASE])[BASE]
        set_params(project, {"sft.epochs": 9})
        after = plan("synthetic-small", raw=None, names=[BASE])[BASE]
        assert changed_params(after, {"params": before.params}) == [f"sft.epochs {before.params['sft']['epochs']} -> 9"]
        assert after.experiment != before.experiment

    def test_not_when_a_parameter_is_new(self, project: Path) -> None:
        row = plan("synthetic-small", raw=None, names=[BASE])[BASE]
        older = {**row.params, "sft": {key: value for key, value in row.params["sft"].items() if key != "pairwise"}}
        assert changed_params(row, {"params": older}) == [f"sft.pairwise (none) -> {row.params['sft']['pairwise']}"]

    def test_wherever_the_raw_files_lie(self, project: Path) -> None:
        for name in ("here", "there"):
            (project / name).mkdir()
        here, there = (plan("ml-1m", raw=Path(name), names=[BASE])[BASE] for name in ("here", "there"))
        assert here.params == there.params
        assert here.experiment == there.experiment
        assert here.overrides["dataset.raw"] == str(project / "here")  # absolute: a queued run has its own folder


class TestPlan:
    def test_all_rows_unless_some_are_named_always_in_order(self, project: Path) -> None:
        assert list(plan("synthetic", raw=None)) == list(ROWS)
        assert list(plan("synthetic", raw=None, names=["experts_1", "no_thinking"])) == ["no_thinking", "experts_1"]

    def test_the_names_of_experiments_differ(self, project: Path) -> None:
        rows = [row for dataset in ("synthetic", "synthetic-small") for row in plan(dataset, raw=None).values()]
        assert len({row.experiment for row in rows}) == 2 * len(ROWS)

    def test_git_takes_the_names_of_experiments(self, project: Path) -> None:
        (row,) = plan("amazon-2018:Gift_Cards", raw=project, names=[BASE]).values()
        subprocess.run(["git", "check-ref-format", f"refs/exps/{row.experiment}"], check=True)

    @pytest.mark.parametrize(
        ("dataset", "raw", "names", "said"),
        [
            ("ml-1m", None, [], "--raw: ml-1m needs its raw files; download https://.*ml-1m.zip"),
            ("own", None, [], "--raw: own needs its raw files; give their path"),
            ("ml-1m", Path("nowhere.zip"), [], "--raw: no such file or folder: nowhere.zip"),
            ("synthetic", Path("nowhere.zip"), [], "--raw: synthetic is generated .* leave --raw out"),
            ("ml-1n", None, [], "no dataset 'ml-1n'; did you mean ml-1m"),
            ("synthetic", None, ["no_expert"], "--rows: no row 'no_expert'; did you mean no_experts"),
        ],
    )
    def test_what_cannot_be_is_refused_in_a_line(
        self, dataset: str, raw: Path | None, names: list[str], said: str, project: Path
    ) -> None:
        with pytest.raises(UserError, match=said):
            plan(dataset, raw=raw, names=names)

    def test_further_seeds_run_thinkrec_and_its_ablations_without_reasons(self, project: Path) -> None:
        first, further = plan("synthetic", raw=None), plan("synthetic", raw=None, seed=3)
        assert set(further) == set(SEEDED)
        for name, row in further.items():
            changed = {change.split()[0] for change in changed_params(row, {"params": first[name].params})}
            assert changed == {"seed"}
            assert set(row.overrides) - set(first[name].overrides) == {"seed", *NO_REASONS}
            assert (row.params["seed"], row.params["evaluate"]["reasons"]) == (3, 0)
            assert row.experiment != first[name].experiment
            assert row_path("synthetic", name, row.seed) == Path(f"tables/synthetic/seeds/3/{name}.json")

    def test_how_reasons_are_written_is_nothing_to_a_seed_that_writes_none(self, project: Path) -> None:
        def planned(seed: int | None) -> Row:
            return plan("synthetic", raw=None, names=[BASE], seed=seed)[BASE]

        before = {seed: planned(seed) for seed in (None, 3)}
        for seed, row in before.items():
            write_json(project / row_path("synthetic", BASE, seed), {"params": row.params})
        set_params(project, {"evaluate.candidates": 2})
        assert changed_params(planned(None), {"params": before[None].params})
        assert planned(None).experiment != before[None].experiment
        assert not changed_params(planned(3), {"params": before[3].params})
        assert planned(3).experiment == before[3].experiment
        write_json(project / row_path("synthetic", BASE), {"params": planned(None).params})
        assert set(read_seeds("synthetic")) == {7, 3}

    def test_small_parameters_make_rows_too(self, project: Path) -> None:
        set_params(project, SMALL)
        assert plan("synthetic-small", raw=None)["experts_4"].params["experts"]["n"] == 4


class TestSeeds:
    def test_all_five_unless_some_are_named_the_default_first(self, project: Path) -> None:
        assert seeds_called() == [None, *FURTHER_SEEDS]
        assert seeds_called(["2", "7"]) == [None, 2]
        set_params(project, {"seed": 2})
        assert seeds_called() == [None, 1, 3, 4]

    @pytest.mark.parametrize("said", ["9", "1 ", "one", ""])
    def test_others_are_refused(self, said: str, project: Path) -> None:
        with pytest.raises(UserError, match=f"--seeds: no seed '{said}'; known: 7, 1, 2, 3, 4"):
            seeds_called([said])

    def test_files_of_a_seed_that_ran_otherwise_are_not_read_together_with_the_defaults(self, project: Path) -> None:
        for seed in (None, 1, 3):
            for name, row in plan("synthetic", raw=None, names=SEEDED, seed=seed).items():
                write_json(project / row_path("synthetic", name, seed), {"params": row.params})
        set_params(project, {"gate.epochs": 9})
        row = plan("synthetic", raw=None, names=["neither"], seed=3)["neither"]
        write_json(project / row_path("synthetic", "neither", 3), {"params": row.params})
        (project / row_path("synthetic", BASE, 1)).unlink()  # without it, the others of that seed have no lead
        found = read_seeds("synthetic")
        assert {seed: set(files) for seed, files in found.items()} == {7: set(SEEDED), 3: set(SEEDED) - {"neither"}}


class TestCampaign:
    def test_further_seeds_stand_beside_the_same_row_of_the_default(self, project: Path) -> None:
        rows = campaign("synthetic", raw=None, names=["no_experts", "collm"], seeds=[None, 1])
        assert list(rows) == [BASE, f"{BASE} of seed 1", "collm", "no_experts", "no_experts of seed 1"]
        assert len(campaign("synthetic", raw=None, seeds=seeds_called())) == len(ROWS) + len(SEEDED) * len(
            FURTHER_SEEDS
        )

    def test_the_defaults_base_row_is_always_there_and_a_seeds_only_if_a_row_needs_it(self, project: Path) -> None:
        assert list(campaign("synthetic", raw=None, names=["neither"], seeds=[2])) == [
            *(BASE, f"{BASE} of seed 2", "neither of seed 2")
        ]
        assert list(campaign("synthetic", raw=None, names=["collm"], seeds=[None])) == [BASE, "collm"]

    def test_a_row_that_runs_with_one_seed_alone_is_refused_with_others(self, project: Path) -> None:
        with pytest.raises(UserError, match="--rows: collm, experts_2 runs with seed 7 alone; with --seeds: thinkrec"):
            campaign("synthetic", raw=None, names=["collm", "neither", "experts_2"], seeds=[2])

    def test_neighbours_in_the_queue_train_nothing_twice(self, project: Path) -> None:
        """Of what the base row does not leave in the cache: a backbone without keywords, a model without traces."""
        rows = [row for row in campaign("synthetic", raw=None, seeds=seeds_called()).values() if row.name != BASE]

        def made(row: Row) -> tuple[int, str] | None:
            if "prompt.keywords" in row.overrides:
                return row.params["seed"], "a backbone"
            return (row.params["seed"], "a global model") if "sft.think_share" in row.overrides else None

        assert not [(a.title, b.title) for a, b in itertools.pairwise(rows) if made(a) and made(a) == made(b)]
