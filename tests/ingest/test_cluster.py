"""Parts read by a Dask cluster's workers give the tables that this process gives, byte for byte."""

import os
import sys

import pytest

from tests.project import dataset_params
from thinkrec import artifacts
from thinkrec.errors import UserError
from thinkrec.ingest.cluster import ADDRESS, Here, workers
from thinkrec.ingest.dataset import ingest

YEAR_2020 = 1_577_836_800
COLUMNS = {"user": "who", "item": "what", "rating": "stars", "timestamp": "when"}
NOBODY = "tcp://127.0.0.1:1"


@pytest.fixture(scope="module")
def cluster():
    """The address of two worker processes."""
    distributed = pytest.importorskip("distributed", reason="needs the extra `scale`")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as local:
        yield local.scheduler_address


@pytest.fixture
def raw(tmp_path):
    """Five files of ratings, with ties, repeats, rows before all windows and malformed ones."""
    folder = tmp_path / "ratings"
    folder.mkdir()
    for number in range(5):
        rows = [
            f"u{(7 * row + number) % 23},i{(5 * row * row + number) % 31},{1 + (row + number) % 5},"
            f"{YEAR_2020 + 86_400 * ((row * 13 + number * 29) % 400)}"
            for row in range(200)
        ]
        rows[number + 3] = "u1,i1,many,1"
        (folder / f"{number}.csv").write_text("who,what,stars,when\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return folder


def ingest_files(raw):
    windows = {"months": [6, 3, 3]}
    return ingest(
        dataset_params(name="own", raw=raw, columns=COLUMNS, threshold=3, windows=windows, core=12, max_bad_share=0.1)
    )


def write_tables(ingested, folder):
    for path, frame in ingested.tables().items():
        artifacts.write_table(path, frame, root=folder)
    return {path.name: path.read_bytes() for path in folder.rglob("*.parquet")}


def test_two_worker_processes_give_the_same_bytes(cluster, raw, tmp_path, monkeypatch):
    here = ingest_files(raw)
    monkeypatch.setenv(ADDRESS, cluster)
    there = ingest_files(raw)
    assert write_tables(here, tmp_path / "here") == write_tables(there, tmp_path / "there")
    assert here.stats == there.stats
    assert all(here.stats[name] > 0 for name in ("outside_windows", "repeated_ratings", "below_core"))
    assert sum(here.stats["quarantined"].values()) == 5


def test_the_workers_are_other_processes_and_answer_in_order(cluster, monkeypatch):
    monkeypatch.setenv(ADDRESS, cluster)
    with workers(2) as somewhere:
        doubled = somewhere.map(lambda number: (2 * number, os.getpid()), range(20))
        answers = somewhere.gather(somewhere.map(lambda pair: (pair[0] + 1, pair[1]), doubled))
    assert [number for number, _ in answers] == list(range(1, 41, 2))
    assert os.getpid() not in {process for _, process in answers}


def test_an_error_in_a_part_is_one_line_from_a_worker_too(cluster, raw, monkeypatch):
    monkeypatch.setenv(ADDRESS, cluster)
    (raw / "3.csv").write_text("who,what,stars,when\n" + "1" * 2_000_000, encoding="utf-8")
    with pytest.raises(UserError, match=r"3\.csv: .*line 2 is over"):
        ingest_files(raw)


@pytest.mark.parametrize(("address", "parts"), [("", 5), (NOBODY, 1)])
def test_without_a_cluster_or_with_a_single_part_the_work_is_done_here(address, parts, monkeypatch):
    monkeypatch.setenv(ADDRESS, address)
    with workers(parts) as somewhere:
        assert isinstance(somewhere, Here)


@pytest.mark.parametrize("address", [NOBODY, "carrier-pigeon://coop"])
def test_a_cluster_that_is_not_there_stops(address, monkeypatch):
    pytest.importorskip("distributed", reason="needs the extra `scale`")
    monkeypatch.setenv(ADDRESS, address)
    monkeypatch.setattr("thinkrec.ingest.cluster.CONNECT", 0.5)
    with pytest.raises(UserError, match=f"^{ADDRESS}={address}: no Dask scheduler answers there"), workers(2):
        pass


def test_a_cluster_without_dask_says_what_to_install(monkeypatch):
    monkeypatch.setenv(ADDRESS, NOBODY)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match=r"pip install 'thinkrec\[scale\]'"), workers(2):
        pass
