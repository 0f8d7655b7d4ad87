"""Rows: each is a valid change of params.yaml, queued as written, and done only with the parameters of now."""

import itertools
import subprocess
from pathlib import Path

import pytest
import yaml
from dvc.utils.hydra import apply_overrides

from tests.project import ROOT, set_params
from thinkrec.artifacts import write_json
from thinkrec.campaign.experiments import literal
from thinkrec.campaign.rows import (
    BASE,
    FURTHER_SEEDS,
    NO_REASONS,
    ROWS,
    SEEDED,
    changed_params,
    choose_seeds,
    plan,
    read_seeds,
    result_params,
    row_path,
)
from thinkrec.campaign.words import ROW_NAMES
from thinkrec.errors import UserError
from thinkrec.params import load

HARD = "/tmp/a folder, it's = [b]: c\\d/ml-1m.zip"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with nothing but params.yaml."""
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def changed(row, before):
    """The parameters in which two rows differ."""
    return {change.split()[0] for change in changed_params(row, {"params": before.params})}


def write_file(row):
    """A file that says that the row is done."""
    path = row_path(row.params["dataset"]["name"], row.name, row.seed)
    write_json(path, {"params": row.params})
    return path


def test_every_row_has_a_name_for_people():
    assert {BASE, *ROW_NAMES} == set(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_a_row_changes_what_it_says_and_nothing_else_and_dvc_writes_the_same(name, project):
    rows = plan("synthetic", names=[name])
    assert changed(rows[name], rows[BASE]) == set(ROWS[name])
    overrides = rows[name].overrides.items()
    apply_overrides(str(project / "params.yaml"), [f"{key}={literal(value)}" for key, value in overrides])
    assert result_params(load(project / "params.yaml")) == rows[name].params


@pytest.mark.parametrize(
    "value", [None, True, 0, 3, 0.25, "synthetic-small", HARD, "\\'", "\\", "null", "3", [], ["user", "item"]]
)
def test_a_value_survives_dvcs_command_line(value, tmp_path):
    (tmp_path / "params.yaml").write_text("a: {b: 1}\n")
    apply_overrides(str(tmp_path / "params.yaml"), [f"a.b={literal(value)}"])
    assert yaml.safe_load((tmp_path / "params.yaml").read_text()) == {"a": {"b": value}}


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
    assert len({row.experiment for row in rows}) == 3 * len(ROWS)
    (row,) = plan("amazon-2018:Gift_Cards", raw=project, names=[BASE]).values()
    subprocess.run(["git", "check-ref-format", f"refs/exps/{row.experiment}"], check=True)


@pytest.mark.parametrize(
    ("dataset", "raw", "names", "line"),
    [
        ("ml-1m", None, [], "--raw: ml-1m needs its raw files; download https://.*ml-1m.zip"),
        ("own", None, [], "--raw: own needs its raw files; give their path"),
        ("ml-1m", Path("nowhere.zip"), [], "--raw: no such file or folder: nowhere.zip"),
        ("synthetic", Path("nowhere.zip"), [], "--raw: synthetic is generated .* leave --raw out"),
        ("ml-1n", None, [], "no dataset 'ml-1n'; did you mean ml-1m"),
        ("synthetic", None, ["no_expert"], "--rows: no row 'no_expert'; did you mean no_experts"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(dataset, raw, names, line, project):
    with pytest.raises(UserError, match=line):
        plan(dataset, raw=raw, names=names)


def test_further_seeds_run_thinkrec_and_its_ablations_without_reasons(project):
    rows = plan("synthetic", seeds=[None, 3])
    for name in SEEDED:
        first, further = rows[name], rows[f"{name} of seed 3"]
        assert changed(further, first) == {"seed"}
        assert set(further.overrides) - set(first.overrides) == {"seed", *NO_REASONS}
        assert (further.params["seed"], further.params["evaluate"]["reasons"]) == (3, 0)
        assert further.experiment != first.experiment
        assert row_path("synthetic", name, further.seed) == Path(f"tables/synthetic/seeds/3/{name}.json")


def test_how_reasons_are_written_is_nothing_to_a_seed_that_writes_none(project):
    before = plan("synthetic", seeds=[None, 3])
    for row in before.values():
        write_file(row)
    set_params(project, {"evaluate.candidates": 2})
    after = plan("synthetic", seeds=[None, 3])
    for title, is_changed in {BASE: True, f"{BASE} of seed 3": False}.items():
        assert bool(changed(after[title], before[title])) == is_changed
        assert (after[title].experiment != before[title].experiment) == is_changed
    write_file(after[BASE])
    assert set(read_seeds("synthetic")) == {7, 3}


def test_all_five_seeds_run_unless_some_are_named_the_default_first(project):
    assert choose_seeds() == [None, *FURTHER_SEEDS]
    assert choose_seeds(["2", "7"]) == [None, 2]
    set_params(project, {"seed": 2})
    assert choose_seeds() == [None, 1, 3, 4]


@pytest.mark.parametrize("number", ["9", "1 ", "one", ""])
def test_other_seeds_are_refused(number, project):
    with pytest.raises(UserError, match=f"--seeds: no seed '{number}'; known: 7, 1, 2, 3, 4"):
        choose_seeds([number])


def test_files_of_a_seed_that_ran_otherwise_are_not_read_together_with_the_defaults(project):
    rows = plan("synthetic", seeds=[None, 1, 3])
    paths = {title: write_file(row) for title, row in rows.items()}
    set_params(project, {"gate.epochs": 9})
    write_file(plan("synthetic", names=["neither"], seeds=[3])["neither of seed 3"])
    paths[f"{BASE} of seed 1"].unlink()  # without it, the others of that seed have no lead
    by_seed = {seed: set(files) for seed, files in read_seeds("synthetic").items()}
    assert by_seed == {7: set(SEEDED), 3: set(SEEDED) - {"neither"}}


@pytest.mark.parametrize(
    ("names", "seeds", "titles"),
    [
        ([], [None], list(ROWS)),
        (["experts_1", "no_thinking"], [None], [BASE, "no_thinking", "experts_1"]),
        (
            ["no_experts", "collm"],
            [None, 1],
            [BASE, f"{BASE} of seed 1", "collm", "no_experts", "no_experts of seed 1"],
        ),
        (["neither"], [2], [BASE, f"{BASE} of seed 2", "neither of seed 2"]),
        (["collm"], [None, 1], [BASE, "collm"]),
    ],
)
def test_rows_are_planned_in_order_with_the_base_rows_that_they_need(names, seeds, titles, project):
    assert list(plan("synthetic", names=names, seeds=seeds)) == titles


def test_a_row_that_runs_with_one_seed_alone_is_refused_with_others(project):
    with pytest.raises(UserError, match="--rows: collm, experts_2 runs with seed 7 alone; with --seeds: thinkrec"):
        plan("synthetic", names=["collm", "neither", "experts_2"], seeds=[2])


def test_neighbours_in_the_queue_train_nothing_twice(project):
    """Of what the base row does not leave in the cache: a backbone without keywords, a model without traces."""
    planned = plan("synthetic", seeds=choose_seeds())
    assert len(planned) == len(ROWS) + len(SEEDED) * len(FURTHER_SEEDS)
    rows = [row for row in planned.values() if row.name != BASE]

    def trained(row):
        if "prompt.keywords" in row.overrides:
            return row.params["seed"], "a backbone"
        return (row.params["seed"], "a global model") if "sft.think_share" in row.overrides else None

    pairs = itertools.pairwise(rows)
    assert not [(one.title, two.title) for one, two in pairs if trained(one) and trained(one) == trained(two)]
