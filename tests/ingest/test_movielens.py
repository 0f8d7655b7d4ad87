"""MovieLens files are read as published; what cannot be read is set aside with its line and the reason."""

import zipfile

import pytest

from tests.ingest.whole import gather
from thinkrec.errors import UserError
from thinkrec.ingest.readers import files
from thinkrec.ingest.readers.movielens import ML_1M, ML_10M, ML_100K, ML_CSV, split_title
from thinkrec.ingest.readers.published import open_release

RATINGS = "1::10::5::991353600\n1::2::3::991353600\n2::10::1::1017619200\n"
MOVIES = "10::Matrix, The (1999)::Action|Sci-Fi\n2::Mis\xe9rables, Les (1995)::Drama\n"
RATINGS_CSV = "userId,movieId,rating,timestamp\n1,296,5.0,1147880044\n2,306,3.5,1147868817\n"
MOVIES_CSV = (
    "movieId,title,genres\n296,Pulp Fiction (1994),Comedy|Crime\n"
    '306,"Trois, ""Couleurs"": rouge (1994)",(no genres listed)\n'
)
FLAGS = ["0"] * 5 + ["1"] + ["0"] * 8 + ["1"] + ["0"] * 4  # Comedy, Romance
ITEMS_100K = (
    f"242|Kolya (1996)|24-Jan-1997||http://us.imdb.com/M/title-exact?Kolya%20(1996)|{'|'.join(FLAGS)}\n"
    f"302|L\xe9on, The (1994)|01-Jan-1994||http://x|{'|'.join(['1'] + ['0'] * 18)}\n"  # genre: unknown
)


def write(folder, release, ratings=RATINGS, movies=MOVIES):
    folder.mkdir(exist_ok=True)
    for name, text in ((next(iter(release.ratings)), ratings), (release.items, movies)):
        (folder / name).write_bytes(text.encode(release.encoding))
    return folder


def zipped(folder, *names):
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.write(folder / name, f"{folder.name}/{name}")
    return path


def test_zip_folder_parent_and_ratings_file_read_the_same(tmp_path):
    folder = write(tmp_path / "ml-1m", ML_1M)
    for place in (zipped(folder, "ratings.dat", "movies.dat"), folder, tmp_path, folder / "ratings.dat"):
        whole = gather(open_release(ML_1M, place))
        assert whole.rating_rows() == [
            ["1", "10", 5.0, 991353600],
            ["1", "2", 3.0, 991353600],
            ["2", "10", 1.0, 1017619200],
        ]
        assert whole.items["title"].tolist() == ["The Matrix", "Mis\xe9rables, Les"]
        assert whole.items["year"].tolist() == [1999, 1995]
        assert whole.items["categories"].tolist() == [["Action", "Sci-Fi"], ["Drama"]]
        assert (whole.rows, len(whole.quarantine)) == (3, 0)


def test_ml_100k_is_read_as_published(tmp_path):
    ratings = "196\t242\t3\t881250949\n186\t302\t3\t891717742\n"
    whole = gather(open_release(ML_100K, write(tmp_path, ML_100K, ratings, ITEMS_100K)))
    assert whole.rating_rows() == [["196", "242", 3.0, 881250949], ["186", "302", 3.0, 891717742]]
    assert whole.items["title"].tolist() == ["Kolya", "The L\xe9on"]
    assert whole.items["year"].tolist() == [1996, 1994]
    assert whole.items["categories"].tolist() == [["Comedy", "Romance"], []]


def test_ml_10m_is_ml_1m_in_utf_8_with_half_stars(tmp_path):
    whole = gather(open_release(ML_10M, write(tmp_path, ML_10M, "1::2::3.5::991353600\n")))
    assert (whole.rating_rows(), whole.items["title"].tolist()) == (
        [["1", "2", 3.5, 991353600]],
        ["Mis\xe9rables, Les"],
    )


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_ml_20m_and_later_are_read_as_published(tmp_path, line_end):
    folder = write(tmp_path / "ml-25m", ML_CSV, RATINGS_CSV.replace("\n", line_end), MOVIES_CSV)
    for place in (folder, zipped(folder, "ratings.csv", "movies.csv")):
        whole = gather(open_release(ML_CSV, place))
        assert whole.rating_rows() == [["1", "296", 5.0, 1147880044], ["2", "306", 3.5, 1147868817]]
        assert whole.items["title"].tolist() == ["Pulp Fiction", 'Trois, "Couleurs": rouge']
        assert whole.items["categories"].tolist() == [["Comedy", "Crime"], []]


@pytest.mark.parametrize(
    ("file", "line", "reason"),
    [
        ("ratings.dat", "1::2::3", "not 4 fields separated by ::"),
        ("movies.dat", "3::No Genres (1990)", "not 3 fields separated by ::"),
        ("movies.dat", "::Nameless (1990)::Drama", "no item id"),
        ("movies.dat", "3::::Drama", "no title"),
    ],
)
def test_a_malformed_line_is_set_aside_with_file_line_and_reason(file, line, reason, tmp_path):
    path = write(tmp_path, ML_1M) / file
    path.write_bytes(b"\n" + line.encode() + b"\n" + path.read_bytes())  # a blank line counts as a line, not as a row
    whole = gather(open_release(ML_1M, tmp_path))
    assert whole.quarantine.to_numpy().tolist() == [[file, 2, reason, line]]
    assert (whole.rows, len(whole.ratings), len(whole.items)) == (3 + (file == "ratings.dat"), 3, 2)


@pytest.mark.parametrize(
    ("text", "title", "year"),
    [
        ("Heat (1995)", "Heat", 1995),
        ("American President, The (1995)", "The American President", 1995),
        ("Confessional, The (Le Confessionnal) (1995)", "The Confessional (Le Confessionnal)", 1995),
        ("Bug's Life, A (1998)", "A Bug's Life", 1998),
        ("1984", "1984", None),
    ],
)
def test_titles_lose_their_year_and_get_their_article_back(text, title, year):
    assert split_title(text) == (title, year)


def test_a_missing_file_stops_with_one_line(tmp_path):
    half = zipped(write(tmp_path / "ml-1m", ML_1M), "ratings.dat")
    (tmp_path / "empty").mkdir()
    for path, fault in ((half, "no movies.dat"), (tmp_path / "empty", "no ratings.dat")):
        with pytest.raises(UserError, match=f"^{path}: {fault}.*$"):
            open_release(ML_1M, path)


def test_a_file_without_line_ends_is_not_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "BLOCK", 64)
    monkeypatch.setattr(files, "MAX_LINE", 256)
    with pytest.raises(UserError, match="line 1 is over 256 bytes"):
        gather(open_release(ML_1M, write(tmp_path, ML_1M, ratings="0" * 10_000)))


def test_faults_count_lines_from_the_files_beginning_also_where_it_is_read_in_pieces(tmp_path, monkeypatch):
    rows = "".join(f"{n},{n},{'five' if n % 7 == 0 else 5},{n}\n" for n in range(1, 60))
    folder = write(tmp_path / "ml-25m", ML_CSV, RATINGS_CSV + rows, MOVIES_CSV)
    whole = gather(open_release(ML_CSV, folder))
    monkeypatch.setattr(files, "PIECE", 100)
    monkeypatch.setattr(files, "BLOCK", 31)
    source = open_release(ML_CSV, folder)
    assert len(source.parts) > 4
    pieces = gather(source)
    assert pieces.quarantine.equals(whole.quarantine)
    assert whole.quarantine["row"].tolist() == [n + 3 for n in range(7, 60, 7)]
    assert pieces.ratings["timestamp"].tolist() == whole.ratings["timestamp"].tolist()
