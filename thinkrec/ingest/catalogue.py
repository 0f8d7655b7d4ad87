"""The datasets that `dataset.name` may name: where each comes from, its splits and threshold (terms: docs/data.md).

MovieLens 1M, Yelp and Amazon 2018 have the paper's absolute windows (METHOD: data; Amazon's are those of Books for
every category); the others count months back from their own newest rating. Amazon's 2018 reviews are the 5-core files:
what a core of 20 within some window leaves of them is what it would leave of all reviews.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from thinkrec.errors import UserError, nearest_name
from thinkrec.ingest import download
from thinkrec.ingest.clean import plain_text
from thinkrec.ingest.download import Remote
from thinkrec.ingest.raw import RATINGS, TRUTH, Chunk, Items, Part, Source
from thinkrec.ingest.readers import movielens, reviews
from thinkrec.ingest.readers.own import open_own
from thinkrec.ingest.readers.published import Release, open_release
from thinkrec.ingest.splits import COLUMN, Rule, check_rule, split_at
from thinkrec.params import DatasetParams
from thinkrec.synthetic.world import World, WorldSpec, generate


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """One entry of the catalogue."""

    name: str  # as in `dataset.name`
    files: tuple[Remote, ...] = ()  # what is published; none for a dataset that is generated, or one's own
    by_hand: str = ""  # why people must download it themselves; empty where the pipeline may
    generated: bool = False  # it reads no file at all
    threshold: float  # label = rating > threshold
    windows: Rule  # which time is train, valid and test
    core: int = 0  # users and items have so many interactions among themselves; 0: all stay
    open: Callable[[Path], Source]  # the files at a path (`dataset.raw`, or the folder of the downloads)

    @property
    def address(self) -> str | None:
        """Where its ratings are published, if they are."""
        return self.files[0].address if self.files else None

    def source(self, raw: Path | None) -> Source:
        """The dataset opened for reading: the files at `raw`, or else those of its downloads."""
        if self.generated:
            if raw is not None:
                raise UserError(
                    f"dataset.raw: {self.name} is generated and reads no file; name the dataset that the file is "
                    f"(dataset.name, {OWN} for your own), or set dataset.raw to null"
                )
            return self.open(Path())
        if raw is not None:
            return self.open(raw)
        if self.by_hand:
            raise UserError(f"dataset.raw: {self.name} {self.by_hand}, then pass -S dataset.raw=PATH")
        if not self.files:
            raise UserError(f"dataset.raw: {self.name} is read from a file or folder; pass -S dataset.raw=PATH")
        return self.open(download.fetch(self.name, self.files))


OWN = "own"
MOVIELENS = "https://files.grouplens.org/datasets/movielens"
MIRROR = "https://huggingface.co/datasets/Recommenders/MovieLens/resolve/main"
MIRRORED = ("ml-100k", "ml-1m", "ml-10m", "ml-20m")
YELP = "https://business.yelp.com/external-assets/files/Yelp-JSON.zip"
KUAIREC = "https://zenodo.org/records/18164998"
UCSD = "https://mcauleylab.ucsd.edu/public_datasets"
STEAM = "https://cseweb.ucsd.edu/~wckang"

# 20 months; sizes, coefficients and the reasons for them: thinkrec/synthetic/world.py.
WORLD_WINDOWS = split_at("2021-01-01", "2021-11-01", "2022-04-01", "2022-09-01")
WORLD = WorldSpec(seed=1, users=880, items=650, start=1_609_459_200, days=608)
# Chosen by shares of rows alone, before any model saw it: 34 % of test and 23 % of valid are about items that train
# never saw. Two of its three seasons begin with valid and test.
NEW_ITEMS_WORLD = replace(WORLD, late_items=0.43, seasons=3)
SMALL_WORLD = replace(WORLD, users=80, items=80, history_median=38.0, history_sigma=0.5, history_max=50)


def _world(name: str, spec: WorldSpec) -> Dataset:
    return Dataset(
        name=name,
        generated=True,
        threshold=3.0,
        windows=WORLD_WINDOWS,
        open=lambda _: open_world(generate(spec)),
    )


def open_world(world: World) -> Source:
    """A generated dataset as a source of one part and one chunk."""
    schema = pa.schema([*RATINGS, *TRUTH])
    table = pa.Table.from_pandas(pd.concat([world.ratings, world.truth], axis=1), schema=schema, preserve_index=False)
    chunk = Chunk(table=table.replace_schema_metadata(None), rows=len(table), lines=len(table))

    def items(wanted: Collection[str]) -> Items:
        chosen = world.items[world.items["item_id"].isin(list(wanted))]
        return Items(table=chosen.assign(**{name: chosen[name].map(plain_text) for name in ("title", "description")}))

    return Source(parts=(Part(path=Path()),), read=lambda _: iter([chunk]), items=items)


def _movielens(name: str, release: Release, md5: str, windows: Rule) -> Dataset:
    # The zip lies in the folder of the downloads; another path is what the user says it is.
    archive = Remote(f"{MOVIELENS}/{name}.zip", md5, (f"{MIRROR}/{name}.zip",) if name in MIRRORED else ())
    return Dataset(
        name=name,
        files=(archive,),
        threshold=3.0,
        windows=windows,
        open=lambda path: open_release(release, path / archive.name if (path / archive.name).is_file() else path),
    )


def _in_categories(
    family: str, release: Callable[[str], Release], ratings: str, items: str, threshold: float, windows: Rule
) -> Callable[[str], Dataset]:
    """The dataset of a category; `{}` stands for it in the addresses of its two files."""
    return lambda category: Dataset(
        name=f"{family}:{category}",
        files=tuple(Remote(f"{UCSD}/{path.format(category)}") for path in (ratings, items)),
        threshold=threshold,
        windows=windows,
        core=20,
        open=partial(open_release, release(category)),
    )


def _without_columns(_: Path) -> Source:
    raise UserError(
        "dataset.columns: say which columns of your files are which, "
        "such as {user: userId, item: movieId, rating: stars, timestamp: time}"
    )


_LAST_20_MONTHS = {"months": [10, 5, 5]}

DATASETS: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        _world("synthetic", WORLD),
        _world("synthetic-new", NEW_ITEMS_WORLD),
        _world("synthetic-small", SMALL_WORLD),  # for tests
        _movielens(
            "ml-100k",
            movielens.ML_100K,
            "0e33842e24a9c977be4e0107933c0723",
            {"months": [5, 1, 1]},  # of the seven that it spans
        ),
        _movielens(
            "ml-1m",
            movielens.ML_1M,
            "c4d9eecfca2ab87c1945afe126590906",
            split_at("2001-06-01", "2002-04-01", "2002-09-01", "2003-02-01"),
        ),
        _movielens("ml-10m", movielens.ML_10M, "ce571fd55effeba0271552578f2648bd", _LAST_20_MONTHS),
        _movielens("ml-20m", movielens.ML_CSV, "cd245b17a1ae2cc31bb14903e1204af3", _LAST_20_MONTHS),
        _movielens("ml-25m", movielens.ML_CSV, "6b51fb2759a8657d3bfcbfc42b592ada", _LAST_20_MONTHS),
        _movielens("ml-32m", movielens.ML_CSV, "d472be332d4daa821edc399621853b57", _LAST_20_MONTHS),
        Dataset(
            name="yelp",
            files=(Remote(YELP),),
            by_hand=f"has terms that you must accept yourself on Yelp's site; get {YELP} there",
            threshold=3.0,
            windows=split_at("2010-01-01", "2020-01-01", "2021-01-01", "2022-01-01"),
            core=20,
            open=partial(open_release, reviews.YELP),
        ),
        Dataset(
            name="steam",
            files=tuple(Remote(f"{STEAM}/steam_{kind}.json.gz") for kind in ("reviews", "games")),
            threshold=10.0,  # hours played; ours, nobody publishes one
            windows={"months": [10, 1, 1]},
            core=5,
            open=partial(open_release, reviews.STEAM),
        ),
        Dataset(
            name="kuairec",
            by_hand=f"is to be had by a browser: get KuaiRec.zip and kuairec_caption_category.csv at {KUAIREC}",
            threshold=1.0,  # seen to the end
            windows={"shares": [0.8, 0.1, 0.1]},  # of 63 days
            open=partial(open_release, reviews.KUAIREC),
        ),
        Dataset(
            name=OWN,
            threshold=0.5,  # of a label
            windows={"shares": [0.8, 0.1, 0.1]},
            open=_without_columns,
        ),
    )
}
# Datasets that their publisher has cut up by category.
FAMILIES: dict[str, Callable[[str], Dataset]] = {
    "amazon-2018": _in_categories(
        "amazon-2018",
        reviews.amazon_2018,
        ratings="data/amazon_v2/categoryFilesSmall/{}_5.json.gz",
        items="data/amazon_v2/metaFiles2/meta_{}.json.gz",
        threshold=4.0,
        windows=split_at("2017-01-01", "2017-11-01", "2017-12-01", "2018-01-01"),
    ),
    "amazon-2023": _in_categories(
        "amazon-2023",
        reviews.amazon_2023,
        ratings="data/amazon_2023/raw/review_categories/{}.jsonl.gz",
        items="data/amazon_2023/raw/meta_categories/meta_{}.jsonl.gz",
        threshold=4.0,
        windows={"months": [10, 1, 1]},
    ),
    "goodreads": _in_categories(
        "goodreads",
        reviews.goodreads,
        ratings="gdrive/goodreads/byGenre/goodreads_interactions_{}.json.gz",
        items="gdrive/goodreads/byGenre/goodreads_books_{}.json.gz",
        threshold=3.0,
        windows={"months": [10, 1, 1]},
    ),
}
EXAMPLES = {"goodreads": ("comics_graphic", "poetry")}  # of categories; Amazon's otherwise
NAMES = (*DATASETS, *(f"{family}:CATEGORY" for family in FAMILIES))

_CATEGORY = re.compile(r"[A-Za-z][A-Za-z0-9]{0,39}(_[A-Za-z0-9]{1,40}){0,9}")
_OWN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")


def find_dataset(name: str) -> Dataset:
    """The dataset of that name, one's own without its columns; where there is none, the nearest is named."""
    family, colon, category = name.partition(":")
    if family in FAMILIES:
        if not _CATEGORY.fullmatch(category):
            examples = EXAMPLES.get(family, ("Gift_Cards", "Movies_and_TV"))
            raise UserError(
                f"dataset.name: {category or 'nothing'!r} is no category of {family}; write it as its files do: "
                + ", ".join(f"{family}:{example}" for example in examples)
            )
        return FAMILIES[family](category)
    if family == OWN and colon:
        if not _OWN_NAME.fullmatch(category):
            raise UserError(
                f"dataset.name: {category!r} is no name; use letters, digits, '.', '_' and '-' ({OWN}:books)"
            )
        return replace(DATASETS[OWN], name=name)
    if name not in DATASETS:
        raise UserError(
            f"dataset.name: no dataset {name!r}; did you mean {nearest_name(name, NAMES)}? Known: {', '.join(NAMES)}"
        )
    return DATASETS[name]


def choose_dataset(params: DatasetParams) -> Dataset:
    """The dataset that `params` name, with what they say otherwise than the catalogue."""
    dataset = find_dataset(params.name)
    columns, items = params.columns, params.items
    if params.name.partition(":")[0] != OWN:
        for name, value in (("columns", columns), ("items", items)):
            if value is not None:
                raise UserError(f"dataset.{name}: {dataset.name} has its own; set it to null, or dataset.name to {OWN}")
    elif columns is not None:
        if columns.rating and params.threshold is None:
            raise UserError(f"dataset.threshold: say above which value of {columns.rating!r} a rating counts as liked")
        if columns.label and params.threshold is not None:
            raise UserError(f"dataset.threshold: {columns.label!r} says already what is liked; set it to null")
        if params.windows == COLUMN and columns.split is None:
            raise UserError(
                "dataset.windows: column needs the name of the column that says the split; add columns.split"
            )
        dataset = replace(
            dataset,
            windows=COLUMN if columns.split else dataset.windows,
            open=partial(open_own, columns, items),
        )
    if params.windows is not None:
        check_rule(params.windows)
    changes: dict[str, Any] = {"threshold": params.threshold, "windows": params.windows, "core": params.core}
    return replace(dataset, **{name: value for name, value in changes.items() if value is not None})
