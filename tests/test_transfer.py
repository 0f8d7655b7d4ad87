"""A model scores another project's rows: with that one's texts and features, and with nothing learned from them."""

from __future__ import annotations

import json
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.project import copy_project, run_command
from thinkrec import artifacts
from thinkrec.errors import UserError
from thinkrec.features.artefact import load_features, save_features
from thinkrec.history import PROTOCOLS
from thinkrec.metrics import auc
from thinkrec.params import load
from thinkrec.transfer import TEXT, transfer

ALL = "text + user + item + statistics"


@pytest.fixture
def other(finished: Path, tmp_path: Path) -> Path:
    """A second project: the same, until a test changes its artefacts."""
    return copy_project(finished, tmp_path / "other")


def change_features(project: Path, **changes: Any) -> None:
    path = project / artifacts.FEATURES
    features = {protocol: load_features(path, protocol=protocol) for protocol in PROTOCOLS}
    changed = {
        protocol: replace(of, **{name: change(getattr(of, name)) for name, change in changes.items()})
        for protocol, of in features.items()
    }
    save_features(changed, path)


def transferred(project: Path, other: Path, split: str = "test") -> dict[str, float]:
    """AUC by what fills the slots."""
    with chdir(project):
        document = transfer(other, load())
    models = document["splits"][split]["models"]["transferred"]
    return {name: figures["auc"]["value"] for name, figures in models.items()}


def test_to_its_own_data_it_is_the_global_model(finished, other):
    predictions = artifacts.read_table(artifacts.PREDICTIONS, root=other)
    for split, rows in predictions.groupby("split", observed=True):
        figures = transferred(finished, other, split)
        assert list(figures) == [TEXT, "text + statistics", ALL]
        assert figures[ALL] == pytest.approx(auc(rows["label"], rows["thinkrec_global"]), abs=1e-6)
        assert len(set(figures.values())) == 3


def test_each_step_reads_its_own_parts_of_the_features_and_all_read_the_texts(finished, other):
    before = transferred(finished, other)
    change_features(other, user_vectors=lambda vectors: -vectors)
    after = transferred(finished, other)
    assert {name for name in before if after[name] != before[name]} == {ALL}
    change_features(other, statistics=lambda statistics: -statistics)
    again = transferred(finished, other)
    assert again[TEXT] == before[TEXT] and again["text + statistics"] != before["text + statistics"]
    items = artifacts.read_table(artifacts.ITEMS, root=other)
    artifacts.write_table(artifacts.ITEMS, items.assign(title=items["title"].to_numpy()[::-1]), root=other)
    assert all(after != again[name] for name, after in transferred(finished, other).items())


def test_the_scale_of_the_other_data_does_not_matter(finished, other):
    before = transferred(finished, other)
    change_features(other, statistics=lambda statistics: 4 * statistics + 1)
    assert transferred(finished, other) == pytest.approx(before, abs=1e-4)


def test_people_and_programs_get_the_same_figures_beside_the_others_own(finished, other):
    document = run_command(finished, "transfer", str(other), "--json")
    assert document.exit_code == 0, document.output
    shown = run_command(finished, "transfer", str(other))
    assert "transfer: synthetic-small to synthetic-small, " in shown.stderr
    test = json.loads(document.stdout)["splits"]["test"]
    table = artifacts.read_json(other / artifacts.TABLE)["test"]["models"]
    assert set(test["models"]["own"]) == {"thinkrec", "hybrid_mf", "running_rates"}
    for name, figures in test["models"]["own"].items():
        for metric in ("auc", "uauc"):
            assert figures[metric]["value"] == pytest.approx(table[name]["all"][metric], abs=1e-4)
            assert figures[metric]["low"] <= figures[metric]["value"] <= figures[metric]["high"]
    figure = test["models"]["transferred"][ALL]["auc"]
    assert f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})" in shown.stdout


def test_what_does_not_fit_is_refused_in_one_line(finished, other):
    assert "nowhere" in run_command(finished, "transfer", "nowhere").stderr
    change_features(other, user_vectors=lambda vectors: np.ascontiguousarray(vectors[:, :4]))
    with pytest.raises(UserError, match=r"its user, item, statistics are \[4, 8, \d+\] wide, here \[8, 8, \d+\]"):
        transferred(finished, other)
