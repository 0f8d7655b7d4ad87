"""What every command shares: whatever is not the program's fault is one line, and work that is done counts as done."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner, Result

from thinkrec.command import RUN_LOG, Reply, command
from thinkrec.errors import UserError
from thinkrec.terminal import recommendations_table


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(work: Callable[[], str], *arguments: str) -> Result:
    app = typer.Typer()
    app.command()(command(work, stage=True))
    return CliRunner().invoke(app, arguments)


def write_to(path: str) -> Callable[[], str]:
    def work() -> str:
        Path(path).write_text("made")
        return "made it"

    return work


def raise_it(error: Exception) -> Callable[[], str]:
    def work() -> str:
        raise error

    return work


@pytest.mark.parametrize(
    ("work", "line"),
    [
        (write_to("x" * 300), "File name too long"),
        (write_to("nowhere/file"), "work: nowhere/file: No such file or directory"),
        (raise_it(RuntimeError("Error while writing: No space left on device")), "No space left (RuntimeError)"),
        (raise_it(OSError(28, "No space left on device")), "work: OSError: No space left on device"),
        (
            raise_it(RuntimeError("Error while serializing: I/O error: Disk quota exceeded (os error 122)")),
            "work: I/O error: Disk quota exceeded (RuntimeError)",
        ),
    ],
)
def test_a_fault_of_disk_or_path_is_one_line(work, line):
    result = run(work)
    assert result.exit_code == 1 and line in result.output and result.output.count("\n") == 1
    assert not isinstance(run(work, "--debug").exception, SystemExit)


@pytest.mark.parametrize(("folder", "hinted"), [(".dvc/tmp/exps/one", True), ("dvc/tmp", False)])
def test_a_file_that_a_run_outside_the_workspace_lacks_is_explained(folder, hinted, monkeypatch, tmp_path):
    (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / folder)
    output = run(raise_it(UserError("users.txt: no such file; name another"))).output
    assert ("what git tracks alone: track it, or name its whole path" in output) is hinted


TITLE, ITEM = "The Very Long Title of a Film " * 9 + "Pokémon \u2603", "B00" * 40


def answer() -> Reply:
    print("what a library says")
    found = pd.DataFrame({"item_id": [ITEM], "title": [TITLE], "probability": [0.5]})
    return Reply(summary=f"1 item, {TITLE}", document=found.to_dict("records"), table=recommendations_table(found))


def test_an_answer_has_stdout_for_itself():
    app = typer.Typer()
    app.command()(command(answer))
    result = CliRunner().invoke(app, ["--json"])
    assert json.loads(result.stdout) == [{"item_id": ITEM, "title": TITLE, "probability": 0.5}]
    assert result.stderr.startswith(f"what a library says\nanswer: 1 item, {TITLE} (")


def test_without_a_terminal_nothing_is_cut_and_what_cannot_be_encoded_is_escaped():
    app = typer.Typer()
    app.command()(command(answer))
    result = CliRunner(charset="ascii").invoke(app, env={"COLUMNS": "40"})
    assert result.exit_code == 0, result.output
    (line,) = (line for line in result.stdout.splitlines() if ITEM in line)
    assert TITLE.encode("ascii", "backslashreplace").decode() in line


def test_whatever_a_line_for_the_user_names_it_is_one_line_that_steers_no_terminal():
    assert str(UserError("é: no\nsuch\x1b[31m\u2028file")) == r"é: no\nsuch\x1b[31m\u2028file"


def test_a_fault_of_the_program_keeps_its_traceback():
    assert isinstance(run(raise_it(ValueError("a bug"))).exception, ValueError)


def test_where_the_log_cannot_be_written_the_work_is_done_all_the_same():
    RUN_LOG.mkdir(parents=True)
    result = run(write_to("made"))
    assert result.exit_code == 0 and Path("made").exists()
    assert f"{RUN_LOG}: cannot write it (Is a directory)" in result.output


@pytest.mark.parametrize("locked", ["out/work", "out", "metrics", "plots"])
def test_a_stage_that_could_not_write_stops_before_its_work(locked, monkeypatch):
    Path(locked).mkdir(parents=True)
    monkeypatch.setattr("os.access", lambda path, _: Path(path).absolute() != Path(locked).absolute())
    result = run(write_to("made"))
    assert result.exit_code == 1 and f"work: {locked}: no right to write there" in result.output
    assert not Path("made").exists()


def test_a_stage_runs_once_at_a_time():
    assert run(write_to("first")).exit_code == 0
    with (RUN_LOG.parent / "work.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = run(write_to("second"))
    assert result.exit_code == 1 and "another process runs this stage here" in result.output
    assert not Path("second").exists()
    assert run(write_to("third")).exit_code == 0
