"""Published files, downloaded once: into $THINKREC_DATA, or `.cache/datasets` here, a folder a dataset.

A file whose publisher gives a checksum is held to it, so that it may come from a mirror where its publisher fails. One
without is held to what came the first time, if that was a whole archive: its SHA-256 stands beside it, and is printed
when the file is downloaded. Deleted, it comes again.
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
    """A published file: its address, its MD5 where the publisher gives one, and where else the same bytes are."""

    address: str
    md5: str | None = None
    mirrors: tuple[str, ...] = ()  # asked in this order where the publisher fails; only of files with an MD5

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
    target, checksum_file = folder / file.name, folder / f"{file.name}.sha256"
    there = target.exists()
    kind, checksum = "published MD5", file.md5
    if checksum is None and there and checksum_file.exists():
        kind, checksum = f"SHA-256 in {checksum_file}", checksum_file.read_text(encoding="ascii").strip()
    if there and (checksum is None or _digest(target, file.md5) == checksum):
        return
    faults: list[str] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for address in (file.address, *file.mirrors):
            if fault := _download(address, target, file, kind, checksum):
                faults.append(fault)
                continue
            if faults:
                print(f"{file.name}: from {address}, since {'; '.join(faults)}", file=sys.stderr)
            break
        else:
            damaged = f"{target} is not the file of the {kind}; " if there else ""
            raise UserError(
                f"{file.name}: {'; '.join(faults)}. {damaged}get {file.address} by hand, put it into {folder} or pass "
                "-S dataset.raw=PATH"
            )
    except OSError as error:
        raise UserError(f"{folder}: cannot keep {file.name} here ({_reason(error)}); set THINKREC_DATA") from None
    if file.md5 is None:
        digest = _digest(target, None)
        with atomic(checksum_file) as partial:
            partial.write_text(f"{digest}\n", encoding="ascii")
        print(f"{file.name}: unverified, its publisher gives no checksum; SHA-256 {digest}", file=sys.stderr)


class WrongFileError(Exception):
    """What came is not what was asked for; the message says what it is instead."""


def _download(address: str, target: Path, file: Remote, kind: str, checksum: str | None) -> str | None:
    """Download a file, again where that may help; it takes its place once it is whole and of its checksum.

    Returns what went wrong, if anything did. An OSError says that the file cannot be written.
    """
    import requests
    from pooch import HTTPDownloader

    download = HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=PIECE, timeout=TIMEOUT)
    partial = target.with_name(f".{target.name}")  # a fixed name: what a killed run left is replaced
    host = urlsplit(address).hostname
    fault = ""
    try:
        for left in reversed(range(RETRIES + 1)):
            try:
                download(address, str(partial), None)
                _check(partial, file, kind, checksum)
                partial.replace(target)
                return None
            except requests.exceptions.SSLError as error:
                return f"{host} cannot show who it is ({_reason(error)})"
            except requests.exceptions.ConnectionError as error:
                fault = f"cannot reach {host} ({_reason(error)})"
            except requests.exceptions.RequestException as error:
                fault = f"the download from {host} broke off ({_reason(error)})"
                if (answer := error.response) is not None:
                    fault = f"{host} says {answer.status_code} {answer.reason}"
                    if answer.status_code < 500 and answer.status_code not in (408, 429):
                        return fault
            except WrongFileError as error:
                fault = f"what came from {host} is {error}"
            if left:
                time.sleep(RETRIES + 1 - left)
        return fault
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
