"""Videos out of an archive: only plain files, by their own names, into one folder; nothing else that stands in it."""

from __future__ import annotations

import lzma
import os
import shutil
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from trainer.data.layouts.values import SUFFIXES

_LONGEST = 255  # bytes of a file's name
_PART = ".unpacking.part"


@dataclass(frozen=True, kw_only=True, slots=True)
class Unpacked:
    """What came out of an archive.

    Attributes:
        videos: Files that were written, or were there with the same size.
        refused: Members that were not taken, with reasons.
        problem: Why the archive could not be read to its end; empty if it could.
    """

    videos: int
    refused: tuple[str, ...]
    problem: str


def unpack(archive: Path, folder: Path) -> Unpacked:
    """Writes the videos of a tar archive flat into a folder, each by one rename.

    A member is taken only if it is a plain file with the suffix of a video whose path stays inside; of its path, the
    last part is used. So no archive can write elsewhere, make a link or a device, or run.

    Args:
        archive: A tar file, compressed or not.
        folder: Where the videos go; made if there is none.

    Returns:
        What was done. A damaged archive is no exception: what was read before the damage stays, and is told.

    Raises:
        OSError: The disk is full, or the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    videos = 0
    refused: list[str] = []
    try:
        with tarfile.open(archive, "r:*") as members:
            for member in members:
                why = _refusal(member)
                if why:
                    refused.append(f"{member.name}: {why}")
                elif why is None:
                    _write(members, member, folder / PurePosixPath(member.name).name)
                    videos += 1
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        return Unpacked(videos=videos, refused=tuple(refused), problem=f"the archive is damaged: {error}")
    except OSError as error:
        if error.errno is not None:
            raise
        return Unpacked(videos=videos, refused=tuple(refused), problem=f"the archive is damaged: {error}")  # of gzip
    return Unpacked(videos=videos, refused=tuple(refused), problem="")


def _refusal(member: tarfile.TarInfo) -> str | None:
    """Why a member is not taken; None if it is, and empty for folders, which nobody misses."""
    path = PurePosixPath(member.name)
    if member.isdir():
        return ""
    if path.is_absolute() or ".." in path.parts:
        return "its path leads out of the folder"
    if not member.isfile():
        return "it is a link or no plain file"
    if path.suffix.lower() not in SUFFIXES or path.name.startswith(".") or "\0" in member.name:
        return "it is no video by its name"
    if len(os.fsencode(path.name)) > _LONGEST:
        return "its name is too long"
    return None


def _write(members: tarfile.TarFile, member: tarfile.TarInfo, place: Path) -> None:
    if place.is_file() and place.stat().st_size == member.size:
        return
    source = members.extractfile(member)
    assert source is not None  # it is a plain file
    part = place.with_name(_PART)
    try:
        with source, part.open("wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
        part.rename(place)
    finally:
        part.unlink(missing_ok=True)
