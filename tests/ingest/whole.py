"""A source read whole, as tests of readers look at it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import pyarrow as pa

from thinkrec.ingest.partitions import check_rows, faults_by_file, read_part
from thinkrec.ingest.raw import Fault, Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """Ratings and metadata in input order; the malformed rows of both."""

    ratings: pd.DataFrame
    items: pd.DataFrame
    quarantine: pd.DataFrame
    rows: int

    def rating_rows(self) -> list[list[Any]]:
        """User, item, rating and time of each row."""
        return self.ratings.astype({"user_id": str, "item_id": str}).to_numpy().tolist()


def gather(source: Source) -> Whole:
    """All of a source in memory, however many of its rows are malformed."""
    reads = list(map(partial(read_part, read=source.read, max_bad_share=1.0), source.parts))
    faults, rows = faults_by_file(source.parts, reads), sum(read.rows for read in reads)
    check_rows(source.parts[0].where, faults, rows, max_bad_share=1.0)
    ratings = pa.concat_tables([read.table for read in reads]).unify_dictionaries().to_pandas()
    items = source.items(set(ratings["item_id"].cat.categories))
    quarantine = pd.DataFrame([*faults, *items.faults], columns=Fault._fields)
    return Whole(ratings=ratings, items=items.table, quarantine=quarantine, rows=rows)
