"""Every preset is what params.yaml can be, names what exists, and what cannot be is one line."""

import json

import pytest
from typer.testing import CliRunner

from tests.project import ROOT
from thinkrec.campaign.presets import join_overrides, read_presets
from thinkrec.cli import app
from thinkrec.errors import UserError
from thinkrec.ingest.catalogue import DATASETS, FAMILIES, find_dataset


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_each_says_what_it_takes_and_every_published_dataset_has_one():
    presets = read_presets()
    assert all(preset.about and preset.measured for preset in presets.values())
    named = [
        line.partition("=")[2] for preset in presets.values() for line in preset.overrides if "dataset.name" in line
    ]
    assert {find_dataset(name).name.partition(":")[0] for name in named} >= {
        *FAMILIES,
        *(name for name in DATASETS if not name.startswith(("synthetic", "own"))),
    }


def test_the_command_prints_what_dvc_takes_and_programs_get_all_of_it():
    printed = CliRunner().invoke(app, ["presets", "ml-1m", "smollm2"])
    line = join_overrides(["ml-1m", "smollm2"])
    assert printed.stdout.strip() == line
    assert line.startswith("-S dataset.name=ml-1m -S features.model=mf -S backbone.name=models/smollm2 -S ")
    listed = json.loads(CliRunner().invoke(app, ["presets", "--json"]).stdout)
    assert {preset["name"] for preset in listed} == set(read_presets())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sft.recipe=papr", "should be"),
        ("sft.recipee=paper", "did you mean"),
        ("stf.recipe=paper", "no such parameter"),
    ],
)
def test_what_params_cannot_be_is_one_line(line, message, tmp_path, monkeypatch):
    (tmp_path / "presets" / "models").mkdir(parents=True)
    (tmp_path / "presets" / "models" / "mine.txt").write_text(f"# mine\n# not run\n{line}\n")
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as stop:
        read_presets()
    assert str(stop.value).startswith("presets/models/mine.txt: ")
