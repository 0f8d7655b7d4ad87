"""The metrics file: what it holds, that paired comparisons find what was planted, and its text form."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from thinkrec import metrics
from thinkrec.artifacts import rounded
from thinkrec.evaluation.tables import evaluate, headlines, possible_lift, to_text

MODELS = ["thinkrec", "twin", "weak", "best"]


@pytest.fixture(scope="module")
def predictions() -> pd.DataFrame:
    """A world with known probabilities, a model that knows most of them, its monotone twin, and one near chance."""
    rng = np.random.default_rng(0)
    rows = 1600
    logit = 1.5 * rng.normal(size=rows)
    best = 1 / (1 + np.exp(-logit))
    frame = pd.DataFrame(
        {
            "row": np.arange(rows),
            "split": pd.Categorical(np.where(np.arange(rows) % 2, "test", "valid")),
            "user": rng.integers(0, 120, rows),
            "item": rng.integers(0, 50, rows),
            "label": (rng.random(rows) < best).astype(np.int8),
            "warm": rng.random(rows) < 0.7,
            "best": best,
            "thinkrec": 1 / (1 + np.exp(-(logit + 0.7 * rng.normal(size=rows)))),
            "weak": rng.random(rows),
        }
    )
    frame["twin"] = frame["thinkrec"] ** 2
    return frame


@pytest.fixture(scope="module")
def evaluated(predictions: pd.DataFrame) -> dict[str, Any]:
    return evaluate(predictions, MODELS, seed=0, draws=300)


def test_it_holds_every_model_on_valid_and_test(predictions: pd.DataFrame, evaluated: dict[str, Any]) -> None:
    assert list(evaluated) == ["valid", "test"]
    test = predictions[predictions["split"] == "test"]
    for model in MODELS:
        entry = evaluated["test"]["models"][model]
        assert entry["all"]["auc"] == metrics.auc(test["label"], test[model])
        assert entry["warm"]["rows"] + entry["cold"]["rows"] == entry["all"]["rows"] == 800
        for name, edges in entry["interval"].items():
            assert edges["low"] < entry["all"][name] < edges["high"]


def test_a_planted_difference_is_found_and_an_absent_one_is_not(evaluated: dict[str, Any]) -> None:
    found = evaluated["test"]["differences"]
    assert list(found) == ["twin", "weak"]  # the truth is a bound, not a rival
    assert found["weak"]["auc"]["low"] > 0.1 and found["weak"]["auc"]["p_holm"] < 0.06
    assert found["twin"]["auc"] == {"difference": 0, "low": 0, "high": 0, "p": 1, "p_holm": 1}
    assert all(pair["p_holm"] >= pair["p"] for model in found.values() for pair in model.values())


def test_the_possible_lift_is_0_at_chance_and_1_for_the_truth(evaluated: dict[str, Any]) -> None:
    assert (possible_lift(0.5, 0.8), possible_lift(0.65, 0.8)) == (0, pytest.approx(0.5))
    models = evaluated["test"]["models"]
    assert models["best"]["possible_lift"] == 1
    assert 0.6 < models["thinkrec"]["possible_lift"] < 1
    assert abs(models["weak"]["possible_lift"]) < 0.2


def test_without_the_truth_or_our_model_their_parts_are_absent(predictions: pd.DataFrame) -> None:
    table = evaluate(predictions, ["weak"], seed=0, draws=20)["valid"]
    assert "possible_lift" not in table["models"]["weak"]
    assert table["differences"] == {}


def test_the_order_of_models_changes_no_figure(predictions: pd.DataFrame, evaluated: dict[str, Any]) -> None:
    other = evaluate(predictions, MODELS[::-1], seed=0, draws=300)
    # `rounded` turns NaN, which equals nothing, into null.
    assert rounded(other["test"]["models"], 12) == rounded(evaluated["test"]["models"], 12)


def test_it_is_json_with_null_for_what_cannot_be_computed(predictions: pd.DataFrame) -> None:
    one_class = predictions.assign(label=1)
    table = rounded(evaluate(one_class, MODELS, seed=0, draws=20), 4)
    assert json.loads(json.dumps(table, allow_nan=False))["test"]["models"]["weak"]["all"]["auc"] is None
    assert "-" in to_text(table)


def test_the_text_is_aligned_and_marks_what_differs(evaluated: dict[str, Any]) -> None:
    text = to_text(evaluated)
    assert text == to_text(json.loads(json.dumps(evaluated)))
    block = text.split("\n\n")[1].splitlines()
    assert block[0].startswith("test: 800 rows")
    columns = {line.index(f" [{line.split('[')[1]}"[:3]) for line in block[2:6]}
    assert len(columns) == 1
    lines = {line.split()[0]: line for line in block[2:6]}
    assert "*" in lines["weak"] and "*" not in lines["twin"] + lines["best"] + lines["thinkrec"]


def test_the_headlines_are_ours_from_the_table(evaluated: dict[str, Any]) -> None:
    short = headlines(evaluated)
    assert set(short) == {"valid", "test"}
    for split, values in short.items():
        assert values["auc"] == evaluated[split]["models"]["thinkrec"]["all"]["auc"]
        assert {"auc", "uauc", "ndcg@5", "map@5"} <= set(values)
