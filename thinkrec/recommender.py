"""The Python API over a finished project: score, recommend, explain.

    recommender = Recommender.load("path/to/project")
    recommender.score(pd.DataFrame({"user_id": ["7"], "item_id": ["42"]}))
    recommender.recommend("7", k=5)
    recommender.recommend([("42", True), ("Heat", False)])    # somebody never seen, by what they liked and disliked
    recommender.recommend_many(["7", "8"], k=5)
    recommender.score_items("7", ["42", "Heat"])
    recommender.explain("7", "42")

Every answer is as of now: after the last interaction of the table. A question becomes rows after that moment
(`answers.views`). A history given by hand happens after the table, one interaction per moment. Only its own question
sees it, and nothing is stored.

Candidates of one user share a moment, so they do not see each other (`text.layout`). Twenty or thirty of them stand in
one sequence after the history, which is read once. Each scores as it would alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from thinkrec import artifacts
from thinkrec.answers.explanation import Explanation, Scored, claims_table
from thinkrec.answers.names import Names, find_items, find_users, read_liked
from thinkrec.answers.parts import RECOMMENDATIONS, write_parts
from thinkrec.answers.passes import probabilities
from thinkrec.answers.views import Question, Ranking, Viewer
from thinkrec.claims.checker import Checker, thesaurus_of
from thinkrec.errors import UserError
from thinkrec.experts.routing import Routing, open_finished
from thinkrec.features.models import load_model
from thinkrec.features.ratings import Ratings
from thinkrec.features.recommender import Recommender as FeatureModel
from thinkrec.lm.loaded import LoadedModel
from thinkrec.params import PARAMS_FILE, Params
from thinkrec.params import load as load_params
from thinkrec.provenance import hash_of
from thinkrec.reasons.decoding import Decoding, write_answers

# Items by id or title, oldest first, and whether each was liked (`names.LIKED_WORDS`).
History = Sequence[tuple[str | int, bool | str]]

SHORTLIST = 200  # default number of candidates that the language model ranks
PART_USERS = 100  # of `recommend_all`: what a kill may cost


Parts = tuple[Params, LoadedModel, Routing, FeatureModel, pd.DataFrame, pd.DataFrame, pd.DataFrame]


def read_parts(root: Path) -> Parts:
    """What a `Recommender` of the project at `root` is made of; raises as `Recommender.load`."""
    params = load_params(root / PARAMS_FILE)
    loaded, routing = open_finished(params, root)
    items, users, keywords = (
        artifacts.read_table(table, root=root) for table in (artifacts.ITEMS, artifacts.USERS, artifacts.KEYWORDS)
    )
    feature_model = load_model(
        params.features.model,
        replace(Ratings.of(loaded.interactions, items=len(items), keywords=keywords["keywords"]), users=len(users)),
        loaded.rows("train"),
        params.recommender(params.features.model),
        root / artifacts.FEATURE_MODEL,
    )
    return params, loaded, routing, feature_model, items, keywords, users


class Recommender:
    """A finished project, ready to be asked, one question at a time. Make one with `load`.

    Attributes:
        names: its users and items by id and title.
        viewer: its table and models, to be asked at any moment.
    """

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
        self._params, self._loaded = params, loaded
        self._items, self._keywords, self._users = items, keywords, users
        self.viewer = Viewer(loaded, routing, feature_model, items, users=len(users))
        self.names = Names(users, items)

    @classmethod
    @torch.random.fork_rng(devices=[])  # new modules draw weights that the stored ones replace
    def load(cls, path: str | Path = ".") -> Recommender:
        """Load the project in the folder `path`: its params.yaml and out/.

        Raises:
            UserError: an artefact is missing, broken, or not what params.yaml describes.
        """
        root = Path(path)
        if not root.is_dir():
            raise UserError(f"{path}: no such folder; name that of a project in which `dvc repro` has run")
        return cls(*read_parts(root))

    @classmethod
    def from_export(cls, path: str | Path) -> Recommender:
        """Load the project that the folder `path`, written by `thinkrec export` without --expert, holds.

        Raises:
            UserError: it is no such folder; or as `load`.
        """
        folder = Path(path) / "project"
        if not (folder / PARAMS_FILE).exists():
            raise UserError(f"{path}: not a folder that `thinkrec export` wrote, without --expert; name one that is")
        return cls.load(folder)

    def score(self, pairs: pd.DataFrame, *, progress: str | None = None) -> NDArray[np.float64]:
        """Probabilities (len(pairs),) that the users like the items, in the order of `pairs`.

        `pairs` has the columns `user_id` and `item_id`, the dataset's own ids; where one is unknown, it is NaN.

        Raises:
            UserError: a column is missing, or no pair has two known ids.
        """
        user, item = self.names.find(pairs)
        order = np.argsort(user, kind="stable")
        order = order[(user[order] >= 0) & (item[order] >= 0)]
        if len(pairs) and not len(order):
            for kind, numbers in (("user", user), ("item", item)):
                self.names.require(kind, pairs[f"{kind}_id"], numbers)
        cuts = np.flatnonzero(np.diff(user[order])) + 1
        questions = [
            self.viewer.question_of(int(user[mine[0]]), item[mine]) for mine in np.split(order, cuts) if len(mine)
        ]
        out = np.full(len(pairs), np.nan)
        out[order] = self.viewer.probabilities(questions, progress=progress)
        return out

    def recommend(self, user: str | int | History, k: int = 10, *, shortlist: int = SHORTLIST) -> pd.DataFrame:
        """The `k` items that somebody would most likely like, best first: `item_id`, `title`, `probability`.

        `user` is a user id, or the history of a person never seen, items by id or title. Items already rated are left
        out. The feature model chooses `shortlist` items of the whole catalogue (at least `k`), the language model ranks
        those.

        Raises:
            UserError: an id is unknown, a title is that of several items, or the history names an item twice or says
                neither yes nor no of it.
        """
        return self.answer([self.ranking(user, k, shortlist=shortlist)])[0]

    def score_items(self, user: str | int | History, items: Sequence[str | int]) -> pd.DataFrame:
        """How probably somebody would like these items, in their order: columns as of `recommend`.

        `user` as in `recommend`, items by id or title. The probabilities of a user's id are those of `score`.

        Raises:
            UserError: as `recommend`.
        """
        return self.answer([self.scoring(user, items)])[0]

    def recommend_many(self, users: Sequence[str | int], k: int = 10, *, shortlist: int = SHORTLIST) -> pd.DataFrame:
        """What `recommend` says to each of some users, by id, in one table with `user_id` before the other columns.

        Raises:
            UserError: an id is unknown.
        """
        numbers = [self.names.user(user) for user in users]
        questions = [self.viewer.question_of(number) for number in numbers]
        ranked = self.answer([Ranking(question=question, k=k, shortlist=shortlist) for question in questions])
        ids = self.names.user_ids[np.repeat(numbers, [len(items) for items in ranked]).astype(np.int64)]
        table = pd.concat(ranked or [self._ranked(np.zeros(0, np.int64), np.zeros(0))], ignore_index=True)
        table.insert(0, "user_id", ids.to_numpy())
        return table

    def recommend_all(self, path: Path, k: int = 10, *, shortlist: int = SHORTLIST) -> tuple[int, int]:
        """Write what `recommend_many` says to every user as a parquet file; returns its users and rows.

        Memory does not grow with the users. Killed, the same call goes on where it was, to the same bytes.
        """
        ids = self.names.user_ids.to_list()
        parts = [ids[first : first + PART_USERS] for first in range(0, len(ids), PART_USERS)]
        rows = write_parts(
            path,
            parts,
            lambda part: self.recommend_many(part, k, shortlist=shortlist),
            RECOMMENDATIONS,
            made_with=f"{self._fingerprint()} k={k} shortlist={shortlist} users={PART_USERS}",
        )
        return len(ids), rows

    def ranking(self, user: str | int | History, k: int, *, shortlist: int = SHORTLIST) -> Ranking:
        """What `recommend` asks the models, which `answer` answers together with others; raises as `recommend`."""
        return Ranking(question=self._question(user), k=k, shortlist=shortlist)

    def scoring(self, user: str | int | History, items: Sequence[str | int]) -> Ranking:
        """What `score_items` asks the models; raises as `recommend`."""
        candidates = self.names.items(pd.Series([str(item) for item in items], dtype="str"))
        return Ranking(question=replace(self._question(user), candidates=candidates))

    def answer(self, rankings: Sequence[Ranking]) -> list[pd.DataFrame]:
        """The tables of several people's questions, made in the same passes; each is as if it were asked alone."""
        open_ones = [ranking for ranking in rankings if ranking.k is not None]
        affinities = self.viewer.affinities([ranking.question for ranking in open_ones])
        asked = []
        for ranking in rankings:
            question = ranking.question
            if ranking.k is not None:
                others = np.setdiff1d(np.arange(len(self._items)), self.viewer.rated(question))
                best = np.argsort(-next(affinities)[others], kind="stable")[: max(ranking.k, ranking.shortlist)]
                question = replace(question, candidates=others[best])
            asked.append(question)
        probability = self.viewer.probabilities(asked)
        tables, end = [], 0
        for ranking, question in zip(rankings, asked, strict=True):
            of_question = probability[end : (end := end + len(question.candidates))]
            order = np.arange(len(of_question))
            if ranking.k is not None:
                order = np.argsort(-of_question, kind="stable")[: max(ranking.k, 0)]
            tables.append(self._ranked(question.candidates[order], of_question[order]))
        return tables

    def _ranked(self, items: NDArray[np.int64], probability: NDArray[np.float64]) -> pd.DataFrame:
        named = self._items[["item_id", "title"]].iloc[items].reset_index(drop=True)
        return named.assign(probability=probability)[list(Scored.model_fields)]

    def explain(self, user: str | int | History, item: str | int) -> Explanation:
        """The probability that somebody likes an item, the experts' weights, and the model's reason with its evidence.

        `user` as in `recommend`, the item by id or title. An item that is rated already stands in the history that it
        is judged by.

        Raises:
            UserError: as `recommend`.
        """
        number = self.names.items(pd.Series([item]))
        view = self.viewer.view([replace(self._question(user), candidates=number)])
        probability, weights = probabilities(view.loaded, view.targets)[0], view.weights[0]
        checker, row = self._checker.over(view.loaded.interactions), int(view.targets[0])
        shown, past = checker.shown(row), view.loaded.interactions.iloc[checker.history_rows(row)]
        decoding = Decoding.from_params(self._params.evaluate, seed=self._params.seed)
        (reason,) = write_answers(view.loaded, view.targets, decoding, judge=checker.badness)
        names = ["global", *(f"expert_{column}" for column in range(1, len(weights)))]
        return Explanation(
            item_id=str(self.names.item_ids[number[0]]),
            title=shown.target.title,
            keywords=list(shown.target.keywords),
            probability=float(probability),
            weights=dict(zip(names, weights.tolist(), strict=True)),
            history=pd.DataFrame(
                {
                    "item_id": self.names.item_ids[past["item"].to_numpy()].to_numpy(),
                    "title": [item.title for item in shown.history],
                    "liked": past["label"].to_numpy() == 1,
                }
            ),
            reason=reason,
            evidence=claims_table(checker.check(row, reason).claims),
            thesaurus=checker.thesaurus.name,
        )

    def find_users(self, text: str) -> pd.DataFrame:
        """Users by what their ids have in them, as `names.find_users`."""
        return find_users(text, self._users, self._loaded.interactions)

    def find_items(self, text: str) -> pd.DataFrame:
        """Items by what their titles have in them, as `names.find_items`, without suggestions where there are none."""
        return find_items(text, self._items, self._loaded.interactions)[0]

    def _fingerprint(self) -> str:
        """What the answers depend on: a hash of the tables, the features, the models and how users are routed."""
        root = self._loaded.root
        made = (artifacts.ITEMS.parent, artifacts.FEATURES.parent, artifacts.SFT, artifacts.EXPERTS, artifacts.GATE)
        return " ".join(hash_of(root / folder) for folder in made)

    @cached_property
    def _checker(self) -> Checker:
        thesaurus = thesaurus_of(self._params.dataset.name)
        return Checker(self._loaded.interactions, self._items, self._keywords, self._params.prompt, thesaurus)

    def _question(self, user: str | int | History) -> Question:
        """A question about `user` (as in `recommend`), without candidates."""
        if isinstance(user, str | int | float | np.number):
            return self.viewer.question_of(self.names.user(user))
        if not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in user):
            raise UserError("history: should be pairs of an item id and whether it was liked, such as [('42', True)]")
        named = pd.Series([str(item) for item, _ in user], dtype="str")
        label = np.asarray([read_liked(liked, f"history: item {item}") for item, liked in user], np.int64)
        item = self.names.items(named)
        if (again := pd.Series(item).duplicated()).any():
            raise UserError(f"history: item {named[again].iloc[0]!r} stands in it twice; keep one of them")
        return Question(moment=self.viewer.now, item=item, label=label)
