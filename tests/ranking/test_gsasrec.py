"""gSASRec on likes: what it learns, what it may know, and how long it trains."""

import numpy as np
import pandas as pd
import pytest

from thinkrec.errors import UserError
from thinkrec.ranking import gsasrec
from thinkrec.ranking.gsasrec import LikesGSASRec, fit_gsasrec
from thinkrec.ranking.protocols import make_questions

RING, ITEMS, USERS, LENGTH = 12, 20, 160, 6  # items beyond the ring nobody likes
MOMENTS = {"train": 0, "valid": 100, "test": 200}


def in_a_ring() -> pd.DataFrame:
    """Users who like an item after its neighbour, five in train and one in valid or test; dislikes in between."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(USERS):
        first = int(rng.integers(RING))
        for step in range(LENGTH):
            split = "train" if step < LENGTH - 1 else ("valid", "test")[user % 2]
            rows.append((user, (first + step) % RING, 1, MOMENTS[split] + 2 * step, split))
            rows.append((user, int(rng.integers(RING, ITEMS)), 0, MOMENTS[split] + 2 * step + 1, split))
    return pd.DataFrame(rows, columns=["user", "item", "label", "timestamp", "split"])


TABLE = in_a_ring()
TRAIN = np.flatnonzero(TABLE["split"] == "train")


@pytest.fixture(scope="module", autouse=True)
def few_epochs():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gsasrec, "EPOCHS", 15)
        patch.setattr(gsasrec, "PATIENCE", 15)
        patch.setattr(LikesGSASRec, "negatives", 8)
        yield


@pytest.fixture(scope="module")
def asked():
    return make_questions(TABLE, "temporal", "test")[0]


@pytest.fixture(scope="module")
def fitted(few_epochs):
    return fit_gsasrec(TABLE, ITEMS, TRAIN, seed=0)


def test_what_is_liked_next_is_first_and_what_the_fit_never_saw_last(fitted, asked):
    scores = fitted(asked)
    best = np.where(asked.candidates(TABLE, ITEMS), scores, -np.inf).argmax(axis=1)
    assert (best == asked.item[asked.liked]).mean() > 0.9
    assert np.isfinite(scores).all()
    assert (scores[:, :RING].min(axis=1) > scores[:, RING:].max(axis=1)).all()


def test_it_knows_likes_before_the_moment_alone(fitted, asked):
    first = fitted(asked)
    table = TABLE.copy()
    table.loc[table["label"] == 0, "item"] = RING  # other dislikes
    later = (table["split"] == "test") & (table["label"] == 1)
    table.loc[later, "item"] = (table.loc[later, "item"] + 3) % RING
    again = fit_gsasrec(table, ITEMS, TRAIN, seed=0)(make_questions(table, "temporal", "test")[0])
    np.testing.assert_array_equal(first, again)


def test_other_rows_are_fitted_for_the_epochs_that_are_best_on_valid(asked, monkeypatch):
    calls, fit = [], gsasrec.fit

    def counted(model, **settings):
        measured = fit(model, **settings)
        calls.append((len(model.fit_rows), settings["epochs"], [each["objective"] for each in measured]))
        return measured

    monkeypatch.setattr(gsasrec, "fit", counted)
    every = np.arange(len(TABLE))
    fit_gsasrec(TABLE, ITEMS, every, seed=0)
    (likes, _, measured), (more_likes, epochs, _) = calls
    assert likes == USERS * (LENGTH - 1) and more_likes == USERS * LENGTH
    assert epochs == 1 + int(np.argmax(measured))


def test_without_likes_in_valid_there_is_nobody_to_choose_by():
    table = TABLE.assign(label=TABLE["label"].where(TABLE["split"] != "valid", 0))
    with pytest.raises(UserError, match="nobody likes anything there"):
        fit_gsasrec(table, ITEMS, TRAIN, seed=0)
