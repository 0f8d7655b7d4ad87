"""The bytes of a dataset's files, wherever they lie: on disk, gzipped, in a zip, in a tar, in a tar in a zip.

Nothing is ever extracted: what an archive holds streams through, so that no member's path is used for writing. A
file that is broken, packed in a way not read here, or unpacks to far more than any honest one is a UserError.
"""

from __future__ import annotations

import codecs
import gzip
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path, PurePath, PurePosixPath
from typing import IO, Any, cast

from thinkrec.errors import UserError
from thinkrec.ingest.raw import Part

BLOCK = 1 << 20  # bytes read at a time: all that a malformed row makes slow
PIECE = 1 << 28  # bytes of a file that is read in pieces
MAX_LINE = 1 << 20  # bytes: a longer line is not a line of a rating file
MAX_RATIO = 200  # unpacked bytes over packed ones; text shrinks by 3 to 20
ANY_SIZE = 1 << 26  # bytes that any archive may unpack to
DEPTH = 2  # archives within one another

GZIP, ZIP, TAR = b"\x1f\x8b", b"PK\x03\x04", b"ustar"
TAR_BLOCK = 1 << 18  # bytes of a tar read at a time
TAR_AT = 257  # where a tar's first header says that it is one
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # how the text files of some spreadsheets begin
OTHERS = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"7z\xbc\xaf": "7-Zip", b"Rar!": "RAR"}
AGAIN = "delete it and get it again"


class Stream:
    """A readable stream whose faults are one line, and which ends where an honest archive would have."""

    def __init__(self, inner: IO[bytes], path: Path, *, unpacks: bool = False, left: int = sys.maxsize) -> None:
        self.unpacks, self.is_wide = unpacks, False
        self._inner, self._path, self._ahead, self._read, self._left = inner, path, b"", 0, left
        self._limit = max(ANY_SIZE, MAX_RATIO * path.stat().st_size)
        self._decoder: codecs.IncrementalDecoder | None = None

    def as_utf8(self, encoding: str) -> Stream:
        """The same stream, whose bytes are from now on UTF-8, whatever they were; what is no text is U+FFFD."""
        self.is_wide = self.head(2) in UTF16
        encoding = "utf-16" if self.is_wide else encoding
        if encoding != "utf-8":  # which is checked line by line
            self._decoder = codecs.getincrementaldecoder(encoding)("replace")
            self._ahead = self._decoder.decode(self._ahead).encode()
        return self

    def read(self, size: int) -> bytes:
        """At most `size` bytes (more of another encoding), none at the end."""
        if self._ahead:
            block, self._ahead = self._ahead[:size], self._ahead[size:]
            return block
        block = self._read_inner(size)
        if self._decoder is None:
            return block
        text = self._decoder.decode(block, final=not block)
        return text.encode() if text or not block else self.read(size)

    def _read_inner(self, size: int) -> bytes:
        with _one_line_faults(self._path):
            block = self._inner.read(min(size, self._left - self._read))
        self._read += len(block)
        if self._read > self._limit:
            raise UserError(
                f"{self._path}: unpacks to over {MAX_RATIO} times its size, which no rating file does; {AGAIN}"
            )
        return block

    def head(self, size: int) -> bytes:
        """The next bytes, which stay to be read."""
        while len(self._ahead) < size:
            ahead, self._ahead = self._ahead, b""
            more = self.read(size - len(ahead))
            self._ahead = ahead + more
            if not more:
                break
        return self._ahead[:size]


@contextmanager
def opened(part: Part) -> Iterator[Stream]:
    """The bytes of `part`, unpacked and in UTF-8: of a piece of a plain file, the lines that begin in it."""
    if part.end is not None:
        with _one_line_faults(part.path), part.path.open("rb") as file:
            start, end = (_line_start(file, at) for at in (part.start, part.end))
            file.seek(start)
            yield Stream(file, part.path, left=end - start).as_utf8(part.encoding)
        return
    with closing(_walk(part.path)) as members:
        for inside, stream in members:
            if inside == part.inside:
                yield stream.as_utf8(part.encoding)
                return
        raise UserError(f"{part.path}: no {part.name} in this archive; {AGAIN}")


def places(path: Path, wanted: Collection[str] = (), *, parameter: str = "dataset.raw", depth: int = 2) -> list[Part]:
    """The files at `path`: of a folder and the folders in it (`depth` levels), of an archive, or the one that it is.

    Looking into an archive ends when all the names `wanted` have been seen (a tar is read to be looked into).
    `parameter` says what to mend.
    """
    with _one_line_faults(path):
        if not path.exists():
            raise UserError(f"{path}: no such file or folder; set {parameter} to an archive, folder or file")
        if path.is_dir():
            files = sorted(file for level in range(depth) for file in path.glob("*/" * level + "*"))
            return [Part(path=file) for file in files if file.is_file() and not _is_hidden(file.relative_to(path))]
    if not path.is_file():
        raise UserError(f"{path}: neither a file nor a folder; set {parameter} to an archive, folder or file")
    parts: list[Part] = []
    for inside, _ in _walk(path):
        if any(_is_hidden(PurePosixPath(name)) for name in inside):
            continue
        parts.append(Part(path=path, inside=inside))
        if wanted and set(wanted) <= {plain_name(part) for part in parts}:
            break
    return parts


def _is_hidden(path: PurePath) -> bool:
    """Whether nobody put this file of a folder or archive there: what a Mac or an office adds, or a dot begins."""
    return any(name == "__MACOSX" or name.startswith((".", "~$")) for name in path.parts if name not in (".", ".."))


def check_whole(path: Path) -> None:
    """Read a file to its end, unpacked: a UserError where it is half an archive, or none though its name says so."""
    with closing(_walk(path)) as members:
        for _, stream in members:
            while stream.read(BLOCK):
                pass


def plain_name(part: Part) -> str:
    """The name of a part's file, unpacked."""
    return part.name[:-3] if part.name.lower().endswith(".gz") else part.name


def pick(path: Path, parts: Sequence[Part], names: Sequence[str], hint: str) -> Part:
    """The file with the first of the `names` that is there, the one least deep; `hint` helps where none is."""
    for name in names:
        fitting = [part for part in parts if plain_name(part) == name]
        if fitting:
            return min(fitting, key=lambda part: (len(part.path.parts), "/".join(part.inside).count("/"), part.inside))
    kind = "folder" if path.is_dir() else "archive"
    raise UserError(f"{path}: no {' or '.join(names)} in this {kind}; {hint}")


def ranges(part: Part) -> list[Part]:
    """An uncompressed file on disk as pieces of some `PIECE` bytes, anything else as it is."""
    size = part.path.stat().st_size
    with opened(part) as stream:
        if part.inside or stream.unpacks or stream.is_wide or size <= PIECE:
            return [part]
    edges = [*range(0, size - PIECE // 2, PIECE), size]
    return [replace(part, start=start, end=end) for start, end in pairwise(edges)]


def _line_start(file: IO[bytes], at: int) -> int:
    """Where the first line begins that does not begin before the byte `at`."""
    if not at:
        return 0
    file.seek(at - 1)
    file.readline(MAX_LINE + 1)
    return file.tell()


def blocks(stream: Stream, where: str, *, quotes: bool = False) -> Iterator[bytes]:
    """Blocks of whole lines (records, where `quotes` may hold line ends) of some `BLOCK` bytes."""
    carry, line = b"", 1
    while block := stream.read(BLOCK):
        if b"\n" not in block and len(carry) + len(block) <= MAX_LINE:
            carry += block
            continue
        block = carry + block
        end = block.rfind(b"\n") + 1
        if quotes:
            end = _before_open_quote(block, end)
        carry = block[end:]
        line += block.count(b"\n", 0, end)
        if len(carry) > MAX_LINE:
            raise UserError(f"{where}: line {line} is over {MAX_LINE} bytes long; is this a text file?")
        if end:
            yield block[:end]
    if carry:
        yield carry


def _before_open_quote(block: bytes, end: int) -> int:
    """The last end of a line, up to `end`, at which no quoted text is open; `end` where there is none near."""
    odd, at = block.count(b'"', 0, end) % 2, end
    while odd and len(block) - at <= MAX_LINE:
        before = block.rfind(b"\n", 0, block.rfind(b'"', 0, at)) + 1
        odd ^= block.count(b'"', before, at) % 2
        at = before
    return at if not odd and len(block) - at <= MAX_LINE else end


def _walk(path: Path) -> Generator[tuple[tuple[str, ...], Stream], None, None]:
    """Every file within the one at `path`: the names that lead to it, and its bytes, good until the next is asked."""
    with _one_line_faults(path), path.open("rb") as file:
        yield from _unpacked(file, path, DEPTH)


def _unpacked(inner: IO[bytes], path: Path, depth: int) -> Iterator[tuple[tuple[str, ...], Stream]]:
    stream = Stream(inner, path)
    if stream.head(2) == GZIP:
        stream = Stream(cast("IO[bytes]", gzip.GzipFile(fileobj=cast(Any, stream))), path, unpacks=True)
    head = stream.head(TAR_AT + len(TAR))
    for magic, name in OTHERS.items():
        if head.startswith(magic):
            raise UserError(f"{path}: packed with {name}, which is not read here; unpack it and name the folder")
    if head.startswith(ZIP):
        if depth < DEPTH:
            raise UserError(f"{path}: holds a zip within an archive; unpack it and name the folder")
        with zipfile.ZipFile(inner) as archive:
            for info in archive.infolist():
                if not info.is_dir():
                    with archive.open(info) as member:
                        for inside, unpacked in _unpacked(member, path, depth - 1):
                            yield (info.filename, *inside), unpacked
    elif head[TAR_AT:] == TAR and depth:
        with tarfile.open(fileobj=cast(Any, stream), mode="r|", bufsize=TAR_BLOCK) as tar:
            for entry in tar:
                data = tar.extractfile(entry) if entry.isfile() else None
                if data is not None:
                    for inside, unpacked in _unpacked(data, path, depth - 1):
                        yield (entry.name, *inside), unpacked
    else:
        suffix = next((end for end in (".zip", ".tar", ".tgz", ".gz") if path.name.endswith(end)), None)
        if suffix and depth == DEPTH and not (suffix == ".gz" and stream.unpacks):
            raise UserError(f"{path}: not a {suffix[1:]} file, though its name says so; {AGAIN}")
        yield (), stream


@contextmanager
def _one_line_faults(path: Path) -> Iterator[None]:
    """Turn faults of files and archives into errors of one line."""
    try:
        yield
    except zipfile.BadZipFile as error:
        raise UserError(f"{path}: not a whole zip archive ({error}); {AGAIN}") from None
    except (zlib.error, EOFError, gzip.BadGzipFile, tarfile.TarError) as error:
        raise UserError(f"{path}: not a whole archive ({error}); {AGAIN}") from None
    except (NotImplementedError, RuntimeError) as error:  # what zipfile raises for exotic compression and passwords
        raise UserError(f"{path}: cannot read this archive ({error}); {AGAIN}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot read it ({error.strerror or error}); check the file") from None
