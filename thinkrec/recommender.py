"""The Python API over a finished project: score, recommend, explain.

    recommender = Recommender.load("path/to/project")
    recommender.score(pd.DataFrame({"user_id": ["7"], "item_id": ["42"]}))
    recommender.recommend("7", k=5)
    recommender.recommend([("42", True), ("17", False)])      # somebody never seen, by what they liked and disliked
    recommender.explain("7", "42")

Every answer is as of now: after the last interaction of the table. A question becomes rows after that moment, and they
go through the code of training and evaluation: causal statistics, the feature model's states, the prompt layout, the
gate. A history given by hand happens after the table, one interaction per moment. Only its own question sees it, and
nothing is stored. The table is counted once, at loading; a question adds its own rows to these counts, so its cost does
not depend on the table's size.

Candidates of one user share a moment, so they do not see each other (`text.layout`). Twenty or thirty of them stand in
one sequence after the history, which is read once. Each scores as it would alone.

Shapes: n interactions of the table, m rows of a view, c candidates, I items, N experts, d dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thinkrec import artifacts
from thinkrec.claims.checker import Checker, thesaurus_of
from thinkrec.claims.claims import Claim
from thinkrec.errors import UserError
from thinkrec.experts.routing import Routing, open_finished
from thinkrec.features.artefact import Features
from thinkrec.features.models import load_model
from thinkrec.features.ratings import Ratings
from thinkrec.features.recommender import Recommender as FeatureModel
from thinkrec.features.running import running_counts
from thinkrec.features.statistics import Counts, ItemContent, counts_before, item_content, statistics_of
from thinkrec.ingest.clean import plain_id
from thinkrec.lm.loaded import LoadedModel
from thinkrec.params import PARAMS_FILE, Params
from thinkrec.params import load as load_params
from thinkrec.reasons.decoding import Decoding, write_answers
from thinkrec.reasons.judging import ReasonJudge, Tastes

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
History = Sequence[tuple[str | int, bool | str]]  # item ids, oldest first, and whether each was liked (LIKED_WORDS)

LIKED_WORDS = {"1": True, "yes": True, "true": True, "0": False, "no": False, "false": False}

SHORTLIST = 200  # default number of candidates that the language model ranks
VIEW_ROWS = 50_000  # rows of one view: bounds the memory of scoring many pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A score and what stands behind it."""

    item_id: str
    title: str
    keywords: list[str]
    probability: float
    weights: dict[str, float]  # adapter -> weight; they sum to 1
    history: int  # interactions of the shown history, which the reason is checked against
    reason: str  # verdict first; empty where the model wrote nothing
    evidence: pd.DataFrame  # the reason's claims, and whether they are true: `claims_table`
    thesaurus: str  # the name of the one by which claims are true by meaning


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """Candidates for one user, and the user's history: rows of the table, or items and labels given by hand."""

    user: int  # -1 for somebody never seen
    rows: Rows  # of the table
    item: Rows  # beyond the table
    label: Rows
    candidates: Rows  # item numbers

    @property
    def size(self) -> int:
        return len(self.rows) + len(self.item) + len(self.candidates)


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """The rows of some questions, one question after the other, as a table of their own."""

    loaded: LoadedModel  # over those rows
    weights: Floats  # (questions, N + 1), the routing weights
    targets: Rows  # the candidates' rows


def read_liked(value: Any, where: str) -> bool:
    """Whether `value`, a truth value or a word, says liked; any other is a UserError that says `where` it stands."""
    word = plain_id(str(value)).lower()
    if word not in LIKED_WORDS:
        raise UserError(f"{where}: liked should be yes or no (it is {value!r})")
    return LIKED_WORDS[word]


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


class Recommender:
    """A finished project, ready to be asked, one question at a time. Make one with `load`."""

    def __init__(
        self,
        params: Params,
        loaded: LoadedModel,
        routing: Routing,
        feature_model: FeatureModel,
        items: pd.DataFrame,
        keywords: pd.DataFrame,
        users: pd.DataFrame,
    ) -> None:
        self._params, self._loaded, self._routing = params, loaded, routing
        self._feature_model, self._item_side = feature_model, feature_model.items()
        self._titles: list[str] = items["title"].tolist()
        self._checker = Checker(loaded.interactions, items, keywords, params.prompt, thesaurus_of(params.dataset.name))
        self._tastes = Tastes.of(loaded.features, self._checker.keywords, params.prompt.slots)
        self._user_ids, self._item_ids = pd.Index(users["user_id"]), pd.Index(items["item_id"])
        self._content: ItemContent = item_content(items)
        table = loaded.interactions
        self._counts: Counts = counts_before(table)
        label, item = table["label"].to_numpy(np.int64), table["item"].to_numpy()
        self._item_count = np.bincount(item, minlength=len(items))
        self._item_likes = np.bincount(item[label == 1], minlength=len(items))
        self._likes, self._now = int(label.sum()), int(table["timestamp"].max()) + 1
        self._fitted = np.unique(loaded.user[loaded.rows("train")])
        self._first = np.searchsorted(loaded.user, np.arange(len(users) + 1))  # each user's first row

    @classmethod
    def load(cls, path: str | Path = ".") -> Recommender:
        """Load the project in the folder `path`: its params.yaml and out/.

        Raises:
            UserError: an artefact is missing, broken, or not what params.yaml describes.
        """
        root = Path(path)
        if not root.is_dir():
            raise UserError(f"{path}: no such folder; name that of a project in which `dvc repro` has run")
        params = load_params(root / PARAMS_FILE)
        loaded, routing = open_finished(params, root)
        items, users, keywords = (
            artifacts.read_table(table, root=root) for table in (artifacts.ITEMS, artifacts.USERS, artifacts.KEYWORDS)
        )
        feature_model = load_model(
            params.features.model,
            replace(Ratings.of(loaded.interactions, items=len(items), keywords=keywords["keywords"]), users=len(users)),
            loaded.rows("train"),
            getattr(params, params.features.model),
            root / artifacts.FEATURE_MODEL,
        )
        return cls(params, loaded, routing, feature_model, items, keywords, users)

    def score(self, pairs: pd.DataFrame, *, progress: str | None = None) -> NDArray[np.float64]:
        """Probabilities (len(pairs),) that the users like the items, in the order of `pairs`.

        `pairs` has the columns `user_id` and `item_id`, the dataset's own ids.

        Raises:
            UserError: a column is missing, or an id is unknown.
        """
        missing = [name for name in ("user_id", "item_id") if name not in pairs]
        if missing:
            raise UserError(f"pairs: no column {missing[0]}; the columns user_id and item_id are needed")
        user = self._numbers(self._user_ids, pairs["user_id"], "user")
        item = self._numbers(self._item_ids, pairs["item_id"], "item")
        order = np.argsort(user, kind="stable")
        cuts = np.flatnonzero(np.diff(user[order])) + 1
        questions = [
            self._question_of_user(int(user[mine[0]]), item[mine]) for mine in np.split(order, cuts) if len(mine)
        ]
        out = np.zeros(len(pairs))
        out[order] = self._probabilities(questions, progress=progress)
        return out

    def recommend(self, user: str | int | History, k: int = 10, *, shortlist: int = SHORTLIST) -> pd.DataFrame:
        """The `k` items that somebody would most likely like, best first: `item_id`, `title`, `probability`.

        `user` is a user id, or the history of a person never seen. Items already rated are left out. The feature model
        chooses `shortlist` items of the whole catalogue (at least `k`), the language model ranks those.

        Raises:
            UserError: an id is unknown, or the history names an item twice or says neither yes nor no of it.
        """
        question = self._question(user)
        rated = np.union1d(self._loaded.interactions["item"].to_numpy()[question.rows], question.item)
        others = np.setdiff1d(np.arange(len(self._item_ids)), rated)
        if len(others) > max(k, shortlist):
            affinity = self._affinity(question)[others]
            others = others[np.argsort(-affinity, kind="stable")[: max(k, shortlist)]]
        probability = self._probabilities([replace(question, candidates=others)])
        best = np.argsort(-probability, kind="stable")[: max(k, 0)]
        return pd.DataFrame(
            {
                "item_id": self._item_ids[others[best]].to_numpy(),
                "title": [self._titles[item] for item in others[best]],
                "probability": probability[best],
            }
        )

    def explain(self, user: str | int | History, item: str | int) -> Explanation:
        """The probability that somebody likes an item, the experts' weights, and the model's reason with its evidence.

        `user` as in `recommend`. An item that is rated already stands in the history that it is judged by.

        Raises:
            UserError: as `recommend`.
        """
        number = self._numbers(self._item_ids, pd.Series([item]), "item")
        view = self._view([replace(self._question(user), candidates=number)])
        probability, weights = view.loaded.probability(view.targets)[0], view.weights[0]
        checker, row = self._checker.over(view.loaded.interactions), int(view.targets[0])
        shown = checker.shown(row)
        judge = ReasonJudge(checker=checker, tastes=self._tastes, features=view.loaded.features)
        decoding = Decoding.from_params(self._params.evaluate, seed=self._params.seed)
        (reason,) = write_answers(view.loaded, view.targets, decoding, judge=judge)
        names = ["global", *(f"expert_{column}" for column in range(1, len(weights)))]
        return Explanation(
            item_id=str(self._item_ids[number[0]]),
            title=shown.target.title,
            keywords=list(shown.target.keywords),
            probability=float(probability),
            weights=dict(zip(names, weights.tolist(), strict=True)),
            history=len(shown.history),
            reason=reason,
            evidence=claims_table(checker.check(row, reason).claims),
            thesaurus=checker.thesaurus.name,
        )

    def _numbers(self, ids: pd.Index, named: pd.Series, kind: str) -> Rows:
        """The numbers of some ids. Ids are text, also where they look like numbers; read as `ingest` reads them."""
        text = named.astype(str)
        numbers = ids.get_indexer(pd.Index(text)).astype(np.int64)
        if (numbers < 0).any():
            numbers = np.where(numbers < 0, ids.get_indexer(pd.Index(text.map(plain_id))), numbers)
        unknown = text[numbers < 0].unique()
        if len(unknown):
            path = artifacts.USERS if kind == "user" else artifacts.ITEMS
            more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
            way_out = "; or give a history in the user's place" if kind == "user" else ""
            raise UserError(
                f"{kind} {unknown[0]!r}{more}: unknown; ids are those in column {kind}_id of {path}{way_out}"
            )
        return numbers

    def _question(self, user: str | int | History) -> _Question:
        """A question about `user` (as in `recommend`), without candidates."""
        nothing = np.zeros(0, np.int64)
        if isinstance(user, str | int | float | np.number):
            return self._question_of_user(int(self._numbers(self._user_ids, pd.Series([user]), "user")[0]), nothing)
        if not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in user):
            raise UserError("history: should be pairs of an item id and whether it was liked, such as [('42', True)]")
        ids = pd.Series([str(item) for item, _ in user], dtype="str")
        label = np.asarray([read_liked(liked, f"history: item {item}") for item, liked in user], np.int64)
        item = self._numbers(self._item_ids, ids, "item")
        if (again := pd.Series(item).duplicated()).any():
            raise UserError(f"history: item {ids[again].iloc[0]!r} stands in it twice; keep one of them")
        return _Question(user=-1, rows=nothing, item=item, label=label, candidates=nothing)

    def _question_of_user(self, user: int, candidates: Rows) -> _Question:
        """Candidates for a user of the table, by number."""
        rows, nothing = np.arange(self._first[user], self._first[user + 1]), np.zeros(0, np.int64)
        return _Question(user=user, rows=rows, item=nothing, label=nothing, candidates=candidates)

    def _affinity(self, question: _Question) -> Floats:
        """The feature model's logits (I,) of the whole catalogue, without the user's bias, which changes no order."""
        view = self._view([replace(question, candidates=np.zeros(1, np.int64))])
        every = np.arange(len(self._item_ids))
        state = np.repeat(view.loaded.features.user_vectors_of(view.targets), len(every), axis=0)
        return self._item_side.logits(state, np.zeros(len(every), np.float32), every)

    def _probabilities(self, questions: Sequence[_Question], *, progress: str | None = None) -> NDArray[np.float64]:
        """Probabilities of all candidates, question after question."""
        views = map(self._view, _bounded(questions))
        parts = [view.loaded.probability(view.targets, progress=progress) for view in views]
        return np.concatenate([np.zeros(0), *parts])

    def _view(self, questions: Sequence[_Question]) -> _View:
        """The rows of each question: the user's rows of the table, those given by hand, the candidates."""
        table = self._loaded.interactions
        columns = ("item", "label", "timestamp")
        parts, source, is_target = [], [], []
        for number, question in enumerate(questions):
            new = np.concatenate([question.item, question.candidates])
            later = np.minimum(np.arange(len(new)), len(question.item))  # candidates share the last moment
            unknown = np.zeros(len(question.candidates), np.int64)  # nothing sees a target's label
            added = (new, np.concatenate([question.label, unknown]), self._now + later)
            part = {
                name: np.concatenate([table[name].to_numpy()[question.rows], values])
                for name, values in zip(columns, added, strict=True)
            }
            parts.append(pd.DataFrame({"user": number, **part}))
            source.append(np.concatenate([question.rows, np.full(len(new), -1)]))
            is_target.append(np.arange(question.size) >= question.size - len(question.candidates))
        rows = pd.concat(parts, ignore_index=True).astype({"item": np.int32, "label": np.int8})
        source_m, target_m = np.concatenate(source), np.concatenate(is_target)
        features = self._features(rows, source_m)
        last = np.searchsorted(features.state, np.arange(len(questions)), side="right") - 1  # a candidate each
        weights = self._routing.of_vectors(features.user_vectors_of(last))
        user = np.asarray([question.user for question in questions])
        fitted = np.isin(user, self._fitted)  # routed by their fitted vectors, as in evaluation
        weights[fitted] = self._routing.weights[user[fitted]]
        loaded = replace(self._loaded.over(rows, features), routing_weights=weights)
        return _View(loaded=loaded, weights=weights, targets=np.flatnonzero(target_m))

    def _features(self, rows: pd.DataFrame, source: Rows) -> Features:
        """Features of a view's rows (m,). `source` is a row's number in the table, whose features are stored, or -1."""
        stored, new = self._loaded.features, source < 0
        ratings = Ratings.of(rows, items=len(self._item_ids))
        vectors = stored.user_vectors_of(source)
        item_row = stored.item_row[source]
        states, biases = self._feature_model.states(ratings, ratings.start[new], ratings.end[new])
        vectors[new] = states
        item_row[new] = ratings.item[new]  # vectors of the fit on all of train
        counted, _ = statistics_of(self._counts_of(rows, source), rows, self._content)
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

    def _counts_of(self, rows: pd.DataFrame, source: Rows) -> Counts:
        """Counts before each row of a view: stored ones or, for new rows, the whole table's plus the question's."""
        new, stored = source < 0, self._counts
        user, item, time, label = (rows[name].to_numpy() for name in ("user", "item", "timestamp", "label"))
        total = np.asarray([self._likes, len(self._loaded.interactions)])[:, None]
        of_item = np.stack([self._item_likes, self._item_count])[:, item[new]]
        pair = user[new].astype(np.int64) * len(self._item_ids) + item[new]

        def with_new(stored_counts: tuple[Rows, Rows], before: Rows, key: Rows) -> tuple[Rows, Rows]:
            likes, count = (column[source] for column in stored_counts)
            likes[new], count[new] = before + np.stack(running_counts(key, time[new], label[new]))
            return likes, count

        return {
            "all": with_new(stored["all"], total, user[new]),
            "user": running_counts(user, time, label),
            "item": with_new(stored["item"], of_item, pair),
        }


def _bounded(questions: Sequence[_Question]) -> Iterator[Sequence[_Question]]:
    """The questions, in groups of about VIEW_ROWS rows."""
    if questions:
        group = np.cumsum([question.size for question in questions]) // VIEW_ROWS
        cuts = np.flatnonzero(np.diff(group)) + 1
        for low, high in pairwise([0, *cuts.tolist(), len(questions)]):
            yield questions[low:high]
