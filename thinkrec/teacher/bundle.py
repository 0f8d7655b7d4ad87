"""Bundles: the answers behind one run of keywords and traces, as a file that others replay without asking anybody.

Gzipped JSON lines: first what the answers are (format, endpoint without user and password, model), then one answer a
line beside the hash of its question, in the order of the hashes, so that equal answers are equal bytes. No key, no
request and no id of a user is in it; who replays it has the same data and parameters, which give the same questions.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from errno import EISDIR
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from thinkrec.artifacts import atomic
from thinkrec.errors import UserError
from thinkrec.shown import one_line
from thinkrec.teacher.answers import Answer, parse_object, validate
from thinkrec.teacher.endpoint import open_replay, place, store_path
from thinkrec.teacher.item_prompts import LONGEST_NAME
from thinkrec.teacher.job import Job
from thinkrec.teacher.store import open_store

FORMAT = "thinkrec responses 1"

LONGEST_LINE = 2**26  # characters


@dataclass(frozen=True, slots=True)
class _Entry:
    """A line but the first."""

    key: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    answer: Answer


_ENTRY = TypeAdapter(_Entry)


def export_bundle(path: Path, jobs: Sequence[Job[Any]]) -> int:
    """Write the answers to all the questions of `jobs`, which ask one teacher; returns how many."""
    keys: set[str] = set()
    teacher = jobs[0].teacher
    for job in jobs:
        job.work(open_replay(job.teacher, lambda key, *_: keys.add(key)))
    write_bundle(path, store_path(), keys, endpoint=place(teacher.endpoint), model=teacher.model)
    return len(keys)


def write_bundle(path: Path, store: Path, keys: Iterable[str], *, endpoint: str, model: str) -> None:
    """Write the answers that stand in `store` under `keys`; `endpoint` and `model` say whose they are."""
    header = {"format": FORMAT, "endpoint": endpoint, "model": model}
    with _written(path) as file, open_store(store) as answers:
        file.write(_line(header))
        for key in sorted(keys):
            answer = answers.get(key)
            if answer is None:
                raise UserError(f"{store}: an answer of this run is gone; run the stage that asks for it")
            file.write(_line({"key": key, "answer": asdict(answer)}))


def read_bundle(path: Path, store: Path) -> tuple[Counter[str], dict[str, str]]:
    """Put a bundle's answers into `store`: all of them or, where one contradicts what stands there, none.

    Returns: the counts of `Store.put_all`, and the bundle's header.
    """
    lines = _lines(path)
    header = parse_object(next(lines, ""))
    if header.get("format") != FORMAT or not {"endpoint", "model"} <= set(header):
        raise UserError(f"{path}: not a bundle of this version ({FORMAT!r}); have it exported anew")
    with open_store(store) as answers:
        counts = answers.put_all(_entry(path, number, line) for number, line in enumerate(lines, 2))
    if counts["different"]:
        raise UserError(
            f"{path}: {counts['different']} of its answers differ from those in {store}; move that file away (or name "
            "another in THINKREC_STORE) and import again"
        )
    return counts, {name: one_line(str(header[name]), LONGEST_NAME) for name in ("endpoint", "model")}


@contextmanager
def _written(path: Path) -> Iterator[gzip.GzipFile]:
    """A new gzip file that takes its place once it is whole; neither its name nor the time are in its bytes."""
    try:
        if path.is_dir():  # which an atomic write would replace
            raise IsADirectoryError(EISDIR, os.strerror(EISDIR))
        with (
            atomic(path) as partial,
            partial.open("wb") as raw,
            gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as file,
        ):
            yield file
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); name a file in a folder of yours") from None


def _line(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, ensure_ascii=False) + "\n").encode()


def _lines(path: Path) -> Iterator[str]:
    number = 1
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            while line := file.readline(LONGEST_LINE):
                yield line
                number += 1
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; name a bundle that thinkrec bundle export wrote") from None
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise UserError(f"{path}: not a whole bundle (about line {number}: {error}); get it again") from None


def _entry(path: Path, number: int, line: str) -> tuple[str, Answer]:
    """A line's key and answer."""
    try:
        entry = validate(_ENTRY, line)
    except ValueError as error:
        raise UserError(f"{path}: line {number}: {error}; get the bundle again") from None
    return entry.key, entry.answer
