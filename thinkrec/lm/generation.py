"""Reasons: greedy decoding from the verdict's position on, under the same fused weights as the score.

The prompt pass is the very one that scores. New tokens see what the target's slot saw and each other; the token
that stands in the target's verdict place (there is always one) is masked, and where a generated token goes its
position does too.

Shapes: B prompts, T their padded length, V vocabulary.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache, PreTrainedTokenizerBase

from thinkrec.lm.mixture import Router
from thinkrec.lm.model import RecommenderLM
from thinkrec.lm.scoring import routed_batches
from thinkrec.text.layout import Layout


@torch.inference_mode()
def generate(
    model: RecommenderLM,
    tokenizer: PreTrainedTokenizerBase,
    layout: Layout,
    rows: NDArray[np.int64],
    *,
    max_new_tokens: int,
    router: Router | None = None,
    routing: NDArray[np.float32] | None = None,
    route: NDArray[np.integer] | None = None,
    progress: str | None = None,
) -> list[str]:
    """The answer (verdict, then reason) to every row, in the order of `rows`; weights as in `routed_batches`."""
    model.eval()
    # A state of its own for every row: each is a sequence with one target.
    windows = layout.scoring_windows(rows, np.arange(len(rows)))
    answers: dict[int, str] = {}
    batches = routed_batches(model, layout, windows, router=router, routing=routing, route=route, progress=progress)
    for batch in batches:
        at = batch.verdicts  # (B, 2), one target each
        cache = DynamicCache(config=model.backbone.config)
        states = model.hidden_states(model.embed(batch), batch.attention_mask, batch.position_ids, cache)
        hidden = states[at[:, 0], at[:, 1]]
        seen = batch.attention_mask[at[:, 0], 0, at[:, 1]]  # (B, T): what the slot sees
        position = batch.position_ids[at[:, 0], at[:, 1]]
        head, embeddings = model.backbone.get_output_embeddings(), model.backbone.get_input_embeddings()
        written: list[torch.Tensor] = []
        finished = torch.zeros(len(at), dtype=torch.bool, device=model.device)
        for step in range(max_new_tokens):
            token = torch.where(finished, layout.vocabulary.end, head(hidden).argmax(-1))
            written.append(token)
            finished |= token == layout.vocabulary.end
            if finished.all() or step == max_new_tokens - 1:
                break
            seen = torch.cat([seen, torch.ones_like(seen[:, :1])], dim=1)
            states = model.hidden_states(
                embeddings(token)[:, None], seen[:, None, None, :], (position + step + 1)[:, None], cache
            )
            hidden = states[:, 0]
        texts = tokenizer.batch_decode(torch.stack(written, dim=1), skip_special_tokens=True)
        answers |= dict(zip(batch.first_target.tolist(), (text.strip() for text in texts), strict=True))
    return [answers[row] for row in rows.tolist()]
