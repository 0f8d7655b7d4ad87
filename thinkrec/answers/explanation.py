"""A score and what stands behind it: weights, the shown history, the reason, and whether its claims are true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from thinkrec.claims.claims import Claim


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A score and what stands behind it."""

    item_id: str
    title: str
    keywords: list[str]
    probability: float
    weights: dict[str, float]  # adapter -> weight; they sum to 1
    history: pd.DataFrame  # the shown history, which the reason is checked against, oldest first: item_id, title, liked
    reason: str  # verdict first; empty where the model wrote nothing
    evidence: pd.DataFrame  # the reason's claims, and whether they are true: `claims_table`
    thesaurus: str  # the name of the one by which claims are true by meaning

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON can say it: tables as lists of rows."""
        tables = {name: getattr(self, name).to_dict("records") for name in ("history", "evidence")}
        return {name: tables[name] if name in tables else getattr(self, name) for name in self.__slots__}


def claims_table(claims: Sequence[Claim]) -> pd.DataFrame:
    """Claims as a table, in their order.

    Columns: `kind` (item, keyword or history), `name`, `says` (`cues.Says`), `of` (the titles that it is said of, or
    "2 of 3"), `target`, `liked` and `disliked` (where the prompt shows it), `standing` (`claims.Standing`), `true` and
    `true_by_meaning`, and `synonyms`: what was shown in its place, where it is true by meaning alone.
    """
    names = [
        "kind",
        "name",
        "says",
        "of",
        "target",
        "liked",
        "disliked",
        "standing",
        "true",
        "true_by_meaning",
        "synonyms",
    ]
    records = []
    for claim in claims:
        count = [] if claim.count is None else [f"{claim.count[0]} of {claim.count[1]}"]
        texts = {"of": ", ".join([*claim.titles, *count]), "synonyms": ", ".join(claim.synonyms)}
        records.append(tuple(texts[name] if name in texts else getattr(claim, name) for name in names))
    types = {"target": bool, "liked": int, "disliked": int, "true": bool, "true_by_meaning": bool}
    return pd.DataFrame(records, columns=names).astype(types)
