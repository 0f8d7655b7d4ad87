"""Questions to a finished project as rows at some moment of its table, mostly after it, and the model over those rows.

A question's rows go through the code of training and evaluation: causal statistics, the feature model's states, the
prompt layout, the gate. The table is counted once; a question adds its own rows to what was counted before its moment,
so its cost hardly depends on the table's size.

Shapes: n interactions of the table, m rows of a view, I items, N experts, d dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from thinkrec.answers.passes import probabilities
from thinkrec.experts.routing import Routing
from thinkrec.features.artefact import Features
from thinkrec.features.ratings import Ratings
from thinkrec.features.recommender import Recommender as FeatureModel
from thinkrec.features.running import running_counts
from thinkrec.features.statistics import Counts, ItemContent, counts_before, item_content, statistics_of
from thinkrec.lm.loaded import LoadedModel

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]

NOTHING: Rows = np.zeros(0, np.int64)
VIEW_ROWS = 50_000  # rows of one view: bounds the memory of scoring many pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Candidates for one user at a moment, and the user's history: rows of the table, or items and labels by hand."""

    moment: int  # seconds; no row of the table at or after it is known
    user: int = -1  # -1: somebody never seen
    rows: Rows = field(default_factory=lambda: NOTHING)  # of the table
    item: Rows = field(default_factory=lambda: NOTHING)  # beyond the table
    label: Rows = field(default_factory=lambda: NOTHING)
    candidates: Rows = field(default_factory=lambda: NOTHING)  # item numbers

    @property
    def size(self) -> int:
        return len(self.rows) + len(self.item) + len(self.candidates)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """What a question's answer is: its own candidates in their order or, with `k`, the best of the catalogue."""

    question: Question
    k: int | None = None
    shortlist: int = 0  # how many of the catalogue's items the language model ranks; at least k


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The rows of some questions, one question after the other, as a table of their own."""

    loaded: LoadedModel  # over those rows
    weights: Floats  # (questions, N + 1), the routing weights
    targets: Rows  # the candidates' rows


class CountsAt:
    """How many rows of a table, and how many likes, a key has before a moment."""

    def __init__(self, key: ArrayLike, timestamp: ArrayLike, label: ArrayLike) -> None:
        self._moments, time_n = np.unique(np.asarray(timestamp), return_inverse=True)
        place_n = np.asarray(key, np.int64) * (len(self._moments) + 1) + time_n
        order = np.argsort(place_n, kind="stable")
        self._places, self._likes = place_n[order], np.append(0, np.cumsum(np.asarray(label, np.int64)[order]))

    def __call__(self, key: Rows, moment: Rows) -> Rows:
        """Likes and rows (2, k) of the keys (k,) strictly before the moments (k,)."""
        first = key.astype(np.int64) * (len(self._moments) + 1)
        low = np.searchsorted(self._places, first)
        high = np.searchsorted(self._places, first + np.searchsorted(self._moments, moment))
        return np.stack([self._likes[high] - self._likes[low], high - low])


class Viewer:
    """A finished project's table and models, and what was counted of them once."""

    def __init__(
        self, loaded: LoadedModel, routing: Routing, feature_model: FeatureModel, items: pd.DataFrame, *, users: int
    ) -> None:
        self._loaded, self._routing = loaded, routing
        self._feature_model, self._item_side, self._items = feature_model, feature_model.items(), len(items)
        self._content: ItemContent = item_content(items)
        table = loaded.interactions
        self._counts: Counts = counts_before(table)
        self.now = int(table["timestamp"].max()) + 1
        self._table_counts = CountsAt(np.zeros(len(table), np.int64), table["timestamp"], table["label"])
        self._item_counts = CountsAt(table["item"], table["timestamp"], table["label"])
        self._fitted = np.unique(loaded.user[loaded.rows("train")])
        self._first = np.searchsorted(loaded.user, np.arange(users + 1))  # each user's first row

    def question_of(self, user: int, candidates: Rows = NOTHING) -> Question:
        """A question about a user of the table, with items as candidates, all by number."""
        return self._question(self.now, user, int(self._first[user + 1]), candidates)

    def question_before(self, row: int, candidates: Rows) -> Question:
        """A question about the user of a row of the table as of that row's moment, which the user's history ends at."""
        table = self._loaded.interactions
        moment, user = (int(table[name].iloc[row]) for name in ("timestamp", "user"))
        first, last = self._first[user : user + 2]
        end = first + np.searchsorted(table["timestamp"].to_numpy()[first:last], moment)
        return self._question(moment, user, int(end), candidates)

    def _question(self, moment: int, user: int, end: int, candidates: Rows) -> Question:
        return Question(moment=moment, user=user, rows=np.arange(self._first[user], end), candidates=candidates)

    def rated(self, question: Question) -> Rows:
        """The numbers of the items that a question's user has rated, in the table or by hand."""
        return np.union1d(self._loaded.interactions["item"].to_numpy()[question.rows], question.item)

    def affinities(self, questions: Sequence[Question]) -> Iterator[Floats]:
        """Of each question the feature model's logits (I,) of the whole catalogue.

        They are without the user's bias, which changes no order.
        """
        every = np.arange(self._items)
        for some in _bounded([replace(question, candidates=every[:1]) for question in questions]):
            view = self.view(some)
            for state in view.loaded.features.user_vectors_of(view.targets):
                states = np.repeat(state[None], len(every), axis=0)
                yield self._item_side.logits(states, np.zeros(len(every), np.float32), every)

    def probabilities(self, questions: Sequence[Question], *, progress: str | None = None) -> NDArray[np.float64]:
        """Probabilities of all candidates, question after question."""
        views = map(self.view, _bounded(questions))
        parts = [probabilities(view.loaded, view.targets, progress=progress) for view in views]
        return np.concatenate([np.zeros(0), *parts])

    def view(self, questions: Sequence[Question]) -> View:
        """The rows of each question: the user's rows of the table, those given by hand, the candidates."""
        table = self._loaded.interactions
        columns = ("item", "label", "timestamp")
        parts, source, is_target = [], [], []
        for number, question in enumerate(questions):
            new = np.concatenate([question.item, question.candidates])
            later = np.minimum(np.arange(len(new)), len(question.item))  # candidates share the last moment
            unknown = np.zeros(len(question.candidates), np.int64)  # nothing sees a target's label
            added = (new, np.concatenate([question.label, unknown]), question.moment + later)
            part = {
                name: np.concatenate([table[name].to_numpy()[question.rows], values])
                for name, values in zip(columns, added, strict=True)
            }
            parts.append(pd.DataFrame({"user": number, **part}))
            source.append(np.concatenate([question.rows, np.full(len(new), -1)]))
            is_target.append(np.arange(question.size) >= question.size - len(question.candidates))
        rows = pd.concat(parts, ignore_index=True).astype({"item": np.int32, "label": np.int8})
        source_m, target_m = np.concatenate(source), np.concatenate(is_target)
        features = self._features(rows, source_m, questions)
        last = np.searchsorted(features.state, np.arange(len(questions)), side="right") - 1  # a candidate each
        vectors = features.user_vectors_of(last)[:, None]
        user = [question.user for question in questions]
        weights = np.concatenate(  # one by one: products of more rows may round otherwise
            [
                self._routing.weights[[number]] if fitted else self._routing.of_vectors(vector)
                for number, vector, fitted in zip(user, vectors, np.isin(user, self._fitted), strict=True)
            ]  # users of the fit are routed by their fitted vectors, as in evaluation
        )
        loaded = replace(self._loaded.over(rows, features), routing_weights=weights)
        return View(loaded=loaded, weights=weights, targets=np.flatnonzero(target_m))

    def _features(self, rows: pd.DataFrame, source: Rows, questions: Sequence[Question]) -> Features:
        """Features of a view's rows (m,). `source` is a row's number in the table, whose features are stored, or -1."""
        stored, new = self._loaded.features, source < 0
        ratings = Ratings.of(rows, items=self._items)
        vectors = stored.user_vectors_of(source)
        item_row = stored.item_row[source]
        states, biases = self._feature_model.states(ratings, ratings.start[new], ratings.end[new])
        vectors[new] = states
        item_row[new] = ratings.item[new]  # vectors of the fit on all of train
        moment = np.repeat([question.moment for question in questions], [question.size for question in questions])
        counted, _ = statistics_of(self._counts_of(rows, source, moment), rows, self._content)
        affinity = self._item_side.logits(states, biases, ratings.item[new]) - biases
        statistics = stored.statistics[source]
        statistics[new] = np.concatenate([counted[new], affinity[:, None]], axis=1)
        return Features(
            user_vectors=vectors,
            item_vectors=stored.item_vectors,
            item_row=item_row,
            user_row=np.arange(len(rows), dtype=np.int32),
            state=rows["user"].to_numpy(np.int32),
            statistics=statistics,
            statistic_names=stored.statistic_names,
        )

    def _counts_of(self, rows: pd.DataFrame, source: Rows, moment: Rows) -> Counts:
        """Counts before each row of a view: stored ones or, for new rows, the table's at `moment` plus the question's.

        A row given by hand happens after the question's moment, and the table ends there.
        """
        new, stored = source < 0, self._counts
        user, item, time, label = (rows[name].to_numpy() for name in ("user", "item", "timestamp", "label"))
        total = self._table_counts(np.zeros(new.sum(), np.int64), moment[new])
        of_item = self._item_counts(item[new], moment[new])
        pair = user[new].astype(np.int64) * self._items + item[new]

        def with_new(stored_counts: tuple[Rows, Rows], before: Rows, key: Rows) -> tuple[Rows, Rows]:
            likes, count = (column[source] for column in stored_counts)
            likes[new], count[new] = before + np.stack(running_counts(key, time[new], label[new]))
            return likes, count

        return {
            "all": with_new(stored["all"], total, user[new]),
            "user": running_counts(user, time, label),
            "item": with_new(stored["item"], of_item, pair),
        }


def _bounded(questions: Sequence[Question]) -> Iterator[Sequence[Question]]:
    """The questions, in groups of about VIEW_ROWS rows."""
    if questions:
        group = np.cumsum([question.size for question in questions]) // VIEW_ROWS
        cuts = np.flatnonzero(np.diff(group)) + 1
        for low, high in pairwise([0, *cuts.tolist(), len(questions)]):
            yield questions[low:high]
