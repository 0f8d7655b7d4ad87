"""What is said of a dataset is counted right, and its picture's bytes follow from the data."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from thinkrec.artifacts import SPLITS
from thinkrec.ingest import overview as report
from thinkrec.ingest.splits import Window, Windows

DAY = 86_400
WINDOWS = Windows(
    train=Window(start=0, end=10 * DAY),
    valid=Window(start=10 * DAY, end=15 * DAY),
    test=Window(start=15 * DAY, end=20 * DAY),
)
NO_TRUTH = pd.DataFrame({"probability": pd.Series([], dtype="float32")})


def table(rows: list[tuple[int, int, int, int]]) -> pd.DataFrame:
    """Sorted rows of (user, item, label, day)."""
    frame = pd.DataFrame(rows, columns=["user", "item", "label", "day"])
    code = np.searchsorted([10, 15], frame["day"], side="right")
    return frame.assign(timestamp=frame["day"] * DAY, split=pd.Categorical.from_codes(code, pd.Index(SPLITS)))


BY_HAND = table(
    [
        (0, 0, 1, 1),
        (0, 1, 0, 1),  # ties with the one above
        (0, 2, 1, 11),  # an item that train does not know
        (0, 3, 1, 16),
        (1, 0, 1, 2),
        (2, 0, 0, 12),  # a user that train does not know
        (2, 2, 1, 16),  # neither is known
    ]
)


def test_a_small_table_is_described_as_by_hand() -> None:
    told = report.describe(BY_HAND, NO_TRUTH)
    assert told["splits"]["train"] == {
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
    valid, test = told["splits"]["valid"], told["splits"]["test"]
    assert (valid["warm_share"], valid["known_user_share"], valid["known_item_share"]) == (0.0, 0.5, 0.5)
    assert (test["warm_share"], test["known_user_share"], test["known_item_share"]) == (0.0, 0.5, 0.0)
    assert (valid["median_history"], test["median_history"]) == (1.0, 2.0)  # of 2 and 0, of 3 and 1
    # A tenth of three users is one of them, the one with four of seven rows; of four items, one with three.
    assert told["ratings_of_busiest_tenth"] == {"users": 4 / 7, "items": 3 / 7}


def test_the_best_auc_is_told_where_the_truth_is_known() -> None:
    truth = pd.DataFrame({"probability": [0.9, 0.1, 0.9, 0.9, 0.3, 0.2, 0.8]})
    splits = report.describe(BY_HAND, truth)["splits"]
    assert splits["train"]["best_auc"] == 1.0 and splits["valid"]["best_auc"] == 1.0
    assert np.isnan(splits["test"]["best_auc"])  # likes only
    assert "best_auc" not in report.describe(BY_HAND, NO_TRUTH)["splits"]["train"]


def some_table(rows: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    drawn = zip(*(rng.integers(0, top, rows).tolist() for top in (20, 30, 2, 20)), strict=True)
    return table(sorted(drawn, key=lambda row: (row[0], row[3])))


@pytest.mark.parametrize("frame", [BY_HAND, some_table(600)], ids=["seven rows", "more"])
def test_equal_data_gives_an_equal_picture(frame: pd.DataFrame, tmp_path: Path) -> None:
    days = Counter(frame["day"].tolist())
    for name, counted in (("one", days), ("two", Counter(dict(reversed(days.items()))))):
        report.draw(tmp_path / f"{name}.png", frame, counted, WINDOWS)
    one = (tmp_path / "one.png").read_bytes()
    assert one == (tmp_path / "two.png").read_bytes()
    assert one.startswith(b"\x89PNG") and b"atplotlib" not in one and len(one) > 20_000


def test_a_rating_of_another_century_leaves_the_picture_as_it_is(tmp_path: Path) -> None:
    frame = some_table(3000)
    days = Counter(frame["day"].tolist())
    report.draw(tmp_path / "one.png", frame, days, WINDOWS)
    report.draw(tmp_path / "two.png", frame, days + Counter({40_000: 1}), WINDOWS)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
