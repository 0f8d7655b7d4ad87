"""Does a score rest on what its reason cites? Take the cited evidence away, and see how far the score moves.

What a reason cites is what its claims (`claims.checker`) are about, where that was shown: interactions of the
history, and keywords of the target. Each intervention changes one kind of it in the prompt:

- `flip`: liked rows of the history become disliked ones, and the other way round;
- `drop`: rows of the history go;
- `mask`: keywords of the target go.

The *control* changes as much of what the same reason does not cite: rows with the same labels among the same last rows
of the history, or keywords of the same target, drawn by seed. Where one side has fewer, as many of the other are drawn,
so every reason is its own pair; reasons without a pair are left out, and counted.

Only text is intervened upon. Slots keep what they were told (a user's vector and the causal statistics, of target and
history alike), and so does the routing: what is measured is what the score takes from the words and labels that a
reason can cite, not what it takes from features that sum up the same interactions. A model that goes by its slots will
show small effects, cited or not.

Shapes: p pairs, m rows of a view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thinkrec.claims.checker import Checker
from thinkrec.evaluation.intervals import mean_interval
from thinkrec.lm.loaded import LoadedModel
from thinkrec.shown import ShownItem
from thinkrec.text.items import Ragged, encode, item_text

Rows = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


INTERVENTIONS = ("flip", "drop", "mask")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cited:
    """What the reason of `row` cites: of the `history` that it may speak of, and of the target's keywords."""

    row: int
    history: Rows
    of_history: Bools
    of_keywords: Bools


@dataclass(frozen=True, slots=True, kw_only=True)
class Counterfactual:
    """What is shown of `row` instead: rows of its history flipped or dropped, another text for the target."""

    row: int
    flipped: Sequence[int] = ()
    dropped: Sequence[int] = ()
    text: str | None = None  # None: as it is


def interventions(
    loaded: LoadedModel,
    reasons: pd.DataFrame,
    checker: Checker,
    *,
    seed: int,
) -> dict[str, dict[str, float | int]]:
    """How far taking away what a reason cites moves its row's score, by intervention, beside the matched control.

    `reasons` is a table like `artifacts.REASONS`. By intervention: `pairs`; `changed`, the mean number of changes
    on either side; `cited` and `control`, the mean absolute change of the logit; their `difference` per
    pair with its interval `low`, `high` (bootstrap over users); `cited_more_share`, where the cited side moves more.
    """
    found = [
        cited(checker, row, text)
        for row, text in zip(reasons["row"].tolist(), reasons["reason"].fillna(""), strict=True)
        if text.strip()
    ]
    before = dict(
        zip(
            (one.row for one in found),
            score_shown(loaded, [Counterfactual(row=one.row) for one in found], "as it is").tolist(),
            strict=True,
        )
    )
    results = {}
    for name in INTERVENTIONS:
        pairs = [
            pair
            for one in found
            if (pair := _pair(name, one, loaded, checker.shown(one.row).target, seed=seed)) is not None
        ]
        moved = [
            np.abs(score_shown(loaded, side, name) - np.asarray([before[change.row] for change in side]))
            for side in ([pair[0] for pair in pairs], [pair[1] for pair in pairs])
        ]
        user = loaded.user[[pair[0].row for pair in pairs]]
        results[name] = {"changed": _mean([pair[2] for pair in pairs]), **compared(user, *moved, seed=seed)}
    return results


def cited(checker: Checker, row: int, text: str) -> Cited:
    """What `text`, the reason of `row`, cites."""
    history = checker.history_rows(row)
    of_history, of_keywords = np.zeros(len(history), bool), np.zeros(len(checker.shown(row).target.keywords), bool)
    for claim in checker.check(row, text).claims:
        if claim.shown and claim.says != "lacks":
            of_keywords[claim.target_keywords] = True
            if not claim.of_target:  # a claim about the target says nothing of the history
                of_history[claim.history] = True
    return Cited(row=row, history=history, of_history=of_history, of_keywords=of_keywords)


def matched(of: Bools, kind: NDArray[np.generic], rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Places inside and outside of `of` (k,): as many of either, of every `kind` (k,), as both sides have."""
    inside, outside = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for one in np.unique(kind):
        sides = [np.flatnonzero(side & (kind == one)) for side in (of, ~of)]
        count = min(map(len, sides))
        for side, drawn in zip(sides, (inside, outside), strict=True):
            drawn.append(rng.choice(side, count, replace=False))
    return np.sort(np.concatenate(inside)), np.sort(np.concatenate(outside))


def compared(user: NDArray[np.generic], cited_p: Floats, control_p: Floats, *, seed: int) -> dict[str, float | int]:
    """Means over pairs of the movements `cited_p` and `control_p` (p), their difference, its interval over users."""
    if not len(user):
        names = ("cited", "control", "difference", "low", "high", "cited_more_share")
        return {"pairs": 0, **dict.fromkeys(names, float("nan"))}
    difference = cited_p - control_p
    low, high = mean_interval(user, difference, seed=seed)
    return {
        "pairs": len(user),
        "cited": float(cited_p.mean()),
        "control": float(control_p.mean()),
        "difference": float(difference.mean()),
        "low": low,
        "high": high,
        "cited_more_share": float((difference > 0).mean()),
    }


def score_shown(loaded: LoadedModel, changes: Sequence[Counterfactual], name: str | None = None) -> Floats:
    """Scores (k,) of the rows of `changes` (k,), each shown as it says; slots and routing are as they were.

    Every change is a user of its own in a view of the table that holds what its row sees, and the row.
    """
    if not changes:
        return np.zeros(0)
    layout, table = loaded.layout, loaded.interactions
    seen = [sight(loaded, change.row) for change in changes]
    kept = [np.setdiff1d(rows, change.dropped) for rows, change in zip(seen, changes, strict=True)]
    source = np.concatenate([np.append(rows, change.row) for rows, change in zip(kept, changes, strict=True)])
    size = np.asarray([len(rows) + 1 for rows in kept])
    targets = np.cumsum(size) - 1
    number = np.repeat(np.arange(len(changes)), size)
    turned = np.concatenate(
        [np.isin(np.append(rows, -1), change.flipped) for rows, change in zip(kept, changes, strict=True)]
    )
    view = table.iloc[source][["item", "label", "timestamp"]].reset_index(drop=True).assign(user=number)
    view["label"] = np.where(turned, 1 - view["label"], view["label"]).astype(np.int8)
    told = [(at, change.text) for at, change in zip(targets, changes, strict=True) if change.text is not None]
    texts = joined(layout.items, encode(loaded.tokenizer, [text for _, text in told]))
    item = view["item"].to_numpy().copy()
    item[[at for at, _ in told]] = len(layout.items.lengths) + np.arange(len(told))
    stored = loaded.features
    features = replace(
        stored,
        user_row=stored.user_row[source],
        state=stored.state[source],
        item_row=stored.item_row[source],
        statistics=stored.statistics[source],
    )
    progress = name if name is None else f"interventions: {name}"
    scores = loaded.over(view.assign(item=item), features, item_tokens=texts).score(targets, progress=progress)
    return scores.astype(np.float64)


def sight(loaded: LoadedModel, row: int) -> Rows:
    """The earlier rows that the prompt of `row` shows, oldest first."""
    return loaded.layout.scoring_windows(np.asarray([row]), np.zeros(1, np.int64))[0].rows[:-1]


def joined(first: Ragged, second: Ragged) -> Ragged:
    """The lists of both, one after the other."""
    return Ragged(
        np.concatenate([first.tokens, second.tokens]),
        np.concatenate([first.offsets, first.offsets[-1] + second.offsets[1:]]),
    )


def _pair(
    name: str, one: Cited, loaded: LoadedModel, target: ShownItem, *, seed: int
) -> tuple[Counterfactual, Counterfactual, int] | None:
    """What is changed on the cited side and on the control's, and how much on either; None where there is no pair."""
    rng = np.random.default_rng([seed, one.row])
    if name == "mask":
        words = target.keywords
        sides = matched(one.of_keywords, np.zeros(len(words)), rng)
        changes = [
            Counterfactual(
                row=one.row, text=item_text(target.title, [words[at] for at in range(len(words)) if at not in side])
            )
            for side in sides
        ]
    else:
        # What no prompt of so many tokens has room for can be cited by chance only, and changed by nobody.
        room = np.isin(one.history, sight(loaded, one.row))
        history = one.history[room]
        sides = matched(one.of_history[room], loaded.layout.label[history], rng)
        rows = [history[side].tolist() for side in sides]
        changes = [
            Counterfactual(row=one.row, flipped=side) if name == "flip" else Counterfactual(row=one.row, dropped=side)
            for side in rows
        ]
    return (changes[0], changes[1], len(sides[0])) if len(sides[0]) else None


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
