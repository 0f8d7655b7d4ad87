"""Files of Amazon, Yelp and others are read as published, their metadata repaired and the repairs counted."""

import gzip
import io
import json
import tarfile
import zipfile

import pytest

from tests.ingest.whole import gather
from tests.project import dataset_params
from thinkrec.errors import UserError
from thinkrec.ingest.dataset import ingest
from thinkrec.ingest.readers.published import open_release
from thinkrec.ingest.readers.reviews import KUAIREC, STEAM, YELP, amazon_2018, amazon_2023, goodreads

REVIEWS_2018 = [
    {"overall": 5.0, "reviewTime": "06 17, 2018", "reviewerID": "A31U", "asin": "B004", "style": {"Amount:": " 50"},
     "reviewText": "Another\ngreat gift.", "unixReviewTime": 1529193600},
    {"overall": 2.0, "reviewerID": "A2MN", "asin": "B005", "vote": "2", "unixReviewTime": 1528934400},
    {"overall": 4.0, "reviewerID": "A2MN", "asin": "B006", "unixReviewTime": 1528934400},
]  # fmt: skip
META_2018 = [
    {"category": ["Gift Cards", "Gift Cards", "</span></span>", "Dining &amp; Food"], "tech1": "", "brand": "X",
     "description": ["For <b>dinner</b>.", "", "Not&nbsp;online."], "title": "Caf\u00e9 \x01Card",
     "feature": ["Never expires"], "rank": [], "price": ".a-box-inner{background-color:#fff}", "asin": "B004"},
    {"category": [], "description": "plain", "title": "var aPageStart = (new Date()).getTime();", "asin": "B005",
     "main_cat": "Toys"},
    {"category": [], "title": "Second of its id", "asin": "B004"},
    {"category": [], "title": "Nobody rated it <i>", "asin": "B009"},
    {"title": "Nameless"},
    None,
]  # fmt: skip
REVIEWS_2023 = [
    {"rating": 5.0, "title": "Great", "text": "x", "images": [], "asin": "B00Y", "parent_asin": "B00P",
     "user_id": "AGKH", "timestamp": 1588687728923},
    {"rating": 1.0, "asin": "B00Z", "parent_asin": "B00Q", "user_id": "AGKH", "timestamp": 1588687728000},
]  # fmt: skip
META_2023 = [
    {"main_category": "All Beauty", "title": "Howard LC0008", "average_rating": 4.8, "features": ["Soft", "Big"],
     "description": [], "price": None, "categories": [], "details": {}, "parent_asin": "B00P"},
    {"main_category": None, "title": None, "features": [], "description": ["x"], "categories": ["A", "B"],
     "parent_asin": "B00Q"},
]  # fmt: skip
YELP_REVIEWS = [
    {"user_id": "u-1", "business_id": "b_1", "stars": 4.0, "text": "x", "date": "2018-07-07 22:09:11"},
    {"user_id": "u-2", "business_id": "b_2", "stars": 1.0, "text": "y", "date": "2012-01-03 15:28:18"},
]
BUSINESSES = [
    {"business_id": "b_1", "name": "St &amp; Co", "city": "Ashland", "state": "PA", "categories": "Brewpubs, Food"},
    {"business_id": "b_2", "name": "Nothing", "city": "", "state": "AZ", "categories": None, "attributes": {"a": "b"}},
]


def write(folder, files):
    for name, values in files.items():
        data = "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values).encode()
        (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder


RATED_2018 = [["A31U", "B004", 5.0, 1529193600], ["A2MN", "B005", 2.0, 1528934400], ["A2MN", "B006", 4.0, 1528934400]]


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("name", ["Gift_Cards_5.json", "Gift_Cards.json"])
def test_amazon_2018_is_read_as_published(tmp_path, name, ending):
    write(tmp_path, {f"{name}{ending}": REVIEWS_2018, f"meta_Gift_Cards.json{ending}": META_2018})
    for place in (tmp_path, tmp_path / f"{name}{ending}"):
        source = open_release(amazon_2018("Gift_Cards"), place)
        assert gather(source).rating_rows() == RATED_2018
    items = source.items({"B004", "B005", "B006"})
    assert items.table["item_id"].tolist() == ["B004", "B005"]
    assert items.table["title"].tolist() == ["Caf\u00e9 Card", ""]
    assert items.table["categories"].tolist() == [["Gift Cards", "Dining & Food"], ["Toys"]]
    assert items.table["description"].tolist() == ["For dinner . Not online. Never expires", "plain"]
    assert items.duplicated == 1
    assert items.repaired == {"markup": 1, "unreadable characters": 1}
    assert [(fault.row, fault.reason) for fault in items.faults] == [(5, "no item id"), (6, "not a JSON object")]


def test_amazon_2023_is_read_as_published(tmp_path):
    write(tmp_path, {"All_Beauty.jsonl.gz": REVIEWS_2023, "meta_All_Beauty.jsonl.gz": META_2023})
    source = open_release(amazon_2023("All_Beauty"), tmp_path)
    assert gather(source).rating_rows() == [["AGKH", "B00P", 5.0, 1588687728], ["AGKH", "B00Q", 1.0, 1588687728]]
    items = source.items({"B00P", "B00Q"}).table
    assert items["title"].tolist() == ["Howard LC0008", ""]
    assert items["categories"].tolist() == [["All Beauty"], ["A", "B"]]
    assert items["description"].tolist() == ["Soft Big", "x"]


def test_amazon_2023_is_read_from_the_folders_of_the_hub_and_as_5_core_csv(tmp_path):
    for folder, name, values in (
        ("raw/review_categories", "All_Beauty.jsonl", REVIEWS_2023),
        ("raw/meta_categories", "meta_All_Beauty.jsonl", META_2023),
    ):
        (tmp_path / "amazon" / folder).mkdir(parents=True)
        write(tmp_path / "amazon" / folder, {name: values})
    rated = [["AGKH", "B00P", 5.0, 1588687728], ["AGKH", "B00Q", 1.0, 1588687728]]
    assert gather(open_release(amazon_2023("All_Beauty"), tmp_path)).rating_rows() == rated
    text = "user_id,parent_asin,rating,timestamp\nAGKH,B00P,5.0,1588687728923\nAGKH,B00Q,1.0,1588687728000\n"
    (tmp_path / "amazon" / "raw" / "review_categories" / "All_Beauty.jsonl").unlink()
    (tmp_path / "amazon" / "All_Beauty.csv.gz").write_bytes(gzip.compress(text.encode()))
    whole = gather(open_release(amazon_2023("All_Beauty"), tmp_path))
    assert (whole.rating_rows(), whole.items["title"].tolist()) == (rated, ["Howard LC0008", ""])


def test_goodreads_is_read_as_published_and_shelved_books_are_no_ratings(tmp_path):
    book = {"book_id": "402128", "title": "Cats (Poems, #1)", "title_without_series": "Cats",
            "publication_year": "1982", "description": "On cats.",
            "popular_shelves": [{"count": "9", "name": "to-read"}, {"count": "5", "name": "poetry"}]}  # fmt: skip
    rated = {"user_id": "80d5", "book_id": "402128", "review_id": "f", "is_read": True, "rating": 4, "read_at": "",
             "date_updated": "Fri Apr 19 08:15:15 -0700 2013"}  # fmt: skip
    shelved = rated | {"user_id": "90d5", "rating": 0, "is_read": False}
    undated = rated | {"date_updated": "Fri Apr 39 08:15:15 -0700 2013"}
    names = ("goodreads_interactions_poetry.json.gz", "goodreads_books_poetry.json.gz")
    write(tmp_path, dict(zip(names, ([rated, shelved, undated], [book]), strict=True)))
    whole = gather(open_release(goodreads("poetry"), tmp_path))
    assert whole.rating_rows() == [["80d5", "402128", 4.0, 1366384515]]
    assert (whole.rows, whole.quarantine["row"].tolist()) == (2, [3])
    assert whole.items.to_numpy().tolist() == [["402128", "Cats", 1982, ["poetry"], "On cats."]]


def test_steam_is_read_as_python_wrote_it(tmp_path):
    review = (
        "{u'username': u'Chaos \\u2603', u'hours': 11.5, u'product_id': u'725280', u'date': u'2018-01-02', 'e': True}"
    )
    broken = "{u'username': open('/etc/passwd')}"
    game = "{u'app_name': u\"Rust's End\", u'genres': [u'Action'], u'id': u'725280', u'release_date': u'2017-12-05'}"
    for name, lines in (("reviews", [review, broken]), ("games", [game])):
        (tmp_path / f"steam_{name}.json.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    whole = gather(open_release(STEAM, tmp_path))
    assert whole.rating_rows() == [["Chaos \u2603", "725280", 11.5, 1514851200]]
    assert whole.quarantine["reason"].tolist() == ["not JSON"]
    assert whole.items.to_numpy().tolist() == [["725280", "Rust's End", 2017, ["Action"], ""]]


def test_kuairec_is_read_as_published(tmp_path):
    folder = tmp_path / "KuaiRec" / "data"
    folder.mkdir(parents=True)
    (folder / "big_matrix.csv").write_text(
        "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio\n"
        "0,3649,13838,10867,2020-07-05 00:08:23.438,20200705,1593878903.438,1.2733965215790926\n"
    )
    (folder / "kuairec_caption_category.csv").write_text(
        "video_id,manual_cover_text,caption,topic_tag,first_level_category_id,first_level_category_name,"
        "second_level_category_id,second_level_category_name,third_level_category_id,third_level_category_name\n"
        '3649,UNKNOWN,"\u7cbe\u795e\n\u5c0f\u4f19",[],8,\u989c\u503c,673,\u989c\u503c\u968f\u62cd,-124,UNKNOWN\n'
    )
    whole = gather(open_release(KUAIREC, tmp_path))
    assert whole.rating_rows() == [["0", "3649", pytest.approx(1.2733965), 1593878903]]
    assert whole.items["title"].tolist() == ["\u7cbe\u795e \u5c0f\u4f19"]
    assert whole.items["categories"].tolist() == [["\u989c\u503c"]]


def test_reviews_without_their_metadata_beside_them_stop(tmp_path):
    write(tmp_path, {"Books_5.json.gz": REVIEWS_2018})
    with pytest.raises(UserError, match=r"no meta_Books\.json in this folder; set dataset\.raw to a folder with"):
        open_release(amazon_2018("Books"), tmp_path)


def test_another_releases_reviews_are_recognised_by_their_columns(tmp_path):
    write(tmp_path, {"Books.json.gz": REVIEWS_2023, "meta_Books.json.gz": META_2023})
    message = r"^dataset\.raw: no column 'reviewerID' in .*Books\.json\.gz; .*Found: rating, "
    with pytest.raises(UserError, match=message):
        open_release(amazon_2018("Books"), tmp_path)


def test_a_category_reads_its_own_files_among_others(tmp_path):
    for category in ("Books", "Toys"):
        write(tmp_path, {f"{category}.json.gz": REVIEWS_2018, f"meta_{category}.json.gz": []})
    source = open_release(amazon_2018("Toys"), tmp_path)
    assert [part.path.name for part in source.parts] == ["Toys.json.gz"]


def yelp_folder(folder):
    names = ("yelp_academic_dataset_review.json", "yelp_academic_dataset_business.json")
    return write(folder, dict(zip(names, (YELP_REVIEWS, BUSINESSES), strict=True)))


def yelp_zip(folder):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for path in sorted(yelp_folder(folder).glob("*.json")):
            tar.add(path, path.name)
            path.unlink()
    with zipfile.ZipFile(folder / "Yelp-JSON.zip", "w") as archive:
        archive.writestr("Yelp JSON/yelp_dataset.tar", buffer.getvalue())
        archive.writestr("Yelp JSON/Dataset_User_Agreement.pdf", b"%PDF")
    return folder / "Yelp-JSON.zip"


@pytest.mark.parametrize("packed", [yelp_folder, yelp_zip])
def test_yelp_is_read_as_published(packed, tmp_path):
    source = open_release(YELP, packed(tmp_path))
    assert gather(source).rating_rows() == [["u-1", "b_1", 4.0, 1531001351], ["u-2", "b_2", 1.0, 1325604498]]
    items = source.items({"b_1", "b_2"}).table
    assert items["title"].tolist() == ["St & Co", "Nothing"]
    assert items["categories"].tolist() == [["Brewpubs", "Food"], []]
    assert items["description"].tolist() == ["Ashland, PA", "AZ"]


def test_gift_cards_are_read_whole(real_data):
    if not (real_data / "Gift_Cards_5.json.gz").exists():
        pytest.skip(f"no Gift_Cards_5.json.gz in {real_data}")
    ingested = ingest(dataset_params(name="amazon-2018:Gift_Cards", raw=real_data, core=0))
    assert ingested.stats["rows_read"] == 2972
    assert ingested.quarantine.empty and ingested.stats["items_without_metadata"] == 0
    assert not ingested.items["description"].str.contains("<").any()
    splits = ingested.stats["splits"]
    assert [splits[name]["interactions"] for name in ("train", "valid", "test")] == [841, 59, 107]
