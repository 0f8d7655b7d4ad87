"""Reasons: decoding from the verdict's position on, under the same fused weights as the score.

The prompt pass is the very one that scores. New tokens see what the target's slot saw and each other; the token
that stands in the target's verdict place (there is always one) is masked, and where a generated token goes its
position does too.

Decoding is greedy, or draws each token by a number that depends on the seed, the row and the token's place in the
answer alone: batches, processes and the other rows asked for change nothing.

Shapes: B prompts, T their padded length, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache, PreTrainedTokenizerBase

from thinkrec.lm import processes
from thinkrec.lm.mixture import Router
from thinkrec.lm.model import RecommenderLM
from thinkrec.lm.scoring import routed_batches
from thinkrec.params import EvaluateParams
from thinkrec.text.layout import Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How answers are written: the likeliest token each time at temperature 0, else sampled.

    Attributes:
        max_new_tokens: an answer's most tokens, the end token included.
        temperature: that logits are divided by; 0 is greedy.
        top_p: sampled are the likeliest tokens that together have at least this probability, no more than needed.
        seed: of the sampling.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    @classmethod
    def of(cls, params: EvaluateParams, *, seed: int) -> Self:
        """As the parameters say."""
        return cls(max_new_tokens=params.max_new_tokens, temperature=params.temperature, top_p=params.top_p, seed=seed)


@torch.inference_mode()
def generate(
    model: RecommenderLM,
    tokenizer: PreTrainedTokenizerBase,
    layout: Layout,
    rows: NDArray[np.int64],
    decoding: Decoding,
    *,
    router: Router | None = None,
    routing: NDArray[np.float32] | None = None,
    route: NDArray[np.integer] | None = None,
    progress: str | None = None,
) -> list[str]:
    """The answer (verdict, then reason) to every row, in the order of `rows`; weights as in `routed_batches`."""
    model.eval()
    # A state of its own for every row: each is a sequence with one target.
    windows = layout.scoring_windows(rows, np.arange(len(rows)))
    written: list[tuple[int, str]] = []
    batches = routed_batches(model, layout, windows, router=router, routing=routing, route=route, progress=progress)
    for batch in batches:
        at = batch.verdicts  # (B, 2), one target each
        asked = batch.first_target.cpu().numpy()
        cache = DynamicCache(config=model.backbone.config)
        states = model.hidden_states(model.embed(batch), batch.attention_mask, batch.position_ids, cache)
        hidden = states[at[:, 0], at[:, 1]]
        seen = batch.attention_mask[at[:, 0], 0, at[:, 1]]  # (B, T): what the slot sees
        position = batch.position_ids[at[:, 0], at[:, 1]]
        head, embeddings = model.backbone.get_output_embeddings(), model.backbone.get_input_embeddings()
        tokens: list[Tensor] = []
        finished = torch.zeros(len(at), dtype=torch.bool, device=model.device)
        for step in range(decoding.max_new_tokens):
            chosen = choose(head(hidden).float(), decoding, asked, step)
            token = torch.where(finished, layout.vocabulary.end, chosen)
            tokens.append(token)
            finished |= token == layout.vocabulary.end
            if finished.all() or step == decoding.max_new_tokens - 1:
                break
            seen = torch.cat([seen, torch.ones_like(seen[:, :1])], dim=1)
            states = model.hidden_states(
                embeddings(token)[:, None], seen[:, None, None, :], (position + step + 1)[:, None], cache
            )
            hidden = states[:, 0]
        texts = tokenizer.batch_decode(torch.stack(tokens, dim=1), skip_special_tokens=True)
        written += zip(asked.tolist(), (text.strip() for text in texts), strict=True)
    answers = dict(processes.gather(written))
    return [answers[row] for row in rows.tolist()]


def choose(logits_BV: Tensor, decoding: Decoding, rows: NDArray[np.int64], step: int) -> Tensor:
    """The next token (B,) of the answers to `rows` (B,), which have `step` tokens so far.

    Sampling inverts the distribution function, tokens in order of falling probability, in double precision.
    """
    if decoding.temperature == 0:
        return logits_BV.argmax(-1)
    scaled = logits_BV.double() / decoding.temperature
    probability, order = scaled.softmax(-1).sort(dim=-1, descending=True, stable=True)
    before = probability.cumsum(-1) - probability
    kept = before < decoding.top_p
    kept[:, 0] = True
    upto = probability.masked_fill(~kept, 0.0).cumsum(-1)
    drawn = [np.random.default_rng([decoding.seed, row, step]).random() for row in rows.tolist()]
    point = torch.tensor(drawn, dtype=torch.float64, device=upto.device)[:, None] * upto[:, -1:]
    place = torch.searchsorted(upto, point, right=True)  # the first token whose share ends beyond the point
    return order.gather(-1, place.minimum(kept.sum(-1, keepdim=True) - 1)).squeeze(-1)
