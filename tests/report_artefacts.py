"""A small project's artefacts, made by hand, for tests of the report: a few users, one with a written reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from thinkrec.evaluation.tables import evaluate
from thinkrec.params import PromptParams
from thinkrec.report.artefacts import Artefacts

TITLES = ["Quiet River", "Loud City", "Old Forest", "Night Train", "Last Harbor"]
KEYWORDS = [["slow", "river"], ["fast", "crime"], ["slow", "trees"], ["fast", "train"], ["slow", "sea"]]
REASON = (
    "Yes. The user liked slow (2 of 2). One such title is Quiet River. Disliked Night Train. Liked trains. "
    'The user liked "Purple Rain". The target has slow.'
)
HOSTILE = "</script><script>window.hostile=1</script><img src=x onerror=window.hostile=1>"
SETTINGS = {"dataset": "small", "seed": "7"}
MODELS = ["thinkrec", "mf", "best"]


def prompt(**changes: Any) -> PromptParams:
    """Settings of a prompt that shows three earlier interactions with two keywords each."""
    values = {"layout": "stream", "history": 3, "max_tokens": 100, "keywords": 2, "slots": (), "soft_tokens": 0}
    return PromptParams(**{**values, **changes})


def make_artefacts(
    *, users: int = 3, rows: int = 5, titles: list[str] | None = None, reason: str = REASON
) -> Artefacts:
    """`users` users, each of whom rates all items in order, likes the slow ones; the last two rows are test.

    The second user's last row has a reason. Of `rows` more than five, items come again. Predictions call all items new.
    """
    item = np.arange(rows) % 5
    liked = np.isin(item, [0, 2, 4])
    interactions = pd.DataFrame(
        {
            "user": np.repeat(np.arange(users), rows).astype(np.int32),
            "item": np.tile(item, users).astype(np.int32),
            "rating": np.float32(1),
            "label": np.tile(liked, users).astype(np.int8),
            "timestamp": np.tile(np.arange(rows), users),
            "split": np.tile(np.where(np.arange(rows) < 3, "train", "test"), users),
        }
    )
    at = np.flatnonzero(interactions["split"] == "test")
    score = np.where(interactions["label"].to_numpy()[at] > 0, 0.8, 0.3)
    predictions = interactions.loc[at, ["split", "user", "item", "label"]].assign(
        row=at, warm=True, history=3, popularity=0, group=np.int8(0), case=np.int8(1), thinkrec=score, mf=0.5, best=0.6
    )
    row = 2 * rows - 1
    return Artefacts(
        interactions=interactions,
        items=pd.DataFrame(
            {"title": titles or TITLES, "year": pd.array([1990, None, 2001, 2002, 2003], dtype="Int16")}
        ).assign(item_id=[f"i{item}" for item in range(5)], categories="", description=""),
        users=pd.DataFrame({"user_id": [f"u{user}" for user in range(users)]}),
        keywords=pd.DataFrame({"keywords": KEYWORDS}),
        truth=pd.DataFrame({"probability": 0.75, "reason": "theme:sea"}, index=interactions.index),
        predictions=predictions.reset_index(drop=True),
        reasons=pd.DataFrame({"row": [row], "reason": [reason], "teacher": [None]}),
        weights=np.tile(np.asarray([[0.25, 0.75]], np.float32), (len(at), 1)),
        table=evaluate(predictions, MODELS, seed=0, draws=20),
        measured={
            "ingest": {
                "dataset": "small",
                **dict(rows_read=len(interactions), interactions=len(interactions), users=users, items=5),
                "quarantined": {},
                "windows": {"test": "[2001-01-01, 2002-01-01) UTC"},
                "ratings_of_busiest_tenth": {"users": 0.1, "items": 0.2},
                "splits": {"test": {"interactions": len(at), "positive_share": 0.5, "best_auc": None}},
            },
            "sft": {"curve": [{"epoch": 1, "auc": 0.6, "uauc": 0.5}, {"epoch": 2, "auc": 0.7, "uauc": None}]},
            "gate": {"valid": {}},
            "evaluate": {"reasons": {"rows": 1, "claims": {"ours": {"ungrounded_share": 0.5}}}},
        },
    )
