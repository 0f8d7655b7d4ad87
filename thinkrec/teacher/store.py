"""The response store: what teachers answered, so that no answer is paid for twice.

One SQLite file outside DVC's outs. A row's key is the hash of the question (where it was asked, of which model, the
request's body), so a change of prompt, model or endpoint asks anew and everything else is answered from here. A row is
committed as its answer comes. Whoever sends questions holds `store_lock` meanwhile; anybody may read. Neither keys of
accounts nor requests are in the file.

The log is written ahead (WAL) without waiting for the disk: a killed process loses nothing of what was committed, a
power cut perhaps the last answers.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock

from thinkrec.errors import UserError
from thinkrec.teacher.answers import Answer, read_answer, write_answer

WAIT = 60.0  # seconds for another process to finish writing
FORMAT = 1  # of the file, in its header

_TABLE = "CREATE TABLE IF NOT EXISTS responses (key TEXT PRIMARY KEY, answer TEXT NOT NULL) WITHOUT ROWID"


@dataclass(frozen=True, slots=True)
class Store:
    """An open store; `open_store` opens one.

    Every method raises `UserError` where the file is damaged or cannot be written.
    """

    path: Path
    connection: sqlite3.Connection

    def get(self, key: str) -> Answer | None:
        """The answer that stands under `key`, or None."""
        with _explained(self.path):
            row = self.connection.execute("SELECT answer FROM responses WHERE key = ?", (key,)).fetchone()
            return None if row is None else read_answer(row[0])

    def put(self, key: str, answer: Answer) -> Answer:
        """Keep an answer; returns the one that stands, which is an earlier one if there is one."""
        with _explained(self.path):
            self.connection.execute("INSERT OR IGNORE INTO responses VALUES (?, ?)", (key, write_answer(answer)))
        return self.get(key) or answer

    def put_all(self, answers: Iterable[tuple[str, Answer]]) -> tuple[int, int, int]:
        """Keep many answers or, where any of them contradicts one that stands, none.

        Returns: how many are new, how many were here already, how many contradict.
        """
        new = same = other = 0
        with _explained(self.path), self.connection:  # commits, or rolls back
            self.connection.execute("BEGIN IMMEDIATE")
            for key, answer in answers:
                standing = self.get(key)
                if standing is None:
                    self.put(key, answer)
                    new += 1
                elif standing == answer:
                    same += 1
                else:
                    other += 1
            if other:
                self.connection.rollback()
        return new, same, other


@contextmanager
def open_store(path: Path) -> Iterator[Store]:
    """The store at `path`, made where there is none.

    Raises:
        UserError: the file is no store, is damaged or cannot be written.
    """
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=WAIT, isolation_level=None)
    with closing(connection):
        with _explained(path):
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version not in (0, FORMAT):
                raise UserError(
                    f"{path}: a response store of another version ({version}); use that version of thinkrec"
                )
            connection.execute(_TABLE)
            connection.execute(f"PRAGMA user_version = {FORMAT}")
        yield Store(path, connection)


def store_lock(path: Path) -> BaseFileLock:
    """The lock of whoever sends questions whose answers go into the store at `path`."""
    return FileLock(path.with_suffix(".lock"))


def request_key(place: str, request: Mapping[str, Any]) -> str:
    """The hash of a question: where it is asked and the request's body, the model among it, in canonical JSON."""
    text = json.dumps([place, request], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def explained(path: Path, *, unusable: str, damaged: str) -> Iterator[None]:
    """Faults of an SQLite file as one line: what it holds and how it fails (`error`), what to do."""
    try:
        yield
    except (sqlite3.OperationalError, OSError) as error:  # locked, read-only, full
        raise UserError(f"{path}: {unusable.format(error=error)}") from None
    except (sqlite3.DatabaseError, ValueError) as error:
        raise UserError(f"{path}: {damaged.format(error=error)}") from None


_explained = partial(
    explained,
    unusable="the response store cannot be used ({error}); see that its folder is writable, has room and that no other "
    "process holds it",
    damaged="the response store is damaged ({error}); put back a copy of it, or move it away and every answer is asked "
    "for (and paid) anew",
)
