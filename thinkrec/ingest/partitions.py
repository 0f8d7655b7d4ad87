"""What is done with each part of a dataset separately, by whoever reads it (`ingest.cluster`).

A part is read once, chunk by chunk; of a row, two codes and two numbers are kept (some 20 bytes). Its rows outside the
windows go as soon as these are known: for windows counted back from the newest rating, after every part has been read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from thinkrec.artifacts import SPLITS
from thinkrec.errors import UserError
from thinkrec.ingest.raw import IDS, RATINGS, Chunk, Fault, Part
from thinkrec.ingest.readers.records import NOT_TEXT
from thinkrec.ingest.splits import Windows, split_codes
from thinkrec.progress import track

DAY = 86_400  # seconds
MANY_FAULTS = 100_000  # malformed rows after which too large a share stops the reading at once
SHOWN = 80  # characters of a malformed row in a message
HOW_WRITTEN = (
    "save it as UTF-8, or say how it is written, such as encoding: cp1252 (in dataset.columns for ratings, in "
    "dataset.items for metadata)"
)


@dataclass(frozen=True, slots=True)
class Summary:
    """What there is to know of a part before its rows are looked at: little, however long it is."""

    faults: list[Fault]
    rows: int
    lines: int
    days: Counter[int]  # good rows by day since 1970
    span: tuple[int, int] | None  # the oldest and the newest timestamp, None without good rows
    splits: Counter[str] | None  # good rows by what their split column says; None without one


def read_part(part: Part, *, read: Callable[[Part], Iterator[Chunk]], max_bad_share: float) -> Chunk:
    """Read one part as one chunk; far too many malformed rows stop it on the way."""
    tables: list[pa.Table] = []
    faults: list[Fault] = []
    rows = lines = 0
    with track(name=part.name, unit=" rows", unit_scale=True) as bar:
        for chunk in read(part):
            tables.append(chunk.table)
            faults += chunk.faults
            rows += chunk.rows
            lines += chunk.lines
            bar.update(chunk.rows)
            if len(faults) > MANY_FAULTS:
                check_rows(part.where, faults, rows, max_bad_share=max_bad_share)
    table = pa.concat_tables(tables) if tables else RATINGS.empty_table()
    return Chunk(table=table, faults=faults, rows=rows, lines=lines)


def check_rows(where: str, faults: Sequence[Fault], rows: int, *, max_bad_share: float, kind: str = "rating") -> None:
    """Stop where a file, or several, hold no rows of this kind, or too many malformed ones."""
    if not rows:
        raise UserError(f"{where}: holds no {kind}s; is it the file that is meant?")
    share = len(faults) / rows
    if share > max_bad_share:
        first = faults[0]
        advice = HOW_WRITTEN if first.reason == NOT_TEXT else "mend the file or raise dataset.max_bad_share"
        raise UserError(
            f"{first.file}: {len(faults)} of {rows} {kind} rows are malformed ({share:.1%}, the limit is "
            f"{max_bad_share:.1%}), first line {first.row}: {first.reason}; "
            f"{advice}. That line: {first.text[:SHOWN]}"
        )


def faults_by_file(parts: Sequence[Part], reads: Sequence[Chunk | Summary]) -> list[Fault]:
    """All malformed rows, counted from the beginning of their files, of which several parts may be."""
    faults: list[Fault] = []
    lines_before: Counter[tuple[Any, ...]] = Counter()
    for part, read in zip(parts, reads, strict=True):
        file = (part.path, part.inside)
        faults += [fault._replace(row=fault.row + lines_before[file]) for fault in read.faults]
        lines_before[file] += read.lines
    return faults


def summarise(chunk: Chunk) -> Summary:
    """Summarise one part."""
    time = chunk.table["timestamp"]
    oldest, newest = pc.min_max(time).as_py().values()
    has_splits = "split" in chunk.table.column_names
    return Summary(
        faults=chunk.faults,
        rows=chunk.rows,
        lines=chunk.lines,
        days=_count_values(pc.divide(time, DAY)),
        span=None if oldest is None else (oldest, newest),
        splits=_count_values(chunk.table["split"].cast(pa.string())) if has_splits else None,
    )


def _count_values(column: pa.ChunkedArray) -> Counter[Any]:
    return Counter({count["values"]: count["counts"] for count in pc.value_counts(column).to_pylist()})


def rows_within(chunk: Chunk, *, windows: Windows | None) -> pa.Table:
    """The rows of one part within the windows; in their column `split`, the split's number in SPLITS.

    Without windows the part's own split column says which split a row is of.
    """
    table = chunk.table
    if windows is None:
        code = pc.index_in(table["split"].cast(pa.string()), value_set=pa.array(SPLITS)).cast(pa.int8()).fill_null(-1)
    else:
        code = pa.array(split_codes(table["timestamp"].to_numpy(), windows))
    table = table.drop_columns(["split"] if "split" in table.column_names else []).append_column("split", code)
    within = pc.greater_equal(code, 0)
    if not pc.all(within, min_count=0).as_py():
        table = table.filter(within)
        for column, name in enumerate(table.column_names):
            if table.schema.field(name).type == IDS:  # ids that only rows outside have are forgotten
                table = table.set_column(column, name, table[name].cast(pa.string()).dictionary_encode())
    return table
