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

    def column_names(self, part: Part) -> list[str]:
        """The names of a file's columns."""
        return list(_open_file(part).schema_arrow.names)

    def split_file(self, part: Part) -> list[Part]:
        """A file's row groups, each a part."""
        return [replace(part, start=group, end=group + 1) for group in range(_open_file(part).num_row_groups)]

    def blocks(self, part: Part, wanted: list[str], *, lenient: bool = False) -> Iterator[Block]:
        """The blocks of a part, with the columns `wanted`, or all of them where none is named."""
        file = _open_file(part)
        groups = range(part.start, file.num_row_groups if part.end is None else part.end)
        try:
            for batch in file.iter_batches(BATCH, row_groups=groups, columns=wanted or None):
                batch.validate(full=True)  # else text that is not UTF-8 would raise far from here
                columns = {name: batch[name] for name in wanted}
                yield Block(lines=len(batch), columns=columns.copy, records=partial(_records, batch))
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f"{part.path}: a damaged parquet file ({_one_line(error)}); make it again") from None


def _open_file(part: Part) -> pq.ParquetFile:
    if part.inside:
        raise UserError(f"{part.path}: holds parquet in an archive; unpack it and name the folder")
    try:
        return pq.ParquetFile(part.path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{part.path}: not a readable parquet file ({_one_line(error)}); make it again") from None


def _records(batch: pa.RecordBatch) -> Iterator[Record]:
    # Times as text: Python's own datetimes end with the year 9999, and one later time would stop the whole batch.
    texts = {field.name: batch[field.name].cast(pa.string()) for field in batch.schema if _is_time(field.type)}
    readable = pa.table({**dict(zip(batch.schema.names, batch.columns, strict=True)), **texts})
    for number, values in enumerate(readable.to_pylist(), start=1):
        yield Record(number, values, json.dumps(values, default=str))


def _is_time(kind: pa.DataType) -> bool:
    return pa.types.is_timestamp(kind) or pa.types.is_date(kind)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
