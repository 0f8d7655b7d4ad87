"""Ingestion keeps its rules: windows first, one rating per user and item, one sorted table, everything counted."""

import hashlib
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.project import dataset_params
from thinkrec import artifacts
from thinkrec.artifacts import SPLITS
from thinkrec.errors import UserError
from thinkrec.ingest.catalogue import DATASETS, SMALL_WORLD, choose_dataset, open_world
from thinkrec.ingest.dataset import make_tables, tell_apart
from thinkrec.ingest.raw import RATINGS, SPLIT, Chunk, Fault, Part, Source
from thinkrec.ingest.readers.metadata import no_items
from thinkrec.ingest.selection import core_rows
from thinkrec.ingest.splits import COLUMN
from thinkrec.synthetic.world import generate

TRAIN, VALID, TEST = 991_353_600, 1_017_619_200, 1_030_838_400  # the first second of each ml-1m window
END = 1_044_057_600
MOVIES = (
    "10::Heat (1995)::Action\n9::<b>Casino</b>  &amp; more (1995)::Drama|(no genres listed)\n8::Unrated (1990)::Drama\n"
)
# Digests of interactions, users (and truth), taken before tables were made of columns of codes.
SMALL = ["144be202c1709e4d", "c0ba7c5954985384", "8bbfd6f452f9a510"]
ML_1M = ["21f3b82c95cb68a9", "a8e113bcd5fecfa4"]
SPLITS_FILLED = ((2, 10, 4, TRAIN), (2, 9, 2, VALID), (2, 7, 5, TEST))


def run(name, raw=None, limit=0.1):
    dataset = choose_dataset(dataset_params(name=name, raw=raw))
    return make_tables(dataset, dataset.source(raw), limit)


def run_on_lines(folder, *rows, limit=0.1):
    lines = [row if isinstance(row, str) else "::".join(map(str, row)) for row in rows]
    (folder / "ratings.dat").write_text("\n".join(lines) + "\n", encoding="latin-1")
    (folder / "movies.dat").write_text(MOVIES, encoding="latin-1")
    return run("ml-1m", folder, limit)


def test_a_hand_made_file_gives_the_tables_worked_out_by_hand(tmp_path):
    ingested = run_on_lines(
        tmp_path,
        (10, 10, 3, TRAIN + 5),
        (10, 7, 4, TRAIN + 5),  # ties with the row above, after it
        *SPLITS_FILLED,
        (2, 8, 5, TRAIN - 1),  # outside
        (2, 8, 5, END),  # outside
        (2, 9, 2, VALID),  # exact duplicate
        (2, 10, 1, TEST + 9),  # rated before: the earlier one stays
    )
    table = ingested.interactions
    assert table["user"].tolist() == [0, 0, 0, 1, 1]  # users 2, 10: by value, not by text
    assert table["item"].tolist() == [2, 1, 0, 2, 0]  # items 7, 9, 10
    assert table["label"].tolist() == [1, 0, 1, 0, 1]  # 3 stars are not > 3
    assert table["timestamp"].tolist() == [TRAIN, VALID, TEST, TRAIN + 5, TRAIN + 5]
    assert table["split"].tolist() == ["train", "valid", "test", "train", "train"]
    assert ingested.users["user_id"].tolist() == ["2", "10"]
    assert ingested.items["item_id"].tolist() == ["7", "9", "10"]
    assert ingested.items["title"].tolist() == ["Item 7", "Casino & more", "Heat"]
    assert ingested.items["year"].isna().tolist() == [True, False, False]
    counted = ("rows_read", "outside_windows", "exact_duplicates", "repeated_ratings", "items_without_metadata")
    assert [ingested.stats[name] for name in counted] == [9, 2, 1, 1, 1]
    assert ingested.stats["splits"]["valid"]["warm_share"] == 0.0


def test_too_many_malformed_rows_stop_with_share_limit_and_first_reason(tmp_path):
    stop = r"ratings.dat: 1 of 4 .*25.0%, .*10.0%.* line 4: rating is not a number; .*dataset.max_bad_share"
    with pytest.raises(UserError, match=stop):
        run_on_lines(tmp_path, *SPLITS_FILLED, "2::9::x::1")
    accepted = run_on_lines(tmp_path, *SPLITS_FILLED, "2::9::x::1", limit=0.25)
    assert accepted.stats["quarantined"] == {"ratings.dat: rating is not a number": 1}


@pytest.mark.parametrize("name", ["synthetic-small", "hand-made"])
def test_tables_fit_their_schemas_and_come_back_the_same(name, tmp_path):
    ingested = run_on_lines(tmp_path, *SPLITS_FILLED) if name == "hand-made" else run(name)
    for path, frame in ingested.tables().items():
        artifacts.write_table(path, frame, root=tmp_path)
        back = artifacts.read_table(path, root=tmp_path)
        plain = [column for column in frame if column != "categories"]
        pd.testing.assert_frame_equal(back[plain], frame[plain], check_dtype=False)


def digest(table):
    """Of a table's values, whatever writes them to disk."""
    hashed = hashlib.sha256()
    for name in table:
        values = table[name].cat.codes if isinstance(table[name].dtype, pd.CategoricalDtype) else table[name]
        plain = values.to_numpy() if pd.api.types.is_numeric_dtype(values) else "\0".join(map(str, values)).encode()
        hashed.update(plain)
    return hashed.hexdigest()[:16]


def test_the_small_worlds_tables_are_what_they_always_were():
    ingested = run("synthetic-small")
    assert [digest(table) for table in (ingested.interactions, ingested.users, ingested.truth)] == SMALL
    assert all(0.8 < ingested.stats["splits"][split]["best_auc"] < 0.95 for split in SPLITS)


def test_the_published_windows_give_the_papers_row_counts(real_data):
    ingested = run("ml-1m", real_data / "ml-1m-window.zip", limit=0.0)
    splits = ingested.stats["splits"]
    assert [splits[split]["interactions"] for split in SPLITS] == [33_891, 10_401, 7_331]
    assert [round(splits[split]["positive_share"], 3) for split in SPLITS] == [0.537, 0.528, 0.545]
    assert ingested.stats["items_without_metadata"] == 0
    assert [digest(table) for table in (ingested.interactions, ingested.users)] == ML_1M


def test_input_order_decides_nothing_but_ties():
    world = generate(SMALL_WORLD)
    mixed = np.random.default_rng(0).permutation(len(world.ratings))
    ratings, truth = (frame.iloc[mixed].reset_index(drop=True) for frame in (world.ratings, world.truth))
    worlds = (world, replace(world, ratings=ratings, truth=truth))
    ordered, shuffled = (make_tables(DATASETS["synthetic-small"], open_world(each), 0.0) for each in worlds)
    first, second = (
        each.interactions.assign(p=each.truth["probability"]).sort_values(["user", "timestamp", "item"])
        for each in (ordered, shuffled)
    )
    pd.testing.assert_frame_equal(first.reset_index(drop=True), second.reset_index(drop=True))
    assert ordered.stats == shuffled.stats


def chunk_of(row):
    """One raw row: user, item, rating, time, split."""
    schema = pa.schema([*RATINGS, SPLIT])
    columns = dict(zip(schema.names, ([value] for value in row), strict=True))
    return Chunk(table=pa.table(columns, schema=schema), rows=1, lines=1)


def source_of(rows, parts=1):
    """A source of these rows, cut into so many parts, a chunk a row."""
    cuts = np.array_split(np.arange(len(rows)), parts)
    return Source(
        parts=tuple(Part(path=Path("ratings"), start=at) for at in range(parts)),
        read=lambda part: (chunk_of(rows[row]) for row in cuts[part.start]),
        items=no_items,
    )


def rule_of_seconds(*spans):
    return {
        split: [datetime.fromtimestamp(second, UTC).isoformat() for second in span]
        for split, span in zip(SPLITS, spans, strict=True)
    }


OWN = replace(DATASETS["ml-1m"], name="own", windows=COLUMN)
IN_ORDER = [("a", "x", 5.0, 1, "train"), ("b", "x", 1.0, 5, "valid"), ("a", "y", 5.0, 9, "test")]


def test_a_split_column_decides_and_what_it_does_not_name_is_outside():
    ingested = make_tables(OWN, source_of([*IN_ORDER, ("a", "z", 4.0, 3, "later"), ("b", "z", 4.0, 3, "")]), 0.0)
    assert ingested.interactions["split"].tolist() == ["train", "test", "valid"]
    assert (ingested.stats["outside_windows"], ingested.items["item_id"].tolist()) == (2, ["x", "y"])
    assert ingested.stats["windows"]["valid"] == "[1970-01-01T00:00:05, 1970-01-01T00:00:06) UTC"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*IN_ORDER, ("b", "y", 1.0, 5, "train")], r"overlap in time \(train .*; valid .*; test .*\); each should"),
        (
            [IN_ORDER[0], ("b", "x", 1.0, 5, "validation"), IN_ORDER[2]],
            r"no ratings of split valid; .*\(it says 'test', 'train', 'validation'\)",
        ),
        ([], "ratings: holds no ratings; is it"),
    ],
)
def test_splits_that_mix_times_or_are_not_there_stop(rows, message):
    with pytest.raises(UserError, match=message):
        make_tables(OWN, source_of(rows), 0.0)


def test_a_rule_by_column_needs_the_column():
    world = replace(DATASETS["synthetic-small"], windows=COLUMN)
    with pytest.raises(UserError, match=r"dataset.windows: column, but the ratings have no split column"):
        make_tables(world, world.source(None), 0.0)


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_windows_are_counted_back_from_the_newest_rating_of_all_parts(parts):
    days = pd.to_datetime(["2020-01-15", "2020-02-15", "2020-03-15", "2020-03-31"]).as_unit("s").astype(np.int64)
    rows = [(f"u{at}", "x", 5.0, int(time), "") for at, time in enumerate(days)]
    months = replace(OWN, windows={"months": [1, 1, 1]})
    ingested = make_tables(months, source_of(rows, parts), 0.0)
    assert ingested.interactions["split"].tolist() == ["train", "valid", "test", "test"]
    assert ingested.stats["windows"]["train"] == "[2020-01-01, 2020-02-01) UTC"


def test_one_who_falls_short_of_the_core_takes_others_along():
    square = [(0, 0), (0, 1), (1, 0), (1, 1)]
    pairs = np.array([*square, (1, 2), (2, 2), (2, 3)], np.int32)  # item 3 falls, so user 2 falls, so item 2 falls
    assert [len(core_rows(*pairs.T, k)) for k in (1, 2, 3)] == [7, 4, 0]


def test_a_split_that_the_core_empties_says_so():
    rows = [(user, item, 5.0, time, "") for time, (user, item) in enumerate(["ax", "ay", "bx", "by"], start=1)]
    windows = rule_of_seconds((1, 3), (3, 4), (4, 5))
    assert make_tables(replace(OWN, windows=windows, core=2), source_of(rows), 0.0).stats["below_core"] == 0
    message = r"no ratings in the train window.*with 3 ratings stay \(dataset.core\), which took 4 rows"
    with pytest.raises(UserError, match=message):
        make_tables(replace(OWN, windows=windows, core=3), source_of(rows), 0.0)


def test_a_split_that_repeats_empty_says_so():
    again = [("a", "x", 5.0, day * 86_400, "") for day in (1, 2, 3)]
    windows = rule_of_seconds(*((day * 86_400, (day + 1) * 86_400) for day in (1, 2, 3)))
    message = r"no ratings in the valid window.*only the earliest rating counts, which took 2 rows away"
    with pytest.raises(UserError, match=message):
        make_tables(replace(OWN, windows=windows), source_of(again), 0.0)


@pytest.mark.parametrize(
    ("titles", "years", "apart"),
    [
        (["Hamlet", "Dusk", "Hamlet"], [1996, 1996, 1948], ["Hamlet (1996)", "Dusk", "Hamlet (1948)"]),
        (["Hamlet", "Hamlet", "Hamlet"], [1996, 1996, None], ["Hamlet (1996)", "Hamlet (1996) (2)", "Hamlet"]),
        (["Dusk", "Dusk (2)", "Dusk"], [None] * 3, ["Dusk", "Dusk (2)", "Dusk (3)"]),
        (["x" * 80 + "red", "x" * 80 + "blue"], [None] * 2, ["x" * 80, "x" * 76 + " (2)"]),
        (["x" * 80 + "red"], [None], ["x" * 80 + "red"]),
    ],
)
def test_readers_are_shown_no_title_of_two_items(titles, years, apart):
    assert tell_apart(pd.Series(titles), pd.Series(years, dtype="Int16")) == apart


@pytest.mark.parametrize(
    ("limit", "lines", "message"),
    [
        (0.5, 4, r"ratings: 4 of 4 rating rows are malformed .* first line 1: rating is not"),
        (1.0, 99, "every rating is malformed"),
    ],
)
def test_a_file_that_is_mostly_malformed_is_not_read_to_its_end(limit, lines, message, monkeypatch):
    monkeypatch.setattr("thinkrec.ingest.partitions.MANY_FAULTS", 3)
    read = []

    def chunks(part):
        for line in range(1, 100):
            read.append(line)
            fault = Fault("ratings", line, "rating is not a number", "")
            yield Chunk(table=RATINGS.empty_table(), faults=[fault], rows=1, lines=1)

    with pytest.raises(UserError, match=message):
        make_tables(OWN, replace(source_of([]), read=chunks), limit)
    assert read[-1] == lines


SPANS = ((1, 9), (9, 12), (13, 16))


def select_one_by_one(rows, core):
    """The rules on lists, a row at a time: (user, item, rating, time, split) sorted by user and time."""
    earliest = {}
    for number, (user, item, rating, time, _) in enumerate(rows):
        for split, (start, end) in zip(SPLITS, SPANS, strict=True):
            if start <= time < end and ((user, item) not in earliest or time < earliest[user, item][3]):
                earliest[user, item] = (user, item, rating, time, split, number)
    left = list(earliest.values())
    while True:
        count = Counter(key for user, item, *_ in left for key in (("user", user), ("item", item)))
        stay = [row for row in left if min(count["user", row[0]], count["item", row[1]]) >= core]
        if len(stay) == len(left):
            return [row[:-1] for row in sorted(left, key=lambda row: (int(row[0]), row[3], row[-1]))]
        left = stay


USERS, ITEMS = st.sampled_from(["2", "10", "9", "31"]), st.sampled_from(["x", "y", "z"])
ROW = st.tuples(USERS, ITEMS, st.sampled_from([2.0, 5.0]), st.integers(0, 16), st.just(""))
SOME_ROWS = st.lists(ROW, min_size=1, max_size=40)


@given(SOME_ROWS, st.integers(1, 4), st.integers(0, 3))
def test_whole_columns_in_parts_give_what_the_rules_give_row_by_row(rows, parts, core):
    expected = select_one_by_one(rows, core)
    dataset = replace(OWN, windows=rule_of_seconds(*SPANS), core=core)
    if {row[-1] for row in expected} != set(SPLITS):
        with pytest.raises(UserError, match="no ratings in the"):
            make_tables(dataset, source_of(rows, parts), 0.0)
        return
    ingested = make_tables(dataset, source_of(rows, parts), 0.0)
    by_id = ingested.interactions.assign(
        user=ingested.users["user_id"].to_numpy()[ingested.interactions["user"]],
        item=ingested.items["item_id"].to_numpy()[ingested.interactions["item"]],
    )
    columns = ["user", "item", "rating", "timestamp", "split"]
    assert list(by_id[columns].itertuples(index=False, name=None)) == expected
    dropped = ("outside_windows", "exact_duplicates", "repeated_ratings", "below_core", "interactions")
    assert sum(ingested.stats[name] for name in dropped) == len(rows) == ingested.stats["rows_read"]
