"""Published files, downloaded once: into $THINKREC_DATA, or `.cache/datasets` here, a folder a dataset.

A file whose publisher gives a checksum is held to it. One without is held to what came the first time: its SHA-256
stands beside it, and is printed when the file is downloaded.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from thinkrec.artifacts import atomic, sha256
from thinkrec.errors import UserError

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
    return Path(os.environ.get("THINKREC_DATA") or FOLDER) / dataset.replace(":", "-")


def fetch(dataset: str, files: Sequence[Remote]) -> Path:
    """The folder of a dataset's files, downloaded where they are not there yet."""
    folder = folder_of(dataset)
    for file in files:
        _fetch(folder, file)
    return folder


def _fetch(folder: Path, file: Remote) -> None:
    import pooch
    import requests

    pooch.get_logger().setLevel(logging.WARNING)  # errors are ours
    target, checksum_file = folder / file.name, folder / f"{file.name}.sha256"
    checksum = f"md5:{file.md5}" if file.md5 else None
    if checksum is None and target.exists() and checksum_file.exists():
        checksum = f"sha256:{checksum_file.read_text(encoding='ascii').strip()}"
    by_hand = f"get {file.address} by hand, put it into {folder} or pass -S dataset.raw=PATH"
    fetcher = pooch.create(
        path=folder,
        base_url="",
        registry={file.name: checksum},
        urls={file.name: file.address},
        retry_if_failed=RETRIES,
    )
    try:
        fetcher.fetch(file.name, downloader=_download)
    except requests.exceptions.ConnectionError as error:
        host = urlsplit(file.address).hostname
        raise UserError(f"{file.name}: cannot reach {host} ({_reason(error)}); {by_hand}") from None
    except requests.exceptions.RequestException as error:
        raise UserError(f"{file.name}: the download broke off ({_reason(error)}); run it again, or {by_hand}") from None
    except ValueError:  # what pooch raises for a file with another checksum; it keeps none of it
        kind = "published MD5" if file.md5 else f"SHA-256 in {checksum_file}"
        raise UserError(f"{file.name}: what came is not the file of the {kind}; deleted. {by_hand}") from None
    except OSError as error:
        raise UserError(
            f"{folder}: cannot keep {file.name} here ({error.strerror or error}); set THINKREC_DATA"
        ) from None
    if file.md5 is None and not checksum_file.exists():
        digest = sha256(target)
        with atomic(checksum_file) as partial:
            partial.write_text(f"{digest}\n", encoding="ascii")
        print(f"{file.name}: unverified, its publisher gives no checksum; SHA-256 {digest}", file=sys.stderr)


def _download(address: str, output: str, _: Any) -> None:
    """Download to a file that pooch names, keeps if its checksum is right, and deletes otherwise."""
    import requests
    from pooch import HTTPDownloader

    try:
        HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=PIECE, timeout=TIMEOUT)(address, output, None)
    except requests.exceptions.HTTPError as error:
        answer = error.response
        if answer is None or answer.status_code in (408, 429) or answer.status_code >= 500:
            raise  # may pass: pooch tries again
        raise UserError(
            f"{address}: the server says {answer.status_code} {answer.reason}; "
            "has the file moved? Get it by hand and pass -S dataset.raw=PATH"
        ) from None


def _reason(error: BaseException) -> str:
    """What the system said (connection refused), or else the kind of error."""
    while error.__context__ is not None:
        error = error.__context__
    return getattr(error, "strerror", None) or type(error).__name__
