"""A long table written part by part: flat in memory, it goes on after a kill, and ends in the same bytes."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from thinkrec.artifacts import atomic
from thinkrec.progress import track

T = TypeVar("T")
RECOMMENDATIONS = pa.schema(
    {"user_id": pa.string(), "item_id": pa.string(), "title": pa.string(), "probability": pa.float64()}
)


def write_parts(
    path: Path, parts: Sequence[T], make: Callable[[T], pd.DataFrame], schema: pa.Schema, *, made_with: str
) -> int:
    """Write the tables that `make` makes of the `parts`, one after the other, as one parquet file; returns its rows.

    Parts that are done stay in a hidden folder beside `path` until all are. They count if they were made with the same,
    by the text `made_with`; others are deleted.
    """
    folder, key = path.with_name(f".{path.name}.parts"), hashlib.sha256(made_with.encode()).hexdigest()[:16]
    files = [folder / f"{key}-{number:06d}.parquet" for number in range(len(parts))]
    for stale in {*folder.glob("*.parquet")} - {*files}:
        stale.unlink()
    for part, file in zip(track(parts, "writing", unit="parts"), files, strict=True):
        if not file.exists():
            table = pa.Table.from_pandas(make(part), schema=schema, preserve_index=False)
            with atomic(file) as partial:
                pq.write_table(table.replace_schema_metadata(None), partial)
    rows = 0
    with atomic(path) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for file in files:
            table = pq.read_table(file)
            writer.write_table(table)
            rows += len(table)
    shutil.rmtree(folder, ignore_errors=True)
    return rows
