"""Does thinking before deciding help? The score beside two ways to spend tokens on it, on valid rows.

The model is trained to answer first and to explain then, and its score is read where the answer begins; how much it is
also trained to explain first is `sft.reason_first`. Measured are:

- `verdict_first`: that score, of one pass and no new token;
- `answers_k`: the share of Yes among k sampled answers (self-consistency). Their verdicts are drawn from the very
  distribution that the score is read from, before a word of the reason is there; so this estimates the same score by
  k coins, and can only be worse until k is large. It shows what such an average costs, not what thinking brings;
- `reason_first_k`: k reasons are sampled with no verdict before them, the question is put again after each, and the
  probabilities that are read there are averaged (`reasons.decoding`). Here the reason does come first.
  Without `sft.reason_first` the model was not trained on prompts of this form: what it loses there is the price of the
  form and of the reason together, and a gain would be one in spite of it. With it, the form is known, but the reasons
  that it learned from were kept for being right, and its own are not (`lm.finetune`).

Everything is sampled at temperature 1, which is the model's own distribution. Test rows are left alone: whoever chooses
a mode by these figures chooses on valid.

Shapes: n rows, k samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    loaded: LoadedModel,
    *,
    rows: int,
    samples: int = SAMPLES,
    max_new_tokens: int,
    seed: int,
) -> tuple[dict[str, Any], dict[str, float]]:
    """Every mode on the valid rows of users drawn by `seed`, at least so many `rows`, with up to `samples` samples.

    Returns the metrics and, by kind of mode, the seconds that one sample of a row took: those belong into no artefact.
    Nothing at all for no rows. By mode: AUC and UAUC; `tokens`, new ones per row; and for each metric its `difference`
    from the verdict-first score, with the interval `low`, `high` (paired, bootstrap over users).
    """
    if not rows:
        return {}, {}
    held = sample_users(loaded.user, loaded.rows("valid"), rows, seed=seed)
    seconds = {}

    def timed(name: str, work: Callable[[], list[Any]]) -> list[Any]:
        before = perf_counter()
        done = work()
        seconds[name] = (perf_counter() - before) / len(held) / len(done)
        return done

    decodings = [
        Decoding(max_new_tokens=max_new_tokens, temperature=TEMPERATURE, seed=seed + number)
        for number in range(samples)
    ]
    first = timed(VERDICT_FIRST, lambda: [loaded.score(held, progress="verdict first")])
    answers = timed("answers", lambda: [write_answers(loaded, held, one, progress="answers") for one in decodings])
    thought = timed(
        "reason_first", lambda: [reason_first(loaded, held, one, progress="reason first") for one in decodings]
    )
    written = {"answers": answers, "reason_first": [texts for texts, _ in thought]}
    by_sample = {
        "answers": [np.asarray([_share_of_yes(text) for text in texts]) for texts in answers],
        "reason_first": [sigmoid(scores) for _, scores in thought],
    }
    probability, tokens = {VERDICT_FIRST: sigmoid(first[0])}, {VERDICT_FIRST: 0.0}
    for kind, each in by_sample.items():
        for count in counts(samples):
            probability[f"{kind}_{count}"] = np.mean(each[:count], axis=0)
            tokens[f"{kind}_{count}"] = sum(_tokens(loaded, texts) for texts in written[kind][:count])
    user, label = loaded.user[held], loaded.layout.label[held]
    return {
        "rows": len(held),
        "users": len(np.unique(user)),
        "modes": compared(user, label, probability, tokens, seed=seed),
    }, seconds


def compared(
    user: NDArray[np.integer],
    label: NDArray[np.integer],
    probability: dict[str, Floats],
    tokens: dict[str, float],
    *,
    seed: int,
) -> dict[str, Any]:
    """The figures of every mode, and what parts it from the verdict-first score."""
    drawn = bootstrap(user, label, probability, metrics=METRICS, seed=seed)
    first = drawn[VERDICT_FIRST]
    table: dict[str, Any] = {}
    for mode, one in drawn.items():
        table[mode] = {**one.value, "tokens": tokens[mode]}
        if mode != VERDICT_FIRST:
            for name in METRICS:
                low, high = interval(one.draws[name] - first.draws[name])
                value = one.value[name] - first.value[name]
                table[mode][f"{name}_difference"] = {"difference": value, "low": low, "high": high}
    return table


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
    for mode, table in measured["modes"].items():
        kind, _, count = mode.rpartition("_")
        cost = seconds[mode] if mode in seconds else seconds[kind] * int(count)
        lines.append(
            f"{mode:<16}  AUC {table['auc']:.4f}  UAUC {table['uauc']:.4f}  "
            f"{table['tokens']:7.1f} tokens  {cost:7.4f} s a row"
        )
    return "\n".join(lines)


def _share_of_yes(text: str) -> float:
    """A sampled verdict as a probability; an answer without one leaves it open."""
    verdict = parse_verdict(text)
    return 0.5 if verdict is None else float(verdict)


def _tokens(loaded: LoadedModel, texts: Sequence[str]) -> float:
    """Mean number of new tokens of these texts, the end token included."""
    return float(np.mean([len(loaded.tokenizer(text, add_special_tokens=False)["input_ids"]) + 1 for text in texts]))
