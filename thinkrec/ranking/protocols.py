"""Whom a full ranking asks about, as of when, what it ranks, and what it should find.

Every user has one moment, that of a row of the table. Known is what happened strictly before it. Ranked are all items
of the catalogue that the user has not rated before it.

- *temporal*: the moment is the user's first row of the split; to be found are all items of the user's liked rows of it.
  Models are fitted on train.
- *leave-last-out*: the moment is that of the user's last like, which is to be found (several, if they share it). The
  ordinary models are fitted on everybody's rows before their moments, and these are later than other users' moments: it
  leaks time, and is here because others use it. Users whose last like is in train are left out, since ThinkRec and its
  features were trained on it.

Shapes: n interactions, q users asked about (one question each), p items to be found, r rated later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from thinkrec.errors import UserError
from thinkrec.history import history_bounds
from thinkrec.ranking.expected import Bools, Ints

Protocol = Literal["temporal", "leave-last-out"]
LEAK = (
    "leave-last-out leaks time: the ordinary models know what other users did later, and ThinkRec, trained on train, "
    "does not; for figures to trust take --protocol temporal"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """Users, each at a moment, and what each rated from then on."""

    row: Ints  # (q,) rows of the table, rising: each question is as of the moment of one
    start: Ints  # (q,) the user's rows before that moment are start:end
    end: Ints  # (q,)
    user: Ints  # (r,) numbers of questions, rising
    item: Ints  # (r,)
    liked: Bools  # (r,) these are to be found

    def take(self, numbers: Ints) -> Questions:
        """Those with these numbers (rising), as a whole of their own."""
        kept = np.isin(self.user, numbers)
        return Questions(
            row=self.row[numbers],
            start=self.start[numbers],
            end=self.end[numbers],
            user=np.searchsorted(numbers, self.user[kept]),
            item=self.item[kept],
            liked=self.liked[kept],
        )

    def candidates(self, interactions: pd.DataFrame, items: int) -> Bools:
        """What is ranked (q, I): all but the items that the user rated before."""
        ranked = np.ones((len(self.row), items), bool)
        item = interactions["item"].to_numpy()
        for number, (start, end) in enumerate(zip(self.start, self.end, strict=True)):
            ranked[number, item[start:end]] = False
        return ranked


def make_questions(interactions: pd.DataFrame, protocol: Protocol, split: str) -> tuple[Questions, Ints]:
    """The questions that a protocol asks, and the rows of the table that ordinary models may be fitted on.

    `split` is of the temporal protocol.

    Raises:
        UserError: no user likes anything there.
    """
    user, item, time = (interactions[name].to_numpy(np.int64) for name in ("user", "item", "timestamp"))
    start, end = history_bounds(user, time)
    liked, train = (interactions["label"] == 1).to_numpy(), (interactions["split"] == "train").to_numpy()
    fitted = train
    if protocol == "temporal":
        later = (interactions["split"] == split).to_numpy()
        row = np.flatnonzero(later)[np.unique(user[later], return_index=True)[1]]
        row = row[np.isin(user[row], user[later & liked])]
    else:
        backwards = np.flatnonzero(liked)[::-1]
        row = np.sort(backwards[np.unique(user[backwards], return_index=True)[1]])
        moment = np.full(user.max(initial=-1) + 1, np.iinfo(np.int64).max)
        moment[user[row]] = time[row]
        fitted, later = time < moment[user], time == moment[user]
        row = row[~train[row]]
    if not len(row):
        raise UserError("no user to ask about: nobody likes anything there (see split and windows in docs/data.md)")
    asked = np.flatnonzero(later & np.isin(user, user[row]))
    questions = Questions(
        row=row,
        start=start[row],
        end=end[row],
        user=np.searchsorted(user[row], user[asked]),
        item=item[asked],
        liked=liked[asked],
    )
    return questions, np.flatnonzero(fitted)


def sample_users(questions: Questions, users: int | None, seed: int) -> Questions:
    """So many of the users, by chance; all of them where there are no more."""
    count = len(questions.row)
    if users is None or users >= count:
        return questions
    return questions.take(np.sort(np.random.default_rng(seed).choice(count, users, replace=False)))
