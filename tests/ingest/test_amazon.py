"""Amazon and Yelp files are read as published, their metadata repaired and the repairs counted."""

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
from thinkrec.ingest.readers.reviews import YELP, amazon_2018, amazon_2023

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
