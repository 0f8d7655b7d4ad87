"""Ratings of one's own: a mapping of columns is enough, in any of the formats, and what is wrong is one line."""

import gzip
import json
import multiprocessing
import zipfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from tests.ingest.whole import gather
from tests.project import dataset_params
from thinkrec.errors import UserError
from thinkrec.ingest.catalogue import choose_dataset
from thinkrec.ingest.dataset import ingest

COLUMNS = {"user": "who", "item": "what", "rating": "stars", "timestamp": "when"}
LABELS = {"user": "who", "item": "what", "label": "liked", "timestamp": "when"}
TABLE = pd.DataFrame(
    {"who": [7, 7, 12], "what": ["a", "b", "a"], "stars": [4.5, 1.0, 3.0], "when": [1_500_000_000, 3, 4], "more": "x"}
)
READ = [["7", "a", 4.5, 1_500_000_000], ["7", "b", 1.0, 3], ["12", "a", 3.0, 4]]
ITEMS = pd.DataFrame(
    {
        "id": ["a", "b", "b", "c", ""],
        "name": ["<i>One</i>", "NULL", "again", "unrated", "nobody"],
        "made": [1999, None, 3, 4, 5],
        "kinds": ["Drama|War, civil", "x; y", "", "", ""],
        "plot": ["A plot.", "", "", "", ""],
        "tagline": ["A line.", "Other", "", "", ""],
    }
)
ABOUT = {"item": "id", "title": "name", "year": "made", "categories": "kinds", "description": ["tagline", "plot"]}


def save(table, path):
    """Write a table in the format of the path's ending."""
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    match plain.suffix.lower():
        case ".csv":
            table.to_csv(plain, index=False)
        case ".tsv":
            table.to_csv(plain, index=False, sep="\t")
        case ".parquet":
            table.to_parquet(plain, row_group_size=2)
        case _:
            table.to_json(plain, orient="records", lines=True, date_format="iso")
    if plain != path:
        path.write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    return path


def own(raw, columns=COLUMNS, **changes):
    threshold = None if columns and "label" in columns else 3
    return dataset_params(raw=raw, columns=columns, **{"name": "own", "threshold": threshold, **changes})


def open_source(params):
    return choose_dataset(params).source(params.raw)


def read(raw, **changes):
    return gather(open_source(own(raw, **changes)))


@pytest.mark.parametrize(
    "name", ["r.csv", "r.tsv", "r.jsonl", "r.json", "r.parquet", "R.CSV", "r.csv.gz", "r.jsonl.gz"]
)
def test_every_format_reads_the_same(name, tmp_path):
    whole = read(save(TABLE, tmp_path / name))
    assert whole.rating_rows() == READ
    assert (whole.rows, len(whole.quarantine), len(whole.items)) == (3, 0, 0)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("five,7", "That line: a,b,five,7"),
        ("5,2020-01-01", "the ratings are of 2020-01-01 to"),
        (
            "5,2020-01-01\na,c,4,2020-02-01\na,d,1,2020-03-01",
            "all 1 ratings of train are liked .liked: over 3.0., which",
        ),
    ],
)
def test_a_message_shows_what_was_read(rows, message, tmp_path):
    (tmp_path / "r.csv").write_text(f"who,what,stars,when\na,b,{rows}\n")
    with pytest.raises(UserError, match=message):
        ingest(own(tmp_path / "r.csv", windows={"months": [1, 1, 1]}))


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_what_sets_the_fields_apart_follows_from_the_first_line(mark, tmp_path):
    TABLE.assign(more="1,2,3,4,5").to_csv(tmp_path / "r.csv", index=False, sep=mark)
    (tmp_path / "i.csv").write_text(f"id{mark}  name\na{mark}Title, The\n")
    whole = read(tmp_path / "r.csv", items={"file": tmp_path / "i.csv", "item": "id", "title": "name"})
    assert whole.rating_rows() == READ
    assert whole.items["title"].tolist() == ["Title, The"]


def test_ones_own_data_may_have_a_name(tmp_path):
    params = own(save(TABLE, tmp_path / "r.csv"), COLUMNS, name="own:films-2")
    assert (choose_dataset(params).name, gather(open_source(params)).rows) == ("own:films-2", len(TABLE))


def test_a_column_has_one_meaning():
    with pytest.raises(ValueError, match=r"should name each column once \(they are who, who, stars, when\)"):
        own(None, {**COLUMNS, "item": "who"})


@pytest.mark.parametrize("name", ["r.csv", "r.jsonl", "r.parquet"])
def test_labels_are_taken_as_they_are(name, tmp_path):
    params = own(save(TABLE.assign(liked=[True, False, True]), tmp_path / name), LABELS)
    liked = gather(open_source(params)).ratings["rating"] > choose_dataset(params).threshold
    assert liked.tolist() == [True, False, True]


def test_a_folder_of_files_is_read_in_the_order_of_their_names_without_the_metadata_beside_them(tmp_path):
    for name, rows in (("b.csv", TABLE[1:]), ("a.csv", TABLE[:1])):
        save(rows, tmp_path / name)
    with (tmp_path / "b.csv").open("a") as file:
        file.write("broken\n")
    (tmp_path / "README.txt").write_text("notes")
    whole = read(tmp_path, items={"file": save(ITEMS, tmp_path / "i.csv"), **ABOUT})
    assert whole.rating_rows() == READ
    assert whole.quarantine[["file", "row"]].to_numpy().tolist() == [["b.csv", 4], ["i.csv", 6]]


def count_rows(read, part):
    return sum(len(chunk.table) for chunk in read(part))


def test_a_parquet_files_row_groups_are_parts_that_other_processes_can_read(tmp_path):
    source = open_source(own(save(TABLE.assign(stars=[4.5, None, 3.0]), tmp_path / "r.parquet")))
    assert len(source.parts) == 2
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as another:
        assert list(another.map(partial(count_rows, source.read), source.parts)) == [1, 1]
    quarantine = gather(source).quarantine
    assert quarantine[["row", "reason"]].to_numpy().tolist() == [[2, "rating is not a number"]]
    assert json.loads(quarantine["text"][0])["what"] == "b"


def test_json_objects_may_leave_out_what_others_hold(tmp_path):
    lines = ['{"who": 1, "what": 2, "when": 3}', '{"who": 1, "what": 2, "stars": 4, "when": 3}']
    (tmp_path / "r.jsonl").write_text("\n".join(lines))
    whole = read(tmp_path / "r.jsonl")
    assert (whole.quarantine["reason"].tolist(), len(whole.ratings)) == (["rating is not a number"], 1)


@pytest.mark.parametrize("name", ["i.csv", "i.jsonl", "i.parquet"])
def test_metadata_of_ones_own_is_mapped_joined_and_cleaned(name, tmp_path):
    path = save(ITEMS, tmp_path / name)
    items = open_source(own(save(TABLE, tmp_path / "r.tsv"), items={"file": path, **ABOUT})).items({"a", "b"})
    assert items.table["item_id"].tolist() == ["a", "b"]
    assert items.table["title"].tolist() == ["One", ""]
    assert items.table["year"].tolist() == [1999, pd.NA]
    assert items.table["categories"].tolist() == [["Drama", "War, civil"], ["x", "y"]]
    assert items.table["description"].tolist() == ["A line. A plot.", "Other"]
    assert (items.duplicated, items.repaired) == (1, {"markup": 1})
    assert [(fault.row, fault.reason) for fault in items.faults] == [(6 if name == "i.csv" else 5, "no item id")]


@pytest.mark.parametrize(
    ("released", "year"), [("1999", 1999), ("1999.0", 1999), ("1999-05-03", 1999), ("3/5/1999", pd.NA)]
)
def test_a_year_may_be_a_date_and_whole_ids_join_to_whole_ids(released, year, tmp_path):
    items = save(pd.DataFrame({"id": [2.0], "released": [released]}), tmp_path / "i.parquet")
    about = {"file": items, "item": "id", "year": "released", "description": "released"}
    whole = read(save(TABLE.assign(what=[1, 2, 1]), tmp_path / "r.csv"), items=about)
    assert whole.items[["item_id", "year", "description"]].to_numpy().tolist() == [["2", year, released]]


@pytest.mark.parametrize(
    ("kinds", "categories"),
    [
        ("['Sea tale', \"Pirate's life\"]", ["Sea tale", "Pirate's life"]),
        ('["Sea tale", null]', ["Sea tale"]),
        ("['Sea tale'\n 'War, civil']", ["Sea tale", "War, civil"]),
        ("[{'id': 4, 'name': 'Sea tale'}, {'id': 5, 'name': 'War'}]", ["Sea tale", "War"]),
        ("['Sea tale', nan]", ["Sea tale"]),
        ("[Sea tale, War]", ["Sea tale", "War"]),
        ("[]", []),
        ("[Sea] tale; War", ["[Sea] tale", "War"]),
    ],
)
def test_a_list_is_read_as_programs_write_it(kinds, categories, tmp_path):
    raw, about = save(TABLE, tmp_path / "r.csv"), {"item": "id", "categories": "kinds"}
    for name in ("i.csv", "i.jsonl"):
        file = save(pd.DataFrame({"id": ["a"], "kinds": [kinds]}), tmp_path / name)
        assert read(raw, items={"file": file, **about}).items["categories"].tolist() == [categories]
    (tmp_path / "o.jsonl").write_text('{"id": "a", "kinds": [{"name": "Sea tale"}, {"name": null}]}')
    whole = read(raw, items={"file": tmp_path / "o.jsonl", **about})
    assert whole.items["categories"].tolist() == [["Sea tale"]]


def test_splits_of_ones_own_follow_the_column_and_else_shares_of_time(tmp_path):
    path = save(TABLE.assign(part=["train", "valid", "test"]), tmp_path / "r.csv")
    assert choose_dataset(own(path)).windows == {"shares": [0.8, 0.1, 0.1]}
    with_column = own(path, {**COLUMNS, "split": "part"})
    assert choose_dataset(with_column).windows == "column"
    assert gather(open_source(with_column)).ratings["split"].tolist() == ["train", "valid", "test"]


def refuse(params):
    with pytest.raises(UserError) as stop:
        gather(open_source(params))
    return str(stop.value)


@pytest.mark.parametrize("name", ["r.csv", "r.tsv", "r.jsonl", "r.parquet"])
def test_an_unknown_column_is_named_with_the_nearest_and_those_there_are(name, tmp_path):
    path = save(TABLE, tmp_path / name)
    assert refuse(own(path, {**COLUMNS, "rating": "star"})) == (
        f"dataset.columns.rating: no column 'star' in {path}; did you mean 'stars'? Found: who, what, stars, when, more"
    )
    assert refuse(own(path, LABELS)).startswith("dataset.columns.label: no column 'liked'")
    about = {"file": save(ITEMS, tmp_path / "i.csv"), **ABOUT, "description": ["plot", "tag"]}
    assert "dataset.items.description.1: no column 'tag'" in refuse(own(path, items=about))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("r.xlsx", b"PK\x05\x06" + bytes(18), "no .csv, .tsv, .jsonl, .json, .parquet file"),
        ("empty.csv", b"", "empty.csv: its first line is empty; it should name the columns"),
        ("old.csv", b"who,what,stars,when\r1,2,3,4\r", "no lines of text; save it as UTF-8, with LF or CRLF"),
        ("coloured.csv", b"\x1b[31mred\x07\n", r"coloured.csv; Found: \x1b[31mred\x07"),
        ("header.csv", b"who,what,stars,when\n", "holds no ratings"),
        ("twice.csv", b"who,what,stars,when,who\n1,2,3,4,5\n", "has two columns 'who'; rename one of them"),
        ("text.parquet", b"who,what\n", "not a readable parquet file"),
    ],
)
def test_a_file_that_cannot_be_read_stops_with_one_line(name, data, message, tmp_path):
    (tmp_path / name).write_bytes(data)
    assert message in refuse(own(tmp_path / name))


def test_a_folder_of_two_formats_stops_with_one_line(tmp_path):
    for name in ("a.csv", "r.parquet"):
        save(TABLE, tmp_path / name)
    assert "holds 2 files (a.csv, r.parquet); name the one that is meant" in refuse(own(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"raw": None}, "dataset.raw: own is read from a file or folder; pass -S dataset.raw=PATH"),
        ({"raw": "absent.csv"}, "no such file or folder"),
        ({"raw": f"{'x' * 300}.csv"}, "cannot read it (File name too long)"),
        ({"columns": None}, "dataset.columns: say which columns of your files are which"),
        ({"threshold": None}, "dataset.threshold: say above which value of 'stars' a rating counts as liked"),
        ({"windows": "column"}, "dataset.windows: column needs the name of the column"),
        ({"windows": {"weeks": [1, 2, 3]}}, "dataset.windows: no rule has the keys weeks"),
        ({"items": {"file": "no.csv", "item": "id"}}, "no.csv: no such file or folder; set dataset.items.file to"),
        ({"name": "synthetic", "columns": None}, "dataset.raw: synthetic is generated and reads no file; name the"),
        ({"name": "ml-1m"}, "dataset.columns: ml-1m has its own; set it to null, or dataset.name to own"),
    ],
)
def test_parameters_that_do_not_belong_together_stop_with_one_line(changes, message, tmp_path):
    settings = {"name": "own", "raw": save(TABLE, tmp_path / "r.csv"), "columns": COLUMNS, "threshold": 3}
    assert message in refuse(dataset_params(**{**settings, **changes}))


PLAIN = {"item": "id", "title": "name"}


def metadata(data, folder, *, name="i.csv", **changes):
    """Ratings of the items a and b, with a file of metadata."""
    (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    raw = folder / "r.csv"
    rows = [
        f"{user},{item},{1 + 4 * (item == 'a')},{1_500_000_000 + at}"
        for at in range(10)
        for user, item in [(at, "a"), (at, "b")]
    ]
    raw.write_text("\n".join(["who,what,stars,when", *rows]))
    return own(raw, items={"file": folder / name, **PLAIN}, **changes)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            "id,name\na,Caf\u00e9\nb,Two\n".encode("cp1252"),
            r"i.csv: 1 of 2 item rows are malformed .* line 2: not UTF-8; save it .* encoding: cp1252 ",
        ),
        ("id,name\na\nb,Two\n", r"1 of 2 item rows are malformed .* not 2 fields"),
        ("id,name\n", "the metadata: holds no items; is it the file"),
        ("id,name\nx1,One\nx2,Two\n", "2 of 2 rated items, such as 'a', are in none .* whose ids are such as 'x2'"),
    ],
)
def test_metadata_that_cannot_be_read_or_joined_stop(data, message, tmp_path):
    with pytest.raises(UserError, match=message):
        ingest(metadata(data, tmp_path))


def test_metadata_within_the_share_are_kept_as_well_as_they_can_be_read(tmp_path):
    ingested = ingest(metadata("id,name\na,Caf\u00e9\nb,Two\n".encode("cp1252"), tmp_path, max_bad_share=0.5))
    assert ingested.items["title"].tolist() == ["Caf", "Two"]
    assert ingested.quarantine["reason"].tolist() == ["not UTF-8"]


def test_what_is_doubtful_is_said(tmp_path, capsys):
    params = metadata("id,name\na,One\n", tmp_path)
    with (tmp_path / "r.csv").open("a") as file:
        file.write("\n1,c,5,1500000003\n2.5E+15,a,5,1500000003")
    ingest(params)
    warnings = capsys.readouterr().err
    assert "2 of 3 rated items, such as 'b', are in none of the 1 rows of metadata" in warnings
    assert "1 ids, such as '2.5E+15', are numbers that a program has rounded" in warnings
    text = '{"id": "a", "name": {"en": "One"}}\n{"id": "b", "name": null}'
    params = metadata(text, tmp_path, name="i.jsonl")
    floats = pd.DataFrame({"who": [9e16], "what": "a", "stars": 5, "when": 1_500_000_003})
    pd.concat([pd.read_csv(params.raw), floats]).to_csv(params.raw, index=False)
    ingest(params)
    warnings = capsys.readouterr().err
    assert "2 of 2 items in the metadata have no title there; see that dataset.items.title names" in warnings
    assert "1 ids, such as '9e+16', are numbers that a program has rounded" in warnings
    days = pd.DataFrame({"who": 1, "what": range(20), "stars": [1, 5] * 10, "when": range(43_800, 43_820)})
    ingest(own(save(days, tmp_path / "r.csv")))
    assert "the ratings are of 1970-01-01 to 1970-01-01; is that so?" in capsys.readouterr().err


def test_a_long_description_in_quotes_is_one_field(tmp_path):
    text = "x, " * 60_000
    items = open_source(metadata(f'id,name\na,"One, {text}"\nb,Two\n', tmp_path)).items({"a", "b"})
    assert (items.table["item_id"].tolist(), items.faults) == (["a", "b"], [])


@pytest.mark.parametrize("indent", [None, 2])
def test_one_json_array_is_its_objects(indent, tmp_path):
    objects = [{"id": "a", "name": "One"}, 7, {"id": "b", "name": "Two"}]
    items = open_source(metadata("\ufeff " + json.dumps(objects, indent=indent), tmp_path, name="i.json")).items(
        {"a", "b"}
    )
    assert items.table["title"].tolist() == ["One", "Two"]
    assert [(fault.row, fault.reason) for fault in items.faults] == [(2, "not a JSON object")]


def test_titles_may_stand_beside_the_ratings(tmp_path):
    raw = save(TABLE.assign(name=["One", "Two", "One"]), tmp_path / "r.csv")
    whole = read(raw, items={"file": raw, "item": "what", "title": "name"})
    assert (whole.rating_rows(), whole.items["title"].tolist()) == (READ, ["One", "Two"])


@pytest.mark.parametrize("packed", [True, False])
def test_what_a_mac_or_an_office_puts_beside_a_file_is_not_read(packed, tmp_path):
    files = {
        "e/r.csv": save(TABLE, tmp_path / "r.csv").read_bytes(),
        "e/._r.csv": b"\0\5",
        "e/.DS_Store": b"\0",
        "e/~$r.csv": b"\0",
    }
    files["__MACOSX/._r.csv"] = b"\0\5"
    with zipfile.ZipFile(tmp_path / "r.zip", "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    if not packed:
        zipfile.ZipFile(tmp_path / "r.zip").extractall(tmp_path / "raw")
    assert read(tmp_path / ("r.zip" if packed else "raw")).rating_rows() == READ


def test_a_home_is_known_in_every_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    metadata("id,name\na,One\nb,Two\n", tmp_path)
    params = own(Path("~/r.csv"), items={"file": "~/i.csv", **PLAIN})
    assert ingest(params).items["title"].tolist() == ["One", "Two"]


def test_a_split_of_one_class_says_what_cannot_be_measured(tmp_path, capsys):
    stars = [1, 5] * 40 + [5] * 20
    rows = pd.DataFrame({"who": 1, "what": range(100), "stars": stars, "when": range(1_500_000_000, 1_500_000_100)})
    ingest(own(save(rows, tmp_path / "r.csv")))
    lines = capsys.readouterr().err.splitlines()
    assert lines.pop().startswith("ingest: the test split has only 1 users")
    assert lines == [
        f"dataset own: all 10 ratings of {split} are liked (liked: over 3.0), which leaves no AUC nor UAUC to {rest}"
        for split, rest in (("valid", "measure; epochs are chosen by log-loss"), ("test", "measure"))
    ]


@pytest.mark.parametrize("test_users", [35, 5])
def test_a_test_split_of_few_users_is_said(test_users, tmp_path, capsys):
    rows = [
        (f"u{user}", f"i{item}", item % 2, 1_500_000_000 + 10 * item + user)
        for user in range(35)
        for item in range(20 if user < test_users else 15)
    ]
    ingest(own(save(pd.DataFrame(rows, columns=list(LABELS.values())), tmp_path / "r.csv"), LABELS))
    assert (f"the test split has only {test_users} users" in capsys.readouterr().err) is (test_users < 30)
