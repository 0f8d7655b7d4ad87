"""The features artefact: every row gets vectors of its past alone, in train by fits on what was earlier."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from tests.builders import ITEMS, features_of, interactions, item_table
from tests.features.worlds import params_of
from thinkrec.errors import UserError
from thinkrec.features.artefact import PER_PROTOCOL, SHARED, Features, load_features, save_features
from thinkrec.features.fitting import FOLDS, fit_features, fits_of_train
from thinkrec.features.models import fit_model, refit_model
from thinkrec.features.ratings import Ratings
from thinkrec.history import PROTOCOLS, history_bounds
from thinkrec.metrics import auc
from thinkrec.params import FeatureParams

USERS, ROWS, SEED = 6, 18, 2
NEW = 4  # users from here on have no row in train
# What fits share does not depend on the model (each model: test_models): one of factors and one of sequences.
every_model = pytest.mark.parametrize("kind", ["mf", "sasrec"])
every_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)


@cache
def table():
    """Six users over 18 moments, some of which hold several rows of a user; the last two are new in valid."""
    frame = interactions(4, users=USERS, rows=ROWS, ties=False)
    time = frame["timestamp"] // 10
    frame = frame.assign(timestamp=time, split=np.select([time < 9, time < 13], ["train", "valid"], "test"))
    frame = frame[(frame["user"] < NEW) | (frame["split"] != "train")].reset_index(drop=True)
    assert frame.groupby("split")["timestamp"].nunique().min() >= 3
    assert frame.groupby(["user", "timestamp"]).size().max() > 1
    assert frame.groupby("split")["user"].nunique()["train"] == NEW and frame["user"].nunique() == USERS
    return frame


def column(name):
    return table()[name].to_numpy()


def rows_of(*splits):
    return np.flatnonzero(table()["split"].isin(splits))


def fit_table(kind, frame, *, epochs=1):
    """By default of one epoch: then which is best cannot change with the labels of valid."""
    params = FeatureParams(model=kind, epochs=epochs)
    return fit_features(frame, item_table(), params, params_of(kind), seed=SEED)[:2]


@cache
def features_by_protocol(kind):
    return fit_table(kind, table())[0]


def features_after(kind, rows, *, keep):
    """The features where these rows have other labels and, but for the rows `keep`, other items."""
    label, item = column("label").copy(), column("item").copy()
    label[rows] = 1 - label[rows]
    others = np.setdiff1d(rows, keep)
    item[others] = (item[others] + 3) % ITEMS
    return fit_table(kind, table().assign(label=label, item=item))[0]


def products(vectors):
    """What two fits that differ by a rotation alone share: the inner products."""
    return vectors @ vectors.T


def assert_same_rows(one, two, rows):
    for name in ("user_vectors_of", "item_vectors_of"):
        np.testing.assert_allclose(getattr(one, name)(rows), getattr(two, name)(rows), atol=1e-5)
    np.testing.assert_allclose(one.user_vectors[one.state[rows]], two.user_vectors[two.state[rows]], atol=1e-5)
    np.testing.assert_allclose(one.statistics[rows], two.statistics[rows], atol=1e-5)


def assert_counts_and_affinity_differ(one, two, rows):
    differs = one.statistics[rows] != two.statistics[rows]
    assert differs[:, :-1].any() and differs[:, -1].any()


@every_model
def test_no_vector_of_a_train_row_or_of_its_history_knows_a_label_at_or_after_it(kind):
    train, user, time = rows_of("train"), column("user"), column("timestamp")
    before = features_by_protocol(kind)["online"]
    for row in train[3::15].tolist():
        mine = train[user[train] == user[row]]
        window = mine[time[mine] <= time[row]]  # what the row's stream shows in slots
        after = features_after(kind, mine[time[mine] >= time[row]], keep=window)["online"]
        # Fits are turned onto the full one, which does see the labels: only inner products count.
        for number in np.unique(before.item_row[window] // ITEMS):
            together = window[before.item_row[window] // ITEMS == number]
            for name in ("user_vectors_of", "item_vectors_of"):
                one, two = (products(getattr(features, name)(together)) for features in (before, after))
                np.testing.assert_allclose(one, two, atol=1e-4)
        np.testing.assert_allclose(after.statistics[window], before.statistics[window], atol=1e-5)
        rest = rows_of("valid")
        assert (np.abs(after.statistics[rest, -1] - before.statistics[rest, -1]) > 1e-6).any()  # the full fit sees them


@every_model
def test_past_the_first_fold_items_vectors_know_what_was_before_their_fold_and_nothing_else(kind):
    train, time, before = rows_of("train"), column("timestamp"), features_by_protocol(kind)["online"]
    for _, served in list(fits_of_train(column("user"), time, train, FOLDS, SEED))[-FOLDS + 1 :]:
        start = time[served].min()
        for rows, differs in ((time >= start, False), (time < start, True)):
            after = features_after(kind, np.flatnonzero(rows), keep=served)["online"]
            one, two = (products(features.item_vectors_of(served)) for features in (before, after))
            assert (np.abs(one - two) > 1e-4).any() == differs


def test_folds_follow_time_and_only_the_first_is_parted_by_users():
    user, time, train = column("user"), column("timestamp"), rows_of("train")
    fits = list(fits_of_train(user, time, train, FOLDS, SEED))
    np.testing.assert_array_equal(np.sort(np.concatenate([served for _, served in fits])), train)
    first, later = fits[: -FOLDS + 1], fits[-FOLDS + 1 :]
    for known, served in later:
        np.testing.assert_array_equal(known, train[time[train] < time[served].min()])
    opening = np.sort(np.concatenate([served for _, served in first]))
    assert time[opening].max() < time[later[0][1]].min() and len(first) == min(FOLDS, NEW)
    for known, served in first:
        assert not np.intersect1d(user[known], user[served]).size
        np.testing.assert_array_equal(np.union1d(known, served), opening)
    sizes = [len(opening), *(len(served) for _, served in later)]
    assert max(sizes) < 2 * len(train) / FOLDS  # ties stay together, so not quite alike
    one_moment = fits_of_train(np.asarray([0, 0, 1, 1, 2]), np.zeros(5, np.int64), np.arange(5), 5, SEED)
    assert sorted(served.tolist() for _, served in one_moment) == [[0, 1], [2, 3], [4]]  # one fold


@every_model
def test_fits_take_the_epochs_that_are_best_on_valid_and_the_more_the_fewer_rows_they_have(kind):
    by_protocol, metrics = fit_table(kind, table(), epochs=6)
    train, valid = rows_of("train"), rows_of("valid")
    ratings = Ratings.of(table(), items=ITEMS, keywords=item_table()["keywords"])
    _, epoch, measured = fit_model(kind, ratings, train, valid, params_of(kind), epochs=6, seed=SEED)
    assert metrics["model"] == kind and metrics["epoch"] == epoch
    assert {name: metrics[f"valid_{name}"] for name in measured} == measured
    label, features = column("label"), by_protocol["online"]
    for name, rows in {"valid_auc_of_affinity": valid, "train_auc_of_affinity": train}.items():
        assert metrics[name] == pytest.approx(auc(label[rows], features.statistics[rows, -1]))
    fits = list(fits_of_train(column("user"), column("timestamp"), train, FOLDS, SEED))
    assert len(features.item_vectors) == (len(fits) + 1) * ITEMS
    for number, (known, served) in enumerate(fits, start=1):
        assert (features.item_row[served] // ITEMS == number).all()
        epochs = round(epoch * len(train) / len(known))
        side = refit_model(kind, ratings, known, params_of(kind), epochs=epochs, seed=SEED).items()
        rotated = features.item_vectors[number * ITEMS : (number + 1) * ITEMS]
        np.testing.assert_allclose(products(rotated), products(side.vectors), atol=1e-4)


@every_model
@every_protocol
def test_valid_and_test_rows_use_the_full_fit(kind, protocol):
    features, user, rest = features_by_protocol(kind)[protocol], column("user"), rows_of("valid", "test")
    ratings = Ratings.of(table(), items=ITEMS, keywords=item_table()["keywords"])
    full = refit_model(kind, ratings, rows_of("train"), params_of(kind), epochs=1, seed=SEED)
    np.testing.assert_array_equal(features.user_vectors[:USERS], full.fitted_users())
    assert (features.user_vectors[NEW:USERS] == 0).all()
    assert (features.item_row[rest] == column("item")[rest]).all()
    np.testing.assert_array_equal(features.item_vectors[:ITEMS], full.items().vectors)
    view = Ratings.of(PROTOCOLS[protocol](table()), items=ITEMS)
    states, biases = full.states(view, view.start[rest], view.end[rest])
    np.testing.assert_allclose(features.user_vectors_of(rest), states, atol=1e-5)
    # The last statistic is the model's logit without the user's bias.
    assert features.statistic_names[-1] == "affinity" and len(features.statistic_names) == features.statistics.shape[1]
    np.testing.assert_allclose(features.statistics[rest, -1], full.logits(view, rest) - biases, atol=1e-5)
    known = np.isin(np.arange(len(user)), rest) & (user < NEW)
    np.testing.assert_array_equal(features.state, np.where(known, user, features.user_row))


@every_model
def test_online_a_row_of_valid_or_test_knows_nothing_at_or_after_its_own_time(kind):
    before, time = features_by_protocol(kind)["online"], column("timestamp")
    for row in rows_of("valid", "test")[::15].tolist():
        same = np.asarray([row])
        after = features_after(kind, np.flatnonzero(time >= time[row]), keep=same)["online"]
        assert_same_rows(before, after, same)


@every_model
def test_online_a_row_knows_what_was_just_before_it(kind):
    user, time = column("user"), column("timestamp")
    row = np.flatnonzero(user == 1)[-1:]
    last = np.flatnonzero((user == 1) & (time < time[row]))[-1:]
    assert last[0] in rows_of("test")
    before, after = features_by_protocol(kind), features_after(kind, last, keep=last)
    assert_counts_and_affinity_differ(after["online"], before["online"], row)
    assert (after["online"].user_vectors_of(row) != before["online"].user_vectors_of(row)).any()
    assert_same_rows(before["static"], after["static"], row)


@every_model
@pytest.mark.parametrize(("split", "from_then_on"), [("valid", ["valid", "test"]), ("test", ["test"])])
def test_static_no_row_knows_anything_at_or_after_the_start_of_its_split(kind, split, from_then_on):
    before, later, of_split = features_by_protocol(kind)["static"], rows_of(*from_then_on), rows_of(split)
    after = features_after(kind, later, keep=of_split)["static"]
    assert_same_rows(before, after, np.concatenate([rows_of("train"), of_split]))
    for row in of_split[::11].tolist():  # nor the items of the others
        same = np.asarray([row])
        assert_same_rows(before, features_after(kind, later, keep=same)["static"], same)


@every_model
def test_static_test_rows_know_valid(kind):
    valid, test = rows_of("valid"), rows_of("test")
    before, after = features_by_protocol(kind)["static"], features_after(kind, valid, keep=valid)["static"]
    assert_counts_and_affinity_differ(after, before, test)
    assert (after.user_vectors_of(test) != before.user_vectors_of(test)).any(1).all()


@every_model
def test_the_protocols_share_the_vectors_and_all_of_train(kind):
    online, static = features_by_protocol(kind).values()
    for name in SHARED:
        np.testing.assert_array_equal(getattr(online, name), getattr(static, name))
    train, test, time = rows_of("train"), rows_of("test"), column("timestamp")
    for name in PER_PROTOCOL:
        np.testing.assert_array_equal(getattr(online, name)[train], getattr(static, name)[train])
    # At the first moment of a split both protocols say the same, later they do not.
    first = test[time[test] == time[test].min()]
    np.testing.assert_array_equal(online.user_row[first], static.user_row[first])
    assert (online.user_row[test] != static.user_row[test]).any()


@every_model
@every_protocol
def test_there_is_one_user_vector_for_each_history_of_a_user_in_a_fit(kind, protocol):
    features = features_by_protocol(kind)[protocol]
    frame = PROTOCOLS[protocol](table())
    start, end = history_bounds(frame["user"], frame["timestamp"])
    history = frame.assign(end=end, train=frame["split"] == "train").groupby(["user", "end", "train"]).ngroup()
    by_history = pd.Series(features.user_row).groupby(history.to_numpy())
    assert (by_history.nunique() == 1).all() and by_history.first().is_unique
    assert by_history.ngroups < len(frame)  # rows that tie in time share one
    assert (features.user_row >= USERS).all()
    assert (features.user_vectors_of(np.flatnonzero(start == end)) == 0).all()
    assert (features.user_vectors_of(np.flatnonzero(start != end)) != 0).any()


@every_model
def test_the_same_seed_gives_the_same_bytes(kind, tmp_path):
    for name in ("one", "two"):
        save_features(fit_table(kind, table())[0], tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_features_of_both_protocols_round_trip_through_disk_and_share_what_they_share(tmp_path):
    path = tmp_path / "features.safetensors"
    save_features(features_by_protocol("mf"), path)
    for protocol, features in features_by_protocol("mf").items():
        again = load_features(path, protocol=protocol)
        for name in Features.__slots__:
            np.testing.assert_array_equal(getattr(again, name), getattr(features, name))
        assert again.statistics.dtype == np.float32 and again.user_row.dtype == np.int32
    assert (load_features(path).statistics != again.statistics).any()  # online by default, and another
    assert load_file(path).keys() == {
        *SHARED,
        *(f"{protocol}.{name}" for protocol in PROTOCOLS for name in PER_PROTOCOL),
    }


def test_too_few_users_to_cut_into_folds_are_a_user_error():
    alone = table()[(table()["user"] == 0) | (table()["split"] != "train")].reset_index(drop=True)
    with pytest.raises(UserError, match=r"the first of 5 folds of train's time holds one user alone"):
        fit_table("mf", alone)


def test_a_missing_or_foreign_file_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match=r"no such artefact; .* dvc repro features"):
        load_features(tmp_path / "out" / "features" / "features.safetensors")
    (tmp_path / "foreign").write_bytes(b"something else")
    with pytest.raises(UserError, match="not the tensors that it should hold"):
        load_features(tmp_path / "foreign")
    save_features(
        {"online": features_of(table())}, tmp_path / "one"
    )  # as an earlier version's file, which lacks a protocol
    with pytest.raises(UserError, match=r"not the tensors that it should hold .*user_row.*; rerun its stage"):
        load_features(tmp_path / "one", protocol="static")
