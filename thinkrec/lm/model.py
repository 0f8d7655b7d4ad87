"""The recommender's language model: any causal LM plus the projector that fills the slots.

Shapes: B sequences, T tokens, S slots, R targets, Q reason tokens, D hidden size, V vocabulary, W slot width.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from thinkrec.artifacts import atomic
from thinkrec.errors import UserError
from thinkrec.features.bank import Features
from thinkrec.params import Slot
from thinkrec.text.stream import Batch
from thinkrec.text.vocabulary import Vocabulary

WIDENING = 10  # METHOD: proj: Linear(d -> 10 d), ReLU, Linear(10 d -> D)
PROJECTOR_FILE = "projector.safetensors"


@dataclass(frozen=True, slots=True)
class SlotValues:
    """What a slot is filled with, by interaction: the chosen parts of the features, side by side."""

    features: Features
    parts: tuple[Slot, ...]

    @property
    def widths(self) -> list[int]:
        """Width of each part."""
        shapes = {
            "user": self.features.user_bank.shape[1],
            "item": self.features.item_bank.shape[1],
            "statistics": self.features.statistics.shape[1],
        }
        return [shapes[part] for part in self.parts]

    def __call__(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """Values (len(rows), W)."""
        take = {
            "user": self.features.user_vectors,
            "item": self.features.item_vectors,
            "statistics": lambda rows: self.features.statistics[rows],
        }
        return np.concatenate([take[part](rows) for part in self.parts], axis=1)


class SlotProjector(nn.Module):
    """Standardises slot values (S, W) by train's mean and spread and maps them to input embeddings (S, D).

    In training each part of a slot is dropped (set to its mean) with probability `dropout`, so that the text
    is read too.
    """

    mean: Tensor  # (W,)
    spread: Tensor  # (W,)

    def __init__(self, widths: list[int], hidden: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        width = sum(widths)
        self.widths, self.dropout = widths, dropout
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))
        self.layers = nn.Sequential(nn.Linear(width, WIDENING * width), nn.ReLU(), nn.Linear(WIDENING * width, hidden))

    def fit_scale(self, values: NDArray[np.float32]) -> None:
        """Take mean and spread (W,) from the train rows' values (n, W)."""
        self.mean.copy_(torch.from_numpy(values.mean(0)))
        self.spread.copy_(torch.from_numpy(np.maximum(values.std(0), 1e-6)))

    def forward(self, values_SW: Tensor) -> Tensor:
        scaled_SW = (values_SW - self.mean) / self.spread
        if self.training and self.dropout:
            keep = torch.rand(len(scaled_SW), len(self.widths), device=scaled_SW.device) >= self.dropout
            widths = torch.tensor(self.widths, device=scaled_SW.device)
            scaled_SW = scaled_SW * keep.repeat_interleave(widths, dim=1)
        return self.layers(scaled_SW)

    def save(self, folder: Path) -> None:
        """Write the projector into `folder`."""
        with atomic(folder / PROJECTOR_FILE) as partial:
            save_file({name: value.contiguous().cpu() for name, value in self.state_dict().items()}, partial)

    @classmethod
    def load(cls, folder: Path, widths: list[int], hidden: int) -> SlotProjector:
        """Read a projector for slots of these `widths`.

        Raises:
            UserError: there is none, or it was trained for other slots.
        """
        projector = cls(widths, hidden)
        try:
            projector.load_state_dict(load_file(folder / PROJECTOR_FILE))
        except (FileNotFoundError, RuntimeError, SafetensorError):
            raise UserError(f"{folder / PROJECTOR_FILE}: no projector for these slots; rerun: dvc repro sft") from None
        return projector


@dataclass(frozen=True, slots=True)
class Output:
    """What one pass over a batch yields."""

    score: Tensor  # (R,) Yes - No logit at the verdict's position
    verdict_logits: Tensor  # (R, V)
    reason_logits: Tensor  # (Q, V)


class RecommenderLM(nn.Module):
    """A causal LM whose slots are filled by a projector; without a projector slots keep their token's embedding."""

    def __init__(
        self,
        backbone: PreTrainedModel,
        vocabulary: Vocabulary,
        slot_values: SlotValues,
        projector: SlotProjector | None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.vocabulary = vocabulary
        self.slot_values = slot_values
        self.projector = projector

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.backbone.device

    def embed(self, batch: Batch) -> Tensor:
        """Input embeddings (B, T, D), slots filled."""
        embedded = self.backbone.get_input_embeddings()(batch.input_ids)
        if self.projector is None:
            return embedded
        values = torch.from_numpy(self.slot_values(batch.slot_rows.cpu().numpy())).to(embedded.device)
        filled = self.projector(values).to(embedded.dtype)
        return embedded.index_put((batch.slots[:, 0], batch.slots[:, 1]), filled)

    def forward(self, batch: Batch) -> Output:
        """Scores of the batch's targets; the LM head is applied at verdicts and reasons only."""
        hidden = self.backbone.base_model(
            inputs_embeds=self.embed(batch),
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            use_cache=False,
        ).last_hidden_state
        head = self.backbone.get_output_embeddings()
        at = batch.slots[batch.targets]
        verdict_logits = head(hidden[at[:, 0], at[:, 1]]).float()
        reason_logits = head(hidden[batch.reasons[:, 0], batch.reasons[:, 1]]).float()
        score = verdict_logits[:, self.vocabulary.yes] - verdict_logits[:, self.vocabulary.no]
        return Output(score, verdict_logits, reason_logits)
