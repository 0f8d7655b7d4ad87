"""The users that the page browses: their test rows, histories, and reasons with every claim marked.

The page's size is bounded whatever the dataset. Users with a written reason come first, then the others, both in the
dataset's order, until the next one would not fit; of one user's test rows MOST_TARGETS, those with a reason first, then
the best ranked. The page says how many of how many it shows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from thinkrec.artifacts import rounded
from thinkrec.claims.checker import Checker
from thinkrec.claims.claims import Claim, Thesaurus
from thinkrec.evaluation.models import OURS
from thinkrec.history import history_bounds, shown_history
from thinkrec.metrics import says_yes
from thinkrec.params import PromptParams
from thinkrec.report.artefacts import Artefacts

MOST_TARGETS = 60
USER_BYTES = 4_300_000  # of all users and the items that they name, as the page writes them
LONGEST_TEXT = 4000  # characters of one reason
# user -> name of a list -> items, and what the user said of each later: 1 liked, 0 disliked, None nothing
Lists = Mapping[int, Mapping[str, Sequence[tuple[int, int | None]]]]
SAYS = {"target": "the target has", "lacks": "the target lacks", "named": "mentions"}  # a claim in the page's words


def encode_json(value: Any) -> str:
    """JSON that may stand in a page: ASCII, and no character that HTML gives a meaning to."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def write_users(
    artefacts: Artefacts, test: pd.DataFrame, prompt: PromptParams, thesaurus: Thesaurus, *, lists: Lists, limit: int
) -> dict[str, Any]:
    """`items` and `users` as the page browses them, and `included`: how many users, rows and reasons of how many.

    `test` are the predictions of test rows, by their places among all; `limit` bounds the bytes, and `lists` are those
    of users who have some.
    """
    writer = _Writer(artefacts, prompt, thesaurus)
    has_reason = test["row"].isin(artefacts.reasons["row"])
    explained = set(test["user"][has_reason])
    users: list[dict[str, Any]] = []
    items: dict[int, list[Any]] = {}  # by number in the dataset
    spent = 0
    by_user: dict[Any, pd.DataFrame] = dict(iter(test.groupby("user")))
    for user in sorted(by_user, key=lambda user: (user not in explained, user)):
        entry = writer.write_user(by_user[user].sort_values(OURS, ascending=False, kind="stable"))
        entry["lists"] = lists.get(user, {})
        named = [item for pairs in (entry["timeline"], *entry["lists"].values()) for item, _ in pairs]
        named += [target["item"] for target in entry["targets"]]
        new = {item: writer.write_item(item) for item in named if item not in items}
        spent += len(encode_json(rounded([entry, list(new.values())], 4)))
        if spent > limit:
            break
        users.append(entry)
        items |= new
    place_of = {item: place for place, item in enumerate(items)}
    for entry in users:
        entry["timeline"] = [(place_of[item], label) for item, label in entry["timeline"]]
        entry["lists"] = {
            name: [(place_of[item], label) for item, label in pairs] for name, pairs in entry["lists"].items()
        }
        for target in entry["targets"]:
            target["item"] = place_of[target["item"]]
    targets = [target for entry in users for target in entry["targets"]]
    return {
        "items": list(items.values()),
        "users": users,
        "included": {
            "users": [len(users), len(by_user)],
            "rows": [len(targets), len(test)],
            "reasons": [sum("text" in target for target in targets), int(has_reason.sum())],
        },
    }


class _Writer:
    """Users and items as the page shows them."""

    def __init__(self, artefacts: Artefacts, prompt: PromptParams, thesaurus: Thesaurus) -> None:
        table, reasons = artefacts.interactions, artefacts.reasons
        self.history = prompt.history
        self.start, self.end = history_bounds(table["user"].to_numpy(), table["timestamp"].to_numpy())
        self.item, self.label = table["item"].tolist(), table["label"].tolist()
        self.item_ids = artefacts.items["item_id"].astype(str).tolist()
        self.user_ids = artefacts.users["user_id"].tolist()
        self.years = [None if year != year else int(year) for year in artefacts.items["year"].astype(float).tolist()]
        self.truth = artefacts.truth.to_numpy().tolist()
        self.checker = Checker(table, artefacts.items, artefacts.keywords, prompt, thesaurus)
        texts = reasons[["reason", "teacher"]].fillna("").to_numpy().tolist()
        self.texts_of = dict(zip(reasons["row"].tolist(), texts, strict=True))
        self.weights = artefacts.weights

    def write_item(self, item: int) -> list[Any]:
        """Title, year (None where unknown), keywords and id of an item."""
        return [self.checker.titles[item], self.years[item], self.checker.keywords[item], self.item_ids[item]]

    def write_user(self, ranked: pd.DataFrame) -> dict[str, Any]:
        """A user and the best of the test rows `ranked`, which are by falling score; items as the dataset numbers them.

        `timeline` are the user's interactions, oldest first, that a target's `history` (first and last + 1) points to.
        """
        ranked = ranked.assign(rank=np.arange(1, len(ranked) + 1))
        shown = ranked.loc[(~ranked["row"].isin(self.texts_of)).sort_values(kind="stable").index[:MOST_TARGETS]]
        shown = shown.sort_values("rank")
        rows = shown["row"].tolist()
        histories = [shown_history(self.start[row], self.end[row], self.history).tolist() for row in rows]
        past_rows = sorted({past for history in histories for past in history})
        place_of = {past: place for place, past in enumerate(past_rows)}
        targets = []
        for at, row, p, rank, history in zip(
            shown.index, rows, shown[OURS].tolist(), shown["rank"].tolist(), histories, strict=True
        ):
            first = place_of[history[0]] if history else 0
            target: dict[str, Any] = {
                "item": self.item[row],
                "label": self.label[row],
                "p": p,
                "rank": rank,
                "weights": [round(float(weight), 3) for weight in self.weights[at]],
                "history": [first, first + len(history)],
            }
            if self.truth:
                target["true_p"], target["true_reason"] = self.truth[row]
            targets.append(target | (self.write_reason(row, bool(says_yes(p))) if row in self.texts_of else {}))
        return {
            "id": str(self.user_ids[ranked["user"].iloc[0]]),
            "group": int(ranked["group"].iloc[0]),
            "rows": len(ranked),
            "timeline": [(self.item[past], self.label[past]) for past in past_rows],
            "targets": targets,
        }

    def write_reason(self, row: int, yes: bool) -> dict[str, Any]:
        """A written reason: its text cut where claims stand, the claims, and whether it ends as its score does."""
        text, teacher = (written.strip()[:LONGEST_TEXT] for written in self.texts_of[row])
        check = self.checker.check(row, text)
        claims = [
            {
                "says": SAYS.get(claim.says, claim.says) + str(claim).removeprefix(claim.says),
                "is": claim.standing,
                "target": claim.target,
                "liked": claim.liked,
                "disliked": claim.disliked,
                "places": [] if claim.of_target else claim.history,
            }
            for claim in check.claims
        ]
        return {
            "text": mark_claims(text, check.claims),
            "claims": claims,
            "verdict": check.verdict,
            "agrees": check.agrees(yes),
            "teacher": teacher,
        }


def mark_claims(text: str, claims: Sequence[Claim]) -> list[tuple[str, int]]:
    """`text` in pieces, each with the number of the claim that it makes, -1 for none; joined they are the text.

    Claims come in the text's order, those of all titles in one of their own. Each is found by its name, behind the one
    before it. Where a text writes a name otherwise than the catalogue, the claim has no piece.
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
        if match := re.compile(pattern, re.IGNORECASE).search(text, behind[of_all]):
            places.append((*match.span(), number))
            behind[of_all] = match.end()
    pieces: list[tuple[str, int]] = []
    done = 0
    for begin, end, number in sorted(places):
        if begin >= done:
            pieces += [(text[done:begin], -1), (text[begin:end], number)]
            done = end
    pieces.append((text[done:], -1))
    return [piece for piece in pieces if piece[0]]
