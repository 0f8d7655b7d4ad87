"""Plots: the data of the curves is right and small; a picture's bytes follow from its data."""

import numpy as np
import pandas as pd
import pytest

from thinkrec.evaluation import plots
from thinkrec.metrics import auc

MODELS = ["thinkrec", "other"]


def predictions():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 3000)
    noisy = 1 / (1 + np.exp(-(label - 0.5 + rng.normal(size=3000))))
    return pd.DataFrame({"label": label, "thinkrec": noisy, "other": noisy.round(1)})


def test_a_readable_handful_of_curves_is_drawn_in_one_order():
    assert plots.shown(["best", "mf_static", "mf", "thinkrec", "thinkrec_global"]) == ["thinkrec", "mf", "best"]
    assert len(plots.CURVES) <= len(plots.COLOURS)  # each has a colour of its own


def test_the_curves_points_are_few_and_keep_its_corners_and_area():
    frame = predictions()
    points = pd.DataFrame(plots.roc_points(frame, MODELS))
    for model in MODELS:
        curve = points[points["model"] == model]
        assert len(curve) <= 200
        assert curve.iloc[0, 1:].tolist() == [0, 0] and curve.iloc[-1, 1:].tolist() == [1, 1]
        assert np.trapezoid(curve["tpr"], curve["fpr"]) == pytest.approx(auc(frame["label"], frame[model]), abs=0.002)


def test_calibration_points_add_up_to_the_rows():
    points = pd.DataFrame(plots.calibration_points(predictions(), MODELS))
    assert points.groupby("model")["rows"].sum().tolist() == [3000, 3000]
    assert (points["model"] == "thinkrec").sum() == 15


def test_principal_components_find_the_long_axis_whatever_its_sign():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(200, 5)) * [0.1, 5, 0.1, 1, 0.1]
    place, share = plots.principal_components(vectors)
    assert abs(np.corrcoef(place[:, 0], vectors[:, 1])[0, 1]) > 0.99
    assert share[0] > 0.9 and share.sum() <= 1
    np.testing.assert_allclose(plots.principal_components(-vectors)[0], -place)
    assert plots.principal_components(vectors[:, :1])[0].shape == (200, 2)


def drawings():
    rng = np.random.default_rng(0)
    weights, group, frame = rng.dirichlet([0.4] * 3, 900), rng.integers(0, 2, 900), predictions()
    return {
        "roc": lambda path: plots.draw_roc(path, frame, MODELS),
        "calibration": lambda path: plots.draw_calibration(path, frame),
        "gate": lambda path: plots.draw_gate(path, weights, group),
        "gate without experts": lambda path: plots.draw_gate(path, np.ones((5, 1)), np.zeros(5, np.int64)),
        "groups": lambda path: plots.draw_groups(path, rng.normal(size=(90, 4)) * 0 + weights[:90, :1], group[:90]),
    }


@pytest.mark.parametrize("kind", drawings())
def test_a_picture_is_drawn_whose_bytes_name_no_version(kind, tmp_path):
    drawings()[kind](tmp_path / "one.png")
    picture = (tmp_path / "one.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and b"atplotlib" not in picture and len(picture) > 5000
    assert [path.name for path in tmp_path.iterdir()] == ["one.png"]


def test_equal_data_gives_equal_bytes(tmp_path):
    for name in ("one.png", "two.png"):
        drawings()["gate"](tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
