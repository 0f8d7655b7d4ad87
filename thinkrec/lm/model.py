"""The recommender's language model: any causal LM, the projector that fills its slots, the soft prompt
before its text, the match of texts that its score counts in.

Shapes: B sequences, T tokens, k soft tokens, S slots, M mentions of items, R targets, Q reason tokens, D hidden size, V
vocabulary, W slot width, E size of an item's text vector.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import Cache, PreTrainedModel

from thinkrec.artifacts import atomic
from thinkrec.errors import UserError
from thinkrec.features.artefact import Features
from thinkrec.lm.adapters import SharedLayers
from thinkrec.lm.families import finish_logits, text_config
from thinkrec.lm.recipes import Score
from thinkrec.params import Slot
from thinkrec.text.layout import Batch
from thinkrec.text.vocabulary import Vocabulary

WIDENING = 10  # METHOD: proj: Linear(d -> 10 d), ReLU, Linear(10 d -> D)
PROJECTOR_FILE = "projector.safetensors"
SOFT_PROMPT_FILE = "soft_prompt.safetensors"
MATCH_FILE = "match.safetensors"
SHRINKAGE = 5.0  # earlier interactions that a match must outweigh


@dataclass(frozen=True, slots=True)
class SlotValues:
    """What a slot is filled with, by interaction: the chosen parts of the features, side by side."""

    features: Features
    parts: tuple[Slot, ...]

    @property
    def widths(self) -> list[int]:
        """Width of each part."""
        return [self._part(part, np.zeros(0, np.int64)).shape[1] for part in self.parts]

    @property
    def parts_by_kind(self) -> list[list[bool]]:
        """Which parts a slot of each kind (WHOLE, USER, ITEM) holds."""
        user = [part == "user" for part in self.parts]
        return [[True] * len(self.parts), user, [not is_user for is_user in user]]

    def __call__(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """Values (len(rows), W)."""
        return np.concatenate([self._part(part, rows) for part in self.parts], axis=1)

    def _part(self, part: Slot, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        match part:
            case "user":
                return self.features.user_vectors_of(rows)
            case "item":
                return self.features.item_vectors_of(rows)
            case "statistics":
                return self.features.statistics[rows]


class SlotProjector(nn.Module):
    """Standardises slot values (S, W) by train's mean and spread and maps them to input embeddings (S, D).

    In training each part is set to its mean with probability `dropout`, so that the text is read too.
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

    def forward(self, values_SW: Tensor, keep_SP: Tensor | None = None) -> Tensor:
        """Embeddings of slots, each of the parts P that `keep_SP` marks (None: all); the others stand at their mean."""
        scaled_SW = (values_SW - self.mean) / self.spread
        if keep_SP is None:
            keep_SP = torch.ones(len(scaled_SW), len(self.widths), dtype=torch.bool, device=scaled_SW.device)
        if self.training and self.dropout:
            keep_SP = keep_SP & (torch.rand(keep_SP.shape, device=scaled_SW.device) >= self.dropout)
        widths = torch.tensor(self.widths, device=scaled_SW.device)
        return self.layers(scaled_SW * keep_SP.repeat_interleave(widths, dim=1))


class SoftPrompt(nn.Module):
    """Learned vectors (k, D) after the begin token of every prompt, as in Prompt4NR (arXiv 2304.05263)."""

    def __init__(self, vectors_kD: Tensor) -> None:
        super().__init__()
        self.vectors = nn.Parameter(vectors_kD)

    @classmethod
    def from_tokens(cls, embeddings: nn.Embedding, count: int) -> SoftPrompt:
        """Start `count` vectors at the embeddings of random tokens (by torch's own seed)."""
        tokens = torch.randint(embeddings.num_embeddings, (count,))
        return cls(embeddings.weight.detach()[tokens].float())

    def forward(self, embedded_BTD: Tensor) -> Tensor:
        vectors_BkD = self.vectors.to(embedded_BTD.dtype).expand(len(embedded_BTD), -1, -1)
        return torch.cat([embedded_BTD[:, :1], vectors_BkD, embedded_BTD[:, 1 + len(self.vectors) :]], dim=1)


class TextMatch(nn.Module):
    """How well a target's text goes with the texts of what its user liked, and not with those of what they disliked.

        match_r = sum over j before r of y_j <t_j, t_r> / (n_r + SHRINKAGE),   y_j = 1 for liked, else -1

    over the n_r items that the prompt shows before r. An item's vector t (E,) is a linear map of the mean of the last
    hidden states over its text. This is linear attention with verdicts as its values. A language model's own attention
    needs many epochs to find it, since both of its factors begin at nothing. R2ec (arXiv 2505.16994) has another head
    that multiplies what the past says by what the target is.
    """

    mean: Tensor  # (D,)
    spread: Tensor  # (D,)

    def __init__(self, hidden: int, size: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(hidden))
        self.register_buffer("spread", torch.ones(hidden))
        self.dropout = dropout
        self.weight = nn.Parameter(torch.randn(size, hidden) / hidden**0.5)  # at first a random projection

    def fit_scale(self, texts_MD: Tensor) -> None:
        """Standardise by mean and spread of these texts' hidden states."""
        self.mean.copy_(texts_MD.mean(0))
        self.spread.copy_(texts_MD.std(0).clamp(min=1e-6))

    def forward(self, hidden_BTD: Tensor, batch: Batch) -> Tensor:
        """Logits (R,) that are added to Yes's."""
        texts_MD = (mean_over_texts(hidden_BTD, batch) - self.mean) / self.spread
        items_ME = functional.dropout(functional.linear(texts_MD, self.weight), self.dropout, self.training)
        taste_RE = (batch.before * batch.mention_labels) @ items_ME / (batch.before.sum(1, keepdim=True) + SHRINKAGE)
        return (taste_RE * items_ME[batch.target_mentions]).sum(1)


def mean_over_texts(hidden_BTD: Tensor, batch: Batch) -> Tensor:
    """Mean hidden state (M, D) over the text of every mention, in fp32; 0 where there is no text."""
    sequence, first, length = batch.mentions.unbind(1)
    mention = torch.repeat_interleave(length)
    within = torch.arange(len(mention), device=mention.device) - (length.cumsum(0) - length)[mention]
    states = hidden_BTD[sequence[mention], first[mention] + within].float()
    sums_MD = states.new_zeros(len(length), states.shape[1]).index_add(0, mention, states)
    return sums_MD / length.clamp(min=1)[:, None]


@dataclass(frozen=True, slots=True)
class Output:
    """What one pass over a batch yields."""

    score: Tensor  # (R,) Yes - No logit at the verdict's position, or the Yes logit (`lm.recipes`)
    verdict_logits: Tensor  # (R, V), the match of texts counted in
    reason_logits: Tensor  # (Q, V)


class RecommenderLM(nn.Module):
    """A causal LM whose slots are filled by a projector; without a projector slots keep their token's embedding.

    The layout of its batches has as many `soft_tokens` as its soft prompt has vectors; none without one.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        vocabulary: Vocabulary,
        slot_values: SlotValues,
        projector: SlotProjector | None,
        soft_prompt: SoftPrompt | None = None,
        match: TextMatch | None = None,
        *,
        scored: Score = "difference",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.vocabulary = vocabulary
        self.slot_values = slot_values
        self.projector = projector
        self.soft_prompt = soft_prompt
        self.match = match
        self.scored = scored
        self.shared: SharedLayers | None = None

    @contextmanager
    def sharing_layers(self) -> Iterator[None]:
        """While sequences come again under other adapters: run what those share once for each (`lm.adapters`)."""
        self.shared = SharedLayers(self.backbone)
        try:
            yield
        finally:
            self.shared = None

    def with_inputs(self, values: SlotValues, projector: SlotProjector | None) -> RecommenderLM:
        """The same weights, with other values put into slots or, without a `projector`, none."""
        parts = (projector, self.soft_prompt, self.match)
        return RecommenderLM(self.backbone, self.vocabulary, values, *parts, scored=self.scored)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.backbone.device

    def save_inputs(self, folder: Path) -> None:
        """Write what the model has of projector, soft prompt and match into `folder`."""
        for path, part in self._inputs(folder).items():
            with atomic(path) as partial:
                save_file({name: value.contiguous().cpu() for name, value in part.state_dict().items()}, partial)

    def load_inputs(self, folder: Path) -> None:
        """Read the parts around the backbone that the model has; a UserError if one is missing or of other prompts."""
        for path, part in self._inputs(folder).items():
            try:
                part.load_state_dict(load_file(path))
            except (FileNotFoundError, RuntimeError, SafetensorError):
                raise UserError(
                    f"{path}: not there, or not for these prompt.slots and prompt.soft_tokens; rerun: dvc repro sft"
                ) from None

    def _inputs(self, folder: Path) -> dict[Path, nn.Module]:
        parts = {PROJECTOR_FILE: self.projector, SOFT_PROMPT_FILE: self.soft_prompt, MATCH_FILE: self.match}
        return {folder / name: part for name, part in parts.items() if part is not None}

    def embed(self, batch: Batch) -> Tensor:
        """Input embeddings (B, T, D), the soft prompt put in and slots filled."""
        embedded = self.backbone.get_input_embeddings()(batch.input_ids)
        if self.soft_prompt is not None:
            embedded = self.soft_prompt(embedded)
        if self.projector is None:
            return embedded
        values = torch.from_numpy(self.slot_values(batch.slot_rows.cpu().numpy())).to(embedded.device)
        keep_SP = torch.tensor(self.slot_values.parts_by_kind, device=embedded.device)[batch.slot_kinds]
        filled = self.projector(values, keep_SP).to(embedded.dtype)
        return embedded.index_put((batch.slots[:, 0], batch.slots[:, 1]), filled)

    def hidden_states(
        self, embedded: Tensor, attention_mask: Tensor, position_ids: Tensor, cache: Cache | None = None
    ) -> Tensor:
        """Last hidden states (B, T, D) of input embeddings (B, T, D); `attention_mask` (B, 1, T, seen) is boolean.

        With a `cache` the tokens in it are seen too, and these are added to it.
        """
        kind = embedded.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else embedded.dtype
        # Added to attention's logits once and for all: each layer would make such a mask of a boolean one, and keep it.
        nothing = torch.zeros_like(attention_mask, dtype=dtype)
        attention_mask = nothing.masked_fill(~attention_mask, torch.finfo(dtype).min)
        return self.backbone.get_decoder()(
            inputs_embeds=embedded,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state

    def forward(self, batch: Batch) -> Output:
        """Scores of the batch's targets; the LM head is applied at verdicts and reasons only."""

        def read() -> Tensor:
            return self.hidden_states(self.embed(batch), batch.attention_mask, batch.position_ids)

        hidden = read() if self.shared is None else self.shared.run(batch, read)
        verdict_hidden = hidden[batch.verdicts[:, 0], batch.verdicts[:, 1]]
        score, verdict_logits = self.read_verdicts(verdict_hidden, self.match_texts(hidden, batch))
        return Output(score, verdict_logits, self.logits(hidden[batch.reasons[:, 0], batch.reasons[:, 1]]))

    def match_texts(self, hidden_BTD: Tensor, batch: Batch) -> Tensor | None:
        """What the match of texts adds to each target's logit of Yes (R,), if the model has one."""
        return None if self.match is None else self.match(hidden_BTD, batch)

    def read_verdicts(self, hidden_RD: Tensor, match_R: Tensor | None) -> tuple[Tensor, Tensor]:
        """The scores (R,) of hidden states from which a verdict is predicted, and the logits (R, V) of its token.

        Every score of the language model is computed here: training, scoring and reasons read it alike.
        """
        words, logits_RV = self.vocabulary, self.verdict_logits(hidden_RD)
        if match_R is not None:
            logits_RV = logits_RV.index_add(1, torch.tensor([words.yes], device=hidden_RD.device), match_R[:, None])
        score_R = logits_RV[:, words.yes]
        return score_R - logits_RV[:, words.no] if self.scored == "difference" else score_R, logits_RV

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (..., V) of the token that comes after hidden states (..., D)."""
        return finish_logits(self.backbone.get_output_embeddings()(hidden).float(), text_config(self.backbone))

    def verdict_logits(self, hidden_RD: Tensor) -> Tensor:
        """Logits (R, V) of a verdict after hidden states: its two words' in fp32, for rounded ones would tie."""
        words, head, logits_RV = self.vocabulary, self.backbone.get_output_embeddings(), self.logits(hidden_RD)
        device = hidden_RD.device
        if head.weight.dtype == torch.float32 and not torch.is_autocast_enabled(device.type):
            return logits_RV
        verdicts = torch.tensor(words.verdicts, device=device)
        bias = None if head.bias is None else head.bias[verdicts].float()
        with torch.autocast(device.type, enabled=False):
            exact_R2 = functional.linear(hidden_RD.float(), head.weight[verdicts].float(), bias)
        return logits_RV.index_copy(1, verdicts, finish_logits(exact_R2, text_config(self.backbone)))
