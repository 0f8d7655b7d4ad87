"""What is done with each part of a dataset on its own, by whoever reads it (`ingest.cluster`).

A part is read once, chunk by chunk; of a row, two codes and two numbers are kept (some 20 bytes). Its rows outside the
windows go as soon as these are known, which for windows counted back from the newest rating is after every part has
been chunk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from thinkrec.artifacts import SPLITS
from thinkrec.errors import UserError
from thinkrec.ingest.raw import RATINGS, Chunk, Fault, Part
from thinkrec.ingest.splits import Windows, split_codes

DAY = 86_400  # seconds
MANY_FAULTS = 100_000  # malformed rows after which too large a share stops the reading at once
SHOWN = 80  # characters of a malformed row in a message

SPLIT_CODE = pa.field("split_code", pa.int8())  # the number in SPLITS


@dataclass(frozen=True, slots=True)
class Summary:
    """What there is to know of a part before its rows are looked at: little, however long it is."""

    faults: list[Fault]
    rows: int
    lines: int
    days: Counter[int]  # good rows by day since 1970
    oldest: int | None  # timestamp, None without good rows
    newest: int | None
    names: Counter[str] | None  # good rows by what their split column says; None without one


def read_part(part: Part, *, read: Callable[[Part], Iterator[Chunk]], max_bad_share: float) -> Chunk:
    """Read one part, as one chunk.

    Raises:
        UserError: too many of its rows are malformed.
    """
    tables: list[pa.Table] = []
    faults: list[Fault] = []
    rows = lines = 0
    with tqdm(unit=" rows", unit_scale=True, desc=part.name or None, disable=None, leave=False) as bar:
        for chunk in read(part):
            tables.append(chunk.table)
            faults += chunk.faults
            rows += chunk.rows
            lines += chunk.lines
            bar.update(chunk.rows)
            if len(faults) > MANY_FAULTS:
                check_ratings([part], faults, rows, max_bad_share=max_bad_share)
    table = pa.concat_tables(tables) if tables else RATINGS.empty_table()
    return Chunk(table=table, faults=faults, rows=rows, lines=lines)


def check_ratings(parts: Sequence[Part], faults: list[Fault], rows: int, *, max_bad_share: float) -> None:
    """Stop where there are no ratings in all of these parts, or too many malformed ones.

    Raises:
        UserError: there are.
    """
    if not rows:
        raise UserError(f"{parts[0].where}: holds no ratings; is it the file that is meant?")
    share = len(faults) / rows
    if share > max_bad_share:
        first = faults[0]
        raise UserError(
            f"{first.file}: {len(faults)} of {rows} rating rows are malformed ({share:.1%}, the limit is "
            f"{max_bad_share:.1%}), first line {first.row}: {first.reason}; "
            f"mend the file or raise dataset.max_bad_share. That line: {first.text[:SHOWN]}"
        )


def in_files(parts: Sequence[Part], reads: Sequence[Chunk | Summary]) -> list[Fault]:
    """All malformed rows, counted from the beginning of their files, of which several parts may be."""
    faults: list[Fault] = []
    before, lines = None, 0
    for part, summary_of_part in zip(parts, reads, strict=True):
        if (part.path, part.inside) != before:
            before, lines = (part.path, part.inside), 0
        faults += [fault._replace(row=fault.row + lines) for fault in summary_of_part.faults]
        lines += summary_of_part.lines
    return faults


def summary(chunk: Chunk) -> Summary:
    """Summarise one part."""
    days: Counter[int] = Counter()
    for times in chunk.table["timestamp"].chunks:
        number, count = np.unique(times.to_numpy() // DAY, return_counts=True)
        days.update(dict(zip(number.tolist(), count.tolist(), strict=True)))
    oldest, newest = pc.min_max(chunk.table["timestamp"]).as_py().values()
    names = None
    if "split" in chunk.table.column_names:
        counts = pc.value_counts(chunk.table["split"].cast(pa.string()))
        names = Counter({str(count["values"]): count["counts"] for count in counts.to_pylist()})
    return Summary(chunk.faults, chunk.rows, chunk.lines, days, oldest, newest, names)


def inside(chunk: Chunk, *, windows: Windows | None) -> pa.Table:
    """The rows of one part within the windows, their split's number in a column of its own.

    Without windows the part's own split column says which split a row is of.
    """
    table, codes = chunk.table, []
    if windows is None:
        numbers = pa.array(range(len(SPLITS)), pa.int8())
        indices = pc.index_in(table["split"].cast(pa.string()), value_set=pa.array(SPLITS))
        codes = [pc.fill_null(numbers.take(index), -1) for index in indices.chunks]
    else:
        codes = [pa.array(split_codes(times.to_numpy(), windows)) for times in table["timestamp"].chunks]
    code = pa.chunked_array(codes, pa.int8())
    table = table.drop_columns(["split"] if "split" in table.column_names else []).append_column(SPLIT_CODE, code)
    within = pc.greater_equal(code, 0)
    if not pc.all(within, min_count=0).as_py():
        table = table.filter(within)
        for name in ("user_id", "item_id"):  # ids that only rows outside have are forgotten
            ids = table[name].cast(pa.string()).dictionary_encode()
            table = table.set_column(table.column_names.index(name), name, ids)
    return table
