"""METHOD §6's metrics: values worked out by hand, properties, and agreement with scikit-learn and ir-measures."""

import math

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import roc_auc_score

from thinkrec import metrics

# A busy machine may stall any one example: no deadline.
few = settings(max_examples=50, deadline=None)


@st.composite
def tables(draw):
    """Users, labels and scores of a small table; the scores tie often."""
    rows = draw(st.integers(1, 40))
    user = draw(hnp.arrays(np.int32, rows, elements=st.integers(0, 5)))
    label = draw(hnp.arrays(np.int8, rows, elements=st.integers(0, 1)))
    score = draw(hnp.arrays(np.int8, rows, elements=st.integers(-3, 3)))
    return user, label, score.astype(np.float64)


def test_auc_counts_ordered_pairs_and_half_of_the_tied_ones():
    # Positives score 3 and 2, negatives 2 and 1: of four pairs three are won and one is tied.
    assert metrics.auc([1, 0, 1, 0], [3, 2, 2, 1]) == 3.5 / 4


@pytest.mark.parametrize("label", [[], [1, 1], [0]])
def test_auc_without_both_classes_is_nan(label):
    assert math.isnan(metrics.auc(label, [0.5] * len(label)))


@few
@given(tables())
def test_auc_equals_scikit_learn(table):
    _, label, score = table
    if len(set(label)) == 2:
        assert metrics.auc(label, score) == pytest.approx(roc_auc_score(label, score), abs=1e-12)


def test_uauc_is_the_mean_over_users_with_both_classes():
    user = [7, 7, 7, 2, 2, 9, 9]
    label = [1, 0, 0, 1, 1, 0, 1]
    score = [2, 1, 3, 0, 1, 5, 5]
    value, users = metrics.uauc(user, label, score)
    assert (value, users) == ((0.5 + 0.5) / 2, 2)  # user 7 wins one of two pairs, user 9 ties, user 2 is left out


@few
@given(tables())
def test_uauc_equals_scikit_learn_user_by_user(table):
    user, label, score = table
    one_by_one = [
        roc_auc_score(label[user == u], score[user == u]) for u in set(user) if len(set(label[user == u])) == 2
    ]
    value, users = metrics.uauc(user, label, score)
    assert users == len(one_by_one)
    assert math.isnan(value) if not users else value == pytest.approx(np.mean(one_by_one), abs=1e-12)


def test_ranking_metrics_worked_out_by_hand():
    # User 1 by falling score: +, -, +, -, +, -, +; positives at ranks 1, 3, 5 within five, and 7.
    # User 2: no positive. User 3: one row, so not covered.
    user = [1] * 7 + [2, 2] + [3]
    label = [1, 0, 1, 0, 1, 0, 1, 0, 0, 1]
    score = [7, 6, 5, 4, 3, 2, 1, 1, 2, 1]
    table = metrics.per_user(user, label, score, ks=(5,), seed=0)
    got = {name: (value, table.covered()[name]) for name, value in table.means().items()}
    dcg, ideal = 1 + 1 / 2 + 1 / math.log2(6), sum(1 / math.log2(rank + 1) for rank in range(1, 5))
    precision = 1 + 2 / 3 + 3 / 5
    assert got["ndcg@5"] == (pytest.approx(dcg / ideal / 2), 2)
    assert got["map@5"] == (pytest.approx(precision / 4 / 2), 2)
    assert got["hr@5"] == (0.5, 2)
    assert got["ndcg@5_long"] == (pytest.approx(dcg / ideal), 1)
    # With k = 2, the two denominators part: two positives could be shown, four exist.
    means = metrics.per_user(user, label, score, ks=(2,), seed=0).means()
    assert means["map@2"] == pytest.approx(1 / 4 / 2)
    assert means["map_cut@2"] == pytest.approx(1 / 2 / 2)


def test_ranking_metrics_equal_ir_measures_for_users_with_a_positive():
    # trec_eval's rules, by way of ir-measures: AP@k divides by all positives, a query without any is no query.
    rng = np.random.default_rng(0)
    user, label, score = rng.integers(0, 150, 1200), rng.random(1200) < 0.3, rng.permutation(1200)
    names = {
        f"{ours}@{k}": theirs @ k
        for k in (5, 10)
        for ours, theirs in {"ndcg": ir_measures.nDCG, "map": ir_measures.AP, "hr": ir_measures.Success}.items()
    }
    rows = [(f"{u}", f"{row}") for row, u in enumerate(user)]
    judged = [ir_measures.Qrel(*ids, int(rel)) for ids, rel in zip(rows, label, strict=True)]
    ranked = [ir_measures.ScoredDoc(*ids, float(value)) for ids, value in zip(rows, score, strict=True)]
    found = {str(measure): {} for measure in names.values()}
    for one in ir_measures.iter_calc(list(names.values()), judged, ranked):
        found[str(one.measure)][int(one.query_id)] = one.value

    by_user = metrics.per_user(user, label, score, seed=0)
    compared = np.array([label[user == u].any() for u in by_user.user]) & (by_user.rows >= 2)
    assert compared.sum() > 100 and len(set(by_user.rows[compared] > 10)) == 2
    for ours, theirs in names.items():
        expected = [found[str(theirs)][u] for u in by_user.user[compared]]
        np.testing.assert_allclose(by_user.values[ours][compared], expected, atol=1e-6, err_msg=ours)


@few
@given(tables(), st.integers(0, 3))
def test_every_per_user_value_lies_in_0_to_1_and_covers_whom_it_says(table, seed):
    user, label, score = table
    by_user = metrics.per_user(user, label, score, seed=seed)
    rows = np.array([(user == u).sum() for u in by_user.user])
    assert (by_user.rows == rows).all()
    for name, value in by_user.values.items():
        kept = value[~np.isnan(value)]
        assert ((kept >= 0) & (kept <= 1 + 1e-12)).all(), name
        if "@" in name:
            least = int(name.partition("@")[2].removesuffix("_long")) + 1 if name.endswith("_long") else 2
            assert (~np.isnan(value) == (rows >= least)).all(), name


@few
@given(tables(), st.integers(0, 99))
def test_the_order_of_rows_never_matters_to_the_other_metrics(table, seed):
    user, label, score = table
    order = np.random.default_rng(seed).permutation(len(user))
    plain, shuffled = (
        metrics.score_table(user[rows], label[rows], (score[rows] + 4) / 8, seed=0)
        for rows in (np.arange(len(user)), order)
    )
    for name in ("auc", "uauc", "log_loss", "accuracy", "calibration_error", "rows"):
        assert shuffled[name] == pytest.approx(plain[name], nan_ok=True), name
    assert shuffled["users"] == plain["users"]


@few
@given(
    tables(), st.sampled_from([np.exp, np.cbrt, lambda score: 3 * score - 1, lambda score: score.astype(np.float32)])
)
def test_rankings_depend_on_the_order_of_scores_only(table, transform):
    user, label, score = table
    plain, transformed = (metrics.per_user(user, label, one, seed=1).values for one in (score, transform(score)))
    for name, value in plain.items():
        np.testing.assert_array_equal(transformed[name], value, err_msg=name)


@few
@given(tables(), st.integers(0, 9))
def test_ties_are_ranked_by_one_order_that_no_score_can_touch(table, seed):
    user, label, score = table
    # Whatever ties, in whichever model: as if the tie order had been a small part of the score.
    untied = score - metrics.tie_order(len(user), seed) / len(user)
    tied, without = (metrics.per_user(user, label, one, seed=seed).values for one in (score, untied))
    for name in tied.keys() - {"uauc"}:
        np.testing.assert_array_equal(tied[name], without[name], err_msg=name)


def test_ties_fall_by_seed_and_position_whatever_the_score():
    user, label = np.repeat(np.arange(200), 6), np.tile([1, 0, 0, 0, 0, 0], 200)
    flat = [metrics.per_user(user, label, np.full(1200, score), seed=3).values["ndcg@5"] for score in (0.1, 9.0)]
    np.testing.assert_array_equal(*flat)
    other = metrics.per_user(user, label, np.zeros(1200), seed=4).values["ndcg@5"]
    assert (flat[0] != other).any()
    # Random order, so the first row is not favoured: it comes in the first five of six 5/6 of the time.
    assert (flat[0] > 0).mean() == pytest.approx(5 / 6, abs=0.08)


@few
@given(tables(), st.integers(0, 99), st.sampled_from([0, 64]))
def test_the_weighted_auc_is_the_auc_of_repeated_users_whether_counted_by_row_or_by_user(table, seed, pairs_per_row):
    user, label, score = table
    users, segment = np.unique(user, return_inverse=True)
    weight_ud = np.random.default_rng(seed).integers(0, 4, size=(len(users), 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "PAIRS_PER_ROW", pairs_per_row)
        prepared = metrics.WeightedAuc.prepare(segment, label, score)
    if not pairs_per_row:
        assert prepared.won_uu is None
    got = prepared(weight_ud)
    for draw in range(3):
        copies = np.repeat(np.arange(len(user)), weight_ud[segment, draw])
        assert got[draw] == pytest.approx(metrics.auc(label[copies], score[copies]), abs=1e-12, nan_ok=True)


@few
@given(tables(), st.integers(0, 99))
def test_weighted_means_are_the_means_of_repeated_users(table, seed):
    by_user = metrics.per_user(*table, seed=0)
    weight_du = np.random.default_rng(seed).integers(0, 4, size=(2, len(by_user.user)))
    for value in by_user.values.values():
        got = metrics.weighted_means(value, weight_du)
        for draw in range(2):
            copies = np.repeat(value, weight_du[draw])
            copies = copies[~np.isnan(copies)]
            assert got[draw] == pytest.approx(copies.mean() if len(copies) else math.nan, nan_ok=True)


def test_a_sigmoid_undoes_log_odds():
    assert metrics.sigmoid(np.float32([0, np.log(3), -np.log(3)])) == pytest.approx([0.5, 0.75, 0.25])


def test_log_loss_equals_scikit_learn_and_survives_certainty():
    label, probability = [1, 0, 1, 1], [0.9, 0.2, 0.4, 0.5]
    assert metrics.log_loss(label, probability) == pytest.approx(sklearn_log_loss(label, probability))
    assert metrics.log_loss([0, 1], [1.0, 1.0]) == pytest.approx(-math.log(metrics.PROBABILITY_FLOOR) / 2, rel=1e-6)


def test_accuracy_says_yes_above_one_half():
    assert metrics.accuracy([1, 0, 1, 0], [0.51, 0.5, 0.5, 0.9]) == 0.5


def test_calibration_error_worked_out_by_hand():
    # Two bins: {.1, .3} holding one like, {.6, .8} holding two.
    label, probability = [0, 1, 1, 1], [0.1, 0.3, 0.6, 0.8]
    assert metrics.calibration_error(label, probability, bins=2) == pytest.approx((abs(0.2 - 0.5) + abs(0.7 - 1)) / 2)


def test_a_constant_forecast_of_the_base_rate_is_perfectly_calibrated():
    assert metrics.calibration_error([1, 1, 1, 0] * 25, np.full(100, 0.75)) == pytest.approx(0)


def test_bins_hold_equal_numbers_of_distinct_probabilities():
    rows = metrics.calibration_bins(np.zeros(150), np.random.default_rng(0).random(150))[2]
    assert rows.tolist() == [10] * 15


def test_the_score_table_says_how_many_rows_and_users_it_covers():
    # User 0 is ranked right, user 1 wrong, user 2 has one row.
    table = metrics.score_table([0, 0, 1, 1, 2], [1, 0, 0, 1, 1], [0.9, 0.1, 0.8, 0.2, 0.6], seed=0)
    assert (table["auc"], table["uauc"], table["rows"]) == (4 / 6, 0.5, 5)
    assert table["users"] == {"all": 3, "uauc": 2, "@5": 2, "@10": 2, "@5_long": 0, "@10_long": 0}
    assert {f"{name}@{k}" for name in ("ndcg", "map", "map_cut", "hr") for k in (5, 10)} < set(table)
    empty = metrics.score_table([], [], [], seed=0)
    assert empty["rows"] == 0 and math.isnan(empty["auc"]) and math.isnan(empty["calibration_error"])


def test_the_objective_of_a_fit_is_the_mean_of_auc_and_uauc_and_chance_where_there_is_none():
    user, label, score = [0, 0, 1], [1, 0, 0], [0.9, 0.5, 0.95]
    assert metrics.validation(user, label, score) == {"auc": 0.5, "uauc": 1.0, "objective": 0.75}
    assert metrics.validation([0, 1], [1, 0], [0.9, 0.5])["objective"] == 0.75  # no user has both classes
    assert metrics.validation([0], [1], [0.9])["objective"] == 0.5


@pytest.mark.parametrize(
    ("label", "score", "said"),
    [([0, 1], [0.1, math.nan], "not finite"), ([0, 2], [0.1, 0.2], "0 or 1"), ([0, 1], [0.1], "one length")],
)
def test_impossible_input_is_refused(label, score, said):
    with pytest.raises(ValueError, match=said):
        metrics.auc(label, score)
