"""The response store: what teachers answered, so that no answer is paid for twice.

One SQLite file outside DVC's outs. A row's key is the hash of the question (where it was asked, of which model, the
request's body), so a change of prompt, model or endpoint asks anew and everything else is answered from here. A row is
committed as its answer comes. Several processes may share the file; of two answers to one question the first stands,
for both. Neither keys nor requests are in it.

Who is about to send a question claims it first, in a second table; everybody else who wants to know waits for that
answer. A claim whose owner is gone (killed, or of another boot or machine) is anybody's.

The log is written ahead (WAL) without waiting for the disk: a killed process loses nothing of what was committed, a
power cut perhaps the last answers.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

from thinkrec.errors import UserError
from thinkrec.teacher.budget import MOST_TOKENS

WAIT = 60.0  # seconds for another process to finish writing
FORMAT = 1  # of the file, in its header

_TABLES = (
    "CREATE TABLE IF NOT EXISTS responses (key TEXT PRIMARY KEY, answer TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS claims (key TEXT PRIMARY KEY, owner TEXT NOT NULL, since REAL NOT NULL) WITHOUT ROWID",
)
_BOOT, _PROCESS = Path("/proc/sys/kernel/random/boot_id"), Path("/proc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server said, as it said it, of its account and ours nothing."""

    content: str
    reasoning_content: str
    refusal: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Store:
    """An open store; `open_store` opens one."""

    path: Path
    connection: sqlite3.Connection
    owner: str  # of the claims that it makes

    def get(self, key: str) -> Answer | None:
        """The answer that stands under `key`, or None.

        Raises:
            UserError: the file is damaged.
        """
        with _explained(self.path):
            row = self.connection.execute("SELECT answer FROM responses WHERE key = ?", (key,)).fetchone()
            return None if row is None else read_answer(row[0])

    def put(self, key: str, answer: Answer) -> Answer:
        """Keep an answer; returns the one that stands, which is another process's if that came first.

        Raises:
            UserError: the file is damaged or cannot be written.
        """
        with _explained(self.path), self._transaction():
            new = self.connection.execute(
                "INSERT OR IGNORE INTO responses VALUES (?, ?)", (key, written_answer(answer))
            ).rowcount
            self.connection.execute("DELETE FROM claims WHERE key = ?", (key,))
        return answer if new else self.get(key) or answer

    def claim(self, key: str) -> bool:
        """Whether the question is now this process' to send: it has no answer, and nobody alive has claimed it.

        Raises:
            UserError: the file is damaged or cannot be written.
        """
        with _explained(self.path), self._transaction():
            if self.connection.execute("SELECT 1 FROM responses WHERE key = ?", (key,)).fetchone():
                return False
            found = self.connection.execute("SELECT owner FROM claims WHERE key = ?", (key,)).fetchone()
            if found and _lives(found[0]):
                return False
            self.connection.execute("INSERT OR REPLACE INTO claims VALUES (?, ?, ?)", (key, self.owner, time.time()))
            return True

    def release(self, key: str) -> None:
        """Give up this process' claim: no answer will come of it.

        Raises:
            UserError: the file is damaged or cannot be written.
        """
        with _explained(self.path):
            self.connection.execute("DELETE FROM claims WHERE key = ? AND owner = ?", (key, self.owner))

    def put_all(self, answers: Iterable[tuple[str, Answer]]) -> tuple[int, int, int]:
        """Keep many answers or, where any of them contradicts one that stands, none.

        Returns: how many are new, how many were here already, how many contradict.

        Raises:
            UserError: the file is damaged or cannot be written.
        """
        new = same = other = 0
        with _explained(self.path), self._transaction() as undo:
            for key, answer in answers:
                standing = self.get(key)
                if standing is None:
                    self.connection.execute("INSERT INTO responses VALUES (?, ?)", (key, written_answer(answer)))
                new, same = new + (standing is None), same + (standing == answer)
                other += standing not in (None, answer)
            if other:
                undo()
        return new, same, other

    @contextmanager
    def _transaction(self) -> Iterator[Callable[[], object]]:
        """All of the block or nothing, and nobody else's between; yields what takes back what the block has done."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield self.connection.rollback
            if self.connection.in_transaction:
                self.connection.execute("COMMIT")
        finally:
            if self.connection.in_transaction:
                self.connection.rollback()


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
            (found,) = connection.execute("PRAGMA user_version").fetchone()
            if found not in (0, FORMAT):
                raise UserError(f"{path}: a response store of another version ({found}); use that version of thinkrec")
            for table in _TABLES:
                connection.execute(table)
            connection.execute(f"PRAGMA user_version = {FORMAT}")
        yield Store(path, connection, owner(os.getpid()))


def owner(pid: int) -> str:
    """A process, told from another of the same number: which boot, which number, when it began; "" if it is gone.

    Where the system does not say when (no /proc), the number alone.
    """
    if not _BOOT.exists():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return ""
        except PermissionError:
            pass
        return f" {pid} "
    try:
        # After the name, which may hold anything: state, parent and so on; the 20th is when it began.
        fields = (_PROCESS / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    ended = fields[0] in "ZX"  # nobody has asked yet how it ended
    return "" if ended else f"{_BOOT.read_text().strip()} {pid} {fields[19]}"


def _lives(claimant: str) -> bool:
    pid = claimant.split(" ")[1]
    return owner(int(pid)) == claimant


def request_key(place: str, request: Mapping[str, Any]) -> str:
    """The hash of a question: where it is asked and the request's body, the model among it, in canonical JSON."""
    text = json.dumps([place, request], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def written_answer(answer: Answer) -> str:
    """An answer as JSON in one line; equal answers are equal texts."""
    return json.dumps(asdict(answer), ensure_ascii=False)


def read_answer(text: str) -> Answer:
    """The answer that `written_answer` wrote.

    Raises:
        ValueError: it is none.
    """
    found = json.loads(text)
    types = {field.name: int if field.name.endswith("_tokens") else str for field in fields(Answer)}
    if not isinstance(found, dict) or {name: type(value) for name, value in found.items()} != types:
        raise ValueError(f"an answer should be an object with {', '.join(types)}")
    for name, value in found.items():
        if isinstance(value, str):
            value.encode()  # half a character raises
        elif not 0 <= value <= MOST_TOKENS:
            raise ValueError(f"{name} should be from 0 to {MOST_TOKENS:,}")
    return Answer(**found)


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
