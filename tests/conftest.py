"""What all tests share: quiet threads, and real data where it is at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Before torch is imported: on two cores, OpenMP's spinning threads steal the time that the other worker needs.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# One thread, as in the processes that tests start: sums in another order are other bytes.
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real rating files: $THINKREC_TEST_DATA, or shared/data beside the project's folder."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("THINKREC_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; set THINKREC_TEST_DATA to a folder that holds it")
    return folder
