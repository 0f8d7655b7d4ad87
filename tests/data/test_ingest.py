"""Ingestion keeps its rules: windows first, one rating per user and item, one sorted table, everything counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from thinkrec import artifacts
from thinkrec.data.catalogue import DATASETS, find
from thinkrec.data.ingest import Ingested, ingest, tables
from thinkrec.data.raw import held
from thinkrec.errors import UserError
from thinkrec.params import DatasetParams

TRAIN, VALID, TEST = 991_353_600, 1_017_619_200, 1_030_838_400  # the first second of each ml-1m window
END = 1_044_057_600
MOVIES = (
    "10::Heat (1995)::Action\n9::<b>Casino</b>  &amp; more (1995)::Drama|(no genres listed)\n8::Unrated (1990)::Drama\n"
)


def run(name: str, raw: Path | None = None, limit: float = 0.1) -> Ingested:
    return ingest(DatasetParams(name=name, raw=raw, max_bad_share=limit))


def by_hand(folder: Path, *rows: tuple[int, int, float, int] | str, limit: float = 0.1) -> Ingested:
    lines = [row if isinstance(row, str) else "::".join(map(str, row)) for row in rows]
    (folder / "ratings.dat").write_text("\n".join(lines) + "\n", encoding="latin-1")
    (folder / "movies.dat").write_text(MOVIES, encoding="latin-1")
    return run("ml-1m", folder, limit)


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
    assert got.stats["splits"]["train"] == {
        "interactions": 3,
        "users": 2,
        "items": 2,
        "positive_share": 2 / 3,
        "warm_share": 1.0,
        "known_user_share": 1.0,
        "known_item_share": 1.0,
        "no_history_share": 1.0,
        "median_history": 0.0,
        "tied_share": 2 / 3,
    }
    assert got.stats["splits"]["valid"]["warm_share"] == 0.0


def test_the_earliest_of_repeated_ratings_stays_whatever_the_file_order(tmp_path: Path) -> None:
    got = by_hand(tmp_path, (2, 10, 1, TEST + 9), *SPLITS_FILLED)
    assert got.interactions["rating"].tolist() == [4.0, 2.0, 5.0]


def test_windows_are_half_open_and_absolute(tmp_path: Path) -> None:
    edges = [(1, n, 4, edge) for n, edge in enumerate((TRAIN, VALID - 1, VALID, TEST - 1, TEST, END - 1))]
    assert by_hand(tmp_path, *edges).interactions["split"].tolist() == [s for s in artifacts.SPLITS for _ in "ab"]


def test_too_many_malformed_rows_stop_with_share_limit_and_first_reason(tmp_path: Path) -> None:
    with pytest.raises(UserError) as stop:
        by_hand(tmp_path, *SPLITS_FILLED, "2::9::x::1")
    for part in (
        "ratings.dat",
        "1 of 4",
        "25.0%",
        "10.0%",
        "line 4",
        "rating is not a number",
        "dataset.max_bad_share",
    ):
        assert part in str(stop.value)
    kept = by_hand(tmp_path, *SPLITS_FILLED, "2::9::x::1", limit=0.25)
    assert kept.stats["quarantined"] == {"ratings.dat: rating is not a number": 1}


def test_an_empty_split_stops(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no ratings in the test window, \[2002-09-01, 2003-02-01\)"):
        by_hand(tmp_path, *SPLITS_FILLED[:2])


def test_impossible_requests_stop(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ml-1m\.zip and pass -S dataset\.raw=PATH"):
        run("ml-1m")
    with pytest.raises(UserError, match=r"set dataset\.raw to null"):
        run("embedded", tmp_path)
    with pytest.raises(UserError, match="did you mean ml-1m"):
        find("ml1m")


def test_the_published_windows_give_the_papers_row_counts(real_data: Path) -> None:
    got = run("ml-1m", real_data / "ml-1m-window.zip", limit=0.0)
    splits = got.stats["splits"]
    assert [splits[s]["interactions"] for s in artifacts.SPLITS] == [33_891, 10_401, 7_331]
    assert [round(splits[s]["positive_share"], 3) for s in artifacts.SPLITS] == [0.537, 0.528, 0.545]
    assert got.stats["items_without_metadata"] == 0


@pytest.mark.parametrize("name", ["embedded-small", "hand-made"])
def test_tables_fit_their_schemas_and_come_back_the_same(name: str, tmp_path: Path) -> None:
    got = by_hand(tmp_path, *SPLITS_FILLED) if name == "hand-made" else run(name)
    for path, frame in (
        (artifacts.INTERACTIONS, got.interactions),
        (artifacts.ITEMS, got.items),
        (artifacts.USERS, got.users),
        (artifacts.QUARANTINE, got.quarantine),
        (artifacts.TRUTH, got.truth),
    ):
        artifacts.write_table(path, frame, root=tmp_path)
        back = artifacts.read_table(path, root=tmp_path)
        assert len(back) == len(frame)
        plain = [column for column in frame if column != "categories"]
        pd.testing.assert_frame_equal(back[plain], frame[plain], check_dtype=False)
    assert got.interactions["split"].cat.categories.tolist() == list(artifacts.SPLITS)


def test_a_worlds_truth_stays_beside_its_rows() -> None:
    got = run("embedded-small")
    assert len(got.truth) == len(got.interactions)
    assert all(0.8 < got.stats["splits"][s]["best_auc"] < 0.95 for s in artifacts.SPLITS)


@pytest.mark.parametrize("name", ["embedded-small", "embedded"])
def test_the_table_is_sorted_and_numbered_without_gaps(name: str) -> None:
    got = run(name)
    table = got.interactions
    order = np.lexsort((table["timestamp"], table["user"]))
    assert (order == np.arange(len(table))).all()
    for column, names in (("user", got.users), ("item", got.items)):
        assert np.array_equal(np.unique(table[column]), np.arange(len(names)))
    assert not table.duplicated(["user", "item"]).any()


def test_input_order_decides_nothing_but_ties() -> None:
    small = DATASETS["embedded-small"]
    raw = small.read(None)
    mixed = np.random.default_rng(0).permutation(len(raw.ratings))
    shuffled = replace(
        raw,
        ratings=raw.ratings.iloc[mixed].reset_index(drop=True),
        truth=raw.truth.iloc[mixed].reset_index(drop=True) if raw.truth is not None else None,
    )
    keys = ["user", "timestamp", "item"]
    one, two = (tables(small, held(r), 0.0) for r in (raw, shuffled))
    a, b = (got.interactions.assign(p=got.truth["probability"]).sort_values(keys) for got in (one, two))
    pd.testing.assert_frame_equal(a.reset_index(drop=True), b.reset_index(drop=True))
    assert one.stats == two.stats
