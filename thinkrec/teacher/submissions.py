"""What has been submitted in batches and is not collected yet, noted so that no killed process submits it again.

One SQLite file beside the response store. A batch is noted, with the keys of its questions, between the upload of its
file and its creation: whoever finds a note without the batch's id looks among the server's batches for that file. The
notes wait for the disk (unlike the store's answers), for what is forgotten here is paid for twice. Neither keys of
accounts nor requests are in it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from thinkrec.teacher.store import WAIT, explained, store_lock

_TABLES = """
CREATE TABLE IF NOT EXISTS batches
    (number INTEGER PRIMARY KEY, place TEXT NOT NULL, file TEXT NOT NULL, id TEXT);
CREATE TABLE IF NOT EXISTS questions
    (number INTEGER NOT NULL, key TEXT NOT NULL, PRIMARY KEY (number, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS failures
    (key TEXT PRIMARY KEY, times INTEGER NOT NULL, said TEXT NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """A batch: its number here, the file of its requests at the server, and its id once it has one."""

    number: int
    file: str
    id: str | None


@dataclass(frozen=True, slots=True)
class Submissions:
    """The open notes; `open_submissions` opens them."""

    path: Path
    connection: sqlite3.Connection

    def note(self, place: str, file: str, keys: Iterable[str]) -> int:
        """Note a batch that is about to be created of a file; returns its number."""
        with self._transaction():
            number = self.connection.execute("INSERT INTO batches (place, file) VALUES (?, ?)", (place, file)).lastrowid
            assert number is not None
            self.connection.executemany("INSERT INTO questions VALUES (?, ?)", ((number, key) for key in keys))
        return number

    def name(self, number: int, id: str) -> None:
        """Note the id of a batch that has been created."""
        with self._transaction():
            self.connection.execute("UPDATE batches SET id = ? WHERE number = ?", (id, number))

    def batches(self, place: str) -> list[Noted]:
        """Those of one teacher, in the order in which they were noted."""
        with _explained(self.path):
            rows = self.connection.execute(
                "SELECT number, file, id FROM batches WHERE place = ? ORDER BY number", (place,)
            ).fetchall()
        return [Noted(number=number, file=file, id=id) for number, file, id in rows]

    def keys(self, number: int) -> set[str]:
        """The keys of a batch's questions."""
        with _explained(self.path):
            return {key for (key,) in self.connection.execute("SELECT key FROM questions WHERE number = ?", (number,))}

    def close(self, number: int, *, failed: Mapping[str, str]) -> None:
        """Forget a batch; `failed` are its questions without an answer, each with what was said of it."""
        with self._transaction():
            answered = self.keys(number) - set(failed)
            self.connection.executemany("DELETE FROM failures WHERE key = ?", ((key,) for key in answered))
            self.connection.executemany(
                "INSERT INTO failures VALUES (?, 1, ?) "
                "ON CONFLICT (key) DO UPDATE SET times = times + 1, said = excluded.said",
                failed.items(),
            )
            self.connection.execute("DELETE FROM questions WHERE number = ?", (number,))
            self.connection.execute("DELETE FROM batches WHERE number = ?", (number,))

    def failed(self, times: int) -> dict[str, str]:
        """Questions that have failed in so many batches in a row, each with what was last said of it."""
        with _explained(self.path):
            return dict(self.connection.execute("SELECT key, said FROM failures WHERE times >= ?", (times,)))

    def forgive(self, keys: Iterable[str]) -> None:
        """Forget how often questions have failed."""
        with self._transaction():
            self.connection.executemany("DELETE FROM failures WHERE key = ?", ((key,) for key in keys))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _explained(self.path), self.connection:  # commits, or rolls back
            self.connection.execute("BEGIN IMMEDIATE")
            yield


def submissions_path(store: Path) -> Path:
    """The notes beside a store."""
    return store.with_name(f"{store.stem}-batches.sqlite")


@contextmanager
def open_submissions(store: Path) -> Iterator[Submissions]:
    """The notes beside `store`, for this process alone: others that open them wait until it is done with them.

    Raises:
        UserError: the file is none of these, is damaged or cannot be written.
    """
    path = submissions_path(store)
    with store_lock(store), _opened(path) as connection:
        yield Submissions(path, connection)


def keys_under_way(store: Path, place: str) -> set[str]:
    """The keys of all questions to one teacher that are noted as submitted.

    Raises:
        UserError: the file is none of these, or is damaged.
    """
    path = submissions_path(store)
    if not path.exists():
        return set()
    with _opened(path) as connection:
        notes = Submissions(path, connection)
        return set().union(*(notes.keys(batch.number) for batch in notes.batches(place)))


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    with _explained(path):
        connection = sqlite3.connect(path, timeout=WAIT, isolation_level=None)
    with closing(connection):
        with _explained(path):
            connection.executescript(_TABLES)
        yield connection


_explained = partial(
    explained,
    unusable="the notes of submitted batches cannot be used ({error}); see that its folder is writable and has room",
    damaged="the notes of submitted batches are damaged ({error}); put back a copy, or move it away and what is under "
    "way will be submitted (and paid) anew",
)
