"""`make quick`: the stages in a folder of their own, on the small dataset; the project's own parameters stay."""

from pathlib import Path

import pytest

from stages import __main__ as pipeline
from stages import quick
from tests.project import ROOT
from thinkrec.params import load


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_stage_runs_on_the_small_dataset_and_the_page_is_named(here, monkeypatch, capsys):
    seen = []

    def stage():
        seen.append((Path.cwd(), load().dataset.name))
        return "done"

    monkeypatch.setattr(pipeline, "PIPELINE", (stage, stage))
    (here / quick.FOLDER).mkdir(parents=True)
    (here / quick.FOLDER / "left").touch()
    quick.main()
    assert seen == 2 * [(here / quick.FOLDER, "synthetic-small")]
    assert load(here / "params.yaml").dataset.name == "synthetic"
    assert not (here / quick.FOLDER / "left").exists()
    out = capsys.readouterr().out
    assert "stage: done" in out and "open out/quick/out/report/report.html" in out
