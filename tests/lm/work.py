"""What one process or several do alike: fine-tune a tiny model, refine one, score under a mixture, write answers.

As a program every process writes what it has into a folder: torchrun --nproc-per-node 2 -m tests.lm.work FOLDER KIND
KIND is `all` weights trained, or those of an `adapter` and the projector. With a number after it the second process is
killed in its so-manieth pass of training, and torchrun ends the first.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import Tensor

from tests.builders import interactions, layout_of, loaded_model, recommender
from tests.claims.rows import checker_of
from tests.project import run_params
from tests.reasons import test_refinement
from thinkrec import artifacts, processes
from thinkrec.lm import scoring
from thinkrec.lm.adapters import BatchWeights, MixtureLinear
from thinkrec.lm.finetune import finetune
from thinkrec.lm.losses import Objective
from thinkrec.lm.model import RecommenderLM
from thinkrec.lm.trainer import TrainResult, TrainSettings, resumable
from thinkrec.params import SftParams
from thinkrec.reasons import refinement
from thinkrec.reasons.decoding import Decoding, write_answers
from thinkrec.text.layout import Layout

REASON = np.asarray([70, 71, 72, 1], np.int32)
SFT = SftParams(
    recipe="compact", epochs=2, learning_rate=0.01, weight_decay=0.05, batch_rows=20, batch_tokens=150, think_share=0.2,
    reason_first=0.0, alpha=0.1, beta=0.9, eta=0.8, gamma=0.2, pairwise=0.3, slot_dropout=0.0,
    match_size=8, match_dropout=0.0, patience=3,
)  # fmt: skip
SETTINGS = TrainSettings(name="work", epochs=2, learning_rate=0.01, weight_decay=0.05, seed=1)
ROW_TOKENS = 120  # of a batch when scoring: several batches for each process


def table() -> pd.DataFrame:
    return interactions(1, users=6, rows=12)


def trainable(model: RecommenderLM) -> set[str]:
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


def lora_names(*layers: int) -> set[str]:
    """The names of the adapter weights in these layers."""
    return {
        f"backbone.model.layers.{layer}.self_attn.{name}.lora_{part}.default.weight"
        for layer in layers
        for name in ("q_proj", "v_proj")
        for part in "AB"
    }


def tune(
    world: pd.DataFrame,
    model: RecommenderLM,
    layout: Layout,
    params: SftParams = SFT,
    settings: TrainSettings = SETTINGS,
    **how: Any,
) -> TrainResult:
    """Fine-tune a model on the first seven tenths of each user's rows; the others are valid's."""
    user, place = world["user"].to_numpy(), world.groupby("user").cumcount().to_numpy()
    late = place >= int(0.7 * (place.max() + 1))
    train, valid = np.flatnonzero(~late), np.flatnonzero(late)
    return finetune(
        model, layout, train_rows=train, valid_rows=valid, user=user, params=params, settings=settings, **how
    )


def fine_tuned(
    params: SftParams = SFT, settings: TrainSettings = SETTINGS, *, adapter: bool = False
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Validation by epoch and the weights, after six steps; an `adapter` and the projector train, or all."""
    world = table()
    model = recommender(world)
    if adapter:
        torch.manual_seed(2)
        get_peft_model(model.backbone, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    result = tune(world, model, layout_of(world, reasons={3: REASON, 17: REASON}), params, settings)
    return {"epochs": result.epochs}, {name: weight.detach() for name, weight in model.named_parameters()}


def scored() -> dict[str, Any]:
    """Scores of all rows under weights of two adapters, and answers to some, greedy and sampled."""
    world = table()
    layout, model = layout_of(world), recommender(world)
    torch.manual_seed(5)
    batch_weights, attention = BatchWeights(), model.backbone.model.layers[1].self_attn
    adapters = {column: (torch.randn(2, 32), torch.randn(32, 2) / 4, 0.5) for column in (1, 2)}
    attention.q_proj = MixtureLinear(attention.q_proj, adapters, batch_weights, columns=3)
    routing_weights = np.asarray([[1, 0, 0], [0, 0.7, 0.3], [0.2, 0, 0.8]], np.float32)
    loaded = loaded_model(world, model, layout, batch_weights=batch_weights, routing_weights=routing_weights)
    loaded = replace(loaded, features=replace(loaded.features, state=np.arange(len(world)) % 3))
    some = np.arange(0, len(world), 5)
    decodings = {"greedy": Decoding(max_new_tokens=6), "sampled": Decoding(max_new_tokens=6, temperature=1.0, seed=3)}
    plain, scoring.SCORING_TOKENS = scoring.SCORING_TOKENS, ROW_TOKENS
    try:
        return {"scores": loaded.score(np.arange(len(world))).tolist()} | {
            name: write_answers(loaded, some, decoding) for name, decoding in decodings.items()
        }
    finally:
        scoring.SCORING_TOKENS = plain


def refined() -> dict[str, Any]:
    """Measures by epoch of a short refinement that rewards a letter."""
    checker = checker_of(test_refinement.ROW)
    checker.titles = checker.keywords = []
    rewarding = patch.object(refinement, "reward", lambda check, answer: answer.text.count("e") / 10)
    with rewarding, patch.object(refinement, "EVERY", 2):
        result, _ = test_refinement.refined(checker, steps=4, answers=3)
    return {"refined": result.epochs}


def watch(a_pass: int) -> set[str]:
    """The types of parameters met in training; the second process is killed in its so-manieth pass."""
    met: set[str] = set()
    forward, calls = Objective.forward, 0

    def watched(self: Objective, **tensors: Tensor) -> Tensor:
        nonlocal calls
        if self.training:
            calls += 1
            met.update(type(weight).__name__ for weight in self.parameters())
            if calls == a_pass and processes.rank() == 1:
                os.kill(os.getpid(), signal.SIGKILL)
        return forward(self, **tensors)

    Objective.forward = watched
    return met


def main(folder: Path, kind: str, a_pass: int = 0) -> None:
    met = watch(a_pass)
    with resumable(run_params(checkpoint_steps=1)):
        said, weights = fine_tuned(adapter=kind == "adapter")
    said |= {"met": sorted(met), **scored(), **refined()}
    rank = processes.rank()
    (folder / f"{rank}.json").write_text(json.dumps(said))
    save_file(weights, folder / f"{rank}.safetensors")
    artifacts.write_json(folder / "artefact.json", {"rank": rank})


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
