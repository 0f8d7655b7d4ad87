"""Every dataset that may be named says where it comes from and how it is split."""

import re

import pytest

from tests.project import dataset_params
from thinkrec.errors import UserError
from thinkrec.ingest import download
from thinkrec.ingest.catalogue import DATASETS, FAMILIES, choose_dataset, find_dataset

PUBLISHED = [name for name, dataset in DATASETS.items() if dataset.files]


@pytest.mark.parametrize("name", [*PUBLISHED, *(f"{family}:Movies_and_TV" for family in FAMILIES)])
def test_published_datasets_say_all_of_it(name):
    dataset = find_dataset(name)
    assert dataset.name == name
    assert all(re.fullmatch(r"https://[^\s{}]+\.(zip|gz)", file.address) for file in dataset.files)
    assert all((file.md5 is not None) == name.startswith("ml-") for file in dataset.files)
    assert all(re.fullmatch(r"[0-9a-f]{32}", file.md5 or "0" * 32) for file in dataset.files)
    assert all((file.name in mirror) and file.md5 for file in dataset.files for mirror in file.mirrors)
    assert dataset.threshold == {"amazon": 4, "steam": 10}.get(name.partition("-")[0], 3)
    assert dataset.core == {"ml": 0, "steam": 5}.get(name.partition("-")[0], 20)


def test_a_category_names_its_files():
    published = [find_dataset(f"{family}:Gift_Cards").files for family in FAMILIES]
    assert [[file.name for file in files] for files in published] == [
        ["Gift_Cards_5.json.gz", "meta_Gift_Cards.json.gz"],
        ["Gift_Cards.jsonl.gz", "meta_Gift_Cards.jsonl.gz"],
        ["goodreads_interactions_Gift_Cards.json.gz", "goodreads_books_Gift_Cards.json.gz"],
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ml1m", "no dataset 'ml1m'; did you mean ml-1m?"),
        ("amazon-2018", "'nothing' is no category of amazon-2018; write it as its files do: amazon-2018:Gift_Cards"),
        ("amazon-2023:gift cards", "'gift cards' is no category of amazon-2023"),
        ("amazon-2018:../../etc", "'../../etc' is no category of amazon-2018"),
        ("goodreads", "'nothing' is no category of goodreads; write it as its files do: goodreads:comics_graphic, "),
        ("own:", "'' is no name; use letters, digits"),
        ("own:../etc", "'../etc' is no name"),
        ("amazon-2014:Books", "did you mean amazon-201"),
        ("", "no dataset ''"),
    ],
)
def test_what_is_no_dataset_is_refused_with_those_there_are(name, message):
    with pytest.raises(UserError, match=re.escape(message)):
        find_dataset(name)


def test_parameters_have_their_say():
    params = dataset_params(name="ml-1m", threshold=4, core=5, windows={"months": [3, 2, 1]})
    dataset = choose_dataset(params)
    assert (dataset.threshold, dataset.core) == (4, 5)
    assert dataset.windows == {"months": [3, 2, 1]}
    assert choose_dataset(dataset_params(name="ml-1m")) == DATASETS["ml-1m"]
    assert choose_dataset(dataset_params(name="yelp", core=0)).core == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ml-25m", "{}: no "),  # it looks into the folder of its downloads, and finds nothing
        ("amazon-2018:Gift_Cards", "{}: no "),
        ("yelp", "dataset.raw: yelp has terms that you must accept yourself on Yelp's site"),
        ("kuairec", "dataset.raw: kuairec is to be had by a browser: get KuaiRec.zip"),
    ],
)
def test_where_there_is_no_path_the_downloads_are_opened(name, message, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "fetch", lambda *_: tmp_path)
    with pytest.raises(UserError, match="^" + re.escape(message.format(tmp_path))):
        find_dataset(name).source(None)
