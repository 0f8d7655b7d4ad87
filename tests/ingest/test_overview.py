"""What describes a dataset is counted right, and its picture's bytes follow from the data."""

from collections import Counter

import numpy as np
import pandas as pd

from thinkrec.artifacts import SPLITS
from thinkrec.ingest.overview import describe, draw
from thinkrec.ingest.splits import windows_between

DAY = 86_400
WINDOWS = windows_between([0, 10 * DAY, 15 * DAY, 20 * DAY])
NO_TRUTH = pd.DataFrame({"probability": pd.Series([], dtype="float32")})


def table(rows):
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


def test_a_small_table_is_described_as_by_hand():
    stats = describe(BY_HAND, NO_TRUTH)
    assert stats["splits"]["train"] == {
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
    valid, test = stats["splits"]["valid"], stats["splits"]["test"]
    assert (valid["warm_share"], valid["known_user_share"], valid["known_item_share"]) == (0.0, 0.5, 0.5)
    assert (test["warm_share"], test["known_user_share"], test["known_item_share"]) == (0.0, 0.5, 0.0)
    assert (valid["median_history"], test["median_history"]) == (1.0, 2.0)  # of 2 and 0, of 3 and 1
    # A tenth of three users is one of them, the one with four of seven rows; of four items, one with three.
    assert stats["ratings_of_busiest_tenth"] == {"users": 4 / 7, "items": 3 / 7}


def test_the_best_auc_is_there_where_the_truth_is_known():
    truth = pd.DataFrame({"probability": [0.9, 0.1, 0.9, 0.9, 0.3, 0.2, 0.8]})
    splits = describe(BY_HAND, truth)["splits"]
    assert splits["train"]["best_auc"] == 1.0 and splits["valid"]["best_auc"] == 1.0
    assert np.isnan(splits["test"]["best_auc"])  # likes only
    assert "best_auc" not in describe(BY_HAND, NO_TRUTH)["splits"]["train"]


def some_table(rows):
    rng = np.random.default_rng(0)
    drawn = zip(*(rng.integers(0, top, rows).tolist() for top in (20, 30, 2, 20)), strict=True)
    return table(sorted(drawn, key=lambda row: (row[0], row[3])))


def picture(path, frame, days):
    draw(path, frame, days, WINDOWS)
    return path.read_bytes()


def test_equal_data_gives_an_equal_picture_and_a_rating_of_another_century_leaves_it_as_it_is(tmp_path):
    frame = some_table(3000)
    days = Counter(frame["day"].tolist())
    png = picture(tmp_path / "x.png", frame, days)
    assert png == picture(tmp_path / "x.png", frame, Counter(dict(reversed(days.items()))) + Counter({40_000: 1}))
    assert png.startswith(b"\x89PNG") and b"atplotlib" not in png and len(png) > 20_000
