"""Does a score rest on what its reason cites? Take the cited evidence away, and see how far the score moves.

A reason cites what its claims (`claims.checker`) are about, where that was shown: interactions of the history, and
keywords of the target. Each intervention changes one kind of it in the prompt:

- `flip`: liked rows of the history become disliked ones, and the other way round;
- `drop`: rows of the history go;
- `mask`: keywords of the target go.

The *control* changes as much that the same reason does not cite, drawn by seed: as many rows of the same shown history
with the same labels, or keywords of the same target. Where one side has fewer, as many of the other are drawn. Reasons
for which a side has none make no pair.

Only the text of the prompt changes. Slots and routing stay as they were, although they sum up the same interactions: a
model that goes by its slots shows small effects, whether cited or not.

Shapes: p pairs, k changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thinkrec.claims.checker import Checker
from thinkrec.evaluation.intervals import interval, mean_draws
from thinkrec.features.artefact import PER_PROTOCOL
from thinkrec.lm.loaded import LoadedModel
from thinkrec.text.items import Ragged, encode, item_text

Rows = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

INTERVENTIONS = ("flip", "drop", "mask")


@dataclass(frozen=True, slots=True, kw_only=True)
class Citation:
    """What the reason of `row` cites: of the rows `history` that it may speak of, and of the target's keywords."""

    row: int
    history: Rows
    of_history: Bools
    of_keywords: Bools


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """How the prompt of `row` is changed: rows of its history flipped or dropped, another text for the target."""

    row: int
    flipped: Sequence[int] = ()
    dropped: Sequence[int] = ()
    text: str | None = None  # None: as it is


def interventions(
    loaded: LoadedModel, reasons: pd.DataFrame, checker: Checker, *, seed: int
) -> dict[str, dict[str, float | int]]:
    """How far taking away what a reason cites moves its row's score, by intervention, beside the matched control.

    `reasons` is a table like `artifacts.REASONS`. By intervention: `pairs`; `changed`, the mean number of changes
    on either side; and the figures of `compare_sides`.
    """
    texts = zip(reasons["row"].tolist(), reasons["reason"].fillna(""), strict=True)
    citations = [find_cited(checker, row, text) for row, text in texts if text.strip()]
    unchanged = score_changed(loaded, [Change(row=citation.row) for citation in citations], "as it is")
    before = dict(zip((citation.row for citation in citations), unchanged.tolist(), strict=True))
    figures = {}
    for name in INTERVENTIONS:
        pairs = [pair for citation in citations if (pair := _pair(name, citation, loaded, checker, seed=seed))]
        rows = [changes[0].row for changes, _ in pairs]
        moved = [
            np.abs(score_changed(loaded, [changes[side] for changes, _ in pairs], name) - [before[row] for row in rows])
            for side in (0, 1)
        ]
        changed = float(np.mean([count for _, count in pairs])) if pairs else float("nan")
        figures[name] = {"changed": changed, **compare_sides(loaded.user[rows], *moved, seed=seed)}
    return figures


def find_cited(checker: Checker, row: int, text: str) -> Citation:
    """What `text`, the reason of `row`, cites."""
    history = checker.history_rows(row)
    of_history, of_keywords = np.zeros(len(history), bool), np.zeros(len(checker.shown(row).target.keywords), bool)
    for claim in checker.check(row, text).claims:
        if claim.says != "lacks":
            of_keywords[claim.target_keywords] = True
            if not claim.of_target:  # a claim about the target says nothing of the history
                of_history[claim.history] = True
    return Citation(row=row, history=history, of_history=of_history, of_keywords=of_keywords)


def draw_matched(cited: Bools, kind: NDArray[np.generic], rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Places that are cited and places that are not: of every `kind` (k,) as many of either as both sides have."""
    drawn: tuple[list[Rows], list[Rows]] = ([np.zeros(0, np.int64)], [np.zeros(0, np.int64)])
    for value in np.unique(kind):
        sides = [np.flatnonzero(side & (kind == value)) for side in (cited, ~cited)]
        count = min(map(len, sides))
        for places, side in zip(drawn, sides, strict=True):
            places.append(rng.choice(side, count, replace=False))
    return np.sort(np.concatenate(drawn[0])), np.sort(np.concatenate(drawn[1]))


def compare_sides(user: NDArray[Any], cited_p: Floats, control_p: Floats, *, seed: int) -> dict[str, float | int]:
    """The mean movements of the logit on both sides, `cited` and `control`, and their `difference` per pair.

    The difference has an interval `low`, `high` (bootstrap over users); `cited_more_share` of pairs have it above 0.
    """
    difference_p = cited_p - control_p
    means = {"cited": cited_p, "control": control_p, "difference": difference_p, "cited_more_share": difference_p > 0}
    mean_of = {name: float(values.mean()) if len(user) else float("nan") for name, values in means.items()}
    more = mean_of.pop("cited_more_share")
    edges = interval(mean_draws(user, difference_p, seed=seed))
    return {"pairs": len(user), **mean_of, **edges, "cited_more_share": more}


def score_changed(loaded: LoadedModel, changes: Sequence[Change], name: str | None = None) -> Floats:
    """Scores (k,) of the rows of `changes` (k,), each prompt as its change says; slots and routing are as they were.

    Every change is a user of its own in a view of the table: what its row is shown, and the row.
    """
    if not changes:
        return np.zeros(0)
    layout = loaded.layout
    shown = [np.append(np.setdiff1d(sight(loaded, change.row), change.dropped), change.row) for change in changes]
    source = np.concatenate(shown)
    size = np.asarray([len(rows) for rows in shown])
    targets = np.cumsum(size) - 1
    flipped = np.concatenate([np.isin(rows, change.flipped) for rows, change in zip(shown, changes, strict=True)])
    new_texts = {int(at): change.text for at, change in zip(targets, changes, strict=True) if change.text is not None}
    view = loaded.interactions.iloc[source][["item", "label", "timestamp"]].reset_index(drop=True)
    item, label = view["item"].to_numpy().copy(), view["label"].to_numpy()
    item[list(new_texts)] = len(layout.items.lengths) + np.arange(len(new_texts))
    view = view.assign(
        item=item,
        label=np.where(flipped, 1 - label, label).astype(np.int8),
        user=np.repeat(np.arange(len(changes)), size),
    )
    texts = _joined(layout.items, encode(loaded.tokenizer, new_texts.values()))
    features = loaded.features
    features = replace(features, **{name: getattr(features, name)[source] for name in ("item_row", *PER_PROTOCOL)})
    progress = name if name is None else f"interventions: {name}"
    return loaded.over(view, features, item_tokens=texts).score(targets, progress=progress).astype(np.float64)


def sight(loaded: LoadedModel, row: int) -> Rows:
    """The earlier rows that the prompt of `row` shows, oldest first."""
    return loaded.layout.scoring_windows(np.asarray([row]), np.zeros(1, np.int64))[0].rows[:-1]


def _joined(first: Ragged, second: Ragged) -> Ragged:
    """The lists of both, one after the other."""
    offsets = np.concatenate([first.offsets, first.offsets[-1] + second.offsets[1:]])
    return Ragged(np.concatenate([first.tokens, second.tokens]), offsets)


def _pair(
    name: str, citation: Citation, loaded: LoadedModel, checker: Checker, *, seed: int
) -> tuple[list[Change], int] | None:
    """The change on the cited side and the control's, and how much either changes; None where there is no pair."""
    row, rng = citation.row, np.random.default_rng([seed, citation.row])
    if name == "mask":
        target = checker.shown(row).target
        sides = draw_matched(citation.of_keywords, np.zeros(len(target.keywords)), rng)
        others = [np.delete(target.keywords, side).tolist() for side in sides]
        changes = [Change(row=row, text=item_text(target.title, keywords)) for keywords in others]
    else:
        # What no prompt of so many tokens has room for can be cited by chance only, and changed by nobody.
        room = np.isin(citation.history, sight(loaded, row))
        history = citation.history[room]
        sides = draw_matched(citation.of_history[room], loaded.layout.label[history], rng)
        kind = "flipped" if name == "flip" else "dropped"
        changes = [Change(row=row, **{kind: history[side].tolist()}) for side in sides]
    return (changes, len(sides[0])) if len(sides[0]) else None
