"""A finished project's full ranking: every model over the whole catalogue, and ThinkRec's two stages taken apart.

    thinkrec rank

Users go by in parts, so memory does not grow with them: of each user's scores stay the figures of METRICS, where the
items rated later stand, and the first ten items.

Shapes: q users, r items rated later, I items, N a shortlist's size, d draws, c columns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from thinkrec import artifacts
from thinkrec.answers.views import Viewer
from thinkrec.evaluation.intervals import DRAWS, Bootstrap, holm, interval, p_value, resampled
from thinkrec.evaluation.models import OURS
from thinkrec.evaluation.tables import differences
from thinkrec.features.models import MODELS
from thinkrec.params import Params
from thinkrec.progress import track
from thinkrec.ranking.expected import (
    METRICS,
    Bools,
    Floats,
    Ints,
    find_places,
    first_items,
    rank_fusion,
    ranking_metrics,
)
from thinkrec.ranking.lists import describe_lists, mark_lists
from thinkrec.ranking.protocols import Protocol, Questions, make_questions, sample_users
from thinkrec.ranking.retrievers import POPULAR, UNION, WEIGHTED, Retriever, Scores, fit_retrievers
from thinkrec.report.background import code_commit
from thinkrec.report.users import Lists

SIZES = (50, 100, 200, 500)  # of shortlists
LEADS = ("hr@10", "recall@10", "ndcg@10", "mrr@10")
STAGE = "ndcg@10"  # by which the two stages are taken apart
LISTED = 10  # items of a list that is described
DIGITS = 4  # of the document
PART_CELLS = 2**17  # users times items at once: bounds memory, some 20 arrays of so many

ByUser = dict[str, Floats]  # measure -> a value per user (q)


def rank_catalogue(
    viewer: Viewer, params: Params, *, protocol: Protocol, split: str, shortlist: int, users: int | None
) -> tuple[dict[str, Any], Lists]:
    """The figures of every model under a protocol (docs/ranking.md explains each key), and the users' lists.

    `shortlist` items of every retriever (as many as the longest list that is measured, or more) are scored by ThinkRec,
    for `users` of the users (None: all), sampled by the seed.

    Raises:
        UserError: there is no user to ask about.
    """
    interactions, items, keywords = map(
        artifacts.read_table, (artifacts.INTERACTIONS, artifacts.ITEMS, artifacts.KEYWORDS)
    )
    everybody, rows = make_questions(interactions, protocol, split)
    questions = sample_users(everybody, users, params.seed)
    retrievers = fit_retrievers(interactions, items.assign(keywords=keywords["keywords"]), rows, params)
    sizes = sorted({*(size for size in SIZES if size < shortlist), min(shortlist, len(items))})
    models, stages, lists = _measure_all(viewer, questions, retrievers, sizes, interactions, len(items), params)
    train = interactions[interactions["split"] == "train"]
    popularity = np.bincount(train["item"], minlength=len(items))
    described = {name: describe_lists(each, popularity, train["user"].nunique()) for name, each in lists.items()}
    document = {
        "dataset": params.dataset.name,
        "code": code_commit(),
        "seed": params.seed,
        "protocol": protocol,
        "split": split if protocol == "temporal" else None,
        "users": {
            "ranked": len(questions.row),
            "of": len(everybody.row),
            "without_history": int((questions.end == questions.start).sum()),
        },
        "items": {"all": len(items), "new": int((popularity == 0).sum())},
        "to_find": {
            "items": int(questions.liked.sum()),
            "new": int((popularity[questions.item[questions.liked]] == 0).sum()),
        },
        "feature_model": params.features.model,
        "shortlist": sizes[-1],
        "draws": DRAWS,
        **_summarise(models, described, params.seed),
        "stages": _summarise_stages(stages, params.seed),
    }
    asked = interactions["user"].to_numpy(np.int64)[questions.row]
    return artifacts.rounded(document, DIGITS), mark_lists(asked, questions, lists)


def _measure_all(
    viewer: Viewer,
    questions: Questions,
    retrievers: Mapping[str, Retriever],
    sizes: Sequence[int],
    interactions: pd.DataFrame,
    items: int,
    params: Params,
) -> tuple[dict[str, ByUser], dict[tuple[str, int], ByUser], dict[str, Ints]]:
    """What is measured of each model and of each retriever's shortlists by size, and each model's first items."""
    generator = np.random.default_rng(params.seed)
    models: dict[str, list[ByUser]] = defaultdict(list)  # here, and in the two below, part by part
    stages: dict[tuple[str, int], list[ByUser]] = defaultdict(list)
    lists: dict[str, list[Ints]] = defaultdict(list)
    count, size_of_part = len(questions.row), max(1, PART_CELLS // items)
    for first in track(range(0, count, size_of_part), "ranking", unit="part"):
        part = questions.take(np.arange(first, min(first + size_of_part, count)))
        candidate = part.candidates(interactions, items)
        noise = generator.random(candidate.shape)  # row by row: no user's depends on the size of a part
        scores = score_catalogue(part, candidate, retrievers)
        shortlists = {name: first_items(score, candidate, sizes[-1], noise) for name, score in scores.items()}
        ours = ask(viewer, part, _mark(np.concatenate([*shortlists.values()], axis=1), candidate))
        orders = {OURS: ours, WEIGHTED: ours * (scores[POPULAR] + 1)}
        for name, shortlist in shortlists.items():
            for size in sizes:
                taken = _mark(shortlist[:, :size], candidate)
                figures = measure_stages(part, candidate, taken, {"retriever": scores[name], **orders})
                stages[name, size].append(figures)
        for name, retriever in ((OURS, params.features.model), (WEIGHTED, POPULAR)):
            scores[name] = np.where(_mark(shortlists[retriever], candidate), orders[name], -np.inf)
        for name, score in scores.items():
            models[name].append(measure(part, candidate, score))
            lists[name].append(first_items(score, candidate, LISTED, noise))
    return (
        {name: _joined(parts) for name, parts in models.items()},
        {key: _joined(parts) for key, parts in stages.items()},
        {name: np.concatenate(parts) for name, parts in lists.items()},
    )


def _joined(parts: Sequence[ByUser]) -> ByUser:
    """The values of the users of all parts, one part after the other."""
    return {measure: np.concatenate([part[measure] for part in parts]) for measure in parts[0]}


def score_catalogue(part: Questions, candidate: Bools, retrievers: Mapping[str, Retriever]) -> dict[str, Scores]:
    """What each model makes of every item (q, I), the fused ranks of the ordinary recommenders too."""
    scores = {name: retrieve(part) for name, retrieve in retrievers.items()}
    scores[UNION] = rank_fusion(*(np.where(candidate, scores[kind], -np.inf) for kind in MODELS))
    return scores


def ask(viewer: Viewer, part: Questions, asked: Bools) -> Floats:
    """ThinkRec's probabilities (q, I) of a like, of the items `asked` about (q, I); elsewhere 0."""
    questions = [viewer.question_before(int(row), np.flatnonzero(of)) for row, of in zip(part.row, asked, strict=True)]
    score = np.zeros(asked.shape)
    score[asked] = viewer.probabilities(questions)
    return score


def measure(part: Questions, candidate: Bools, score: Scores) -> ByUser:
    """METRICS of each user (q), and the mean place of the items that were later liked, and disliked.

    A place is the share of the other candidates that stand lower; NaN of a user who later disliked nothing.
    """
    users = len(candidate)
    above, tied = find_places(score, candidate, part.user, part.item)
    liked = part.liked
    place = 1 - (above + (tied - 1) / 2) / np.maximum(candidate.sum(axis=1)[part.user] - 1, 1)
    places = {}
    for name, kept in (("liked", liked), ("disliked", ~liked)):
        number = np.bincount(part.user[kept], minlength=users)
        total = np.bincount(part.user[kept], place[kept], minlength=users)
        places[name] = np.divide(total, number, out=np.full(users, np.nan), where=number > 0)
    return ranking_metrics(part.user[liked], above[liked], tied[liked], users) | places


def measure_stages(part: Questions, candidate: Bools, taken: Bools, orders: Mapping[str, Scores]) -> ByUser:
    """A shortlist's recall (q), and STAGE (q each) of the `orders` that it may be put in (q, I each), and of the best.

    The best order puts what is to be found first.
    """
    liked = np.zeros(candidate.shape)
    liked[part.user[part.liked], part.item[part.liked]] = 1
    figures = {
        name: measure(part, candidate, np.where(taken, score, -np.inf))[STAGE]
        for name, score in {**orders, "best": liked}.items()
    }
    return {"recall": (liked * taken).sum(axis=1) / liked.sum(axis=1), **figures}


def _mark(items: Ints, candidate: Bools) -> Bools:
    """Which items (q, I) stand in some lists (q, N)."""
    marked = np.zeros((len(candidate), candidate.shape[1] + 1), bool)  # the last column takes the lists' -1
    np.put_along_axis(marked, items, True, axis=1)
    return marked[:, :-1]


def _mean(column: Floats) -> float | None:
    """The mean over the users that have a value; None without any."""
    present = column[~np.isnan(column)]
    return float(present.mean()) if len(present) else None


def _draw_means(columns: Floats, seed: int) -> Floats:
    """What each draw of users makes of the means of some columns (q, c): (d, c)."""
    users = len(columns)
    return np.concatenate([weight @ columns / users for _, weight in resampled(users, draws=DRAWS, seed=seed)])


def _summarise(values: Mapping[str, ByUser], described: Mapping[str, dict[str, float]], seed: int) -> dict[str, Any]:
    """`models`: figures, intervals and lists; `differences`: ours minus each other's, Holm's family all of them."""
    columns = np.stack([values[name][metric] for name in values for metric in METRICS], axis=1)
    drawn = dict(zip(values, np.split(_draw_means(columns, seed), len(values), axis=1), strict=True))
    models, compared = {}, {}
    for name, of_user in values.items():
        means = {metric: float(of_user[metric].mean()) for metric in METRICS}
        draws = dict(zip(METRICS, drawn[name].T, strict=True))
        models[name] = {
            "metrics": means,
            "interval": {metric: interval(draw) for metric, draw in draws.items()},
            "lists": described[name],
            "place": {key: _mean(of_user[key]) for key in ("liked", "disliked")},
        }
        compared[name] = Bootstrap(
            value={metric: means[metric] for metric in LEADS}, draws={metric: draws[metric] for metric in LEADS}
        )
    return {"models": models, "differences": differences(compared)}


def _summarise_stages(values: Mapping[tuple[str, int], ByUser], seed: int) -> dict[str, dict[str, Any]]:
    """By retriever and size: the means, and what ThinkRec's orders gain on the retriever's."""
    table: dict[str, dict[str, Any]] = defaultdict(dict)
    gains = [(name, size, order) for name, size in values for order in (OURS, WEIGHTED)]
    columns = np.stack([values[n, s][order] - values[n, s]["retriever"] for n, s, order in gains], axis=1)
    draws = _draw_means(columns, seed).T
    plain = [p_value(draw) for draw in draws]
    for (name, size), of_user in values.items():
        table[name][str(size)] = {key: float(value.mean()) for key, value in of_user.items()} | {"gain": {}}
    for (name, size, order), column, draw, p, adjusted in zip(gains, columns.T, draws, plain, holm(plain), strict=True):
        entry = {"difference": float(column.mean()), **interval(draw), "p": p, "p_holm": adjusted}
        table[name][str(size)]["gain"][order] = entry
    return dict(table)
