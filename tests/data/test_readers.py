"""MovieLens files are read as published; what cannot be read is set aside with its line and the reason."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from thinkrec.data import readers
from thinkrec.data.readers import read_movielens, split_title
from thinkrec.errors import UserError

RATINGS = "1::10::5::991353600\n1::2::3::991353600\n2::10::1::1017619200\n"
MOVIES = "10::Matrix, The (1999)::Action|Sci-Fi\n2::Mis\xe9rables, Les (1995)::Drama\n"


@pytest.fixture
def dataset(tmp_path: Path) -> Callable[..., Path]:
    def make(ratings: str = RATINGS, movies: str = MOVIES) -> Path:
        folder = tmp_path / "ml-1m"
        folder.mkdir(exist_ok=True)
        (folder / "ratings.dat").write_bytes(ratings.encode("latin-1"))
        (folder / "movies.dat").write_bytes(movies.encode("latin-1"))
        return folder

    return make


def zipped(folder: Path, to: Path, names: tuple[str, ...] = ("ratings.dat", "movies.dat")) -> Path:
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.write(folder / name, f"ml-1m/{name}")
    return to


def test_zip_folder_parent_and_ratings_file_read_the_same(dataset: Callable[..., Path], tmp_path: Path) -> None:
    folder = dataset()
    places = (zipped(folder, tmp_path / "ml-1m.zip"), folder, tmp_path, folder / "ratings.dat")
    for raw in map(read_movielens, places):
        assert raw.ratings.astype({"user_id": str, "item_id": str}).to_numpy().tolist() == [
            ["1", "10", 5.0, 991353600],
            ["1", "2", 3.0, 991353600],
            ["2", "10", 1.0, 1017619200],
        ]
        assert raw.items["title"].tolist() == ["The Matrix", "Mis\xe9rables, Les"]
        assert raw.items["year"].tolist() == [1999, 1995]
        assert raw.items["categories"].tolist() == [["Action", "Sci-Fi"], ["Drama"]]
        assert (raw.rows, raw.bad_rows, len(raw.quarantine)) == (3, 0, 0)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1::2::3", "not four fields separated by ::"),
        ("1::2::3::4::5", "not four fields separated by ::"),
        ("<html>", "not four fields separated by ::"),
        ("::2::3::9", "no user id"),
        ("1:: ::3::9", "no item id"),
        ("1::2::good::9", "rating is not a number"),
        ("1::2::nan::9", "rating is not a number"),
        ("1::2::::9", "rating is not a number"),
        ("1::2::0::9", "rating is not within 0.5 and 5.0"),
        ("1::2::5.5::9", "rating is not within 0.5 and 5.0"),
        ("1::2::-1::9", "rating is not within 0.5 and 5.0"),
        ("1::2::3::-9", "time is negative"),
        ("1::2::3::2001-06-01", "time is not whole seconds"),
        ("1::2::3::9.5", "time is not whole seconds"),
        ("1::2::3::", "time is not whole seconds"),
    ],
)
def test_a_malformed_rating_is_set_aside_with_file_line_and_reason(
    dataset: Callable[..., Path], line: str, reason: str
) -> None:
    first, rest = RATINGS.split("\n", 1)
    raw = read_movielens(dataset(f"{first}\n\n{line}\n{rest}"))  # a blank line counts as a line, not as a row
    assert raw.quarantine.to_numpy().tolist() == [["ratings.dat", 3, reason, line.strip()]]
    assert (raw.rows, raw.bad_rows, len(raw.ratings)) == (4, 1, 3)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("3::No Genres (1990)", "not three fields separated by ::"),
        ("::Nameless (1990)::Drama", "no item id"),
        ("3::::Drama", "no title"),
    ],
)
def test_malformed_metadata_is_set_aside_too(dataset: Callable[..., Path], line: str, reason: str) -> None:
    raw = read_movielens(dataset(movies=f"{MOVIES}{line}\n"))
    assert raw.quarantine.to_numpy().tolist() == [["movies.dat", 3, reason, line]]
    assert (raw.bad_rows, len(raw.items)) == (0, 2)


def test_chunk_borders_change_nothing(dataset: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    text = "".join(f"{n % 7}::{n % 11}::{1 + n % 5}::{n}\r\n" if n % 10 else "broken\r\n" for n in range(1, 200))
    folder = dataset(text.rstrip())  # no newline at the end
    whole = read_movielens(folder)
    monkeypatch.setattr(readers, "CHUNK", 13)
    pieces = read_movielens(folder)
    assert pieces.quarantine.equals(whole.quarantine)
    assert whole.quarantine["row"].tolist() == list(range(10, 200, 10))
    assert pieces.ratings.astype({"user_id": str, "item_id": str}).equals(
        whole.ratings.astype({"user_id": str, "item_id": str})
    )
    assert whole.rows == pieces.rows == 199


def test_quarantined_text_is_cut(dataset: Callable[..., Path]) -> None:
    assert len(read_movielens(dataset(RATINGS + "x" * 5000)).quarantine["text"][0]) == 200


@pytest.mark.parametrize(
    ("text", "title", "year"),
    [
        ("Heat (1995)", "Heat", 1995),
        ("American President, The (1995)", "The American President", 1995),
        ("Confessional, The (Le Confessionnal) (1995)", "The Confessional (Le Confessionnal)", 1995),
        ("Bug's Life, A (1998)", "A Bug's Life", 1998),
        ("Untitled", "Untitled", None),
        ("1984", "1984", None),
    ],
)
def test_titles_lose_their_year_and_get_their_article_back(text: str, title: str, year: int | None) -> None:
    assert split_title(text) == (title, year)


def refused(path: Path) -> str:
    with pytest.raises(UserError) as stop:
        read_movielens(path)
    assert "\n" not in str(stop.value)
    assert str(path) in str(stop.value)
    return str(stop.value)


def test_a_missing_or_broken_source_stops_with_one_line(dataset: Callable[..., Path], tmp_path: Path) -> None:
    folder = dataset()
    whole = zipped(folder, tmp_path / "whole.zip").read_bytes()
    assert "no such file" in refused(tmp_path / "absent.zip")
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    assert "not a whole zip archive" in refused(tmp_path / "cut.zip")
    damaged = bytearray(whole)
    damaged[50] ^= 0xFF  # within the first member's data
    (tmp_path / "damaged.zip").write_bytes(bytes(damaged))
    refused(tmp_path / "damaged.zip")
    assert "no movies.dat" in refused(zipped(folder, tmp_path / "half.zip", ("ratings.dat",)))
    (tmp_path / "empty").mkdir()
    assert "no ratings.dat" in refused(tmp_path / "empty")
    assert "holds no ratings" in refused(dataset(ratings="\n"))


def test_a_file_without_line_ends_is_not_read_to_its_end(
    dataset: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "CHUNK", 64)
    monkeypatch.setattr(readers, "MAX_LINE", 256)
    with pytest.raises(UserError, match="line 1 is over 256 bytes"):
        read_movielens(dataset("0" * 10_000))


def test_a_member_with_an_escaping_path_writes_nothing(dataset: Callable[..., Path], tmp_path: Path) -> None:
    folder = dataset()
    before = sorted(tmp_path.rglob("*"))
    with zipfile.ZipFile(tmp_path / "slip.zip", "w") as archive:
        archive.write(folder / "ratings.dat", "../../ratings.dat")
        archive.write(folder / "movies.dat", "/movies.dat")
    assert len(read_movielens(tmp_path / "slip.zip").ratings) == 3
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "slip.zip"])
