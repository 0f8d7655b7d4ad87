"""What all tests share: quiet threads, their order, one finished project, and real data where it is at hand."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock
from hypothesis import settings

if TYPE_CHECKING:
    from thinkrec.recommender import Recommender

# Before torch is imported: on two cores, OpenMP's spinning threads steal the time that the other worker needs.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# One thread, as in the processes that tests start: sums in another order are other bytes.
os.environ["OMP_NUM_THREADS"] = "1"
# How long an example takes says more of the machine than of the code.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


LONGEST = ("test_smollm2.py", "test_distributed.py", "test_stages.py", "test_paper_recipe.py")  # minutes each


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the finished project as integration, and let all integration tests run after the others.

    Of those the longest begin first, or one worker would end alone with them.
    """
    for item in items:
        if "finished" in getattr(item, "fixturenames", ()):
            item.add_marker("integration")
    items.sort(key=lambda item: (item.get_closest_marker("integration") is not None, item.path.name not in LONGEST))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small project in which every stage has run: made once a session, for all its workers. Work in a copy of it."""
    from tests.project import finish_project

    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # each worker has a folder of its own there
    folder = shared / "finished"
    with FileLock(shared / "finished.lock"):
        if not (folder / "dvc.lock").exists():  # what is written last
            finish_project(folder)
    return folder


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished project for a test to change; DVC knows nothing of it."""
    from tests.project import copy_project

    return copy_project(finished, tmp_path / "project")


@pytest.fixture(scope="session")
def recommender(finished: Path) -> Recommender:
    """The finished project, ready to be asked."""
    from thinkrec.recommender import Recommender

    return Recommender.load(finished)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real rating files: $THINKREC_TEST_DATA, or shared/data beside the project's folder."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("THINKREC_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; set THINKREC_TEST_DATA to a folder that holds it")
    return folder
