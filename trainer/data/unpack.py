"""Videos out of an archive: only plain files, by their own names, into one folder, and no more than it may hold.

What a mirror sends may be made to fill a disk or the memory: 1.5 MB of gzip can hold 1.5 GB of zeros, and a header that
gives a name may be as long as it likes. Videos are compressed already, so that an honest archive has about the size of
what is in it. An archive above a limit is refused as a whole, and what came out of it is removed.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator
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
_BLOCK = 2**20  # bytes that are read at once
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
        """Begins to count the headers of the member behind one that has so many bytes."""
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
        if not 0 <= size <= _BLOCK or self._headers > _HEADERS:
            raise _LimitError(f"the headers of a member must have at most {_HEADERS:,} bytes, but have more")
        self._check(self.tell() + size)
        return self._content.read(size)

    def seek(self, position: int, whence: int = 0) -> int:
        self._check(position)
        return self._content.seek(position, whence)

    def tell(self) -> int:
        return self._content.tell()

    def _check(self, end: int) -> None:
        if end > self._most + _BLOCK:
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
            shutil.copyfileobj(source, file, _BLOCK)
        part.rename(place)
    finally:
        part.unlink(missing_ok=True)
    return True
