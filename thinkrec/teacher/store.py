"""What was asked of teachers, so that nothing is paid for twice: their answers, and the batches that are under way.

Both are SQLite files outside DVC's outs, side by side. Neither holds requests or keys of accounts.

- Answers (`Store`), by the hash of the question: a change of prompt, model or endpoint asks anew. A row is committed as
  its answer comes. Whoever sends holds `store_lock` meanwhile; anybody may read. The log is written ahead (WAL) without
  waiting for the disk: a killed process loses nothing that was committed, a power cut perhaps the last answers.
- Submitted batches (`Submissions`), recorded with their questions' keys between the upload of the file and the batch's
  creation. A record without the batch's id comes from a killed run: the server's batches are searched for that file.
  Every write waits for the disk, since what is forgotten here is paid for twice.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

from filelock import BaseFileLock, FileLock

from thinkrec.errors import UserError
from thinkrec.teacher.answers import Answer, dump_answer, load_answer

WAIT = 60.0  # seconds for another process to finish writing
FORMAT = 1  # of the files, in their headers


@dataclass(frozen=True, slots=True)
class _Database:
    """An open SQLite file. Every method raises `UserError` where it is damaged or cannot be written."""

    path: Path
    connection: sqlite3.Connection

    TITLE: ClassVar[str]  # what an error calls it
    SETUP: ClassVar[str]  # SQL that makes it what it should be

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[Self]:
        """The file at `path`, made where there is none; `UserError` where it is of another version."""
        with cls._explain_faults(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                connection = cls._connect(path)
            except sqlite3.OperationalError:
                # Who writes ahead shares an index in memory, which some file systems have not; who has a file alone
                # needs none, and may end that.
                connection = cls._connect(path, locking="EXCLUSIVE", journal="TRUNCATE")
        with closing(connection):
            yield cls(path, connection)

    @classmethod
    def _connect(cls, path: Path, *, locking: str = "NORMAL", journal: str = "WAL") -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=WAIT, isolation_level=None)
        try:
            connection.executescript(f"PRAGMA locking_mode = {locking}")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version not in (0, FORMAT):
                raise UserError(f"{path}: {cls.TITLE} is of another version ({version}); use that thinkrec")
            connection.executescript(f"PRAGMA journal_mode = {journal}; PRAGMA locking_mode = NORMAL")
            connection.executescript(f"{cls.SETUP}; PRAGMA user_version = {FORMAT}")
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Write all of a block or, where it raises, none."""
        with self._explain_faults(self.path), self.connection:
            self.connection.execute("BEGIN IMMEDIATE")
            yield self.connection

    def rows(self, query: str, *values: object) -> list[Any]:
        """All rows of a query."""
        with self._explain_faults(self.path):
            return self.connection.execute(query, values).fetchall()

    @classmethod
    @contextmanager
    def _explain_faults(cls, path: Path) -> Iterator[None]:
        try:
            yield
        except (sqlite3.OperationalError, OSError) as error:  # locked, read-only, full
            raise UserError(
                f"{path}: {cls.TITLE} cannot be used ({error}); see that its folder is writable, has room and that no "
                "other process holds it"
            ) from None
        except (sqlite3.DatabaseError, ValueError) as error:
            raise UserError(
                f"{path}: {cls.TITLE} is damaged ({error}); put back a copy of it, or move it away: what it holds will "
                "be asked for (and paid) anew"
            ) from None


@dataclass(frozen=True, slots=True)
class Store(_Database):
    """The answers; `open_store` opens them."""

    TITLE = "the response store"
    SETUP = """
        PRAGMA synchronous = NORMAL;
        CREATE TABLE IF NOT EXISTS responses (key TEXT PRIMARY KEY, answer TEXT NOT NULL) WITHOUT ROWID
    """

    def get(self, key: str) -> Answer | None:
        """The answer that stands under `key`, or None."""
        with self._explain_faults(self.path):
            row = self.connection.execute("SELECT answer FROM responses WHERE key = ?", (key,)).fetchone()
            answer = None if row is None else load_answer(row[0])
        return None if answer is None or answer.empty else answer  # earlier versions kept empty ones

    def put(self, key: str, answer: Answer) -> Answer:
        """Keep an answer unless it is empty; returns the one that stands, which is an earlier one if there is one."""
        standing = self.get(key)
        if standing is None and not answer.empty:
            self.rows("INSERT OR REPLACE INTO responses VALUES (?, ?)", key, dump_answer(answer))
        return standing or answer

    def put_all(self, answers: Iterable[tuple[str, Answer]]) -> Counter[str]:
        """Keep many answers or, where any of them contradicts one that stands, none.

        Returns: how many are "new", how many were here already ("same"), how many contradict ("different").
        """
        counts: Counter[str] = Counter()
        with self.transaction() as connection:
            for key, answer in answers:
                standing = self.get(key)
                if standing is None:
                    self.put(key, answer)
                counts["new" if standing is None else "same" if standing == answer else "different"] += 1
            if counts["different"]:
                connection.rollback()
        return counts


class SubmittedBatch(NamedTuple):
    """A batch as recorded: its number here, the file of its requests, its id once it has one, its questions' keys."""

    number: int
    file: str
    id: str | None
    keys: frozenset[str]


@dataclass(frozen=True, slots=True)
class Submissions(_Database):
    """The record of submitted batches; `open_submissions` opens it."""

    TITLE = "the record of submitted batches"
    SETUP = """
        CREATE TABLE IF NOT EXISTS batches
            (number INTEGER PRIMARY KEY, place TEXT NOT NULL, file TEXT NOT NULL, id TEXT, keys TEXT NOT NULL);
        CREATE TABLE IF NOT EXISTS failures
            (key TEXT PRIMARY KEY, times INTEGER NOT NULL, reason TEXT NOT NULL) WITHOUT ROWID
    """

    def add(self, place: str, file: str, keys: Iterable[str]) -> int:
        """Record a batch that is about to be created of a file; returns its number."""
        with self.transaction() as connection:
            values = (place, file, json.dumps(list(keys)))
            number = connection.execute("INSERT INTO batches (place, file, keys) VALUES (?, ?, ?)", values).lastrowid
        assert number is not None
        return number

    def set_id(self, number: int, id: str) -> None:
        """Record the id of a batch that has been created."""
        self.rows("UPDATE batches SET id = ? WHERE number = ?", id, number)

    def batches(self, place: str) -> list[SubmittedBatch]:
        """The batches of one teacher, in the order in which they were recorded."""
        rows = self.rows("SELECT number, file, id, keys FROM batches WHERE place = ? ORDER BY number", place)
        return [SubmittedBatch(number, file, id, frozenset(json.loads(keys))) for number, file, id, keys in rows]

    def remove(self, number: int, *, answered: Iterable[str] = (), failed: Mapping[str, str] | None = None) -> None:
        """Forget a batch; `failed` are its questions without an answer, each with the reason."""
        with self.transaction() as connection:
            self.forgive(answered)
            connection.executemany(
                "INSERT INTO failures VALUES (?, 1, ?) "
                "ON CONFLICT (key) DO UPDATE SET times = times + 1, reason = excluded.reason",
                (failed or {}).items(),
            )
            connection.execute("DELETE FROM batches WHERE number = ?", (number,))

    def failed(self, times: int) -> dict[str, str]:
        """Questions that have failed in so many batches in a row, each with the last reason."""
        return dict(self.rows("SELECT key, reason FROM failures WHERE times >= ?", times))

    def forgive(self, keys: Iterable[str]) -> None:
        """Forget how often questions have failed."""
        self.rows("DELETE FROM failures WHERE key IN (SELECT value FROM json_each(?))", json.dumps(list(keys)))


open_store = Store.open


@contextmanager
def open_submissions(store: Path) -> Iterator[Submissions]:
    """The record beside `store`, for this process alone: others that open it wait until it is done with it."""
    with store_lock(store), Submissions.open(_submissions_path(store)) as submissions:
        yield submissions


def keys_under_way(store: Path, place: str) -> frozenset[str]:
    """The keys of all questions to one teacher that are recorded as submitted."""
    path = _submissions_path(store)
    if not path.exists():
        return frozenset()
    with Submissions.open(path) as submissions:
        return frozenset().union(*(batch.keys for batch in submissions.batches(place)))


def store_lock(path: Path) -> BaseFileLock:
    """The lock of whoever sends questions whose answers go into the store at `path`."""
    return FileLock(path.with_suffix(".lock"))


def request_key(place: str, request: Mapping[str, Any]) -> str:
    """The hash of a question: where it is asked and the request's body, the model among it, in canonical JSON."""
    text = json.dumps([place, request], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _submissions_path(store: Path) -> Path:
    return store.with_name(f"{store.stem}-batches.sqlite")
