"""What trains when: the recipes of supervised fine-tuning, as data.

`compact` teaches the slot projector to speak to the backbone as it was pretrained, then fine-tunes both together, and
keeps that only if valid says that it helped: a small backbone learns its train rows by heart. The global adapter is
the zero adapter, and experts are fresh LoRAs on top. `paper` (METHOD: experts and fusion) leaves the backbone as it is:
a global LoRA learns from text, then, that LoRA frozen, the projector learns to put features into slots; experts are
copies of the global LoRA, of which the last layers go on learning from text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Part = Literal["backbone", "adapter", "projector", "soft_prompt"]
Score = Literal["difference", "yes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A training run over train's rows."""

    name: str
    trains: tuple[Part, ...]
    slots: bool  # whether prompts are told features; else they are text alone
    rate: float = 1.0  # times `sft.learning_rate`
    optional: bool = False  # undone if valid is no better than after the phase before


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How the global model and the experts come about."""

    phases: tuple[Phase, ...]
    score: Score  # which logits a score is: Yes - No, or Yes alone
    expert_slots: bool  # whether experts learn from prompts that are told features

    @property
    def adapter(self) -> bool:
        """Whether the global model is a LoRA on the backbone, not a backbone of its own."""
        return any("adapter" in phase.trains for phase in self.phases)


RECIPES = {
    "compact": Recipe(
        phases=(
            Phase(name="projector", trains=("projector",), slots=True, rate=2.0),
            Phase(name="sft", trains=("backbone", "projector", "soft_prompt"), slots=True, optional=True),
        ),
        score="difference",
        expert_slots=True,
    ),
    "paper": Recipe(
        phases=(
            Phase(name="text", trains=("adapter", "soft_prompt"), slots=False),
            Phase(name="projector", trains=("projector",), slots=True),
        ),
        score="yes",
        expert_slots=False,
    ),
}
