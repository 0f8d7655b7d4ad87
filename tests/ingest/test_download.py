"""A published file is downloaded once and held to its checksum; what goes wrong leaves one line and no file."""

from __future__ import annotations

import hashlib
import io
import socket
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

pytest.importorskip("pooch", reason="pooch is not installed here; pip install -r requirements.lock")

from tests.ingest.whole import gather
from thinkrec.errors import UserError
from thinkrec.ingest import download
from thinkrec.ingest.catalogue import find_dataset
from thinkrec.ingest.download import Remote, fetch

DATA = b"1::2::3::4\n" * 5000
MD5 = hashlib.md5(DATA).hexdigest()


class Server(BaseHTTPRequestHandler):
    """Answers by path; `asked` counts."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        kind = self.path.strip("/").partition(".")[0]
        if kind in ("gone", "busy") and not (kind == "busy" and len(self.asked) > 1):
            self.send_error(404 if kind == "gone" else 503)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(DATA)))
        self.end_headers()
        match kind:
            case "cut":
                self.wfile.write(DATA[: len(DATA) // 2])
            case "wrong":
                self.wfile.write(DATA[::-1])
            case _:
                self.wfile.write(DATA)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("THINKREC_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("time.sleep", lambda _: None)  # between tries
    Server.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_file_is_downloaded_once(server: str, tmp_path: Path) -> None:
    remote = Remote(f"{server}/good.zip", MD5)
    for _ in range(2):
        assert (fetch("ml-1m", [remote]) / "good.zip").read_bytes() == DATA
    assert Server.asked == ["/good.zip"]
    assert files(tmp_path) == ["good.zip"]


def test_a_dataset_without_a_path_is_downloaded_and_read(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("ml-1m/ratings.dat", "1::2::3::4\n")
        made.writestr("ml-1m/movies.dat", "2::Two (1999)::Drama\n")
    monkeypatch.setitem(globals(), "DATA", archive.getvalue())
    published = (Remote(f"{server}/ml-1m.zip", hashlib.md5(archive.getvalue()).hexdigest()),)
    raw = gather(replace(find_dataset("ml-1m"), files=published).source(None))
    assert (raw.rows, raw.items["title"].tolist()) == (1, ["Two"])


def test_a_damaged_file_in_the_cache_is_downloaded_anew(server: str) -> None:
    remote = Remote(f"{server}/good.zip", MD5)
    path = fetch("ml-1m", [remote]) / "good.zip"
    path.write_bytes(DATA[:100])
    assert (fetch("ml-1m", [remote]) / "good.zip").read_bytes() == DATA


def test_one_without_a_published_checksum_is_told_and_held_to_what_came_first(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    remote = Remote(f"{server}/good.json.gz")
    path = fetch("amazon-2018:Books", [remote]) / "good.json.gz"
    digest = hashlib.sha256(DATA).hexdigest()
    said = f"good.json.gz: unverified, its publisher gives no checksum; SHA-256 {digest}\n"
    assert said in capsys.readouterr().err
    assert files(tmp_path) == ["good.json.gz", "good.json.gz.sha256"]
    fetch("amazon-2018:Books", [remote])
    assert "unverified" not in capsys.readouterr().err
    path.write_bytes(b"other")  # damaged: comes again
    fetch("amazon-2018:Books", [remote])
    assert path.read_bytes() == DATA
    assert len(Server.asked) == 2


def test_a_busy_server_is_asked_again(server: str) -> None:
    assert (fetch("ml-1m", [Remote(f"{server}/busy.zip", MD5)]) / "busy.zip").read_bytes() == DATA
    assert len(Server.asked) == 2


def stopped(remote: Remote) -> str:
    with pytest.raises(UserError) as stop:
        fetch("ml-1m", [remote])
    assert "\n" not in str(stop.value)
    return str(stop.value)


@pytest.mark.parametrize(
    ("name", "said", "tries"),
    [
        ("gone.zip", "the server says 404 Not Found; has the file moved?", 1),
        ("wrong.zip", "wrong.zip: what came is not the file of the published MD5; deleted. get http", 3),
        ("cut.zip", "cut.zip: the download broke off", 3),
    ],
)
def test_what_goes_wrong_is_one_line_and_leaves_nothing(
    server: str, tmp_path: Path, name: str, said: str, tries: int
) -> None:
    message = stopped(Remote(f"{server}/{name}", MD5))
    assert said in message
    assert "dataset.raw=PATH" in message
    assert len(Server.asked) == tries
    assert files(tmp_path) == []


def test_without_a_network_one_is_told_what_to_get_and_where_to_put_it(server: str, tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/good.zip"
        message = stopped(Remote(address, MD5))
    folder = tmp_path / "data" / "ml-1m"
    assert message.startswith("good.zip: cannot reach 127.0.0.1 (")
    assert message.endswith(f"; get {address} by hand, put it into {folder} or pass -S dataset.raw=PATH")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "good.zip").write_bytes(DATA)  # as told
    assert fetch("ml-1m", [Remote(address, MD5)]) == folder


def test_a_folder_that_cannot_be_written_is_told(server: str, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    assert "set THINKREC_DATA" in stopped(Remote(f"{server}/good.zip", MD5))


def test_downloads_are_kept_within_the_project_unless_said_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("THINKREC_DATA", raising=False)
    assert download.folder_of("amazon-2018:Books") == Path(".cache/datasets/amazon-2018-Books")
