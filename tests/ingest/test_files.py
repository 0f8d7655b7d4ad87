"""Whatever a dataset is packed in streams through whole, or stops with one line; nothing is ever extracted."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from thinkrec.errors import UserError
from thinkrec.ingest.raw import Part
from thinkrec.ingest.readers import files
from thinkrec.ingest.readers.files import Stream, blocks, opened, places, plain_name, ranges

TEXT = b"".join(b"%d,line\n" % n for n in range(500))


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def tarred(members: dict[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(data)
            archive.addfile(about, io.BytesIO(data))
    return buffer.getvalue()


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def all_of(part: Part) -> bytes:
    with opened(part) as stream:
        return b"".join(iter(lambda: stream.read(1000), b""))


PACKED: dict[str, Callable[[Path], Path]] = {
    "file": lambda folder: written(folder / "a.csv", TEXT),
    "gz": lambda folder: written(folder / "a.csv.gz", gzip.compress(TEXT)),
    "zip": lambda folder: zipped(folder / "x.zip", {"in/b.csv": b"other", "in/a.csv": TEXT}),
    "gz in zip": lambda folder: zipped(folder / "x.zip", {"a.csv.gz": gzip.compress(TEXT)}),
    "tar": lambda folder: written(folder / "x.tar", tarred({"b.csv": b"other", "in/a.csv": TEXT})),
    "tar.gz": lambda folder: written(folder / "x.tar.gz", tarred({"in/a.csv": TEXT}, "w:gz")),
    "tgz": lambda folder: written(folder / "x.tgz", tarred({"in/a.csv": TEXT}, "w:gz")),
    "tar in zip": lambda folder: zipped(folder / "x.zip", {"x/x.tar": tarred({"a.csv": TEXT})}),
    "tar.gz in zip": lambda folder: zipped(folder / "x.zip", {"x.tar": tarred({"b": b"", "a.csv": TEXT}, "w:gz")}),
    "folder": lambda folder: written(folder / "a.csv", TEXT).parent,
    "folder in folder": lambda folder: (
        (folder / "in").mkdir() or written(folder / "in" / "a.csv", TEXT).parent.parent  # type: ignore[func-returns-value]
    ),
}


@pytest.mark.parametrize("kind", PACKED)
def test_every_packing_gives_the_same_bytes_and_writes_nothing(kind: str, tmp_path: Path) -> None:
    path = PACKED[kind](tmp_path)
    before = sorted(tmp_path.rglob("*"))
    (found,) = [part for part in places(path) if plain_name(part) == "a.csv"]
    assert all_of(found) == TEXT
    assert sorted(tmp_path.rglob("*")) == before


def test_members_that_would_escape_are_read_and_never_written(tmp_path: Path) -> None:
    outside = {"../a.csv": TEXT, "/b.csv": TEXT, "x/../../c.csv": TEXT}
    for path in (zipped(tmp_path / "x.zip", outside), written(tmp_path / "x.tar", tarred(outside))):
        assert [all_of(part) for part in places(path)] == [TEXT] * 3
    assert {path.name for path in tmp_path.rglob("*")} == {"x.zip", "x.tar"}
    assert not (tmp_path.parent / "a.csv").exists()


def test_links_in_a_tar_are_no_files(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        link = tarfile.TarInfo("a.csv")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    assert places(written(tmp_path / "x.tar", buffer.getvalue())) == []


def stopped(path: Path) -> str:
    with pytest.raises(UserError) as stop:
        for part in places(path):
            all_of(part)
    assert "\n" not in str(stop.value)
    assert str(stop.value).startswith(f"{path}: ")
    return str(stop.value)


@pytest.mark.parametrize("kind", ["gz", "zip", "tar.gz", "tar in zip", "tar.gz in zip", "tar"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_what_is_cut_short_stops_with_one_line(kind: str, share: float, tmp_path: Path) -> None:
    path = PACKED[kind](tmp_path)
    whole = path.read_bytes()
    if kind == "tar":
        share *= 0.3  # a tar ends with empty blocks that may be missing
    path.write_bytes(whole[: int(len(whole) * share)])
    assert "not a whole" in stopped(path) or "unexpected end" in stopped(path)


@pytest.mark.parametrize("kind", ["gz", "zip", "tar.gz"])
def test_damage_within_stops_with_one_line(kind: str, tmp_path: Path) -> None:
    path = PACKED[kind](tmp_path)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 8] = bytes(byte ^ 0xFF for byte in data[middle : middle + 8])
    path.write_bytes(bytes(data))
    stopped(path)


def test_an_archive_that_unpacks_without_bound_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "ANY_SIZE", 1 << 16)
    zeros = bytes(1 << 22)
    for path in (
        written(tmp_path / "a.csv.gz", gzip.compress(zeros)),
        zipped(tmp_path / "a.zip", {"a.csv": zeros}),
        written(tmp_path / "a.tgz", tarred({"big": zeros, "a.csv": TEXT}, "w:gz")),  # in what is passed over, too
    ):
        assert "unpacks to over 200 times its size" in stopped(path)
    assert all_of(places(written(tmp_path / "honest.csv", zeros))[0]) == zeros


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.zip", b"<!DOCTYPE html><html>please accept our terms</html>", "not a zip file, though its name says so"),
        ("a.csv.gz", b"user,item\n", "not a gz file, though its name says so"),
        ("a.tar", b"", "not a tar file, though its name says so"),
        ("a.tar.bz2", b"BZh91AY&SY", "packed with bzip2, which is not read here; unpack it"),
        ("a.csv.zst", b"\x28\xb5\x2f\xfd\x00", "packed with zstd"),
        ("a.7z", b"7z\xbc\xaf\x27\x1c", "packed with 7-Zip"),
    ],
)
def test_what_is_no_archive_that_is_read_is_named(name: str, data: bytes, said: str, tmp_path: Path) -> None:
    assert said in stopped(written(tmp_path / name, data))


def test_nothing_there_is_told(tmp_path: Path) -> None:
    assert "no such file or folder" in stopped(tmp_path / "absent")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "r.csv")
    assert "neither a file nor a folder" in stopped(tmp_path / "r.csv")


@pytest.mark.parametrize("size", [1, 3, 7, 64, 5000])
def test_blocks_are_whole_lines_and_all_of_them(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BLOCK", size)
    for data in (TEXT[:600], TEXT[:599], b"\n\n" + TEXT[:50] + b"\n\n"):
        got = list(blocks(Stream(io.BytesIO(data), written(tmp_path / "x", data)), "x"))
        assert b"".join(got) == data
        assert all(block.endswith(b"\n") for block in got[:-1])


@pytest.mark.parametrize("size", [3, 20, 64])
def test_blocks_never_cut_a_quoted_text(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BLOCK", size)
    data = b'1,"one\ntwo ""2""\n\nthree"\n2,plain\n' * 9
    got = list(blocks(Stream(io.BytesIO(data), written(tmp_path / "x", data)), "x", quotes=True))
    assert b"".join(got) == data
    assert all(block.count(b'"') % 2 == 0 for block in got)
    assert len(got) > 3


def test_a_quote_that_never_closes_does_not_hold_up_the_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BLOCK", 64)
    monkeypatch.setattr(files, "MAX_LINE", 64)
    data = b'1,"open\n' + b"2,plain\n" * 99
    assert b"".join(blocks(Stream(io.BytesIO(data), written(tmp_path / "x", data)), "x", quotes=True)) == data


@pytest.mark.parametrize("piece", [1, 2, 10, 77, 10_000])
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_every_line_belongs_to_the_piece_it_begins_in(
    piece: int, end: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "PIECE", piece)
    monkeypatch.setattr(files, "BLOCK", 5)
    data = b"a\n\nbcdefghijklm\n" * 9 + b"last" + end
    path = written(tmp_path / "x", data)
    pieces = list(map(all_of, ranges(Part(path=path))))
    assert b"".join(pieces) == data
    assert all(text.endswith(b"\n") for text in list(filter(None, pieces))[:-1])


def test_only_plain_files_are_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PIECE", 10)
    for kind in ("gz", "zip"):
        (part,) = places(PACKED[kind](tmp_path))[-1:]
        assert ranges(part) == [part]
