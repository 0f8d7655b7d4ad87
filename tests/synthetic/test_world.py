"""The synthetic world is what its docstring says: the figures that the project's claims rest on, computed again."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score, roc_auc_score

from thinkrec.ingest.catalogue import DATASETS, NEW_ITEMS_WORLD, SMALL_WORLD, WORLD
from thinkrec.ingest.splits import split_codes, windows_of
from thinkrec.synthetic import vocabulary as words
from thinkrec.synthetic.world import OFFSETS, VALUES, generate

SMOOTHING = {"rate": 5.0, "affinity": 3.0}
TRAITS = range(len(VALUES))


class Causal:
    """A world as columns, and what could be known of a row from strictly earlier ones."""

    def __init__(self, world):
        ratings = world.ratings
        self.world = world
        self.user, self.item = (ratings[name].cat.codes.to_numpy(np.int64) for name in ("user_id", "item_id"))
        self.time = ratings["timestamp"].to_numpy()
        self.label = (ratings["rating"] > 3).to_numpy(np.float64)
        split = split_codes(self.time, windows_of(DATASETS["synthetic"].windows, 0, 0))
        self.train, self.valid, self.test = (split == number for number in range(3))
        self.values = world.values[self.item]
        self.kind = world.kinds[self.user]
        self.user_rate, self.item_rate = self.rate(self.user), self.rate(self.item)

    def running(self, key, value):
        """Count and sum of `value` over rows of the same key at a strictly earlier time."""
        frame = pd.DataFrame({"key": key, "time": self.time, "count": 1.0, "sum": value})
        moments = frame.groupby(["key", "time"])[["count", "sum"]].sum()
        earlier = moments.groupby("key").cumsum() - moments
        rows = earlier.loc[pd.MultiIndex.from_frame(frame[["key", "time"]])]
        return rows["count"].to_numpy(), rows["sum"].to_numpy()

    def rate(self, key):
        count, likes = self.running(key, self.label)
        k = SMOOTHING["rate"]
        return (likes + k * self.label[self.train].mean()) / (count + k)

    def affinity(self, of_item):
        """The user's shrunken mean surprise (label - the user's rate) on rows with the target's value."""
        count, surprise = self.running(self.user * 100 + of_item, self.label - self.user_rate)
        return surprise / (count + SMOOTHING["affinity"])

    def fit(self, features, rows):
        """Probabilities of a logistic regression fitted on the train rows among `rows`."""
        scaled = (features - features[self.train].mean(axis=0)) / (features[self.train].std(axis=0) + 1e-9)
        fitted = self.train & rows
        model = LogisticRegression(C=0.1).fit(scaled[fitted], self.label[fitted])
        return np.asarray(model.predict_proba(scaled)[:, 1])

    def auc(self, score):
        return float(roc_auc_score(self.label[self.test], score[self.test]))


def log_odds(p):
    return np.asarray(np.log(p / (1 - p)))


@pytest.fixture(scope="module")
def causal():
    return Causal(generate(WORLD))


def words_of(text):
    return set(text.lower().replace(".", " ").replace(",", " ").split())


def test_equal_specs_give_equal_worlds_and_seeds_differ():
    world, again, another = (generate(spec) for spec in (SMALL_WORLD, SMALL_WORLD, replace(SMALL_WORLD, seed=2)))
    pd.testing.assert_frame_equal(world.ratings, again.ratings)
    pd.testing.assert_frame_equal(world.items, again.items)
    assert not world.items["description"].equals(another.items["description"])


def test_no_word_stands_for_two_trait_values():
    surface = [word for trait in words.TRAITS.values() for synonyms in trait.values() for word in synonyms]
    assert len(surface) == len(set(surface)) == 5 * sum(map(len, VALUES))
    fixed = " ".join(
        [*sum(words.PATTERNS.values(), ()), *words.DISTRACTORS, *words.TITLE_ADJECTIVES, *words.TITLE_NOUNS]
    )
    assert not set(surface) & words_of(fixed)


def test_sizes_are_as_stated(causal):
    assert [int(part.sum()) for part in (causal.train, causal.valid, causal.test)] == [27_575, 6_716, 6_833]
    ratings = causal.world.ratings
    history = np.bincount(causal.user)
    assert history.min() == 8 and history.max() == 200 and 43 < history.mean() < 50
    assert 0.5 < causal.label.mean() < 0.56
    assert 0.30 < ratings.duplicated(["user_id", "timestamp"], keep=False).mean() < 0.40
    assert 0.25 < (~np.isin(causal.user[causal.test], causal.user[causal.train])).mean() < 0.35
    assert 0.05 < (~np.isin(causal.item[causal.test], causal.item[causal.train])).mean() < 0.15
    assert not ratings.duplicated(["user_id", "item_id"]).any()


def test_descriptions_name_most_traits_and_seldom_a_wrong_one(causal):
    tokens = list(map(words_of, causal.world.items["description"]))
    empty = np.mean([not text for text in tokens])
    assert 0 < empty < 0.03
    for trait, (_, synonyms) in enumerate(words.TRAITS.items()):
        named = [[any(w in text for w in value) for value in synonyms.values()] for text in tokens]
        right = np.array(named)[np.arange(len(named)), causal.world.values[:, trait]]
        assert 0.88 < right.mean() < 0.97
        assert 0.005 < (np.array(named).sum(axis=1) > right).mean() < 0.05


def test_the_best_possible_leaves_room_and_genre_gives_none_of_it(causal):
    assert 0.84 < causal.auc(causal.world.truth["probability"].to_numpy()) < 0.87
    assert abs(causal.auc(causal.affinity(causal.world.genres[causal.item])) - 0.5) < 0.03
    assert 0.65 < causal.auc(log_odds(causal.user_rate) + log_odds(causal.item_rate)) < 0.70


def test_traits_explain_the_labels_and_knowing_the_kind_explains_more(causal):
    affinities = [causal.affinity(causal.values[:, trait]) for trait in TRAITS]
    features = np.column_stack([log_odds(causal.user_rate), log_odds(causal.item_rate), *affinities])
    everyone = np.ones(len(features), bool)
    pooled = causal.auc(causal.fit(features, everyone))
    kinds = range(len(WORLD.kind_shares))
    per_kind = causal.auc(
        np.select([causal.kind == k for k in kinds], [causal.fit(features, causal.kind == k) for k in kinds])
    )
    assert 0.77 < pooled < 0.80
    assert per_kind > pooled + 0.015

    # Which kind a user is, from earlier verdicts: a posterior over per-kind regressions that also see trait values.
    dummies = [np.eye(len(names))[causal.values[:, trait]] for trait, names in enumerate(VALUES)]
    by_kind = [causal.fit(np.column_stack([features, *dummies]), causal.kind == k) for k in kinds]
    evidence = [causal.running(causal.user, np.log(np.where(causal.label > 0, p, 1 - p)))[1] for p in by_kind]
    posterior = np.exp(np.array(evidence)) * np.array(WORLD.kind_shares)[:, None]
    inferred = causal.auc((posterior * by_kind).sum(axis=0) / posterior.sum(axis=0))
    assert (inferred - 0.5) / (causal.auc(causal.world.truth["probability"].to_numpy()) - 0.5) > 0.9


def test_the_kinds_can_be_found_from_what_users_rated(causal):
    profile = np.zeros((WORLD.users, sum(map(len, VALUES))))
    count = np.zeros_like(profile)
    surprise = (
        causal.label - np.bincount(causal.user, causal.label)[causal.user] / np.bincount(causal.user)[causal.user]
    )
    for trait, offset in enumerate(OFFSETS):
        cells = (causal.user, causal.values[:, trait] + offset)
        np.add.at(profile, cells, surprise)
        np.add.at(count, cells, 1)
    enough = np.bincount(causal.user) >= 20
    groups = KMeans(3, n_init=5, random_state=0).fit_predict((profile / (count + 3))[enough])
    assert adjusted_rand_score(causal.world.kinds[enough], groups) > 0.9


def test_where_items_are_new_nothing_differs_but_when_they_come_and_thus_who_rates_what(causal):
    default, new = causal.world, Causal(generate(NEW_ITEMS_WORLD))
    for name in ("kinds", "values", "genres"):
        assert np.array_equal(getattr(default, name), getattr(new.world, name))
    for name in ("title", "categories", "description"):
        assert default.items[name].equals(new.world.items[name])
    assert np.array_equal(causal.user, new.user) and np.array_equal(causal.time, new.time)
    shares = [(~np.isin(new.item[part], new.item[new.train])).mean() for part in (new.valid, new.test)]
    assert 0.20 < shares[0] < 0.25 and abs(shares[1] - 1 / 3) < 0.01


def test_true_reasons_name_a_trait_of_the_rated_item(causal):
    reason = causal.world.truth["reason"]
    names = [[f"{trait}:{value}" for value in values] for trait, values in words.TRAITS.items()]
    of_item = np.column_stack([np.array(names[trait])[causal.values[:, trait]] for trait in TRAITS])
    named = (of_item == reason.to_numpy(dtype=str)[:, None]).any(axis=1)
    assert (named | (reason == "quality")).all()
    assert named.mean() > 0.99
    assert causal.world.ratings["rating"].isin([1, 2, 3, 4, 5]).all()
