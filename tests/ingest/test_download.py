"""A published file is downloaded once and held to its checksum; what goes wrong leaves one line and no file."""

from __future__ import annotations

import gzip
import hashlib
import io
import socket
import ssl
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
import requests

from tests.ingest.whole import gather
from tests.teacher.server import Response, listen
from thinkrec.errors import UserError
from thinkrec.ingest.catalogue import find_dataset
from thinkrec.ingest.download import Remote, fetch, folder_of

DATA = b"1::2::3::4\n" * 5000
PACKED = gzip.compress(DATA)
MD5 = hashlib.md5(DATA).hexdigest()


class Server:
    """What it has, and the paths that it was asked for; what it answers depends on the path."""

    data = DATA
    asked: ClassVar[list[str]] = []

    @classmethod
    def respond(cls, request):
        cls.asked.append(request.path)
        kind = request.path.strip("/").replace("/", ".").partition(".")[0]
        if kind == "gone" or (kind == "busy" and len(cls.asked) == 1):
            return Response(body="", status=404 if kind == "gone" else 503)
        return Response(
            body=cls.data[::-1] if kind == "wrong" else cls.data, upto=-(len(cls.data) // 2) if kind == "cut" else None
        )


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("THINKREC_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("time.sleep", lambda _: None)  # between tries
    Server.asked.clear()
    with listen(Server.respond) as endpoint:
        yield endpoint.removesuffix("/v1")


def names_in(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(("name", "tries"), [("good.zip", 1), ("busy.zip", 2)])
def test_a_file_is_downloaded_once_and_anew_where_it_is_damaged(name, tries, server, tmp_path):
    remote = Remote(f"{server}/{name}", MD5)
    for _ in range(2):
        assert (fetch("ml-1m", [remote]) / name).read_bytes() == DATA
    assert (Server.asked, names_in(tmp_path)) == ([f"/{name}"] * tries, [name])
    (folder_of("ml-1m") / name).write_bytes(DATA[:100])
    assert (fetch("ml-1m", [remote]) / name).read_bytes() == DATA


def test_a_dataset_without_a_path_is_downloaded_and_read(server, monkeypatch):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr("ml-1m/ratings.dat", "1::2::3::4\n")
        members.writestr("ml-1m/movies.dat", "2::Two (1999)::Drama\n")
    monkeypatch.setattr(Server, "data", archive.getvalue())
    published = Remote(f"{server}/ml-1m.zip", hashlib.md5(archive.getvalue()).hexdigest())
    whole = gather(replace(find_dataset("ml-1m"), files=(published,)).source(None))
    assert (whole.rows, whole.items["title"].tolist()) == (1, ["Two"])


def test_one_without_a_published_checksum_is_held_to_what_came_first(server, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Server, "data", PACKED)
    remote = Remote(f"{server}/good.json.gz")
    path = fetch("amazon-2018:Books", [remote]) / "good.json.gz"
    digest = hashlib.sha256(PACKED).hexdigest()
    line = f"good.json.gz: unverified, its publisher gives no checksum; SHA-256 {digest}\n"
    assert line in capsys.readouterr().err
    assert names_in(tmp_path) == ["good.json.gz", "good.json.gz.sha256"]
    fetch("amazon-2018:Books", [remote])
    assert "unverified" not in capsys.readouterr().err
    path.write_bytes(b"other")  # damaged: comes again
    fetch("amazon-2018:Books", [remote])
    assert path.read_bytes() == PACKED
    assert len(Server.asked) == 2
    monkeypatch.setattr(Server, "data", gzip.compress(b"a later release"))
    path.write_bytes(b"other")
    assert "not the file of the SHA-256 in" in refuse(remote, "amazon-2018:Books")
    path.unlink()  # who deletes it takes what is published now
    fetch("amazon-2018:Books", [remote])
    assert fetch("amazon-2018:Books", [remote]) == path.parent
    (tmp_path / "file").touch()
    assert (path.read_bytes(), path.stat().st_mode) == (Server.data, (tmp_path / "file").stat().st_mode)


@pytest.mark.parametrize("data", [b"<html>Sign in</html>", PACKED[: len(PACKED) // 2]], ids=["a page", "a half"])
def test_what_is_no_whole_archive_is_not_kept(data, server, tmp_path, monkeypatch):
    monkeypatch.setattr(Server, "data", data)
    remote = Remote(f"{server}/good.json.gz")
    assert "good.json.gz: what came from 127.0.0.1 is not a" in refuse(remote)
    assert names_in(tmp_path) == []
    monkeypatch.setattr(Server, "data", PACKED)
    assert (fetch("ml-1m", [remote]) / remote.name).read_bytes() == PACKED


def test_a_certificate_that_does_not_hold_is_called_that(server, monkeypatch):
    def refuse_handshake(*_, **__):
        fault = ssl.SSLCertVerificationError(1, "certificate verify failed")
        fault.verify_message = "certificate has expired"
        try:
            raise fault
        except ssl.SSLError as error:
            raise requests.exceptions.SSLError(error) from error

    monkeypatch.setattr("requests.get", refuse_handshake)
    message = refuse(Remote(f"{server}/good.zip", MD5))
    assert message.startswith("good.zip: 127.0.0.1 cannot show who it is (certificate has expired). get http")


@pytest.mark.parametrize(
    ("named", "folder"),
    [
        ("~/data", "{}/data/amazon-2018-Books"),
        ("", ".cache/datasets/amazon-2018-Books"),  # within the project unless the environment says otherwise
    ],
)
def test_downloads_lie_where_the_environment_says(named, folder, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("THINKREC_DATA", named)
    assert folder_of("amazon-2018:Books") == Path(folder.format(tmp_path))


def test_a_wrong_file_put_there_by_hand_is_named_where_no_other_can_be_had(server):
    folder = folder_of("ml-1m")
    folder.mkdir(parents=True)
    (folder / "cut.zip").write_bytes(b"other")
    assert f"{folder / 'cut.zip'} is not the file of the published MD5" in refuse(Remote(f"{server}/cut.zip", MD5))


def refuse(remote, dataset="ml-1m"):
    with pytest.raises(UserError) as stop:
        fetch(dataset, [remote])
    return str(stop.value)


@pytest.mark.parametrize(
    ("name", "message", "tries"),
    [
        ("gone.zip", "gone.zip: 127.0.0.1 says 404 Not Found. get http", 1),
        ("wrong.zip", "wrong.zip: what came from 127.0.0.1 is not the file of the published MD5. get http", 3),
        ("cut.zip", "cut.zip: the download from 127.0.0.1 broke off (IncompleteRead)", 3),
    ],
)
def test_what_goes_wrong_is_one_line_and_leaves_nothing(server, tmp_path, name, message, tries):
    refusal = refuse(Remote(f"{server}/{name}", MD5))
    assert message in refusal and "dataset.raw=PATH" in refusal
    assert (len(Server.asked), names_in(tmp_path)) == (tries, [])


def test_without_a_network_the_message_says_what_to_get_and_where_to_put_it(server, tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        remote = Remote(f"http://127.0.0.1:{closed.getsockname()[1]}/good.zip", MD5)
        message = refuse(remote)
    folder = tmp_path / "data" / "ml-1m"
    assert message.startswith("good.zip: cannot reach 127.0.0.1 (Connection refused)")
    assert message.endswith(f". get {remote.address} by hand, put it into {folder} or pass -S dataset.raw=PATH")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "good.zip").write_bytes(DATA)
    assert fetch("ml-1m", [remote]) == folder


def test_a_mirror_has_what_the_publisher_does_not_and_the_checksum_decides(server, tmp_path, capsys):
    mirrored = Remote(f"{server}/gone/ml.zip", MD5, (f"{server}/wrong/ml.zip", f"{server}/good/ml.zip"))
    assert (fetch("ml-1m", [mirrored]) / "ml.zip").read_bytes() == DATA
    line = f"ml.zip: from {server}/good/ml.zip, since 127.0.0.1 says 404 Not Found; what came from 127.0.0.1 is not the"
    assert line in capsys.readouterr().err
    (folder_of("ml-1m") / "ml.zip").unlink()
    refusal = refuse(replace(mirrored, mirrors=(f"{server}/cut/ml.zip",)))
    assert "404 Not Found; the download from 127.0.0.1 broke off (IncompleteRead). get" in refusal
    assert names_in(tmp_path) == []


def test_a_folder_that_cannot_be_written_stops(server, tmp_path):
    (tmp_path / "data").write_text("a file")
    assert "set THINKREC_DATA" in refuse(Remote(f"{server}/good.zip", MD5))
