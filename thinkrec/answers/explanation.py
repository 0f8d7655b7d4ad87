"""The answers of a finished project as the documents that `--json` prints and `thinkrec serve` sends.

A score and what stands behind it: weights, the shown history, the reason, and whether its claims are true.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import pandas as pd
from pydantic import BaseModel, ConfigDict, PlainSerializer

from thinkrec.claims.claims import Claim

Row = TypeVar("Row", bound=BaseModel)


class Scored(BaseModel):
    """An item, and how probably somebody would like it."""

    item_id: str
    title: str
    probability: float


class Shown(BaseModel):
    """An item of the history that a score was made with."""

    item_id: str
    title: str
    liked: bool


class Evidence(BaseModel):
    """A claim of a reason, and whether it is true."""

    kind: str  # item, keyword or history
    name: str
    says: str  # `cues.Says`
    of: str  # the titles that it is said of, or "2 of 3"
    target: bool  # where the prompt shows it: in the target, in so many liked and disliked items
    liked: int
    disliked: int
    standing: str  # `claims.Standing`
    true: bool
    true_by_meaning: bool
    synonyms: str  # what was shown in its place, where it is true by meaning alone


def as_rows(frame: pd.DataFrame, row: type[Row]) -> list[Row]:
    """The rows of a table as documents."""
    return [row.model_validate(record) for record in frame.to_dict("records")]


class Explanation(BaseModel):
    """A score and what stands behind it."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    item_id: str
    title: str
    keywords: list[str]
    probability: float
    weights: dict[str, float]  # adapter -> weight; they sum to 1
    # The shown history, which the reason is checked against, oldest first: the columns of `Shown`.
    history: Annotated[pd.DataFrame, PlainSerializer(lambda table: as_rows(table, Shown), return_type=list[Shown])]
    reason: str  # verdict first; empty where the model wrote nothing
    # The reason's claims, and whether they are true: `claims_table`.
    evidence: Annotated[
        pd.DataFrame, PlainSerializer(lambda table: as_rows(table, Evidence), return_type=list[Evidence])
    ]
    thesaurus: str  # the name of the one by which claims are true by meaning

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON can say it: tables as lists of rows."""
        return self.model_dump(mode="json")


def claims_table(claims: Sequence[Claim]) -> pd.DataFrame:
    """Claims as a table, in their order; its columns are the fields of `Evidence`."""
    records = []
    for claim in claims:
        count = [] if claim.count is None else [f"{claim.count[0]} of {claim.count[1]}"]
        texts = {"of": ", ".join([*claim.titles, *count]), "synonyms": ", ".join(claim.synonyms)}
        records.append([texts[name] if name in texts else getattr(claim, name) for name in Evidence.model_fields])
    types: Any = {
        name: field.annotation for name, field in Evidence.model_fields.items() if field.annotation is not str
    }
    return pd.DataFrame(records, columns=list(Evidence.model_fields)).astype(types)
