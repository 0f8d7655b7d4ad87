"""Labels learned from per second: a pass over a stream, a prompt per label, TRL's SFTTrainer; and the memory it takes.

The same items, ratings, language model and LoRA (r 8 on q_proj and v_proj, text only) for all. A step is a forward,
a backward and AdamW's step. TRL trains on the question layout's prompts as plain text.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PrinterCallback

from benchmarks.measure import Goal, Line, in_child, in_turn, peak_growth, peaks, rates
from benchmarks.worlds import (
    HISTORY,
    SHAPES,
    Shape,
    causal_lm,
    item_texts,
    layout_of,
    ratings,
    recommender,
    tokenizer,
    with_lora,
)
from thinkrec.lm.losses import Objective
from thinkrec.params import PARAMS_FILE, SftParams, load
from thinkrec.text.layout import Layout, Window, batches_by_tokens
from thinkrec.text.question import question_text

LABELS, FEWER = 1280, 96  # in a call: of the stream, and of those that take as many prompts
PROMPTS = 16  # a step of TRL's: on CPU neither 8 nor 32 is faster
WIDE, WIDE_TOKENS = Shape(96, vocabulary=128_000), 2000  # logits of so many tokens are a gigabyte
MISSING = "not measured: pip install -e '.[bench]'"


def sft_params() -> SftParams:
    """The default's."""
    return load(Path(__file__).parents[1] / PARAMS_FILE).sft


def training() -> Iterator[Line]:
    """Labels per second of the stream layout against a prompt per label, and of both against TRL's SFTTrainer."""
    for shape in SHAPES:
        table = ratings(np.full(LABELS // 40, 40))
        rows = np.arange(len(table))
        streamed, asked = layout_of(table), layout_of(table, "question")
        late = rows[rows % 40 >= HISTORY][::10][:FEWER]  # they have a whole history
        stream = Learner(table, streamed, streamed.training_windows(rows, np.random.default_rng(0)), causal_lm(shape))
        question = Learner(table, asked, asked.training_windows(late, np.random.default_rng(0)), causal_lm(shape))
        what = f"training, stream, {shape}"
        yield rates(
            what,
            "question: a prompt per label",
            in_turn(stream.learn, question.learn, rounds=3),
            (stream.labels, question.labels),
            "labels",
            Goal("at least", 10),
        )
        for name, ours, goal in (("stream", stream, 8), ("question", question, 1.2)):
            against = "TRL's SFTTrainer"
            try:
                theirs = Trl(table, late, shape)
            except ImportError:
                yield Line(what=f"training, {name}, {shape}", against=against, measured="", other=MISSING)
                continue
            yield rates(
                f"training, {name}, {shape}",
                against,
                in_turn(ours.learn, theirs.learn, rounds=3),
                (ours.labels, len(late)),
                "labels",
                Goal("at least", goal),
            )


class Learner:
    """A LoRA of `backbone` in training on some windows; `labels` of them in a call of `learn`."""

    def __init__(self, table: pd.DataFrame, layout: Layout, windows: list[Window], backbone: PreTrainedModel) -> None:
        self.layout = layout
        params = sft_params()
        self.batches = list(batches_by_tokens(layout, windows, params.batch_tokens, targets=params.batch_rows))
        self.labels = sum(int(window.target.sum()) for window in windows)
        with_lora(backbone)
        model = recommender(table, layout, backbone)
        self.objective = Objective(model, layout.label, 0.0, params).train()
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        self.optimiser = torch.optim.AdamW(weights, lr=1e-4)

    def learn(self) -> None:
        """One epoch."""
        for batch in self.batches:
            self.objective(**self.layout.collate(batch).to(self.objective.model.device).tensors()).backward()
            self.optimiser.step()
            self.optimiser.zero_grad()


class Trl:
    """TRL's SFTTrainer on the same questions as pairs of prompt and completion, set up as a user in a hurry would.

    Its default of gradient checkpointing is off: these models need none, and it would be slower with it.
    """

    def __init__(self, table: pd.DataFrame, rows: NDArray[np.int64], shape: Shape) -> None:
        """Raises ImportError where TRL is not installed."""
        from datasets import Dataset, disable_progress_bars
        from trl import SFTConfig, SFTTrainer

        disable_progress_bars()
        self.folder = TemporaryDirectory()
        self.trainer: Any = SFTTrainer(
            model=with_lora(causal_lm(shape)),
            args=SFTConfig(
                output_dir=self.folder.name,
                per_device_train_batch_size=PROMPTS,
                num_train_epochs=1,
                learning_rate=1e-4,
                max_length=None,
                gradient_checkpointing=False,
                bf16=False,
                use_cpu=True,
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list([_pair(table, row) for row in rows.tolist()]),
            processing_class=tokenizer(),
        )
        self.trainer.remove_callback(PrinterCallback)

    def learn(self) -> None:
        """One epoch."""
        self.trainer.train()


def _pair(table: pd.DataFrame, row: int) -> dict[str, str]:
    texts, item, label = item_texts(), table["item"].to_numpy(), table["label"].to_numpy()
    history = [(texts[item[past]], int(label[past])) for past in range(row - HISTORY, row)]
    return {"prompt": question_text(history, texts[item[row]]), "completion": " Yes" if label[row] else " No"}


def memory() -> Iterator[Line]:
    """Peak memory of a training step at a vocabulary of 128,000: logits where they are needed, and everywhere."""
    needed, everywhere = in_child(step_memory, everywhere=False), in_child(step_memory, everywhere=True)
    what = f"memory of a training step, {WIDE}, vocabulary {WIDE.vocabulary:,}"
    yield peaks(what, "logits at all positions", (needed, everywhere))


def step_memory(*, everywhere: bool) -> int | None:
    """Bytes that a step's forward and backward need above the loaded model."""
    table = ratings(np.full(10, 40))
    layout = layout_of(table)
    windows = layout.training_windows(np.arange(len(table)), np.random.default_rng(0))
    learner = Learner(table, layout, windows, causal_lm(WIDE))
    group = next(batches_by_tokens(layout, windows, WIDE_TOKENS))
    batch = layout.collate(group)

    def plain() -> None:
        labels = torch.full_like(batch.input_ids, -100)
        at = batch.verdicts[:, 0], batch.verdicts[:, 1] + 1
        labels[at] = batch.input_ids[at]
        inputs = {"attention_mask": batch.attention_mask, "position_ids": batch.position_ids}
        learner.objective.model.backbone(input_ids=batch.input_ids, labels=labels, **inputs).loss.backward()

    return peak_growth(plain if everywhere else lambda: learner.objective(**batch.tensors()).backward())
