"""What the report shows of a finished project: its artefacts as one small JSON value.

The page is read from disk by people who have nothing but it, so it holds all that it shows, and its size is bounded
whatever the dataset. The rule: users with a written reason come first, then the others, both in the dataset's order,
until the next one would not fit; of one user's test rows MOST_TARGETS, those with a reason first, then the best ranked.
The page says how many of how many it shows.

Shapes: n test rows, e adapters (the global one, then N experts).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thinkrec.artifacts import rounded
from thinkrec.claims.checker import Checker, thesaurus_of
from thinkrec.claims.claims import Claim, Thesaurus
from thinkrec.evaluation import plots
from thinkrec.evaluation.intervals import HEADLINE
from thinkrec.evaluation.models import OURS, display_name, kind_of
from thinkrec.evaluation.tables import ALPHA
from thinkrec.experts.rule import CASES
from thinkrec.history import history_bounds, shown_history
from thinkrec.metrics import auc, says_yes
from thinkrec.params import Params, PromptParams
from thinkrec.report.artefacts import Artefacts, describe_run, read_artefacts

MOST_TARGETS = 60
USER_BYTES = 4_300_000  # of all users and the items that they name, as the page writes them
CURVE_POINTS = 80
SHOWN_METRICS = (*HEADLINE, "log_loss", "calibration_error")
LONGEST_TEXT = 4000  # characters of one reason
SAYS = {"target": "the target has", "lacks": "the target lacks", "named": "mentions"}  # a claim in the page's words


def contents_of_project(params: Params) -> dict[str, Any]:
    """Everything that the page shows of the finished project in the working directory.

    Raises:
        UserError: an artefact is missing, or does not belong to the others.
    """
    artefacts = read_artefacts(params)
    settings = describe_run(params, experts=artefacts.weights.shape[1] - 1)
    return contents(artefacts, settings, params.prompt, thesaurus_of(params.teacher.endpoint))


def contents(
    artefacts: Artefacts,
    settings: dict[str, str],
    prompt: PromptParams,
    thesaurus: Thesaurus,
    *,
    limit: int = USER_BYTES,
) -> dict[str, Any]:
    """Everything that the page shows. `settings` says, for its head, what was run; `limit` bounds the users' bytes."""
    at = np.flatnonzero((artefacts.predictions["split"] == "test").to_numpy())
    test, weights_ne = artefacts.predictions.iloc[at].reset_index(drop=True), artefacts.weights[at]
    curves = plots.shown([name for name in artefacts.table.get("test", {}).get("models", {}) if name in test])
    roc = plots.roc_points(test, curves, limit=CURVE_POINTS)
    calibration = plots.calibration_points(test, [OURS])
    value = {
        "settings": settings,
        "ours": OURS,
        "names": {column: _name(column) for table in artefacts.table.values() for column in table["models"]},
        "alpha": ALPHA,
        "tables": {split: _table(table) for split, table in artefacts.table.items()},
        "roc": [
            {
                "name": name,
                "auc": auc(test["label"], test[name]),
                "points": [(point["fpr"], point["tpr"]) for point in roc if point["model"] == name],
            }
            for name in curves
        ],
        "calibration": [(point["predicted"], point["observed"], point["rows"]) for point in calibration],
        "gate": _gate(test, weights_ne),
        "written": _written(artefacts.written),
        **_users(artefacts, test, weights_ne, prompt, thesaurus, limit),
    }
    return dict(rounded(value, 4))


def _name(column: str) -> str:
    """The display name of the model whose scores are in this column, and its protocol if that is the static one."""
    return display_name(column) + (", static" if kind_of(column) == "static" else "")


def encoded(value: Any) -> str:
    """JSON that may stand in a page: ASCII, and no character that HTML gives a meaning to."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _table(table: dict[str, Any]) -> dict[str, Any]:
    first = next(iter(table["models"].values()))["all"]
    models = []
    for name, model in table["models"].items():
        kind = kind_of(name)
        models.append(
            {
                "name": name,
                "kind": kind,
                "values": {metric: model["all"].get(metric) for metric in SHOWN_METRICS},
                "interval": {metric: [edge["low"], edge["high"]] for metric, edge in model["interval"].items()},
                "lift": model.get("possible_lift"),
            }
        )
    return {
        "rows": first["rows"],
        "users": first["users"]["all"],
        "models": models,
        "headline": list(HEADLINE),
        "differences": {
            model: {
                metric: [entry[key] for key in ("difference", "low", "high", "p_holm")]
                for metric, entry in by_metric.items()
            }
            for model, by_metric in table["differences"].items()
        },
    }


def _gate(test: pd.DataFrame, weights_ne: NDArray[np.float32]) -> dict[str, Any]:
    """Mean weights, rows, users and AUC by user group, and the share of each case of the paper's routing."""
    group, case = test["group"].to_numpy(), test["case"].to_numpy()
    groups = []
    for number in np.unique(group).tolist():
        held = group == number
        groups.append(
            {
                "group": number,
                "users": int(test["user"][held].nunique()),
                "rows": int(held.sum()),
                "weights": weights_ne[held].mean(axis=0).tolist(),
                "auc": auc(test["label"][held], test[OURS][held]),
            }
        )
    return {
        "adapters": adapters(weights_ne.shape[1]),
        "groups": groups,
        "cases": {name: int((case == number).sum()) for number, name in enumerate(CASES)},
    }


def adapters(count: int) -> list[str]:
    """The adapters' names in the order of the routing's columns."""
    return ["global", *(f"expert {number}" for number in range(1, count))]


def _written(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """The metrics of the reasons as tables {title, columns, rows}: one of single values, then one for each nested one.

    What is nested twice, such as the same figures of ours and the teacher's, has a column for each.
    """
    nested = {name: value for name, value in metrics.items() if isinstance(value, dict)}
    parts = {"": {name: value for name, value in metrics.items() if name not in nested}, **nested}
    tables = []
    for title, part in parts.items():
        each = bool(part) and all(isinstance(inner, dict) for inner in part.values())
        columns = {name: dict(_flat(inner)) for name, inner in (part if each else {"value": part}).items()}
        names = list(dict.fromkeys(name for column in columns.values() for name in column))
        if names:
            rows = [[name, *(column.get(name) for column in columns.values())] for name in names]
            tables.append({"title": title, "columns": list(columns), "rows": rows})
    return tables


def _flat(metrics: dict[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """Nested metrics as (name, value) in their order, a nested one's name after its parent's, a list's by number."""
    pairs: list[tuple[str, Any]] = []
    for name, value in metrics.items():
        whole = f"{before}{name}".replace("_", " ")
        inner = {str(place): entry for place, entry in enumerate(value, start=1)} if isinstance(value, list) else value
        pairs += _flat(inner, f"{whole}, ") if isinstance(inner, dict) else [(whole, inner)]
    return pairs


def _users(
    artefacts: Artefacts,
    test: pd.DataFrame,
    weights_ne: NDArray[np.float32],
    prompt: PromptParams,
    thesaurus: Thesaurus,
    limit: int,
) -> dict[str, Any]:
    """`items` and `users` as the page browses them, and `included`: how many users, rows and reasons of how many."""
    texts = artefacts.reasons[["reason", "teacher"]].fillna("").to_numpy().tolist()
    reason_of = dict(zip(artefacts.reasons["row"].tolist(), texts, strict=True))
    has_reason = test["row"].isin(reason_of).to_numpy()
    write = _Writer(artefacts, prompt, thesaurus, reason_of)
    rows_of = {int(user): np.asarray(rows) for user, rows in test.groupby("user").indices.items()}  # type: ignore[call-overload]
    with_reasons = set(test["user"][has_reason].tolist())
    items: dict[int, int] = {}  # number in the dataset -> place in the page
    users: list[dict[str, Any]] = []
    spent = 0
    for user in sorted(rows_of, key=lambda user: (user not in with_reasons, user)):
        mine = rows_of[user]
        ranked = mine[np.argsort(-test[OURS].to_numpy()[mine], kind="stable")]
        rank = {int(place): number for number, place in enumerate(ranked, start=1)}
        first = ranked[np.argsort(~has_reason[ranked], kind="stable")][:MOST_TARGETS]
        shown = sorted(first.tolist(), key=lambda place: rank[place])
        entry, named = write.user(test, weights_ne, shown, rank)
        new = [item for item in named if item not in items]
        cost = len(encoded(rounded([entry, [write.item(item) for item in new]], 4)))
        if spent + cost > limit:
            break
        spent += cost
        items |= {item: len(items) + number for number, item in enumerate(new)}
        entry["timeline"] = [(items[item], label) for item, label in entry["timeline"]]
        for target in entry["targets"]:
            target["item"] = items[target["item"]]
        users.append(entry)
    targets = [target for entry in users for target in entry["targets"]]
    return {
        "items": [write.item(item) for item in items],
        "users": users,
        "included": {
            "users": [len(users), len(rows_of)],
            "rows": [len(targets), len(test)],
            "reasons": [sum("text" in target for target in targets), int(has_reason.sum())],
        },
    }


class _Writer:
    """Users and items as the page shows them."""

    def __init__(
        self, artefacts: Artefacts, prompt: PromptParams, thesaurus: Thesaurus, reason_of: dict[int, list[str]]
    ) -> None:
        self._prompt, self._reason_of = prompt, reason_of
        table = artefacts.interactions
        self._start, self._end = history_bounds(table["user"].to_numpy(), table["timestamp"].to_numpy())
        self._item, self._label = table["item"].to_numpy(), table["label"].to_numpy()
        self._ids = artefacts.users["user_id"].to_numpy()
        self._year = [None if year != year else int(year) for year in artefacts.items["year"].astype(float).tolist()]
        self._truth = artefacts.truth.to_numpy().tolist()
        self._checker = Checker(table, artefacts.items, artefacts.keywords, prompt, thesaurus)

    def item(self, item: int) -> list[Any]:
        """Title, year (None where unknown) and keywords of an item."""
        return [self._checker.titles[item], self._year[item], self._checker.keywords[item]]

    def user(
        self, test: pd.DataFrame, weights_ne: NDArray[np.float32], shown: list[int], rank: dict[int, int]
    ) -> tuple[dict[str, Any], list[int]]:
        """A user with the test rows `shown`, places in `test`, by rank; and the items named, as the dataset numbers
        them.

        `timeline` are the user's interactions, oldest first, that a target's `history` (first and last + 1) points to.
        """
        rows, ours = test["row"].to_numpy()[shown], test[OURS].to_numpy()
        windows = [shown_history(self._start[row], self._end[row], self._prompt.history).tolist() for row in rows]
        seen = sorted({past for window in windows for past in window})
        place_of = {past: place for place, past in enumerate(seen)}
        timeline = [(int(self._item[past]), int(self._label[past])) for past in seen]
        targets = []
        for place, row, window in zip(shown, rows.tolist(), windows, strict=True):
            first = place_of[window[0]] if window else 0
            p = float(ours[place])
            target: dict[str, Any] = {
                "item": int(self._item[row]),
                "label": int(self._label[row]),
                "p": p,
                "rank": rank[place],
                "weights": [round(float(weight), 3) for weight in weights_ne[place]],
                "history": [first, first + len(window)],
            }
            if self._truth:
                target["true_p"], target["true_reason"] = self._truth[row]
            if row in self._reason_of:
                target |= self._reason(row, bool(says_yes(p)))
            targets.append(target)
        first_row = test.iloc[shown[0]]
        entry = {
            "id": str(self._ids[first_row["user"]]),
            "group": int(first_row["group"]),
            "rows": len(rank),
            "timeline": timeline,
            "targets": targets,
        }
        return entry, list(dict.fromkeys([item for item, _ in timeline] + [target["item"] for target in targets]))

    def _reason(self, row: int, yes: bool) -> dict[str, Any]:
        """A written reason: its text cut where claims stand, the claims, and whether it ends as its score does."""
        text, teacher = (written.strip()[:LONGEST_TEXT] for written in self._reason_of[row])
        reading = self._checker.check(row, text)
        claims: list[dict[str, Any]] = [
            {
                "says": SAYS.get(claim.says, claim.says) + str(claim).removeprefix(claim.says),
                "is": standing(claim),
                "target": claim.target,
                "liked": claim.liked,
                "disliked": claim.disliked,
                "places": [] if claim.of_target else claim.history,
            }
            for claim in reading.claims
        ]
        return {
            "text": marked(text, reading.claims),
            "claims": claims,
            "verdict": reading.verdict,
            "agrees": reading.agrees(yes),
            "teacher": teacher,
        }


def standing(claim: Claim) -> str:
    """How a claim is marked: `true`, `untrue` (what was shown speaks against it) or `ungrounded` (never shown)."""
    return "true" if claim.true else "untrue" if claim.shown else "ungrounded"


def marked(text: str, claims: Sequence[Claim]) -> list[tuple[str, int]]:
    """`text` in pieces, each with the number of the claim that it makes, -1 for none; joined they are the text.

    Claims come in the text's order, those of all titles in one of their own, and are found by their names, each behind
    the one before it. Where a text writes a name otherwise than the catalogue, the claim has no piece and stands in the
    list of claims only.
    """
    places: list[tuple[int, int, int]] = []  # begin, end, number
    behind = {False: 0, True: 0}
    for number, claim in enumerate(claims):
        some, seen = claim.count or (0, 0)
        of_all = claim.kind == "history"
        if of_all:
            pattern = rf"\b{some} (?:out )?of (?:the |all )?{seen}\b(?!\))"  # one in brackets belongs to a name
        else:
            pattern = rf"(?<!\w){re.escape(claim.name)}(?!\w)"
            pattern += rf"(?:[\"”’']?\s*\({some} of {seen}\))?" if claim.count else ""
        found = re.compile(pattern, re.IGNORECASE).search(text, behind[of_all])
        if found:
            places.append((found.start(), found.end(), number))
            behind[of_all] = found.end()
    pieces: list[tuple[str, int]] = []
    done = 0
    for begin, end, number in sorted(places):
        if begin >= done:
            pieces += [(text[done:begin], -1), (text[begin:end], number)]
            done = end
    pieces.append((text[done:], -1))
    return [piece for piece in pieces if piece[0]]
