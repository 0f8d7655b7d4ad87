"""The synthetic world is what its docstring says: the figures that the project's claims rest on, computed again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score, roc_auc_score

from thinkrec.ingest.catalogue import DATASETS, SMALL_WORLD, WORLD
from thinkrec.ingest.splits import split_codes
from thinkrec.synthetic import vocabulary as words
from thinkrec.synthetic.world import OFFSETS, VALUES, World, generate

Array = NDArray[Any]
SMOOTHING = {"rate": 5.0, "affinity": 3.0}


class Seen:
    """The default world as columns, and what could be known of a row from strictly earlier ones."""

    def __init__(self, world: World) -> None:
        ratings = world.ratings
        self.world = world
        self.user = ratings["user_id"].cat.codes.to_numpy(np.int64)
        self.item = ratings["item_id"].cat.codes.to_numpy(np.int64)
        self.time = ratings["timestamp"].to_numpy()
        self.label = (ratings["rating"] > 3).to_numpy(np.float64)
        self.probability = world.truth["probability"].to_numpy()
        split = split_codes(self.time, DATASETS["synthetic"].windows)
        self.train, self.valid, self.test = (split == number for number in range(3))
        self.values = world.values[self.item]
        self.kind = world.kinds[self.user]
        self.base = self.label[self.train].mean()
        self.user_rate, self.item_rate = self.rate(self.user), self.rate(self.item)

    def running(self, key: Array, value: Array) -> tuple[Array, Array]:
        """Count and sum of `value` over rows of the same key at a strictly earlier time."""
        order = np.lexsort((self.time, key))
        new_key = np.append(True, np.diff(key[order]) != 0)
        new_time = new_key | np.append(True, np.diff(self.time[order]) != 0)
        rows = np.arange(len(order))
        first = np.maximum.accumulate(np.where(new_key, rows, 0))
        until = np.maximum.accumulate(np.where(new_time, rows, 0))
        before = np.cumsum(value[order]) - value[order]
        count, total = np.empty(len(order)), np.empty(len(order))
        count[order], total[order] = until - first, before[until] - before[first]
        return count, total

    def rate(self, key: Array) -> Array:
        count, likes = self.running(key, self.label)
        k = SMOOTHING["rate"]
        return np.asarray((likes + k * self.base) / (count + k))

    def affinity(self, of_item: Array) -> Array:
        """The user's shrunken mean surprise (label - the user's rate) on rows with the target's value."""
        count, surprise = self.running(self.user * 100 + of_item, self.label - self.user_rate)
        return np.asarray(surprise / (count + SMOOTHING["affinity"]))

    def fitted(self, features: Array, rows: Array) -> Array:
        """Probabilities of a logistic regression fitted on the train rows among `rows`."""
        scaled = (features - features[self.train].mean(axis=0)) / (features[self.train].std(axis=0) + 1e-9)
        fit = self.train & rows
        model = LogisticRegression(C=0.1).fit(scaled[fit], self.label[fit])
        return np.asarray(model.predict_proba(scaled)[:, 1])

    def auc(self, score: Array) -> float:
        return float(roc_auc_score(self.label[self.test], score[self.test]))


def log_odds(p: Array) -> Array:
    return np.asarray(np.log(p / (1 - p)))


@pytest.fixture(scope="module")
def seen() -> Iterator[Seen]:
    yield Seen(generate(WORLD))


def test_equal_specs_give_equal_worlds_and_seeds_differ() -> None:
    one, two, other = (generate(spec) for spec in (SMALL_WORLD, SMALL_WORLD, replace(SMALL_WORLD, seed=2)))
    pd.testing.assert_frame_equal(one.ratings, two.ratings)
    pd.testing.assert_frame_equal(one.items, two.items)
    assert not one.items["description"].equals(other.items["description"])


def test_no_word_stands_for_two_trait_values() -> None:
    surface = [word for trait in words.TRAITS.values() for synonyms in trait.values() for word in synonyms]
    assert len(surface) == len(set(surface)) == 5 * sum(map(len, VALUES))
    fixed = " ".join(
        [*sum(words.PATTERNS.values(), ()), *words.DISTRACTORS, *words.TITLE_ADJECTIVES, *words.TITLE_NOUNS]
    )
    said = fixed.lower().replace(".", " ").replace(",", " ").split()
    assert not set(surface) & set(said)


def test_sizes_are_as_stated(seen: Seen) -> None:
    assert [int(part.sum()) for part in (seen.train, seen.valid, seen.test)] == [27_575, 6_716, 6_833]
    ratings = seen.world.ratings
    history = np.bincount(seen.user)
    assert history.min() == 8 and history.max() == 200 and 43 < history.mean() < 50
    assert 0.5 < seen.label.mean() < 0.56
    assert 0.30 < ratings.duplicated(["user_id", "timestamp"], keep=False).mean() < 0.40
    assert 0.25 < (~np.isin(seen.user[seen.test], seen.user[seen.train])).mean() < 0.35
    assert 0.05 < (~np.isin(seen.item[seen.test], seen.item[seen.train])).mean() < 0.15
    assert not ratings.duplicated(["user_id", "item_id"]).any()


def test_descriptions_name_most_traits_and_seldom_a_wrong_one(seen: Seen) -> None:
    tokens = [set(text.lower().replace(".", " ").replace(",", " ").split()) for text in seen.world.items["description"]]
    empty = np.mean([not text for text in tokens])
    assert 0 < empty < 0.03
    for trait, (_, synonyms) in enumerate(words.TRAITS.items()):
        named = [[any(w in text for w in value) for value in synonyms.values()] for text in tokens]
        right = np.array(named)[np.arange(len(named)), seen.world.values[:, trait]]
        assert 0.88 < right.mean() < 0.97
        assert 0.005 < (np.array(named).sum(axis=1) > right).mean() < 0.05


def test_the_best_possible_leaves_room_and_genre_gives_none_of_it(seen: Seen) -> None:
    assert 0.84 < seen.auc(seen.probability) < 0.87
    assert abs(seen.auc(seen.affinity(seen.world.genres[seen.item])) - 0.5) < 0.03
    assert 0.65 < seen.auc(log_odds(seen.user_rate) + log_odds(seen.item_rate)) < 0.70


def test_traits_explain_the_labels_and_knowing_the_kind_explains_more(seen: Seen) -> None:
    affinities = [seen.affinity(seen.values[:, trait]) for trait in range(3)]
    features = np.column_stack([log_odds(seen.user_rate), log_odds(seen.item_rate), *affinities])
    everyone = np.ones(len(features), bool)
    pooled = seen.auc(seen.fitted(features, everyone))
    kinds = range(len(WORLD.kind_shares))
    per_kind = seen.auc(
        np.select([seen.kind == k for k in kinds], [seen.fitted(features, seen.kind == k) for k in kinds])
    )
    assert 0.77 < pooled < 0.80
    assert per_kind > pooled + 0.015

    # Which kind a user is, from earlier verdicts: a posterior over per-kind regressions that also see trait values.
    dummies = [np.eye(len(names))[seen.values[:, trait]] for trait, names in enumerate(VALUES)]
    by_kind = [seen.fitted(np.column_stack([features, *dummies]), seen.kind == k) for k in kinds]
    evidence = [seen.running(seen.user, np.log(np.where(seen.label > 0, p, 1 - p)))[1] for p in by_kind]
    posterior = np.exp(np.array(evidence)) * np.array(WORLD.kind_shares)[:, None]
    inferred = seen.auc((posterior * by_kind).sum(axis=0) / posterior.sum(axis=0))
    assert (inferred - 0.5) / (seen.auc(seen.probability) - 0.5) > 0.9


def test_the_kinds_can_be_found_from_what_users_rated(seen: Seen) -> None:
    profile = np.zeros((WORLD.users, sum(map(len, VALUES))))
    count = np.zeros_like(profile)
    surprise = seen.label - np.bincount(seen.user, seen.label)[seen.user] / np.bincount(seen.user)[seen.user]
    for trait, offset in enumerate(OFFSETS):
        cells = (seen.user, seen.values[:, trait] + offset)
        np.add.at(profile, cells, surprise)
        np.add.at(count, cells, 1)
    enough = np.bincount(seen.user) >= 20
    groups = KMeans(3, n_init=5, random_state=0).fit_predict((profile / (count + 3))[enough])
    assert adjusted_rand_score(seen.world.kinds[enough], groups) > 0.9


def test_true_reasons_name_a_trait_of_the_rated_item(seen: Seen) -> None:
    reason = seen.world.truth["reason"]
    names = [[f"{trait}:{value}" for value in values] for trait, values in words.TRAITS.items()]
    own = np.column_stack([np.array(names[trait])[seen.values[:, trait]] for trait in range(3)])
    named = (own == reason.to_numpy(dtype=str)[:, None]).any(axis=1)
    assert (named | (reason == "quality")).all()
    assert named.mean() > 0.99
    assert seen.world.ratings["rating"].isin([1, 2, 3, 4, 5]).all()
