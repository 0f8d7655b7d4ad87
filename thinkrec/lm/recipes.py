"""What trains when: the recipes of supervised fine-tuning, as data.

`compact` first teaches the small backbone to reason, from traces and then by the truth of what it says. Then the slot
projector learns to recommend through the frozen backbone, which is so small that it would learn the train rows by
heart. Without features in the prompt there is no projector, and the backbone itself learns to recommend. Experts are
fresh LoRAs on top.

`paper` (METHOD: experts and fusion) never trains the backbone. A global LoRA learns from text, then the projector to
put features into slots. Experts start as copies of the global LoRA, whose last layers go on learning from text.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Part = Literal["backbone", "adapter", "projector", "soft_prompt", "match"]
Score = Literal["difference", "yes"]
Learns = Literal["labels and reasons", "labels", "reasons", "truth"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A training run over train's rows."""

    name: str
    trains: tuple[Part, ...]
    slots: bool  # whether prompts have features in their slots; else they are text alone
    rate: float = 1.0  # times `sft.learning_rate`
    epochs: float = 1.0  # times `sft.epochs`
    # Of reasons alone, the epoch stays that best predicts those held out of it; of truth, see `reasons.refinement`.
    learns: Learns = "labels and reasons"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How the global model and the experts come about."""

    phases: tuple[Phase, ...]  # those with nothing to train or nothing to learn from are left out
    by_text: tuple[Phase, ...]  # instead, where no prompt has features
    score: Score  # which logits a score is: Yes - No, or Yes alone
    expert_slots: bool  # whether experts learn from prompts with features
    expert_learns: Learns

    @property
    def adapter(self) -> bool:
        """Whether the global model is a LoRA on the backbone, not a backbone of its own."""
        return any("adapter" in phase.trains for phase in self.phases)


_THINKING = Phase(name="thinking", trains=("backbone", "soft_prompt"), slots=True, learns="reasons")
_REFINEMENT = replace(_THINKING, name="refinement", learns="truth")
_TEXT = Phase(name="text", trains=("adapter", "soft_prompt"), slots=False)
_TEXT_REFINEMENT = replace(_TEXT, name="refinement", learns="truth")

RECIPES = {
    "compact": Recipe(
        phases=(
            _THINKING,
            _REFINEMENT,
            # So few weights learn in a third of the epochs, at four times the rate (docs/log.md).
            # Reasons would take half of its time and have little to learn from what it trains.
            Phase(
                name="projector",
                trains=("projector", "soft_prompt"),
                slots=True,
                rate=4.0,
                epochs=1 / 3,
                learns="labels",
            ),
        ),
        by_text=(_THINKING, _REFINEMENT, Phase(name="whole", trains=("backbone", "soft_prompt", "match"), slots=False)),
        score="difference",
        expert_slots=True,
        expert_learns="labels",  # the teacher's reasons again would undo the refinement (docs/log.md)
    ),
    "paper": Recipe(
        phases=(_TEXT, _TEXT_REFINEMENT, Phase(name="projector", trains=("projector",), slots=True)),
        by_text=(_TEXT, _TEXT_REFINEMENT),
        score="yes",
        expert_slots=False,
        expert_learns="labels and reasons",
    ),
}
