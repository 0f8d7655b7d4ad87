"""Rows: each is a valid change of params.yaml, and done only with the parameters of now."""

import itertools
import subprocess
from pathlib import Path

import pytest

from tests.project import ROOT, set_params
from thinkrec.artifacts import write_json
from thinkrec.campaign.experiments import change_params
from thinkrec.campaign.rows import (
    BASE,
    FURTHER_SEEDS,
    NO_REASONS,
    ROWS,
    SEEDED,
    changed_params,
    plan,
    read_seeds,
    row_path,
)
from thinkrec.campaign.words import ROW_NAMES
from thinkrec.errors import UserError
from thinkrec.params import load


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """The working directory, with nothing but params.yaml."""
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def changed(row, before):
    """The parameters in which two rows differ."""
    return {change.split()[0] for change in changed_params(row, {"params": before.params})}


def write_files(rows):
    """Files that say that the rows are done."""
    for row in rows:
        write_json(row.path, {"params": row.params})


def test_a_row_changes_what_it_says_and_nothing_else_and_has_a_name_for_people():
    rows = plan("synthetic", seeds=["7"])
    assert {BASE, *ROW_NAMES} == set(rows) == set(ROWS)
    assert {name: changed(row, rows[BASE]) for name, row in rows.items()} == {name: set(ROWS[name]) for name in ROWS}


def test_params_yaml_changed_for_a_run_says_what_the_row_does(project):
    raw = project / "it's = [b]: c\\d, {e}"
    raw.mkdir()
    before = (project / "params.yaml").read_bytes()
    for row in plan("ml-1m", raw=raw).values():
        (project / "params.yaml").write_bytes(before)
        change_params(project / "params.yaml", row.overrides)
        params = load()
        assert (
            changed_params(row, {"params": params.model_dump(mode="json", exclude={"run": True, "dataset": {"raw"}})})
            == []
        )
        assert params.dataset.raw == raw


def test_a_row_is_done_with_the_same_parameters_wherever_the_raw_files_lie(project):
    for name in ("here", "there"):
        (project / name).mkdir()
    here, there = (plan("ml-1m", raw=Path(name))["no_experts"] for name in ("here", "there"))
    assert changed_params(here, {"params": there.params}) == []
    assert here.experiment == there.experiment
    assert here.overrides["dataset.raw"] == str(project / "here")  # absolute: a run has its own folder


def test_a_row_is_not_done_after_a_change_and_says_which(project):
    before = plan("synthetic")[BASE]
    sft = before.params["sft"]
    older = {**before.params, "sft": {key: value for key, value in sft.items() if key != "pairwise"}}
    assert changed_params(before, {"params": older}) == [f"sft.pairwise (none) -> {sft['pairwise']}"]
    set_params(project, {"sft.epochs": 9})
    after = plan("synthetic")[BASE]
    assert changed_params(after, {"params": before.params}) == [f"sft.epochs {sft['epochs']} -> 9"]
    assert after.experiment != before.experiment


def test_experiments_have_names_of_their_own_that_git_takes(project):
    rows = [row for dataset in ("synthetic", "synthetic-new", "synthetic-small") for row in plan(dataset).values()]
    assert len({row.experiment for row in rows}) == len(rows) == 3 * (len(ROWS) + len(SEEDED) * len(FURTHER_SEEDS))
    row = plan("amazon-2018:Gift_Cards", raw=project)[BASE]
    subprocess.run(["git", "check-ref-format", f"refs/exps/{row.experiment}"], check=True)


@pytest.mark.parametrize(
    ("dataset", "options", "line"),
    [
        ("ml-1m", {}, "--raw: ml-1m needs its raw files; download https://.*ml-1m.zip"),
        ("own", {}, "--raw: own needs its raw files; give their path"),
        ("ml-1m", {"raw": Path("nowhere.zip")}, "--raw: no such file or folder: nowhere.zip"),
        ("synthetic", {"raw": Path("nowhere.zip")}, "--raw: synthetic is generated .* leave --raw out"),
        ("ml-1n", {}, "no dataset 'ml-1n'; did you mean ml-1m"),
        ("synthetic", {"names": ["no_expert"]}, "--rows: no row 'no_expert'; known: thinkrec, no_thinking, "),
        ("synthetic", {"seeds": ["1 "]}, "--seeds: no seed '1 '; known: 7, 1, 2, 3, 4"),
        (
            "synthetic",
            {"names": ["collm", "neither", "experts_2"], "seeds": ["2"]},
            "--rows: collm, experts_2 runs with seed 7 alone; with --seeds: thinkrec",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(dataset, options, line):
    with pytest.raises(UserError, match=line):
        plan(dataset, **options)


def test_further_seeds_run_thinkrec_and_its_ablations_without_reasons():
    rows = plan("synthetic", seeds=["7", "3"])
    assert [row.name for row in rows.values() if row.seed == 3] == [name for name in ROWS if name in SEEDED]
    for name in SEEDED:
        first, further = rows[name], rows[f"{name} of seed 3"]
        assert changed(further, first) == {"seed"}
        assert set(further.overrides) - set(first.overrides) == {"seed", *NO_REASONS}
        assert (further.params["seed"], further.params["evaluate"]["reasons"]) == (3, 0)
        assert further.path == Path(f"tables/synthetic/seeds/3/{name}.json")


def test_how_reasons_are_written_is_nothing_to_a_seed_that_writes_none(project):
    before = plan("synthetic", seeds=["7", "3"])
    write_files(before.values())
    set_params(project, {"evaluate.max_new_tokens": 60})
    after = plan("synthetic", seeds=["7", "3"])
    for title, is_changed in {BASE: True, f"{BASE} of seed 3": False}.items():
        assert bool(changed(after[title], before[title])) == is_changed
        assert (after[title].experiment != before[title].experiment) == is_changed
    write_files([after[BASE]])
    assert set(read_seeds("synthetic")) == {7, 3}


def test_files_of_a_seed_that_ran_otherwise_are_not_read_together_with_the_defaults(project):
    rows = plan("synthetic", seeds=["7", "1", "3"])
    write_files(rows.values())
    set_params(project, {"gate.epochs": 9})
    write_files([plan("synthetic", names=["neither"], seeds=["3"])["neither of seed 3"]])
    row_path("synthetic", BASE, 1).unlink()  # without it, the others of that seed have no lead
    by_seed = {seed: set(files) for seed, files in read_seeds("synthetic").items()}
    assert by_seed == {7: set(SEEDED), 3: set(SEEDED) - {"neither"}}


@pytest.mark.parametrize(
    ("names", "seeds", "titles"),
    [
        ([], ["7"], list(ROWS)),
        (
            ["no_experts", "collm"],
            ["1", "7"],
            [BASE, f"{BASE} of seed 1", "collm", "no_experts", "no_experts of seed 1"],
        ),
        (["neither"], ["2"], [BASE, f"{BASE} of seed 2", "neither of seed 2"]),
        (["collm"], [], [BASE, "collm"]),
    ],
)
def test_rows_are_planned_in_order_with_the_base_rows_that_they_need(names, seeds, titles):
    rows = plan("synthetic", names=names, seeds=seeds)
    assert list(rows) == titles
    assert all(row.asked == (not names or row.name in names) for row in rows.values())


def test_the_seed_of_the_parameters_is_no_further_one(project):
    set_params(project, {"seed": 2})
    assert list(plan("synthetic", names=["neither"])) == [
        *(BASE, "thinkrec of seed 1", "thinkrec of seed 3", "thinkrec of seed 4"),
        *("neither", "neither of seed 1", "neither of seed 3", "neither of seed 4"),
    ]


def test_neighbours_in_the_queue_train_nothing_twice():
    """Of what the base row does not leave in the cache: a backbone without keywords, a model without traces."""
    rows = [row for row in plan("synthetic").values() if row.name != BASE]

    def trained(row):
        if "prompt.keywords" in row.overrides:
            return row.params["seed"], "a backbone"
        return (row.params["seed"], "a global model") if "sft.think_share" in row.overrides else None

    pairs = itertools.pairwise(rows)
    assert not [(one.title, two.title) for one, two in pairs if trained(one) and trained(one) == trained(two)]
