"""What a model of many layers gains: lower layers that run once, passes in bfloat16; and a plain PEFT loop beside ours.

With the environment variable `BENCH_MODEL` the language model is the one in that folder, such as SmolLM2-135M; without,
it is one of random weights, as deep as that. Experts adapt its last 8 layers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from benchmarks.measure import Goal, Line, faster, in_turn, rates
from benchmarks.training import sft_params
from benchmarks.worlds import (
    HISTORY,
    KEYWORDS,
    Shape,
    causal_lm,
    item_texts,
    ratings,
    recommender,
    tokenizer,
    with_lora,
)
from thinkrec.lm.adapters import add_lora, install_mixture, save_adapter
from thinkrec.lm.finetune import finetune
from thinkrec.lm.losses import Objective
from thinkrec.lm.scoring import RowWeights, score
from thinkrec.lm.trainer import PLAIN, TrainSettings
from thinkrec.params import LoraParams, PromptParams
from thinkrec.text.items import encode
from thinkrec.text.layout import Batch, Layout, batches_by_tokens
from thinkrec.text.layouts import make_layout

FOLDER = os.environ.get("BENCH_MODEL")
DEEP, ADAPTED = Shape(96, layers=30), 8
EXPERTS, EPOCHS = 3, 3
TABLE = ratings(np.full(8, 2 * HISTORY))
TOKENS = 3000  # of a pass
STEPS = sft_params().model_copy(update={"batch_rows": 2 * HISTORY})  # several to an epoch
LORA = LoraParams(r=8, alpha=16, dropout=0.0)


def shared() -> Iterator[Line]:
    """Experts and evaluation with lower layers that run once, bfloat16 against float32, ours against a PEFT loop."""
    layout, every = _layout(), np.arange(len(TABLE))
    what = f"{'model of BENCH_MODEL' if FOLDER else DEEP}, {ADAPTED} layers adapted"
    yield faster(
        f"an expert, {EPOCHS} epochs, {what}",
        "every layer in every epoch",
        in_turn(lambda: _train(layout, sharing=True), lambda: _train(layout, sharing=False), rounds=1),
        Goal("at least", 2.5),
    )
    with TemporaryDirectory() as root:
        folders = [Path(root) / f"expert_{number}" for number in range(1, EXPERTS + 1)]
        for seed, folder in enumerate(folders):
            save_adapter(with_lora(_backbone(), seed=seed, layers=ADAPTED), folder, base="none")
        model = recommender(TABLE, layout, _backbone())
        batch_weights = install_mixture(model.backbone, [None, *folders])
    users, columns = int(TABLE["user"].max()) + 1, EXPERTS + 1
    mixed = np.random.default_rng(0).dirichlet(np.ones(columns), users).astype(np.float32)
    routings = [np.tile(row, (users, 1)) for row in np.eye(columns, dtype=np.float32)] + [mixed]

    def scorings(*, sharing: bool) -> None:
        with model.sharing_layers() if sharing else nullcontext():
            for weights in routings:
                score(model, layout, every, RowWeights(batch_weights, weights, TABLE["user"].to_numpy()))

    yield faster(
        f"{len(routings)} scorings, {what}",
        "every layer in every scoring",
        in_turn(lambda: scorings(sharing=True), lambda: scorings(sharing=False), rounds=3),
        Goal("at least", 2),
    )
    windows = layout.training_windows(every, np.random.default_rng(0))
    batch = layout.collate(next(batches_by_tokens(layout, windows, TOKENS)))
    tokens = batch.input_ids.numel()
    ours = _stepper(layout, batch, _backbone(torch.bfloat16))
    what = f"LoRA in all layers, {'model of BENCH_MODEL' if FOLDER else DEEP}, a step"
    exact = _stepper(layout, batch, _backbone(torch.float32))
    timing = in_turn(ours, exact, rounds=2)
    yield rates(f"{what} in bfloat16", "in float32", timing, (tokens, tokens), "tokens", Goal("at least", 1))
    timing = in_turn(ours, _plain_stepper(batch, _backbone(torch.bfloat16)), rounds=2)
    yield rates(what, "a plain PEFT loop, the same batch", timing, (tokens, tokens), "tokens", Goal("at least", 1))


def _backbone(dtype: torch.dtype | None = None) -> PreTrainedModel:
    model = AutoModelForCausalLM.from_pretrained(FOLDER, use_safetensors=True) if FOLDER else causal_lm(DEEP)
    return model.to(dtype or model.dtype)


def _layout() -> Layout:
    words = AutoTokenizer.from_pretrained(FOLDER) if FOLDER else tokenizer()
    prompt = PromptParams(layout="stream", history=HISTORY, max_tokens=4096, keywords=KEYWORDS, slots=(), soft_tokens=0)
    return make_layout(TABLE, encode(words, item_texts()), words, prompt)


def _train(layout: Layout, *, sharing: bool) -> None:
    """One expert's training; three quarters of the users are its train rows, the others valid's."""
    model = recommender(TABLE, layout, _backbone())
    torch.manual_seed(0)
    add_lora(model.backbone, LORA, layers=ADAPTED)
    user = TABLE["user"].to_numpy()
    train, valid = np.flatnonzero(user % 4), np.flatnonzero(user % 4 == 0)
    settings = TrainSettings(name="bench", epochs=EPOCHS, learning_rate=1e-4, weight_decay=0.0, seed=0, trainer=PLAIN)
    with model.sharing_layers() if sharing else nullcontext():
        finetune(
            model, layout, train_rows=train, valid_rows=valid, user=user, params=STEPS, settings=settings,
            redraw=False,
        )  # fmt: skip


def _stepper(layout: Layout, batch: Batch, backbone: PreTrainedModel) -> Callable[[], None]:
    """A step of ours on a batch."""
    add_lora(backbone, LORA)
    objective = Objective(recommender(TABLE, layout, backbone), layout.label, 0.0, sft_params()).train()
    return _with_adamw(backbone, lambda: objective(**batch.tensors()))


def _plain_stepper(batch: Batch, backbone: PreTrainedModel) -> Callable[[], None]:
    """A step of `transformers` and PEFT on the same tokens: the model's own loss, of the verdicts' tokens."""
    add_lora(backbone, LORA)
    labels = torch.full_like(batch.input_ids, -100)
    at = batch.verdicts[:, 0], batch.verdicts[:, 1] + 1
    labels[at] = batch.input_ids[at]
    read = {"attention_mask": batch.attention_mask, "position_ids": batch.position_ids, "use_cache": False}
    return _with_adamw(backbone.train(), lambda: backbone(input_ids=batch.input_ids, labels=labels, **read).loss)


def _with_adamw(backbone: PreTrainedModel, loss: Callable[[], torch.Tensor]) -> Callable[[], None]:
    optimiser = torch.optim.AdamW([weight for weight in backbone.parameters() if weight.requires_grad], lr=1e-4)

    def step() -> None:
        loss().backward()
        optimiser.step()
        optimiser.zero_grad()

    return step
