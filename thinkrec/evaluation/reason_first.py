"""Does thinking before deciding help? The score beside two ways to spend tokens on it, on valid rows.

The model is trained to answer first and to explain then; how much it is also trained to explain first is
`sft.reason_first`. Measured are:

- `verdict_first`: the score, read where the answer begins: one pass and no new token;
- `answers_k`: the share of Yes among k sampled answers (self-consistency). Their verdicts are drawn from the very
  distribution that the score is read from, so this estimates the score by k coins: it shows what such an average costs;
- `reason_first_k`: k reasons are sampled with no verdict before them, the question is put again after each, and the
  probabilities that are read there are averaged (`reasons.decoding`). Here the reason does come first. The model's own
  reasons may be wrong, while those that it learned from were kept for being right (`lm.finetune`).

Everything is sampled at temperature 1, which is the model's own distribution. Test rows are left alone: whoever chooses
a mode by these figures chooses on valid.

Shapes: n rows, k samples.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thinkrec.claims.answers import parse_verdict
from thinkrec.evaluation.intervals import bootstrap, interval
from thinkrec.lm.loaded import LoadedModel
from thinkrec.metrics import sigmoid
from thinkrec.reasons.decoding import Decoding, reason_first, write_answers

METRICS = ("auc", "uauc")
TEMPERATURE = 1.0
SAMPLES = 4  # answers, and reasons, of each row
VERDICT_FIRST = "verdict_first"

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


def measure(
    loaded: LoadedModel, *, rows: int, samples: int = SAMPLES, max_new_tokens: int, seed: int
) -> tuple[dict[str, Any], dict[str, float]]:
    """Every mode on the valid rows of users drawn by `seed`, at least so many `rows`, with up to `samples` samples.

    Returns the metrics and, by kind of mode, the seconds that one sample of a row took: those belong into no artefact.
    Nothing at all for no rows. By mode: AUC and UAUC; `tokens`, new ones per row; and for each metric its `difference`
    from the verdict-first score, with the interval `low`, `high` (paired, bootstrap over users).
    """
    if not rows:
        return {}, {}
    held = sample_users(loaded.user, loaded.rows("valid"), rows, seed=seed)

    def share_of_yes(decoding: Decoding) -> tuple[Floats, list[str]]:
        texts = write_answers(loaded, held, decoding, progress="answers")
        verdicts = map(parse_verdict, texts)  # an answer without one leaves it open
        return np.asarray([0.5 if verdict is None else float(verdict) for verdict in verdicts]), texts

    def after_reason(decoding: Decoding) -> tuple[Floats, list[str]]:
        texts, scores = reason_first(loaded, held, decoding, progress="reason first")
        return sigmoid(scores), texts

    began = perf_counter()
    probability = {VERDICT_FIRST: sigmoid(loaded.score(held, progress="verdict first"))}
    seconds = {VERDICT_FIRST: (perf_counter() - began) / len(held)}
    tokens = {VERDICT_FIRST: 0.0}
    kinds: dict[str, Callable[[Decoding], tuple[Floats, list[str]]]] = {
        "answers": share_of_yes,
        "reason_first": after_reason,
    }
    decodings = [
        Decoding(max_new_tokens=max_new_tokens, temperature=TEMPERATURE, seed=seed + number)
        for number in range(samples)
    ]
    for kind, sample in kinds.items():
        began = perf_counter()
        probabilities, texts = zip(*map(sample, decodings), strict=True)
        seconds[kind] = (perf_counter() - began) / len(held) / samples
        for count in counts(samples):
            probability[f"{kind}_{count}"] = np.mean(probabilities[:count], axis=0)
            tokens[f"{kind}_{count}"] = sum(_mean_tokens(loaded, of_sample) for of_sample in texts[:count])

    user, label = loaded.user[held], loaded.layout.label[held]
    drawn = bootstrap(user, label, probability, metrics=METRICS, seed=seed)
    first = drawn[VERDICT_FIRST]
    modes: dict[str, Any] = {mode: {**of_mode.value, "tokens": tokens[mode]} for mode, of_mode in drawn.items()}
    for mode, of_mode in drawn.items():
        for name in METRICS if mode != VERDICT_FIRST else ():
            difference = {"difference": of_mode.value[name] - first.value[name]}
            modes[mode][f"{name}_difference"] = difference | interval(of_mode.draws[name] - first.draws[name])
    return {"rows": len(held), "users": len(np.unique(user)), "modes": modes}, seconds


def sample_users(user: NDArray[np.integer], candidates: Rows, least: int, *, seed: int) -> Rows:
    """The `candidates` (sorted) of users drawn by `seed`, whole users, until there are at least so many."""
    users, count = np.unique(user[candidates], return_counts=True)
    order = np.random.default_rng(seed).permutation(len(users))
    enough = int(np.searchsorted(np.cumsum(count[order]), least)) + 1
    return candidates[np.isin(user[candidates], users[order[:enough]])]


def counts(samples: int) -> list[int]:
    """How many samples are averaged: 1, 2, 4, ... and all of them."""
    return sorted({*(2**power for power in range(samples.bit_length())), samples})


def to_text(measured: dict[str, Any], seconds: dict[str, float]) -> str:
    """The modes of `measure` as aligned plain text; seconds are those of a whole row on this machine."""
    lines = [f"thinking first, {measured['rows']:,} valid rows of {measured['users']:,} users:"]
    for mode, figures in measured["modes"].items():
        kind, _, count = mode.rpartition("_")
        cost = seconds[mode] if mode in seconds else seconds[kind] * int(count)
        lines.append(
            f"{mode:<16}  AUC {figures['auc']:.4f}  UAUC {figures['uauc']:.4f}  "
            f"{figures['tokens']:7.1f} tokens  {cost:7.4f} s a row"
        )
    return "\n".join(lines)


def _mean_tokens(loaded: LoadedModel, texts: list[str]) -> float:
    """Mean number of new tokens of these texts, the end token included."""
    return float(np.mean([len(loaded.tokenizer(text, add_special_tokens=False)["input_ids"]) + 1 for text in texts]))
