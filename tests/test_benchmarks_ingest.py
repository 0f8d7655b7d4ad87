"""The ingestion benchmark makes up files that the readers take whole, and a loop that gives the same histories."""

import numpy as np
import pytest

from benchmarks.ingest import AMAZON, HISTORY, amazon, listed, movielens, one_run
from benchmarks.measure import STATUS
from thinkrec.history import history_bounds

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("name", "make", "least"), [("ml-25m", movielens, 0.99), (AMAZON, amazon, 0.5)], ids=["MovieLens", "Amazon"]
)
def test_made_up_files_are_read_to_the_end(name, make, least, tmp_path):
    seconds, peak, kept = one_run(name, make(tmp_path, 20_000), tmp_path)
    assert least * 20_000 <= kept <= 20_000  # people review a book twice now and then
    assert seconds > 0 and (peak is None) == (not STATUS.exists())
    assert (tmp_path / "out" / "ingest" / "interactions.parquet").is_file()


def test_the_loop_lists_the_rows_that_offsets_stand_for():
    rng = np.random.default_rng(0)
    user, moment = np.sort(rng.integers(0, 20, 500)).astype(np.int32), rng.integers(0, 60, 500)
    moment = moment[np.lexsort((moment, user))]
    start, end = history_bounds(user, moment)
    last = [list(range(max(first, after - HISTORY), after)) for first, after in zip(start, end, strict=True)]
    assert listed(user, moment) == last
