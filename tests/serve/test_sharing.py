"""An exported folder is all that answering takes, says what it is, and goes to the hub and nowhere else."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from tests.project import ENVIRONMENT, LIKED_AND_NOT, ROOT, run_command, set_params
from thinkrec import artifacts
from thinkrec.errors import UserError
from thinkrec.recommender import Recommender

SECRET = "hf_no_token_of_anybody"


def test_what_is_exported_answers_as_the_project_without_it(project: Path, recommender: Recommender) -> None:
    set_params(project, {"dataset.raw": "/home/somebody/ratings.zip"})
    assert run_command(project, "export", "served").exit_code == 0
    shutil.move(project / "served", project.parent / "served")
    shutil.rmtree(project)
    exported = Recommender.from_export(project.parent / "served")
    pairs = pd.DataFrame({"user_id": ["u00003", "u00007"], "item_id": ["i00009", "i00001"]})
    np.testing.assert_array_equal(exported.score(pairs), recommender.score(pairs))
    pd.testing.assert_frame_equal(exported.recommend(LIKED_AND_NOT, 5), recommender.recommend(LIKED_AND_NOT, 5))
    assert exported.explain("u00003", "i00009").to_dict() == recommender.explain("u00003", "i00009").to_dict()
    assert "somebody" not in (project.parent / "served" / "project" / "params.yaml").read_text(encoding="utf-8")
    with pytest.raises(UserError, match="not a folder that `thinkrec export` wrote"):
        Recommender.from_export(project.parent)


def test_the_card_says_what_was_measured_on_what_and_how_to_load_it(project: Path) -> None:
    assert run_command(project, "export", "served").exit_code == 0
    _, front, card = (project / "served" / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    assert "recommendation" in yaml.safe_load(front)["tags"]
    ours = artifacts.read_json(project / artifacts.TABLE)["test"]["models"]["thinkrec"]
    low, high = (f"{ours['interval']['auc'][end]:.4f}" for end in ("low", "high"))
    assert f"| auc | {ours['all']['auc']:.4f} | {low} to {high} |" in card
    example = json.loads((project / "served" / "manifest.json").read_text(encoding="utf-8"))["example"]["text"]
    for text in ("seed 7", "Licence: generated", "Not good for", "from_export", "users' ids", example):
        assert text in card
    assert run_command(project, "export", "merged", "--expert", "1").exit_code == 0
    merged = (project / "merged" / "README.md").read_text(encoding="utf-8")
    assert "from_export" not in merged and "users' ids" not in merged and not (project / "merged" / "project").exists()


@contextmanager
def hub(requests: list[tuple[str, str, bytes]], *, refuses: bool = False) -> Iterator[str]:
    """A stand-in for the hub's HTTP API, which takes all files as they are; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            requests.append((self.path, self.headers.get("Authorization", ""), body))
            answer: dict[str, object] = {"url": f"{address}/me/small", "id": "me/small"}
            if "/preupload/" in self.path:
                files = [{**file, "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]]
                answer = {"files": files}
            elif "/commit/" in self.path:
                answer = {"commitUrl": f"{address}/me/small/commit/1", "commitOid": "1", "hookOutput": "", "success": 1}
            self.send_response(401 if refuses else 200)
            text = json.dumps(answer).encode()
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield address
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def push(folder: Path, endpoint: str, *options: str) -> subprocess.CompletedProcess[str]:
    """`thinkrec push` in a process of its own, for which `endpoint` is the hub."""
    return subprocess.run(
        [sys.executable, "-m", "thinkrec.cli", "push", "me/small", str(folder), *options],
        cwd=folder.parent,
        env={**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT), "HF_ENDPOINT": endpoint, "HF_TOKEN": SECRET},
        capture_output=True,
        text=True,
    )


def test_a_folder_is_pushed_private_and_the_token_goes_to_the_hub_alone(tmp_path: Path) -> None:
    folder = tmp_path / "served"
    (folder / "model").mkdir(parents=True)
    for name in ("README.md", "manifest.json", "model/config.json"):
        (folder / name).write_text(f'{{"name": "{name}"}}', encoding="utf-8")
    requests: list[tuple[str, str, bytes]] = []
    with hub(requests) as endpoint:
        done = push(folder, endpoint)
        assert done.returncode == 0, done.stderr
        assert f"push: {folder} is at {endpoint}/me/small" in done.stdout
    created = json.loads(requests[0][2])
    assert (requests[0][0], created["name"], created.get("visibility", created.get("private"))) in [
        ("/api/repos/create", "small", "private"),
        ("/api/repos/create", "small", True),
    ]
    (commit,) = [body for path, _, body in requests if "/commit/" in path]
    lines = [json.loads(line)["value"] for line in commit.decode().splitlines()]
    files = {line["path"]: base64.b64decode(line["content"]).decode() for line in lines if "path" in line}
    assert files == {path: f'{{"name": "{path}"}}' for path in ("README.md", "manifest.json", "model/config.json")}
    assert {header for _, header, _ in requests} <= {f"Bearer {SECRET}", ""}
    assert SECRET not in done.stdout + done.stderr


def test_what_the_hub_refuses_is_one_line_without_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "manifest.json").write_text("{}", encoding="utf-8")
    with hub([], refuses=True) as endpoint:
        refused = push(tmp_path / "served", endpoint)
    unreachable = push(tmp_path / "served", endpoint)
    for done in (refused, unreachable):
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
        assert f"push: me/small: the hub at {endpoint} did not take it" in done.stderr and SECRET not in done.stderr
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert "push: no HF_TOKEN in the environment" in run_command(tmp_path, "push", "me/small", "served").stderr
