"""Published files, downloaded once: into $THINKREC_DATA, or `.cache/datasets` here, a folder a dataset.

A file whose publisher gives a checksum is held to it. One without is held to what came the first time, if that was a
whole archive: its SHA-256 stands beside it, and is printed when the file is downloaded. Deleted, it comes again.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from thinkrec.artifacts import atomic
from thinkrec.errors import UserError
from thinkrec.ingest.readers.files import check_whole

FOLDER = Path(".cache") / "datasets"
RETRIES = 2
TIMEOUT = 30.0  # seconds without an answer, or between two pieces of it
PIECE = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Remote:
    """A published file: its address, and its MD5 where the publisher gives one."""

    address: str
    md5: str | None = None

    @property
    def name(self) -> str:
        """The file's name."""
        return urlsplit(self.address).path.rpartition("/")[2]


def folder_of(dataset: str) -> Path:
    """Where a dataset's files are kept."""
    return Path(os.environ.get("THINKREC_DATA") or FOLDER).expanduser() / dataset.replace(":", "-")


def fetch(dataset: str, files: Sequence[Remote]) -> Path:
    """The folder of a dataset's files, downloaded where they are not there yet."""
    folder = folder_of(dataset)
    for file in files:
        _fetch(folder, file)
    return folder


def _fetch(folder: Path, file: Remote) -> None:
    import requests

    target, checksum_file = folder / file.name, folder / f"{file.name}.sha256"
    there = target.exists()
    kind, checksum = "published MD5", file.md5
    if checksum is None and there and checksum_file.exists():
        kind, checksum = f"SHA-256 in {checksum_file}", checksum_file.read_text(encoding="ascii").strip()
    if there and (checksum is None or _digest(target, file.md5) == checksum):
        return
    by_hand = f"get {file.address} by hand, put it into {folder} or pass -S dataset.raw=PATH"
    if there:
        by_hand = f"{target} is not the file of the {kind}; {by_hand}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _download(file, target, kind, checksum)
    except (OSError, WrongFileError) as error:  # what `requests` raises is an OSError, too
        host, why = urlsplit(file.address).hostname, _reason(error)
        lines = {  # the first that fits: subclasses stand before their bases
            requests.exceptions.SSLError: f"{file.name}: {host} cannot show who it is ({why}); {by_hand}",
            requests.exceptions.ConnectionError: f"{file.name}: cannot reach {host} ({why}); {by_hand}",
            requests.exceptions.RequestException: (
                f"{file.name}: the download broke off ({why}); run it again, or {by_hand}"
            ),
            WrongFileError: f"{file.name}: what came is {error}; deleted. {by_hand}",
            OSError: f"{folder}: cannot keep {file.name} here ({why}); set THINKREC_DATA",
        }
        raise UserError(next(line for fault, line in lines.items() if isinstance(error, fault))) from None
    if file.md5 is None:
        digest = _digest(target, None)
        with atomic(checksum_file) as partial:
            partial.write_text(f"{digest}\n", encoding="ascii")
        print(f"{file.name}: unverified, its publisher gives no checksum; SHA-256 {digest}", file=sys.stderr)


class WrongFileError(Exception):
    """What came is not what was asked for; the message says what it is instead."""


def _download(file: Remote, target: Path, kind: str, checksum: str | None) -> None:
    """Download a file, again where that may help; it takes its place once it is whole and of its checksum."""
    import requests
    from pooch import HTTPDownloader

    download = HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=PIECE, timeout=TIMEOUT)
    partial = target.with_name(f".{target.name}")  # a fixed name: what a killed run left is replaced
    try:
        for left in reversed(range(RETRIES + 1)):
            try:
                download(file.address, str(partial), None)
                _check(partial, file, kind, checksum)
                partial.replace(target)
                return
            except requests.exceptions.SSLError:
                raise
            except (requests.exceptions.RequestException, WrongFileError) as error:
                answer = getattr(error, "response", None)
                if answer is not None and answer.status_code < 500 and answer.status_code not in (408, 429):
                    raise UserError(
                        f"{file.address}: the server says {answer.status_code} {answer.reason}; "
                        "has the file moved? Get it by hand and pass -S dataset.raw=PATH"
                    ) from None
                if not left:
                    raise
                time.sleep(RETRIES + 1 - left)
    finally:
        partial.unlink(missing_ok=True)


def _check(path: Path, file: Remote, kind: str, checksum: str | None) -> None:
    """Stop where a file that came is not of its checksum or, without one, no whole archive."""
    if checksum is not None:
        if _digest(path, file.md5) != checksum:
            raise WrongFileError(f"not the file of the {kind}")
        return
    try:
        check_whole(path)
    except UserError as error:
        raise WrongFileError(str(error).removeprefix(f"{path}: ").partition(";")[0]) from None


def _digest(path: Path, md5: str | None) -> str:
    """A file's MD5 where its publisher gives one, else its SHA-256."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "md5" if md5 else "sha256").hexdigest()


def _reason(error: BaseException) -> str:
    """What the system said (connection refused, certificate has expired), or else the kind of error."""
    while error.__context__ is not None:
        error = error.__context__
    return getattr(error, "verify_message", None) or getattr(error, "strerror", None) or type(error).__name__
