"""Ingestion keeps its rules: windows first, one rating per user and item, one sorted table, everything counted."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.project import dataset_params
from thinkrec import artifacts
from thinkrec.errors import UserError
from thinkrec.ingest.catalogue import DATASETS, SMALL_WORLD, choose_dataset, open_world
from thinkrec.ingest.dataset import Ingested, make_tables
from thinkrec.ingest.raw import RATINGS as FIELDS
from thinkrec.ingest.raw import SPLIT, Chunk, Fault, Items, Part, Source
from thinkrec.ingest.selection import first_ratings, natural_order
from thinkrec.ingest.splits import LastMonths, SplitColumn, Window, Windows
from thinkrec.synthetic.world import generate

TRAIN, VALID, TEST = 991_353_600, 1_017_619_200, 1_030_838_400  # the first second of each ml-1m window
END = 1_044_057_600
MOVIES = (
    "10::Heat (1995)::Action\n9::<b>Casino</b>  &amp; more (1995)::Drama|(no genres listed)\n8::Unrated (1990)::Drama\n"
)


def run(name: str, raw: Path | None = None, limit: float = 0.1) -> Ingested:
    params = dataset_params(name=name, raw=raw)
    return make_tables(choose_dataset(params), choose_dataset(params).source(raw), limit)


def by_hand(folder: Path, *rows: tuple[int, int, float, int] | str, limit: float = 0.1) -> Ingested:
    lines = [row if isinstance(row, str) else "::".join(map(str, row)) for row in rows]
    (folder / "ratings.dat").write_text("\n".join(lines) + "\n", encoding="latin-1")
    (folder / "movies.dat").write_text(MOVIES, encoding="latin-1")
    return run("ml-1m", folder, limit)


# Digests of interactions, users (and truth), taken before tables were made of columns of codes.
SMALL = ["144be202c1709e4d", "c0ba7c5954985384", "8bbfd6f452f9a510"]
ML_1M = ["21f3b82c95cb68a9", "a8e113bcd5fecfa4"]
SPLITS_FILLED = ((2, 10, 4, TRAIN), (2, 9, 2, VALID), (2, 7, 5, TEST))


def test_a_hand_made_file_gives_the_tables_worked_out_by_hand(tmp_path: Path) -> None:
    got = by_hand(
        tmp_path,
        (10, 10, 3, TRAIN + 5),
        (10, 7, 4, TRAIN + 5),  # ties with the row above, after it
        *SPLITS_FILLED,
        (2, 8, 5, TRAIN - 1),  # outside
        (2, 8, 5, END),  # outside
        (2, 9, 2, VALID),  # exact duplicate
        (2, 10, 1, TEST + 9),  # rated before: the earlier one stays
    )
    table = got.interactions
    assert table["user"].tolist() == [0, 0, 0, 1, 1]  # users 2, 10: by value, not by text
    assert table["item"].tolist() == [2, 1, 0, 2, 0]  # items 7, 9, 10
    assert table["label"].tolist() == [1, 0, 1, 0, 1]  # 3 stars are not > 3
    assert table["timestamp"].tolist() == [TRAIN, VALID, TEST, TRAIN + 5, TRAIN + 5]
    assert table["split"].tolist() == ["train", "valid", "test", "train", "train"]
    assert got.users["user_id"].tolist() == ["2", "10"]
    assert got.items["item_id"].tolist() == ["7", "9", "10"]
    assert got.items["title"].tolist() == ["Item 7", "Casino & more", "Heat"]
    assert got.items["year"].isna().tolist() == [True, False, False]
    counted = ("rows_read", "outside_windows", "exact_duplicates", "repeated_ratings", "items_without_metadata")
    assert [got.stats[name] for name in counted] == [9, 2, 1, 1, 1]
    assert got.stats["splits"]["valid"]["warm_share"] == 0.0


def test_too_many_malformed_rows_stop_with_share_limit_and_first_reason(tmp_path: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"ratings.dat: 1 of 4 .*25.0%, .*10.0%.* line 4: rating is not a number; .*dataset.max_bad_share",
    ):
        by_hand(tmp_path, *SPLITS_FILLED, "2::9::x::1")
    accepted = by_hand(tmp_path, *SPLITS_FILLED, "2::9::x::1", limit=0.25)
    assert accepted.stats["quarantined"] == {"ratings.dat: rating is not a number": 1}


def test_an_empty_split_stops(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no ratings in the test window, \[2002-09-01, 2003-02-01\)"):
        by_hand(tmp_path, *SPLITS_FILLED[:2])


def test_the_published_windows_give_the_papers_row_counts(real_data: Path) -> None:
    got = run("ml-1m", real_data / "ml-1m-window.zip", limit=0.0)
    splits = got.stats["splits"]
    assert [splits[s]["interactions"] for s in artifacts.SPLITS] == [33_891, 10_401, 7_331]
    assert [round(splits[s]["positive_share"], 3) for s in artifacts.SPLITS] == [0.537, 0.528, 0.545]
    assert got.stats["items_without_metadata"] == 0
    assert [digest(table) for table in (got.interactions, got.users)] == ML_1M


@pytest.mark.parametrize("name", ["synthetic-small", "hand-made"])
def test_tables_fit_their_schemas_and_come_back_the_same(name: str, tmp_path: Path) -> None:
    got = by_hand(tmp_path, *SPLITS_FILLED) if name == "hand-made" else run(name)
    for path, frame in got.tables().items():
        artifacts.write_table(path, frame, root=tmp_path)
        back = artifacts.read_table(path, root=tmp_path)
        assert len(back) == len(frame)
        plain = [column for column in frame if column != "categories"]
        pd.testing.assert_frame_equal(back[plain], frame[plain], check_dtype=False)
    assert got.interactions["split"].cat.categories.tolist() == list(artifacts.SPLITS)


def digest(table: pd.DataFrame) -> str:
    """Of a table's values, whatever writes them to disk."""
    hashed = hashlib.sha256()
    for name in table:
        values = table[name].cat.codes if isinstance(table[name].dtype, pd.CategoricalDtype) else table[name]
        plain = values.to_numpy() if pd.api.types.is_numeric_dtype(values) else "\0".join(map(str, values)).encode()
        hashed.update(plain)
    return hashed.hexdigest()[:16]


def test_the_small_worlds_tables_are_what_they_always_were() -> None:
    got = run("synthetic-small")
    assert [digest(table) for table in (got.interactions, got.users, got.truth)] == SMALL
    assert all(0.8 < got.stats["splits"][split]["best_auc"] < 0.95 for split in artifacts.SPLITS)


def test_input_order_decides_nothing_but_ties() -> None:
    small = DATASETS["synthetic-small"]
    world = generate(SMALL_WORLD)
    mixed = np.random.default_rng(0).permutation(len(world.ratings))
    ratings, truth = (frame.iloc[mixed].reset_index(drop=True) for frame in (world.ratings, world.truth))
    keys = ["user", "timestamp", "item"]
    ordered = make_tables(small, open_world(world), 0.0)
    shuffled = make_tables(small, open_world(replace(world, ratings=ratings, truth=truth)), 0.0)
    a, b = (got.interactions.assign(p=got.truth["probability"]).sort_values(keys) for got in (ordered, shuffled))
    pd.testing.assert_frame_equal(a.reset_index(drop=True), b.reset_index(drop=True))
    assert ordered.stats == shuffled.stats


RATINGS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(1, 2), st.integers(0, 3)), max_size=30)


@given(RATINGS)
def test_of_repeated_ratings_the_earliest_stays_and_exact_duplicates_are_told_apart(
    rows: list[tuple[int, int, int, int]],
) -> None:
    frame = pd.DataFrame(rows, columns=["user", "item", "rating", "timestamp"]).astype(np.int64)
    user, item = (frame[name].to_numpy(np.int32) for name in ("user", "item"))
    kept, exact = first_ratings(user, item, frame["rating"].to_numpy(np.float32), frame["timestamp"].to_numpy())
    unique = frame.drop_duplicates()
    earliest = unique.sort_values("timestamp", kind="stable").drop_duplicates(["user", "item"])
    assert kept.tolist() == sorted(earliest.index)
    assert exact == len(frame) - len(unique)


@given(st.lists(st.text("01290aZ-é中", max_size=4), unique=True))
def test_raw_ids_are_numbered_by_value_then_by_text(ids: list[str]) -> None:
    def key(raw_id: str) -> tuple[bool, int, str, str]:
        whole = raw_id.isascii() and raw_id.isdigit()
        digits = raw_id.lstrip("0") if whole else raw_id
        return not whole, len(digits) if whole else 0, digits, raw_id

    order = natural_order(pa.array(ids, pa.string())).to_pylist()
    assert [ids[at] for at in order] == sorted(ids, key=key)


def of_rows(rows: list[tuple[str, str, float, int, str]], parts: int = 1) -> Source:
    """A source of (user, item, rating, time, split), cut into so many parts of one row a chunk."""
    cuts = np.array_split(np.arange(len(rows)), parts)

    def read(part: Part) -> Iterator[Chunk]:
        for row in cuts[part.start]:
            user, item, rating, time, split = rows[row]
            columns: dict[str, list[Any]] = {"user_id": [user], "item_id": [item], "rating": [rating]}
            table = pa.table({**columns, "timestamp": [time], "split": [split]}, schema=pa.schema([*FIELDS, SPLIT]))
            yield Chunk(table=table, rows=1, lines=1)

    text = {name: pd.Series([], dtype="str") for name in ("item_id", "title", "description")}
    metadata = pd.DataFrame({**text, "year": pd.array([], "Int16"), "categories": pd.Series([], dtype=object)})
    return Source(
        parts=tuple(Part(path=Path("ratings"), start=at) for at in range(parts)),
        read=read,
        items=lambda wanted: Items(table=metadata),
    )


OWN = replace(DATASETS["ml-1m"], name="own", windows=SplitColumn())
IN_ORDER = [("a", "x", 5.0, 1, "train"), ("b", "x", 1.0, 5, "valid"), ("a", "y", 5.0, 9, "test")]


def test_a_split_column_decides_and_what_it_does_not_name_is_outside() -> None:
    got = make_tables(OWN, of_rows([*IN_ORDER, ("a", "z", 4.0, 3, "later"), ("b", "z", 4.0, 3, "")]), 0.0)
    assert got.interactions["split"].tolist() == ["train", "test", "valid"]
    assert (got.stats["outside_windows"], got.stats["interactions"], got.items["item_id"].tolist()) == (
        2,
        3,
        ["x", "y"],
    )
    assert got.stats["windows"]["valid"] == "[1970-01-01T00:00:05, 1970-01-01T00:00:06) UTC"


def test_a_split_column_that_mixes_times_or_lacks_a_split_stops() -> None:
    with pytest.raises(UserError, match=r"overlap in time \(train .*; valid .*; test .*\); each should follow"):
        make_tables(OWN, of_rows([*IN_ORDER, ("b", "y", 1.0, 5, "train")]), 0.0)
    with pytest.raises(UserError, match=r"no ratings of split valid; .*\(it says 'test', 'train', 'validation'\)"):
        make_tables(OWN, of_rows([IN_ORDER[0], ("b", "x", 1.0, 5, "validation"), IN_ORDER[2]]), 0.0)
    with pytest.raises(UserError, match=r"dataset.windows: column, but the ratings have no split column"):
        make_tables(
            replace(DATASETS["synthetic-small"], windows=SplitColumn()), DATASETS["synthetic-small"].source(None), 0.0
        )


def test_windows_are_counted_back_from_the_newest_rating_of_all_parts() -> None:
    times = pd.to_datetime(["2020-01-15", "2020-02-15", "2020-03-15", "2020-03-31"]).as_unit("s").astype(np.int64)
    rows = [(f"u{at}", "x", 5.0, int(time), "") for at, time in enumerate(times)]
    dataset = replace(OWN, windows=LastMonths(train=1, valid=1, test=1))
    for parts in (1, 2, 4):
        got = make_tables(dataset, of_rows(rows, parts), 0.0)
        assert got.interactions["split"].tolist() == ["train", "valid", "test", "test"]
        assert got.stats["windows"]["train"] == "[2020-01-01, 2020-02-01) UTC"


def test_the_core_is_of_what_is_within_the_windows_and_rated_once() -> None:
    square = [(user, item, 5.0, time, "") for time, (user, item) in enumerate(["ax", "ay", "bx", "by"], start=1)]
    rows = [
        *square,
        ("c", "x", 5.0, 3, ""),
        ("c", "x", 5.0, 4, ""),  # the same item again: c has rated one
        ("a", "z", 5.0, 2, ""),
        ("d", "z", 5.0, 99, ""),  # outside: z has one rating
    ]
    windows = Windows(train=Window(start=1, end=3), valid=Window(start=3, end=4), test=Window(start=4, end=5))
    got = make_tables(replace(OWN, windows=windows, core=2), of_rows(rows), 0.0)
    assert got.users["user_id"].tolist() == ["a", "b"] and got.items["item_id"].tolist() == ["x", "y"]
    assert [got.stats[name] for name in ("outside_windows", "repeated_ratings", "below_core")] == [1, 1, 2]
    with pytest.raises(
        UserError, match=r"no ratings in the train window.*with 3 ratings stay \(dataset.core\), which took 6 rows"
    ):
        make_tables(replace(OWN, windows=windows, core=3), of_rows(rows), 0.0)


def test_a_dataset_without_ratings_stops() -> None:
    with pytest.raises(UserError, match="ratings: holds no ratings; is it"):
        make_tables(OWN, of_rows([]), 0.0)


def test_a_file_that_is_mostly_malformed_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thinkrec.ingest.partitions.MANY_FAULTS", 3)
    read: list[int] = []

    def chunks(part: Part) -> Iterator[Chunk]:
        for line in range(1, 100):
            read.append(line)
            fault = Fault("ratings", line, "rating is not a number", "")
            yield Chunk(table=FIELDS.empty_table(), faults=[fault], rows=1, lines=1)

    source = replace(of_rows([]), read=chunks)
    with pytest.raises(UserError, match=r"ratings: 4 of 4 rating rows are malformed .* first line 1: rating is not"):
        make_tables(OWN, source, 0.5)
    assert read[-1] == 4
    read.clear()
    with pytest.raises(UserError, match="every rating is malformed"):
        make_tables(OWN, source, 1.0)
    assert read[-1] == 99


def test_malformed_rows_are_counted_from_the_beginning_of_their_file() -> None:
    files = [Part(path=Path(name), start=start) for name, start in (("a", 0), ("a", 10), ("b", 0))]

    def chunks(part: Part) -> Iterator[Chunk]:
        # Two chunks of three lines, the last malformed; a part counts its own lines.
        for first in (0, 3):
            fault = Fault(part.name, first + 3, "rating is not a number", "")
            row = IN_ORDER[first // 3 if part.name == "a" else 2]
            one = next(of_rows([row]).read(Part(path=Path("x"))))
            yield replace(one, faults=[fault], rows=2, lines=3)

    got = make_tables(OWN, replace(of_rows([]), parts=tuple(files), read=chunks), 0.5)
    places = list(zip(got.quarantine["file"], got.quarantine["row"], strict=True))
    assert places == [("a", 3), ("a", 6), ("a", 9), ("a", 12), ("b", 3), ("b", 6)]


def one_by_one(rows: list[tuple[str, str, float, int, str]], windows: Windows, core: int) -> list[tuple[Any, ...]]:
    """The rules on lists, a row at a time: (user, item, rating, time, split) sorted by user and time."""
    kept: dict[tuple[str, str], tuple[Any, ...]] = {}
    for user, item, rating, time, _ in rows:
        for split in artifacts.SPLITS:
            if windows.of(split).start <= time < windows.of(split).end:
                row = (user, item, rating, time, split)
                if (user, item) not in kept or time < kept[user, item][3]:
                    kept[user, item] = row
    # In input order: of rows that tie in time, the first that is in the file.
    left = sorted(kept.values(), key=lambda row: next(n for n, (*given, _) in enumerate(rows) if given == [*row[:4]]))
    while True:
        count = Counter(key for user, item, *_ in left for key in (("user", user), ("item", item)))
        stay = [row for row in left if min(count["user", row[0]], count["item", row[1]]) >= core]
        if len(stay) == len(left):
            return sorted(left, key=lambda row: (int(row[0]), row[3]))
        left = stay


SOME_ROWS = st.lists(
    st.tuples(
        st.sampled_from(["2", "10", "9", "31"]),
        st.sampled_from(["x", "y", "z"]),
        st.sampled_from([2.0, 5.0]),
        st.integers(0, 16),
        st.just(""),
    ),
    min_size=1,
    max_size=40,
)


@given(SOME_ROWS, st.integers(1, 4), st.integers(0, 2))
def test_whole_columns_in_parts_give_what_the_rules_give_row_by_row(
    rows: list[tuple[str, str, float, int, str]], parts: int, core: int
) -> None:
    windows = Windows(train=Window(start=1, end=9), valid=Window(start=9, end=12), test=Window(start=13, end=16))
    expected = one_by_one(rows, windows, core)
    dataset = replace(OWN, windows=windows, core=core)
    if {row[-1] for row in expected} != set(artifacts.SPLITS):
        with pytest.raises(UserError, match="no ratings in the"):
            make_tables(dataset, of_rows(rows, parts), 0.0)
        return
    got = make_tables(dataset, of_rows(rows, parts), 0.0)
    by_id = got.interactions.assign(
        user=got.users["user_id"].to_numpy()[got.interactions["user"]],
        item=got.items["item_id"].to_numpy()[got.interactions["item"]],
    )
    columns = ["user", "item", "rating", "timestamp", "split"]
    assert list(by_id[columns].itertuples(index=False, name=None)) == expected
    dropped = ("outside_windows", "exact_duplicates", "repeated_ratings", "below_core", "interactions")
    assert sum(got.stats[name] for name in dropped) == len(rows) == got.stats["rows_read"]
