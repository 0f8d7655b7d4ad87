"""Does thinking before deciding help? The score beside what it becomes after a reason, on valid rows.

The model is trained to answer first and to explain then; how much it is also trained to explain first is
`sft.reason_first`. `verdict_first` is the score, read where the answer begins: one pass and no new token.
`reason_first_k` is the mean of k probabilities, each read after the question is put again behind a reason that was
sampled with no verdict before it (`reasons.decoding`). The model's own reasons may be wrong, while those that it
learned from were kept for being right (`lm.finetune`).

Everything is sampled at temperature 1, which is the model's own distribution. Test rows are left alone: whoever chooses
a mode by these figures chooses on valid.

Shapes: n rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from thinkrec.evaluation.intervals import bootstrap, interval
from thinkrec.lm.loaded import LoadedModel
from thinkrec.metrics import sigmoid
from thinkrec.reasons.decoding import Decoding, reason_first

METRICS = ("auc", "uauc")
SAMPLES = (1, 2, 4)  # reasons that are averaged
VERDICT_FIRST = "verdict_first"

Rows = NDArray[np.int64]


def measure(loaded: LoadedModel, *, rows: int, max_new_tokens: int, seed: int) -> dict[str, Any]:
    """Every mode on the valid rows of users drawn by `seed`, at least so many `rows`; nothing for no rows.

    By mode: AUC and UAUC; `tokens`, new ones per row; and for each metric its `difference` from the verdict-first
    score, with the interval `low`, `high` (paired, bootstrap over users).
    """
    if not rows:
        return {}
    held = sample_users(loaded.user, loaded.rows("valid"), rows, seed=seed)
    decodings = [Decoding(max_new_tokens=max_new_tokens, temperature=1.0, seed=seed + n) for n in range(max(SAMPLES))]
    drawn = [reason_first(loaded, held, decoding, progress="reason first") for decoding in decodings]
    probabilities = [sigmoid(scores) for _, scores in drawn]
    lengths = [_mean_tokens(loaded, texts) for texts, _ in drawn]
    probability = {VERDICT_FIRST: sigmoid(loaded.score(held, progress="verdict first"))}
    probability |= {f"reason_first_{k}": np.mean(probabilities[:k], axis=0) for k in SAMPLES}
    tokens = {VERDICT_FIRST: 0.0, **{f"reason_first_{k}": sum(lengths[:k]) for k in SAMPLES}}

    user, label = loaded.user[held], loaded.layout.label[held]
    measured = bootstrap(user, label, probability, metrics=METRICS, seed=seed)
    first = measured[VERDICT_FIRST]
    modes: dict[str, Any] = {mode: {**of_mode.value, "tokens": tokens[mode]} for mode, of_mode in measured.items()}
    for mode, of_mode in measured.items():
        for name in METRICS if mode != VERDICT_FIRST else ():
            difference = {"difference": of_mode.value[name] - first.value[name]}
            modes[mode][f"{name}_difference"] = difference | interval(of_mode.draws[name] - first.draws[name])
    return {"rows": len(held), "users": len(np.unique(user)), "modes": modes}


def sample_users(user: NDArray[np.integer], candidates: Rows, least: int, *, seed: int) -> Rows:
    """The `candidates` (sorted) of users drawn by `seed`, whole users, until there are at least so many."""
    users, count = np.unique(user[candidates], return_counts=True)
    order = np.random.default_rng(seed).permutation(len(users))
    enough = int(np.searchsorted(np.cumsum(count[order]), least)) + 1
    return candidates[np.isin(user[candidates], users[order[:enough]])]


def to_text(measured: dict[str, Any]) -> str:
    """The modes of `measure` as aligned plain text."""
    lines = [f"thinking first, {measured['rows']:,} valid rows of {measured['users']:,} users:"]
    lines += [
        f"{mode:<16}  AUC {figures['auc']:.4f}  UAUC {figures['uauc']:.4f}  {figures['tokens']:7.1f} tokens a row"
        for mode, figures in measured["modes"].items()
    ]
    return "\n".join(lines)


def _mean_tokens(loaded: LoadedModel, texts: list[str]) -> float:
    """Mean number of new tokens of these texts, the end token included."""
    return float(np.mean([len(loaded.tokenizer(text, add_special_tokens=False)["input_ids"]) + 1 for text in texts]))
