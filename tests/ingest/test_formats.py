"""Each malformed row is named with its line and reason; the good rows around it stay."""

import json
import random

import pytest

from tests.ingest.whole import gather
from thinkrec.ingest.partitions import read_part
from thinkrec.ingest.raw import Part
from thinkrec.ingest.readers import files
from thinkrec.ingest.readers.delimited import QUOTE, Delimited
from thinkrec.ingest.readers.jsonlines import JsonLines
from thinkrec.ingest.readers.own import open_own
from thinkrec.ingest.readers.ratings import RatingFile, Scale
from thinkrec.params import ItemFile, RatingColumns

NAMES = {"user": "u", "item": "i", "rating": "r", "timestamp": "t"}
CSV = Delimited(delimiter=",")


def read(format, data, tmp_path, columns=NAMES):
    """All of a file as one chunk."""
    path = tmp_path / "ratings"
    path.write_bytes(data)
    file = RatingFile(format=format, columns=columns, scale=Scale(lowest=1, highest=5))
    return read_part(Part(path=path), read=file.read, max_bad_share=1.0)


def faults(chunk):
    return [(fault.row, fault.reason) for fault in chunk.faults]


def test_csv_faults_are_named_one_by_one(tmp_path):
    rows = [
        b"u,i,r,t,note",
        b"1,1,5,10,",  # 2
        b"1,2,5,10",
        b"1,2,five,10,",
        b"",
        b"\xff,2,5,10,",  # 6
        b"1,,5,10,",
        b'1,3,4,10,"two\nlines, ""quoted"""',  # 8 and 9
        b'1,4,4,10,"never closed',  # 10
        b"1,5,4,10,3 1/2 inches",
        b'1,6,4,10,"a"b',
        b'"1","7","4","10",""',  # 13
        b"1,8,9,10,",
    ]
    chunk = read(CSV, b"\n".join(rows), tmp_path)
    assert faults(chunk) == [
        (3, "not 5 fields separated by commas"),
        (4, "rating is not a number"),
        (6, "not UTF-8"),
        (7, "no item id"),
        (10, QUOTE),
        (12, QUOTE),
        (14, "rating is not within 1 and 5"),
    ]
    assert chunk.table["item_id"].to_pylist() == ["1", "3", "5", "7"]
    assert (chunk.rows, chunk.lines) == (11, 14)
    assert chunk.faults[2].text == "\ufffd,2,5,10,"


def test_json_faults_are_named_one_by_one(tmp_path):
    good = {"u": "a", "i": "b", "r": 5.0, "t": 10, "text": "x\u2028y\x85z"}
    rows = [
        json.dumps(good, ensure_ascii=False).encode(),
        b"null",
        b"[1]",
        b'{"u": "a"',
        b"",
        json.dumps({**good, "r": 7}).encode(),  # 6
        b'{"u": "\xff"}',
        b"[" * 100_000,
        json.dumps({**good, "u": "\ud800"}).encode(),
        b'{"u":"a","i":"b","r":NaN,"t":1} {"u":"a"}',  # 10
        json.dumps({**good, "u": None}).encode(),
        json.dumps({"i": "b"}).encode(),
        json.dumps({**good, "u": 7, "t": "2017-07-14 02:40:00"}).encode(),
    ]
    chunk = read(JsonLines(), b"\r\n".join(rows), tmp_path)
    assert faults(chunk) == [
        (2, "not a JSON object"),
        (3, "not a JSON object"),
        (4, "not JSON"),
        (6, "rating is not within 1 and 5"),
        (7, "not UTF-8"),
        (8, "not JSON"),
        (9, "user id is neither plain text nor a whole number"),
        (10, "not JSON"),
        (11, "no user id"),
        (12, "no user id"),
    ]
    assert chunk.table["user_id"].to_pylist() == ["a", "7"]
    assert chunk.table["timestamp"].to_pylist() == [10, 1_500_000_000]
    assert max(len(fault.text) for fault in chunk.faults) == 200


@pytest.mark.parametrize("quoted", [False, True])
def test_a_fault_costs_only_its_row_wherever_it_stands(quoted, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "BLOCK", 64)
    draw = random.Random(1)
    lines, bad = ["u,i,r,t"], []
    for n in range(400):
        faulty = draw.random() < 0.02
        bad += [len(lines) + 1] if faulty else []
        lines.append("broken" if faulty else f'{n},"a{n}",5,{n}' if quoted else f"{n},a{n},5,{n}")
    chunk = read(CSV, "\r\n".join(lines).encode(), tmp_path)
    assert [fault.row for fault in chunk.faults] == bad
    assert len(bad) > 3
    assert (chunk.rows, len(chunk.table), chunk.lines) == (400, 400 - len(bad), 401)
    assert chunk.table["item_id"].to_pylist() == [f"a{n}" for n in chunk.table["timestamp"].to_pylist()]


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path):
    assert len(read(CSV, b"\xef\xbb\xbfu,i,r,t\n1,2,3,4\n", tmp_path).table) == 1


def test_a_split_column_comes_along(tmp_path):
    columns = {**NAMES, "split": "s"}
    chunk = read(CSV, b"u,i,r,t,s\n1,2,3,4,train\n1,3,3,4,test\n", tmp_path, columns)
    assert chunk.table["split"].to_pylist() == ["train", "test"]
    slow = read(CSV, b"u,i,r,t,s\n1,2,3,4, train\n1,3,3,4,\nbroken\n", tmp_path, columns)
    assert slow.table["split"].to_pylist() == ["train", ""]
    assert slow.table.schema == chunk.table.schema


@pytest.mark.parametrize(
    ("written", "named", "text"),
    [
        ("utf-8-sig", "utf-8", "Café’s"),
        ("utf-16", "utf-8", "Café’s"),  # known by its first bytes
        ("cp1252", "cp1252", "Café’s"),
        ("shift_jis", "Shift_JIS", "もののけ姫"),
    ],
)
@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.json"])
def test_text_is_read_as_it_was_written(written, named, text, name, tmp_path):
    row = {"who": text, "what": "a", "stars": 5, "when": 3}
    table = {
        "t.csv": f"{','.join(row)}\n{text},a,5,3\n",
        "t.jsonl": json.dumps(row, ensure_ascii=False) + "\n",
        "t.json": json.dumps([row], ensure_ascii=False, indent=1),
    }
    (tmp_path / name).write_bytes(table[name].encode(written))
    columns = RatingColumns(user="who", item="what", rating="stars", timestamp="when", encoding=named)
    items = ItemFile(file=tmp_path / name, item="what", title="who", encoding=named)
    whole = gather(open_own(columns, items, tmp_path / name))
    assert whole.ratings["user_id"].tolist() == whole.items["title"].tolist() == [text]


@pytest.mark.parametrize("name", ["cp-1", "rot13", "utf-16", "base64"])
def test_what_is_no_encoding_of_lines_is_refused(name):
    with pytest.raises(ValueError, match="should name an encoding of text, such as cp1252"):
        ItemFile(file="i.csv", item="id", encoding=name)
