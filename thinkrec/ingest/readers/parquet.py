"""Parquet files, not in archives: a part is some row groups, a line is a row."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from thinkrec.errors import UserError
from thinkrec.ingest.raw import Part
from thinkrec.ingest.readers.records import Block, Record

BATCH = 1 << 16  # rows held at a time


@dataclass(frozen=True, slots=True)
class Parquet:
    """A parquet file."""


def schema_names(part: Part) -> list[str]:
    """The names of a file's columns."""
    return list(_opened(part).schema_arrow.names)


def row_groups(part: Part) -> list[Part]:
    """A file's row groups, each a part."""
    return [replace(part, start=group, end=group + 1) for group in range(_opened(part).num_row_groups)]


def parquet_blocks(part: Part, wanted: list[str]) -> Iterator[Block]:
    """The blocks of a part, with the columns `wanted`, or all of them where none is named."""
    file = _opened(part)
    groups = range(part.start, file.num_row_groups if part.end is None else part.end)
    try:
        for batch in file.iter_batches(BATCH, row_groups=groups, columns=wanted or None):
            batch.validate(full=True)  # text that is none would stop us where nobody looks for it
            yield Block(
                lines=len(batch),
                columns=partial(_columns, batch, wanted),
                records=partial(_records, batch),
            )
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{part.path}: a damaged parquet file ({_one_line(error)}); make it again") from None


def _opened(part: Part) -> pq.ParquetFile:
    if part.inside:
        raise UserError(f"{part.path}: holds parquet in an archive; unpack it and name the folder")
    try:
        return pq.ParquetFile(part.path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{part.path}: not a readable parquet file ({_one_line(error)}); make it again") from None


def _columns(batch: pa.RecordBatch, wanted: list[str]) -> dict[str, pa.Array]:
    return {name: batch[name] for name in wanted}


def _records(batch: pa.RecordBatch) -> Iterator[Record]:
    # Times as text: Python's own know no year after 9999, and would refuse all rows for the sake of one.
    texts = {field.name: batch[field.name].cast(pa.string()) for field in batch.schema if _is_time(field.type)}
    readable = pa.table({**dict(zip(batch.schema.names, batch.columns, strict=True)), **texts})
    for number, values in enumerate(readable.to_pylist(), start=1):
        yield Record(number, values, json.dumps(values, default=str))


def _is_time(kind: pa.DataType) -> bool:
    return pa.types.is_timestamp(kind) or pa.types.is_date(kind)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
