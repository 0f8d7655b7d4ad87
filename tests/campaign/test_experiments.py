"""What git and dvc say, read: the queue's status, whether a process lives, and what is in the way of queueing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project import ENVIRONMENT, call
from thinkrec.campaign import experiments
from thinkrec.campaign.experiments import Task
from thinkrec.errors import UserError

STATUS = """Task     Name                        Created       Status
dd5d641  synthetic-experts_1-1a2b3c4  01:46 AM      Running
bf42807  synthetic-collm-77ab3c4      Mar 02, 2026  Queued
0a11111  synthetic-experts_1-1a2b3c4  01:46 AM      Failed
7b41e54                              01:46 AM      Success

Worker status: 1 active, 2 idle
"""


def test_status_lists_tasks_by_name_and_counts_workers() -> None:
    tasks, workers = experiments.parse_status(STATUS)
    assert workers == 3
    assert tasks["synthetic-experts_1-1a2b3c4"] == Task(id="dd5d641", state="Running")  # not the one that failed
    assert tasks["synthetic-collm-77ab3c4"] == Task(id="bf42807", state="Queued")


def test_an_empty_queue_has_no_tasks() -> None:
    assert experiments.parse_status("No experiment tasks in the queue.\n\nWorker status: 0 active, 0 idle\n") == ({}, 0)


def test_a_task_is_alive_while_its_process_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for name, pid in {"aaaaaaa1": os.getpid(), "bbbbbbb1": gone.pid}.items():
        folder = experiments.RUN_FILES / name
        folder.mkdir(parents=True)
        (folder / f"{name}.json").write_text(json.dumps({"pid": pid}))
    assert experiments.is_alive(Task(id="aaaaaaa", state="Running"))
    assert not experiments.is_alive(Task(id="bbbbbbb", state="Running"))
    assert not experiments.is_alive(Task(id="ccccccc", state="Running"))


def test_a_task_has_a_log_once_its_stages_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, files in {"aaaaaaa1": [".run", ".json", ".out"], "bbbbbbb1": [".run"]}.items():
        folder = experiments.RUN_FILES / name
        folder.mkdir(parents=True)
        for suffix in files:
            (folder / f"{name}{suffix}").touch()
    assert experiments.has_log(Task(id="aaaaaaa", state="Failed"))
    assert not experiments.has_log(Task(id="bbbbbbb", state="Failed"))
    assert not experiments.has_log(Task(id="ccccccc", state="Failed"))


class TestCheck:
    @pytest.fixture(autouse=True)
    def repository(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        for name, value in ENVIRONMENT.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(tmp_path)
        call(tmp_path, "git", "init", "--quiet")
        (tmp_path / "dvc.yaml").write_text("stages: {}\n")
        return tmp_path

    def commit(self, folder: Path) -> None:
        call(folder, "git", "add", "--all")
        call(folder, "git", "-c", "user.name=A", "-c", "user.email=a@b", "commit", "--quiet", "--message", "one")

    def test_without_a_commit_nothing_can_be_queued(self) -> None:
        with pytest.raises(UserError, match=r"no commit to start experiments from; .* git commit"):
            experiments.check()

    def test_code_that_git_does_not_track_would_be_left_behind(self, repository: Path) -> None:
        self.commit(repository)
        experiments.check()
        (repository / "thinkrec").mkdir()
        (repository / "thinkrec" / "new.py").write_text("")
        with pytest.raises(UserError, match=r"thinkrec/new.py: not tracked .* git add thinkrec/new.py"):
            experiments.check()

    def test_changed_code_and_files_that_are_no_code_do_not_matter(self, repository: Path) -> None:
        self.commit(repository)
        (repository / "dvc.yaml").write_text("stages: {}  # changed\n")
        (repository / "notes.txt").write_text("")
        experiments.check()

    def test_no_experiment_is_found_where_none_ran(self, repository: Path) -> None:
        self.commit(repository)
        assert experiments.finished() == []
        assert experiments.fetch("synthetic-thinkrec-1a2b3c4") is None
