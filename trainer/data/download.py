"""Files from a web server, in parts and checked, and videos out of archives: plain files by their own names.

What a mirror sends may be made to fill a disk or the memory: 1.5 MB of gzip can hold 1.5 GB of zeros, and a header that
gives a name may be as long as it likes. Videos are compressed already, so that an honest archive has about the size of
what is in it. An archive above a limit is refused as a whole, and what came out of it is removed.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import http.client
import lzma
import os
import re
import shutil
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from trainer.data.layouts.values import SUFFIXES
from trainer.files import make_folder

LARGEST = 64 * 2**30
"""Bytes that an archive may have and unpack to, unless the caller allows more."""

_RATIO = 4  # a part of Kinetics has 1.5 GB, and so have its videos
_LITTLE = 16 * 2**20  # bytes besides: the padding of archives that are hardly larger than a header
_HEADERS = 256 * 2**10  # bytes of headers of one member: a path has 4,096 at most, attributes of files 65,536
_GLOBAL = 1000  # settings that headers make for all members that follow
_CHUNK = 2**20  # bytes that are read at once
_TOLD = 100  # members that are named as not taken
_LONGEST = 255  # bytes of a file's name
_PART = ".unpacking.part"


@dataclass(frozen=True, kw_only=True, slots=True)
class Unpacked:
    """What came out of an archive.

    Attributes:
        videos: Files that were written, or were there with the same size.
        refused: Members that were not taken, with reasons: the first hundred, and how many more.
        problem: Why the archive could not be read to its end; empty if it could.
    """

    videos: int
    refused: tuple[str, ...]
    problem: str


class _LimitError(Exception):
    """The archive would unpack to more than it may."""


def unpack(archive: Path, folder: Path, *, limit: int = 0) -> Unpacked:
    """Writes the videos of a tar archive flat into a folder, each by one rename.

    A member is taken only if it is a plain file with the suffix of a video whose path stays inside; of its path, the
    last part is used, of several members with the same last part the first. So no archive can write elsewhere, make a
    link or a device, replace what came out of it, or run.

    Args:
        archive: A tar file, compressed or not.
        folder: Where the videos go; made if there is none.
        limit: Bytes that it may unpack to; 0 allows four times its own size and 16 MiB, at most `LARGEST`.

    Returns:
        What was done. A damaged archive is no exception: what was read before the damage stays, and is told. Of one
        that unpacks to more than it may, nothing stays.

    Raises:
        OSError: The disk is full, or the folder cannot be written.
    """
    make_folder(folder)
    size = archive.stat().st_size
    most = limit or min(_RATIO * size + _LITTLE, LARGEST)
    written: list[Path] = []
    taken: dict[str, str] = {}  # the path of each member that was taken, by its last part
    refused: list[str] = []
    videos = left = 0
    problem = ""
    try:
        with _opened(archive) as content:
            stream = _Bounded(content, most)
            with tarfile.open(fileobj=stream, mode="r:") as members:  # type: ignore[call-overload]
                while (member := members.next()) is not None:
                    stream.next_member(member.size)
                    if len(members.pax_headers) > _GLOBAL:
                        raise _LimitError(f"its headers make more than {_GLOBAL:,} settings for all members")
                    members.members.clear()  # else all of them are held
                    why = _refusal(member)
                    name = PurePosixPath(member.name).name
                    if why is None and name in taken:
                        why = f"its name is that of {taken[name][: 2 * _LONGEST]}, which was taken"
                    if why and len(refused) < _TOLD:
                        refused.append(f"{member.name[: 2 * _LONGEST]}: {why}")
                    elif why:
                        left += 1
                    elif why is None:
                        place = folder / name
                        taken[name] = member.name
                        if _write(members, member, stream, place):
                            written.append(place)
                        videos += 1
    except _LimitError as error:
        for place in written:
            place.unlink(missing_ok=True)
        return Unpacked(videos=0, refused=(), problem=f"an archive of {size:,} bytes is refused: {error}")
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, ValueError, RecursionError) as error:
        problem = f"the archive is damaged: {str(error)[:200]}"
    except OSError as error:
        if error.errno is not None:
            raise
        problem = f"the archive is damaged: {error}"  # of gzip and bzip2
    if left:
        refused.append(f"... and {left:,} more")
    return Unpacked(videos=videos, refused=tuple(refused), problem=problem)


def _opened(archive: Path) -> IO[bytes]:
    """What is in a compressed file, by its first bytes."""
    with archive.open("rb") as file:
        first = file.read(6)
    openers: tuple[tuple[bytes, Any], ...] = (
        (b"\x1f\x8b", gzip.open),
        (b"BZh", bz2.open),
        (b"\xfd7zXZ\0", lzma.open),
        (b"", open),
    )
    opener = next(function for begin, function in openers if first.startswith(begin))
    opened: IO[bytes] = opener(archive, "rb")
    return opened


class _Bounded:
    """The bytes of an archive as `tarfile` reads them: forward, in blocks, and no more of them than are allowed."""

    def __init__(self, content: IO[bytes], most: int) -> None:
        self._content = content
        self._most = most
        self._headers = 0
        self._inside = False

    def next_member(self, size: int) -> None:
        """Begins to count the headers of the member behind one of a number of bytes."""
        self._headers = 0
        self._check(self.tell() + size)

    @contextlib.contextmanager
    def data(self) -> Iterator[None]:
        """What is read in its block is no header."""
        self._inside = True
        try:
            yield
        finally:
            self._inside = False

    def read(self, size: int = -1) -> bytes:
        self._headers += 0 if self._inside else max(size, 0)
        if not 0 <= size <= _CHUNK or self._headers > _HEADERS:
            raise _LimitError(f"the headers of a member must have at most {_HEADERS:,} bytes, but have more")
        self._check(self.tell() + size)
        return self._content.read(size)

    def seek(self, position: int, whence: int = 0) -> int:
        self._check(position)
        return self._content.seek(position, whence)

    def tell(self) -> int:
        return self._content.tell()

    def _check(self, end: int) -> None:
        if end > self._most + _CHUNK:
            raise _LimitError(f"it must unpack to at most {self._most:,} bytes, but unpacks to more")


def _refusal(member: tarfile.TarInfo) -> str | None:
    """Why a member is not taken; None if it is, and empty for folders, which nobody misses."""
    path = PurePosixPath(member.name)
    if member.isdir():
        return ""
    if path.is_absolute() or ".." in path.parts:
        return "its path leads out of the folder"
    if not member.isfile():
        return "it is a link or no plain file"
    if member.issparse():  # a few bytes there may be as many zeros as one likes here
        return "it is a sparse file"
    if path.suffix.lower() not in SUFFIXES or path.name.startswith(".") or "\0" in member.name:
        return "it is no video by its name"
    if len(os.fsencode(path.name)) > _LONGEST:
        return "its name is too long"
    return None


def _write(members: tarfile.TarFile, member: tarfile.TarInfo, stream: _Bounded, place: Path) -> bool:
    """Writes a member; False if it is there."""
    if place.is_file() and place.stat().st_size == member.size:
        return False
    source = members.extractfile(member)
    assert source is not None  # it is a plain file
    part = place.with_name(_PART)
    try:
        with stream.data(), source, part.open("wb") as file:
            shutil.copyfileobj(source, file, _CHUNK)
        part.rename(place)
    finally:
        part.unlink(missing_ok=True)
    return True


_TIMEOUT = 60.0
_BLOCK = 1 << 20
_PAUSE = 1.0  # seconds before the second try; doubled for each further one
_LONGEST_TEXT = 4 * 2**20  # bytes: the list of the 242 archives of Kinetics-400 has 16,000
HASHES = {32: "md5", 40: "sha1", 64: "sha256"}
"""Checksums that a file may be held to, by their number of hex digits."""


class FetchError(Exception):
    """A file cannot be fetched; the message is one line with address and reason."""


def fetch(
    address: str,
    place: Path,
    *,
    checksum: str = "",
    tries: int = 5,
    pause: float = _PAUSE,
    largest: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """Fetches a file; what an earlier try has left in `place` with `.part` behind is gone on with by an HTTP range.

    Args:
        address: Of the file, http or https.
        place: Where it goes, by one rename when it is complete and checked.
        checksum: MD5, SHA-1 or SHA-256 in hex; empty holds it to an ETag that is an MD5, if the server sends one.
        tries: How often it is tried.
        pause: Seconds before the second try, doubled for each further one.
        largest: Bytes that it may have; 0 allows any number.
        progress: Called with (bytes there, bytes in all).

    Returns:
        The SHA-256 of the file.

    Raises:
        FetchError: Every try has failed, or the file is larger than it may be.
        OSError: The disk is full, or the place cannot be written; what is there stays.
    """
    part = place.with_name(place.name + ".part")
    tag = part.with_name(part.name + ".etag")
    if place.is_file():
        return _sha256(place)
    reason = ""
    for number in range(tries):
        if number:
            time.sleep(pause * 2 ** (number - 1))
        try:
            stated = _rest(address, part, tag, largest, progress)
        except urllib.error.HTTPError as error:
            reason = f"the server answers {error.code} {error.reason}"
            error.close()
            if 400 <= error.code < 500 and error.code not in (408, 416, 429):
                break  # asking again does not help
            if error.code == 416:
                part.unlink(missing_ok=True)
            continue
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            reason = str(getattr(error, "reason", "") or error) or type(error).__name__
            continue
        except _LargeError as error:
            part.unlink(missing_ok=True)
            tag.unlink(missing_ok=True)
            raise FetchError(f"{address} is not fetched: {error}") from error
        except _ShortError as error:
            reason = str(error)
            continue
        wrong = _wrong(part, checksum or stated)
        if not wrong:
            digest = _sha256(part)
            part.rename(place)
            tag.unlink(missing_ok=True)
            return digest
        reason = wrong
        part.unlink()
        tag.unlink(missing_ok=True)
    raise FetchError(f"{address} cannot be fetched: {reason}")


def fetch_text(address: str, *, head: bool = False) -> str:
    """The text at an address; with `head`, only asks whether there is one.

    Raises:
        FetchError: There is none, or it is longer than a list can be.
    """
    request = urllib.request.Request(address, method="HEAD" if head else "GET")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            text = answer.read(_LONGEST_TEXT + 1)
            if len(text) > _LONGEST_TEXT:
                raise FetchError(f"{address} is not fetched: a list must have at most {_LONGEST_TEXT:,} bytes")
            return str(text.decode("utf-8"))
    except urllib.error.HTTPError as error:
        error.close()
        raise FetchError(f"{address} cannot be fetched: the server answers {error.code} {error.reason}") from error
    except (urllib.error.URLError, http.client.HTTPException, OSError, UnicodeDecodeError) as error:
        raise FetchError(f"{address} cannot be fetched: {getattr(error, 'reason', '') or error}") from error


class _LargeError(Exception):
    """The file is larger than it may be."""


class _ShortError(Exception):
    """The connection ended before the file did."""


def _rest(address: str, part: Path, tag: Path, largest: int, progress: Callable[[int, int], None] | None) -> str:
    """Fetches what is missing of a file; returns its MD5 by the server, if it tells."""
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(address)
    if have:
        request.add_header("Range", f"bytes={have}-")
        if tag.is_file():  # if the file has changed since, the server sends all of it
            request.add_header("If-Range", tag.read_text("ascii"))
    try:
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        whole = re.fullmatch(r"bytes \*/(\d{1,18})", error.headers.get("Content-Range", "") or "")
        if error.code == 416 and whole and int(whole[1]) == have:
            error.close()
            return _md5_of(error.headers.get("ETag", "") or "")  # all of it was there
        raise
    with answer:
        etag = answer.headers.get("ETag", "") or ""
        span = re.match(r"bytes (\d{1,18})-\d+/(\d{1,18})", answer.headers.get("Content-Range", "") or "")
        if answer.status != 206 or span is None or int(span[1]) != have:
            have = 0  # the server knows no ranges, or the file is another one
        length = re.fullmatch(r"\d{1,18}", answer.headers.get("Content-Length", "") or "")
        total = int(span[2]) if span and have else int(length[0]) if length else 0
        if largest and total > largest:
            raise _LargeError(f"it must have at most {largest:,} bytes, but has {total:,}")
        if etag and etag.isascii() and not etag.startswith("W/"):
            tag.write_text(etag, "ascii")
        with part.open("ab" if have else "wb") as file:
            while block := answer.read(_BLOCK):
                file.write(block)
                have += len(block)
                if largest and have > largest:
                    raise _LargeError(f"it must have at most {largest:,} bytes, but has more")
                if progress is not None:
                    progress(have, max(total, have))
    if total and have < total:
        raise _ShortError(f"the connection ended after {have:,} of {total:,} bytes")
    return _md5_of(etag)


def _md5_of(etag: str) -> str:
    """The MD5 that an ETag of S3 is, unless the file was uploaded in several parts."""
    match = re.fullmatch(r'"([0-9a-f]{32})"', etag)
    return match[1] if match else ""


def _wrong(path: Path, checksum: str) -> str:
    if not checksum:
        return ""
    name = HASHES.get(len(checksum))
    if name is None:
        return f"a checksum must be an MD5, SHA-1 or SHA-256 in hex, but is {checksum!r}"
    with path.open("rb") as file:
        found = hashlib.file_digest(file, name).hexdigest()
    return "" if found == checksum.lower() else f"its {name} must be {checksum}, but is {found}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
