"""MovieLens files are read as published; what cannot be read is set aside with its line and the reason."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.ingest.whole import Whole, gather
from thinkrec.errors import UserError
from thinkrec.ingest.readers import files
from thinkrec.ingest.readers.movielens import ML_1M, ML_100K, ML_CSV, split_title
from thinkrec.ingest.readers.published import Release, open_release
from thinkrec.ingest.readers.rows import NEITHER

RATINGS = "1::10::5::991353600\n1::2::3::991353600\n2::10::1::1017619200\n"
MOVIES = "10::Matrix, The (1999)::Action|Sci-Fi\n2::Mis\xe9rables, Les (1995)::Drama\n"


def read_movielens(path: Path, release: Release = ML_1M) -> Whole:
    return gather(open_release(release, path))


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
        assert raw.rating_rows() == [
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
        ("1::2::3", "not 4 fields separated by ::"),
        ("::2::3::9", "no user id"),
        ("1::2::good::9", "rating is not a number"),
        ("1::2::0::9", "rating is not within 0.5 and 5.0"),
        ("1::2::3::9,5", NEITHER),
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
        ("3::No Genres (1990)", "not 3 fields separated by ::"),
        ("::Nameless (1990)::Drama", "no item id"),
        ("3::::Drama", "no title"),
    ],
)
def test_malformed_metadata_is_set_aside_too(dataset: Callable[..., Path], line: str, reason: str) -> None:
    raw = read_movielens(dataset(movies=f"{MOVIES}{line}\n"))
    assert raw.quarantine.to_numpy().tolist() == [["movies.dat", 3, reason, line]]
    assert (raw.bad_rows, len(raw.items)) == (0, 2)


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


def test_a_missing_file_stops_with_one_line(dataset: Callable[..., Path], tmp_path: Path) -> None:
    half = zipped(dataset(), tmp_path / "half.zip", ("ratings.dat",))
    (tmp_path / "empty").mkdir()
    for path, fault in ((half, "no movies.dat"), (tmp_path / "empty", "no ratings.dat")):
        with pytest.raises(UserError, match=f"^{path}: {fault}.*$"):
            read_movielens(path)
    with pytest.raises(UserError, match="holds no ratings"):
        read_movielens(dataset(ratings="\n"))


def test_a_file_without_line_ends_is_not_read_to_its_end(
    dataset: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BLOCK", 64)
    monkeypatch.setattr(files, "MAX_LINE", 256)
    with pytest.raises(UserError, match="line 1 is over 256 bytes"):
        read_movielens(dataset("0" * 10_000))


def test_ml_100k_is_read_as_published(tmp_path: Path) -> None:
    (tmp_path / "u.data").write_text("196\t242\t3\t881250949\n186\t302\t3\t891717742\n", encoding="latin-1")
    flags = ["0"] * 19
    flags[5] = flags[14] = "1"  # Comedy, Romance
    movies = [
        f"242|Kolya (1996)|24-Jan-1997||http://us.imdb.com/M/title-exact?Kolya%20(1996)|{'|'.join(flags)}",
        f"302|L\xe9on, The (1994)|01-Jan-1994||http://x|{'|'.join(['1'] + ['0'] * 18)}",  # genre: unknown
    ]
    (tmp_path / "u.item").write_text("\n".join(movies) + "\n", encoding="latin-1")
    raw = read_movielens(tmp_path, ML_100K)
    assert raw.rating_rows() == [
        ["196", "242", 3.0, 881250949],
        ["186", "302", 3.0, 891717742],
    ]
    assert raw.items["title"].tolist() == ["Kolya", "The L\xe9on"]
    assert raw.items["year"].tolist() == [1996, 1994]
    assert raw.items["categories"].tolist() == [["Comedy", "Romance"], []]
    assert (raw.rows, raw.bad_rows, len(raw.quarantine)) == (2, 0, 0)


CSV_RATINGS = "userId,movieId,rating,timestamp\n1,296,5.0,1147880044\n2,306,3.5,1147868817\n"
CSV_MOVIES = (
    "movieId,title,genres\n296,Pulp Fiction (1994),Comedy|Crime\n"
    '306,"Trois, ""Couleurs"": rouge (1994)",(no genres listed)\n'
)


def write_csv(folder: Path, ratings: str = CSV_RATINGS) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "ratings.csv").write_text(ratings, encoding="utf-8")
    (folder / "movies.csv").write_text(CSV_MOVIES, encoding="utf-8")
    return folder


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_ml_20m_and_later_are_read_as_published(tmp_path: Path, line_end: str) -> None:
    folder = write_csv(tmp_path / "ml-25m", CSV_RATINGS.replace("\n", line_end))
    for place in (folder, zipped(folder, tmp_path / "ml-25m.zip", ("ratings.csv", "movies.csv"))):
        raw = read_movielens(place, ML_CSV)
        assert raw.rating_rows() == [
            ["1", "296", 5.0, 1147880044],
            ["2", "306", 3.5, 1147868817],
        ]
        assert raw.items["title"].tolist() == ["Pulp Fiction", 'Trois, "Couleurs": rouge']
        assert raw.items["categories"].tolist() == [["Comedy", "Crime"], []]
        assert (raw.rows, raw.bad_rows) == (2, 0)


def test_faults_count_lines_from_the_files_beginning_also_where_it_is_read_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = "".join(f"{n},{n},{'five' if n % 7 == 0 else 5},{n}\n" for n in range(1, 60))
    folder = write_csv(tmp_path / "ml-25m", CSV_RATINGS + rows)
    whole = read_movielens(folder, ML_CSV)
    monkeypatch.setattr(files, "PIECE", 100)
    monkeypatch.setattr(files, "BLOCK", 31)
    source = open_release(ML_CSV, folder)
    assert len(source.parts) > 4
    pieces = gather(source)
    assert pieces.quarantine.equals(whole.quarantine)
    assert whole.quarantine["row"].tolist() == [n + 3 for n in range(7, 60, 7)]
    assert pieces.ratings["timestamp"].tolist() == whole.ratings["timestamp"].tolist()
    assert pieces.rows == whole.rows == 61


def test_another_releases_file_is_told_by_its_columns(tmp_path: Path) -> None:
    folder = write_csv(tmp_path / "ml-25m", CSV_RATINGS.replace("userId", "user"))
    with pytest.raises(UserError, match=r"no column 'userId' in .*ratings.csv; did you mean 'user'\? Found: user, mov"):
        open_release(ML_CSV, folder)
