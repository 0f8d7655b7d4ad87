"""Causal statistics: worked out by hand, blind to ties and the future, bounded in what they look back on."""

from math import exp, log, log1p

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import interactions, item_table
from thinkrec.features import statistics
from thinkrec.features.statistics import causal_statistics, item_content

few = settings(max_examples=40, deadline=None)


def compute(table, *, kernel_history=5):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "KERNEL_HISTORY", kernel_history)
        return causal_statistics(table, item_table())[0]


@few
@given(st.integers(0, 99), st.integers(0, 4), st.sampled_from(["label", "item"]))
def test_nothing_at_or_after_a_moment_reaches_rows_up_to_it(seed, moment, column):
    table = interactions(seed)
    time = table["timestamp"].to_numpy()
    values = table[column].to_numpy().copy()
    later = time >= moment if column == "label" else time > moment  # a row's own item is what it is about
    values[later] = np.random.default_rng(seed).permutation(1 - values[later] if column == "label" else values[later])
    changed = table.assign(**{column: values})
    np.testing.assert_array_equal(compute(changed)[time <= moment], compute(table)[time <= moment])


@few
@given(st.integers(0, 99), st.integers(0, 35))
def test_rows_of_the_same_second_are_blind_to_each_others_items(seed, row):
    table = interactions(seed)
    item = table["item"].to_numpy().copy()
    item[row] = (item[row] + 1) % 8
    others = (table["timestamp"] <= table["timestamp"][row]).to_numpy() & (np.arange(36) != row)
    np.testing.assert_array_equal(compute(table.assign(item=item))[others], compute(table)[others])


def test_an_earlier_label_does_reach_later_rows():
    table = interactions(0)
    first = int(np.flatnonzero(table["timestamp"] == table["timestamp"].min())[0])
    label = table["label"].to_numpy().copy()
    label[first] = 1 - label[first]
    later = (table["timestamp"] > table["timestamp"].min()).to_numpy()
    assert (compute(table.assign(label=label)) != compute(table)).any(1)[later].all()


@few
@given(st.integers(0, 99), st.integers(1, 40))
def test_the_chunk_size_does_not_matter(seed, pairs):
    table = interactions(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "CHUNK_PAIRS", pairs)
        chunked = compute(table)
    np.testing.assert_allclose(chunked, compute(table), rtol=1e-6)


def test_kernels_look_back_no_further_than_they_may():
    table = interactions(0, users=2, rows=12, ties=False)
    table["user"] = np.repeat([0, 1], 12).astype(np.int32)
    names = causal_statistics(table, item_table())[1]
    kernels = [column for column, name in enumerate(names) if "log_odds" not in name and "count" not in name]
    assert len(kernels) == 12
    weight = names.index("log_weight_everything")
    counts = np.concatenate([np.minimum(np.arange(12), 3)] * 2)
    np.testing.assert_allclose(compute(table, kernel_history=3)[:, weight], np.log1p(counts), rtol=1e-6)
    np.testing.assert_allclose(
        compute(table, kernel_history=99)[:, weight], np.log1p(np.tile(np.arange(12), 2)), rtol=1e-6
    )


def small():
    """Two users; user 0 likes item 0, then meets item 1 and item 2 in one second; user 1 disliked item 1 between."""
    table = pd.DataFrame(
        {
            "user": np.asarray([0, 0, 0, 1], np.int32),
            "item": np.asarray([0, 1, 2, 1], np.int32),
            "label": np.asarray([1, 1, 0, 0], np.int8),
            "timestamp": np.asarray([0, 20, 20, 10]),
        }
    )
    items = pd.DataFrame(
        {
            "title": ["The Red Sea", "Red Sky at Sea", "Blue"],
            "year": np.asarray([1990, 1996, np.nan]),
            "categories": [["a", "b"], ["b"], ["c"]],
        }
    )
    return table, items


def test_a_small_case_by_hand():
    table, items = small()
    values, names = causal_statistics(table, items)
    column = {name: values[:, index].tolist() for index, name in enumerate(names)}

    # Priors, drawn by 5 halves: nothing before 0; at 10 one like of one: 7/12; at 20 one of two: 1/2.
    def logit(p):
        return log(p / (1 - p))

    at_10 = 7 / 12
    assert column["user_log_odds"] == pytest.approx([0, logit(7 / 12), logit(7 / 12), logit(at_10)], abs=1e-6)
    assert column["item_log_odds"] == pytest.approx([0, logit(5 / 12), 0, logit(at_10)], abs=1e-6)
    assert column["user_log_count"] == pytest.approx([0, log1p(1), log1p(1), 0])
    assert column["item_log_count"] == pytest.approx([0, log1p(1), 0, 0])
    # The one past row was a like where .5 was expected: a residual of .5 at every kernel's weight, shrunk by 2.
    jaccard, years, words = (1 / 2) ** 2, exp(-6 / 6), 2 / 3  # titles: red, sea of (red, sea) and (red, sky, sea)
    popularity = exp(-log1p(1) / 0.75)  # item 1 was met once before, item 0 never
    for name, weight in {
        "everything": 1,
        "categories": jaccard,
        "years": years,
        "categories_and_years": jaccard * years,
        "titles": words,
        "popularity": popularity,
    }.items():
        assert column[f"residual_{name}"][1] == pytest.approx(0.5 * weight / (weight + 2), rel=1e-5), name
        assert column[f"log_weight_{name}"][1] == pytest.approx(log1p(weight), rel=1e-5), name
        assert column[f"residual_{name}"][0] == column[f"log_weight_{name}"][3] == 0
    for name in ("categories", "years", "titles"):  # item 2 has nothing in common, and no year
        assert column[f"residual_{name}"][2] == 0


def test_content_is_read_from_any_items():
    items = pd.DataFrame(
        {"title": ["", "Of to"], "year": pd.array([1999, None], dtype="Int16"), "categories": [[], []]}
    )
    content = item_content(items)
    assert content.categories.sizes.tolist() == [0, 0]
    assert content.year[0] == 1999 and np.isnan(content.year[1])
    assert (content.title_words.members == -1).all() and (content.title_words.bits == 0).all()
    whole = item_content(items.assign(year=np.asarray([1999, 2000], np.int16)))
    assert whole.year.tolist() == [1999, 2000]


@pytest.mark.parametrize("pool", [200, 60])
def test_names_in_common_are_counted_whether_or_not_their_bits_tell_them_apart(pool):
    rng = np.random.default_rng(0)
    sets = [{f"name {number}" for number in rng.choice(pool, size, replace=False)} for size in [0, 1, 2, 5, 8, 40] * 5]
    items = pd.DataFrame({"title": [""] * 30, "year": np.nan, "categories": [sorted(names) for names in sets]})
    table = pd.DataFrame({"user": 0, "item": np.arange(30), "label": 1, "timestamp": np.arange(30)})
    values, names = causal_statistics(table, items)
    jaccard = [[len(one & two) / max(len(one | two), 1) for two in sets[:row]] for row, one in enumerate(sets)]
    weights = [np.square(of_row).sum() for of_row in jaccard]
    np.testing.assert_allclose(values[:, names.index("log_weight_categories")], np.log1p(weights), rtol=1e-5)
