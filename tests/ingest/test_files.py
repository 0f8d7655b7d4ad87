"""Whatever a dataset is packed in streams through whole, or stops with one line; nothing is ever extracted."""

import gzip
import io
import os
import tarfile
import zipfile

import pytest

from thinkrec.errors import UserError
from thinkrec.ingest.raw import Part
from thinkrec.ingest.readers import files
from thinkrec.ingest.readers.files import opened, places, plain_name, ranges
from thinkrec.ingest.readers.records import line_blocks

TEXT = b"".join(b"%d,line\n" % n for n in range(500))


def zipped(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(members, mode="w"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def write(path, data):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def read_all(part):
    with opened(part) as stream:
        return b"".join(iter(lambda: stream.read(1000), b""))


# By name: the file that is written and what is in it; the ratings are its a.csv.
PACKED = {
    "gz": ("a.csv.gz", gzip.compress(TEXT)),
    "zip": ("x.zip", zipped({"in/b.csv": b"other", "in/a.csv": TEXT})),
    "gz in zip": ("x.zip", zipped({"a.csv.gz": gzip.compress(TEXT)})),
    "tar": ("x.tar", tarred({"b.csv": b"other", "in/a.csv": TEXT})),
    "tar.gz": ("x.tar.gz", tarred({"in/a.csv": TEXT}, "w:gz")),
    "tgz": ("x.tgz", tarred({"in/a.csv": TEXT}, "w:gz")),
    "tar in zip": ("x.zip", zipped({"x/x.tar": tarred({"a.csv": TEXT})})),
    "tar.gz in zip": ("x.zip", zipped({"x.tar": tarred({"b": b"", "a.csv": TEXT}, "w:gz")})),
    "file": ("a.csv", TEXT),
    "folder": ("in/a.csv", TEXT),
}


@pytest.mark.parametrize("kind", PACKED)
def test_every_packing_gives_the_same_bytes_and_writes_nothing(kind, tmp_path):
    name, data = PACKED[kind]
    path = write(tmp_path / name, data)
    before = sorted(tmp_path.rglob("*"))
    for place in (path, tmp_path) if kind in ("file", "folder") else (path,):
        (ratings,) = [part for part in places(place) if plain_name(part) == "a.csv"]
        assert read_all(ratings) == TEXT
    assert sorted(tmp_path.rglob("*")) == before


def test_members_that_would_escape_are_read_and_never_written(tmp_path):
    outside = {"../a.csv": TEXT, "/b.csv": TEXT, "x/../../c.csv": TEXT}
    for path in (write(tmp_path / "x.zip", zipped(outside)), write(tmp_path / "x.tar", tarred(outside))):
        assert [read_all(part) for part in places(path)] == [TEXT] * 3
    assert {path.name for path in tmp_path.rglob("*")} == {"x.zip", "x.tar"}
    assert not (tmp_path.parent / "a.csv").exists()


def test_links_in_a_tar_are_no_files(tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        link = tarfile.TarInfo("a.csv")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    assert places(write(tmp_path / "x.tar", buffer.getvalue())) == []


def refuse(path):
    with pytest.raises(UserError) as stop:
        for part in places(path):
            read_all(part)
    assert str(stop.value).startswith(f"{path}: ")
    return str(stop.value)


@pytest.mark.parametrize("kind", ["gz", "zip", "tar.gz", "tar in zip", "tar.gz in zip", "tar"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_what_is_cut_short_stops_with_one_line(kind, share, tmp_path):
    name, data = PACKED[kind]
    if kind == "tar":
        share *= 0.3  # a tar ends with empty blocks that may be missing
    message = refuse(write(tmp_path / name, data[: int(len(data) * share)]))
    assert "not a whole" in message or "unexpected end" in message


@pytest.mark.parametrize("kind", ["gz", "zip", "tar.gz"])
def test_damage_within_stops_with_one_line(kind, tmp_path):
    name, data = PACKED[kind]
    middle = len(data) // 2
    flipped = bytes(byte ^ 0xFF for byte in data[middle : middle + 8])
    refuse(write(tmp_path / name, data[:middle] + flipped + data[middle + 8 :]))


def test_an_archive_that_unpacks_without_bound_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "ANY_SIZE", 1 << 16)
    zeros = bytes(1 << 22)
    for name, data in {
        "a.csv.gz": gzip.compress(zeros),
        "a.zip": zipped({"a.csv": zeros}),
        "a.tgz": tarred({"big": zeros, "a.csv": TEXT}, "w:gz"),  # in what is passed over, too
    }.items():
        assert "unpacks to over 200 times its size" in refuse(write(tmp_path / name, data))
    assert read_all(places(write(tmp_path / "honest.csv", zeros))[0]) == zeros


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.zip", b"<!DOCTYPE html><html>please accept our terms</html>", "not a zip file, though its name says so"),
        ("a.csv.gz", b"user,item\n", "not a gz file, though its name says so"),
        ("a.tar", b"", "not a tar file, though its name says so"),
        ("a.tar.bz2", b"BZh91AY&SY", "packed with bzip2, which is not read here; unpack it"),
        ("a.csv.zst", b"\x28\xb5\x2f\xfd\x00", "packed with zstd"),
        ("a.7z", b"7z\xbc\xaf\x27\x1c", "packed with 7-Zip"),
    ],
)
def test_what_is_no_archive_that_is_read_is_named(name, data, message, tmp_path):
    assert message in refuse(write(tmp_path / name, data))


def test_what_is_not_there_and_a_pipe_are_not_waited_for(tmp_path):
    assert "no such file or folder" in refuse(tmp_path / "absent")
    os.mkfifo(tmp_path / "r.csv")
    assert "neither a file nor a folder" in refuse(tmp_path / "r.csv")


@pytest.mark.parametrize("piece", [1, 10, 77, 10_000])
@pytest.mark.parametrize("block", [1, 5, 64])
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_every_line_is_in_one_block_of_the_piece_it_begins_in(piece, block, end, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PIECE", piece)
    monkeypatch.setattr(files, "BLOCK", block)
    data = b"a\n\nbcdefghijklm\n" * 9 + b"last" + end
    blocks = [text for part in ranges(Part(path=write(tmp_path / "x", data))) for text in line_blocks(part)]
    assert b"".join(blocks) == data
    assert all(text.endswith(b"\n") for text in blocks[:-1])


@pytest.mark.parametrize("size", [3, 20, 64])
@pytest.mark.parametrize("open_quote", [b"", b'1,"open\n'])
def test_blocks_never_cut_a_quoted_text_and_a_quote_that_never_closes_does_not_hold_them_up(
    size, open_quote, tmp_path, monkeypatch
):
    monkeypatch.setattr(files, "BLOCK", size)
    monkeypatch.setattr(files, "MAX_LINE", 64)
    data = open_quote + b'1,"one\ntwo ""2""\n\nthree"\n2,plain\n' * 9
    blocks = list(line_blocks(Part(path=write(tmp_path / "x", data)), quotes=True))
    assert b"".join(blocks) == data and len(blocks) > 3
    assert open_quote or all(block.count(b'"') % 2 == 0 for block in blocks)


@pytest.mark.parametrize("kind", ["gz", "zip"])
def test_only_plain_files_are_read_in_pieces(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PIECE", 10)
    (*_, part) = places(write(tmp_path / PACKED[kind][0], PACKED[kind][1]))
    assert ranges(part) == [part]
