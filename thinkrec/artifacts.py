"""Every artefact of the pipeline: its path, its schema, how it is read and how it is written.

Nothing else in the project knows the disk. Every write is atomic: a reader, or a killed run, sees the old file or
the new one, never half of it. The bytes written depend only on the content, so equal runs give equal `dvc.lock`s.
"""

from __future__ import annotations

import fnmatch
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from thinkrec.errors import UserError

ROOT = Path("out")
METRICS = Path("metrics")
PLOTS = Path("plots")

INTERACTIONS = ROOT / "ingest" / "interactions.parquet"
ITEMS = ROOT / "ingest" / "items.parquet"
USERS = ROOT / "ingest" / "users.parquet"
QUARANTINE = ROOT / "ingest" / "quarantine.parquet"
TRUTH = ROOT / "ingest" / "truth.parquet"
KEYWORDS = ROOT / "keywords" / "keywords.parquet"
FALLBACKS = ROOT / "keywords" / "fallbacks.parquet"
FEATURES = ROOT / "features" / "features.safetensors"
FEATURE_MODEL = ROOT / "features" / "model.safetensors"
BACKBONE = ROOT / "backbone"
TRACES = ROOT / "traces" / "traces.parquet"
REJECTED = ROOT / "traces" / "rejected.parquet"
EXAMPLES = ROOT / "traces" / "examples.md"  # one trace and one refused answer of each kind, for people
SFT = ROOT / "sft"
EXPERTS = ROOT / "experts"
GATE = ROOT / "gate"
BASELINES = ROOT / "baselines" / "scores.parquet"
PREDICTIONS = ROOT / "evaluate" / "predictions.parquet"
REASONS = ROOT / "evaluate" / "reasons.parquet"
REPORT = ROOT / "report" / "report.html"
TABLE = ROOT / "evaluate" / "table.json"  # every model, metric, interval and difference

MEASURES = "measures.json"  # all that a stage measured, beside what it made

TOKEN_CACHE = Path(".cache") / "tokens"
RESPONSES = Path(".cache") / "responses.sqlite"  # teachers' answers, paid for; see thinkrec/teacher/store.py

# The mode of a plain file, where safetensors would let only its owner read. The umask is asked by setting it, for all
# threads, so only here.
os.umask(_umask := os.umask(0o022))
READABLE = 0o666 & ~_umask
ASIDE = ".old"  # ends the name of a folder that is being replaced

SPLITS = ("train", "valid", "test")

SCHEMAS: dict[Path, pa.Schema] = {
    # Sorted by (user, timestamp, input order); a history is a range of row numbers of this table.
    INTERACTIONS: pa.schema(
        {
            "user": pa.int32(),
            "item": pa.int32(),
            "rating": pa.float32(),
            "label": pa.int8(),
            "timestamp": pa.int64(),  # seconds since 1970, UTC
            "split": pa.dictionary(pa.int8(), pa.string()),
        }
    ),
    ITEMS: pa.schema(
        {
            "item": pa.int32(),
            "item_id": pa.string(),
            "title": pa.string(),  # cleaned, without the year
            "year": pa.int16(),  # null where unknown
            "categories": pa.list_(pa.string()),
            "description": pa.string(),  # free metadata text; empty where there is none
        }
    ),
    USERS: pa.schema({"user": pa.int32(), "user_id": pa.string()}),
    QUARANTINE: pa.schema({"file": pa.string(), "row": pa.int64(), "reason": pa.string(), "text": pa.string()}),
    # Only worlds know the truth: empty for real datasets, else one row per interaction, in its order.
    TRUTH: pa.schema({"probability": pa.float32(), "reason": pa.string()}),
    KEYWORDS: pa.schema({"item": pa.int32(), "keywords": pa.list_(pa.string())}),
    # Items whose keywords a teacher was asked for and that have extracted ones: why, and its answer.
    FALLBACKS: pa.schema({"item": pa.int32(), "fault": pa.string(), "text": pa.string()}),
    # `row` is the row number in INTERACTIONS; `text` is the verdict and the reason behind it, what models learn.
    TRACES: pa.schema(
        {
            "row": pa.int64(),
            "label": pa.int8(),
            "turns": pa.int16(),  # answers that it took
            "text": pa.string(),
        },
    ),
    # One row per refused answer; `detail` is what was found at fault, `text` the answer as it came.
    REJECTED: pa.schema(
        {
            "row": pa.int64(),
            "label": pa.int8(),
            "turn": pa.int16(),
            "fault": pa.string(),
            "detail": pa.string(),
            "text": pa.string(),
        },
    ),
    # One row per valid and test interaction, in the order of INTERACTIONS; then one probability per baseline.
    BASELINES: pa.schema({"row": pa.int64()}),
    # The same rows: what they are, what was known of them before they happened, then one probability per model.
    PREDICTIONS: pa.schema(
        {
            "row": pa.int64(),
            "split": pa.dictionary(pa.int8(), pa.string()),
            "user": pa.int32(),
            "item": pa.int32(),
            "label": pa.int8(),
            "warm": pa.bool_(),
            "history": pa.int32(),  # strictly earlier interactions of the user
            "popularity": pa.int32(),  # interactions of the item in train
            "group": pa.int8(),  # the user's, as the experts stage numbers them; -1 for users that train never saw
            "case": pa.int8(),  # what the paper's routing does with the user at that time: index of routing.CASES
        }
    ),
    REASONS: pa.schema(
        {
            "row": pa.int64(),
            "label": pa.int8(),
            "probability": pa.float32(),
            "reason": pa.string(),
            "teacher": pa.string(),
        }
    ),
}
OPEN_SCHEMAS = {BASELINES, PREDICTIONS}  # further columns may follow the named ones


def missing_artifact(path: Path) -> UserError:
    """The error of an artefact that is not there: it names the stage to run."""
    return UserError(f"{path}: no such artefact; run its stage first: dvc repro {stage_of(path)}".rstrip())


def faulty_artifact(path: Path, fault: str) -> UserError:
    """The error of an artefact that is there and is not what it should be, in one line."""
    return UserError(f"{path}: {' '.join(fault.split())}; rerun its stage: dvc repro {stage_of(path)}".rstrip())


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A sibling path to write a file or folder to; it takes the place of `path` only if the block succeeds.

    Of several processes that write the same (torchrun), the main one's counts. The others write to folders and files of
    their own, which last as long as the block.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    rank = os.environ.get("RANK", "0")
    suffix = ".partial" if rank == "0" else f".partial{rank}"
    partial = path.with_name(f".{path.name}{suffix}")
    if rank == "0":
        recover(path.parent)
    _remove(partial)
    try:
        yield partial
        for file in (partial, *partial.rglob("*")):
            if file.is_file():
                file.chmod(READABLE)
        if rank == "0" or any(folder.name.endswith(suffix) for folder in path.parents):
            _replace(path, partial)
    finally:
        _remove(partial)


def _replace(path: Path, new: Path) -> None:
    """Put the file or folder `new` in the place of `path`.

    No call replaces a folder that is not empty, so the old one is moved aside first. A process that is killed before
    the new one is in its place leaves the old one aside, and `recover` puts it back.
    """
    if path.is_dir() or (new.is_dir() and path.exists()):
        aside = path.with_name(f".{path.name}{ASIDE}")
        _remove(aside)
        os.rename(path, aside)
        os.rename(new, path)
        _remove(aside)
    else:
        os.replace(new, path)


def recover(folder: Path) -> None:
    """Put back every artefact in `folder` that a killed process had moved aside and not replaced yet."""
    for aside in folder.glob(f".*{ASIDE}"):
        path = aside.with_name(aside.name.removeprefix(".").removesuffix(ASIDE))
        if not path.exists():
            os.rename(aside, path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_table(path: Path, frame: pd.DataFrame, *, root: Path = Path()) -> None:
    """Write `frame` in the schema that belongs to `path` (a key of `SCHEMAS`), below the folder `root`.

    Raises:
        ValueError: a column of the schema is missing, is not of its type, or one is too many.
    """
    schema = SCHEMAS[path]
    extra = [name for name in frame.columns if name not in schema.names]
    if extra and path not in OPEN_SCHEMAS:
        raise ValueError(f"{path}: columns {extra} are not in its schema")
    missing = [name for name in schema.names if name not in frame.columns]
    if missing:
        raise ValueError(f"{path}: columns {missing} are missing")
    for name in extra:
        schema = schema.append(pa.field(name, pa.array(frame[name]).type))
    table = pa.Table.from_pandas(frame[schema.names], schema=schema, preserve_index=False)
    # pandas' own metadata names library versions: drop it, so that bytes follow from the content.
    table = table.replace_schema_metadata(None)
    with atomic(root / path) as partial:
        pq.write_table(table, partial, compression="zstd")


def read_table(path: Path, *, root: Path = Path()) -> pd.DataFrame:
    """Read an artefact written by `write_table`; list columns come back as arrays of strings.

    Raises:
        UserError: the file is absent (its stage has not run) or is not the artefact that it should be.
    """
    try:
        table = pq.read_table(root / path)
    except FileNotFoundError:
        raise missing_artifact(root / path) from None
    except (pa.ArrowInvalid, OSError) as error:
        raise faulty_artifact(root / path, f"not a readable parquet file ({error})") from None
    for field in SCHEMAS[path]:
        if field.name not in table.column_names or table.schema.field(field.name).type != field.type:
            raise faulty_artifact(root / path, f"column {field.name} should be {field.type}")
    return table.to_pandas()


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]], *, metadata: dict[str, str] | None = None) -> None:
    """Write named arrays as one safetensors file, with texts in its header."""
    contiguous = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    with atomic(path) as partial:
        save_file(contiguous, partial, metadata=metadata)


def read_tensors(path: Path, names: Iterable[str] | None = None) -> dict[str, NDArray[Any]]:
    """Read the named arrays of a safetensors file; all of them if none are named.

    Raises:
        UserError: the file is absent, is not one of safetensors, or lacks one of these arrays.
    """
    with _open_tensors(path) as file:
        return {name: file.get_tensor(name) for name in (file.keys() if names is None else names)}


def read_tensor_metadata(path: Path) -> dict[str, str]:
    """The texts in the header of a safetensors file. Raises as `read_tensors` does."""
    with _open_tensors(path) as file:
        return file.metadata() or {}


@contextmanager
def _open_tensors(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except FileNotFoundError:
        raise missing_artifact(path) from None
    except (SafetensorError, OSError) as error:
        raise faulty_artifact(path, f"not the tensors that it should hold ({error})") from None


def cached_tokens(
    key: str, make: Callable[[], tuple[NDArray[np.int32], NDArray[np.int64]]], *, root: Path = Path()
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Token lists in one array, and where each begins and the last ends: made once per `key`, then memory-mapped.

    An Arrow file outside DVC's outs: it may be deleted at any time.
    """
    path = root / TOKEN_CACHE / f"{key}.arrow"
    with suppress(pa.ArrowException, OSError, LookupError, TypeError):  # not there, or what a power cut left of it
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        tokens, offsets = (table[name].chunk(0).values.to_numpy() for name in ("tokens", "offsets"))
        if table.schema.metadata[b"crc32"] == _checksum(tokens, offsets):
            return tokens, offsets
    tokens, offsets = make()
    lists = [pa.LargeListArray.from_arrays([0, len(values)], values) for values in (tokens, offsets)]
    table = pa.table(lists, names=["tokens", "offsets"], metadata={"crc32": _checksum(tokens, offsets)})
    with suppress(OSError), atomic(path) as partial, pa.ipc.new_file(str(partial), table.schema) as out:
        out.write_table(table)
    return tokens, offsets  # also where no cache can be written


def _checksum(tokens: NDArray[Any], offsets: NDArray[Any]) -> bytes:
    return b"%d" % zlib.crc32(offsets.data, zlib.crc32(tokens.data))


def write_json(path: Path, value: Any) -> None:
    """Write small readable JSON (metrics, plots' data): sorted as given, floats as they are, newline at the end."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text for people, as it is."""
    with atomic(path) as partial:
        partial.write_bytes(text.encode())


def read_json(path: Path) -> Any:
    """Read JSON written by `write_json`.

    Raises:
        UserError: the file is absent or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise missing_artifact(path) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise faulty_artifact(path, f"not valid JSON ({error})") from None


def write_metrics(stage: str, values: dict[str, Any], *headlines: str, digits: int = 4) -> None:
    """Write all that a stage measured beside what it made; of it the headlines into its metrics file, which is in git.

    `headlines` are patterns of dotted names (all, if there are none), in the order in which DVC shows them. Both files
    are rounded, so that a diff shows what changed and no more.
    """
    values = rounded(values, digits)
    write_json(ROOT / stage / MEASURES, values)
    leaf_of = dict(leaves(values))
    metrics: dict[str, Any] = {}
    for name in (name for pattern in headlines or ["*"] for name in fnmatch.filter(leaf_of, pattern)):
        *path, last = name.split(".")
        inner = metrics
        for step in path:
            inner = inner.setdefault(step, {})
        inner[last] = leaf_of[name]
    write_json(METRICS / f"{stage}.json", metrics)


def leaves(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Nested values by dotted name."""
    for key, value in values.items():
        yield from leaves(value, f"{before}{key}.") if isinstance(value, Mapping) else [(f"{before}{key}", value)]


def rounded(value: Any, digits: int) -> Any:
    """`value` with every float in it rounded; NaN becomes null, which is what "could not be computed" means."""
    if isinstance(value, dict):
        return {str(key): rounded(inner, digits) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(inner, digits) for inner in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return None if value != value else round(value, digits)
    return value


def sha256(path: Path) -> str:
    """The SHA-256 of a file, read in bounded chunks."""
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_items_with_keywords() -> pd.DataFrame:
    """The items, with their keywords as a further column."""
    return read_table(ITEMS).assign(keywords=read_table(KEYWORDS)["keywords"])


def keyword_lists(keywords: pd.DataFrame, limit: int) -> list[list[str]]:
    """Keywords by item number: the first `limit` of each, empty lists where there are none."""
    return [list(words[:limit]) for words in keywords["keywords"]]


def stage_of(path: Path) -> str:
    """The stage that makes the artefact at `path`: what to run when it is not there."""
    tops = (ROOT.name, METRICS.name, PLOTS.name)
    *_, last = [-1, *(at for at, part in enumerate(path.parts) if part in tops)]
    return Path(*path.parts[last + 1 : last + 2]).stem
