"""Files that are read where they are regular ones of a sensible size, and written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

LARGEST = 64 * 2**20
"""Bytes of the longest list that is read into memory."""


def regular_file(path: str | Path) -> BufferedReader:
    """Opens a regular file for reading; a pipe or a device would block, or never end.

    Raises:
        OSError: It cannot be read, or is no regular file; `strerror` says so in words.
    """
    name = os.fspath(path)
    if "\0" in name:
        raise OSError(errno.EINVAL, "a file name cannot hold a null character", name)
    # A pipe would otherwise be waited for until somebody writes into it.
    handle = os.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    file = os.fdopen(handle, "rb")
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode):
        return file
    file.close()
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), name)
    raise OSError(errno.EINVAL, "not a regular file", name)


def content_of(path: str | Path, *, largest: int = LARGEST) -> bytes:
    """The bytes of a regular file.

    Args:
        path: The file.
        largest: Bytes that it may hold.

    Raises:
        OSError: As `regular_file`, or it is larger; `strerror` says so in words.
    """
    with regular_file(path) as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise OSError(errno.EFBIG, f"larger than {largest:,} bytes", os.fspath(path))
    return content


def make_folder(path: Path) -> None:
    """Makes a folder, and those that it lies in, unless they are there.

    Raises:
        OSError: It cannot be made, or lies in more folders than any that is meant; `strerror` says so in words.
    """
    if len(path.parts) > _DEEPEST:  # pathlib goes down by recursion, which ends before the path does
        raise OSError(errno.ENAMETOOLONG, f"a path of more than {_DEEPEST} folders", str(path))
    path.mkdir(parents=True, exist_ok=True)


_DEEPEST = 256


def check_replaceable(path: Path) -> None:
    """Refuses a place that no output may take: renaming a file over it would do away with what is there.

    Raises:
        OSError: There is a folder, a device, a pipe or a database; `strerror` says so in words.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    with suppress(PermissionError), regular_file(path) as file:
        if file.read(len(_SQLITE)) == _SQLITE:
            raise OSError(errno.EEXIST, "there is a database, which no output replaces", str(path))


_SQLITE = b"SQLite format 3\0"


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file that is there whole or not at all, on the disk when this returns.

    Raises:
        OSError: It cannot be written, or `check_replaceable` refuses its place.
    """
    check_replaceable(path)
    part = part_of(path)
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def part_of(path: Path) -> Path:
    """What a file is called until it is whole."""
    return path.with_name(f".{path.name}.part")


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with a digest of all the rest of it, which `is_as_written` looks at."""
    plain = {key: value for key, value in json.loads(json.dumps(content)).items() if key != _SEAL}
    return {**plain, _SEAL: hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()}


def is_as_written(content: Mapping[str, Any]) -> bool:
    """Whether nobody has changed an object since it was sealed; one of an earlier version has no seal, and passes."""
    return _SEAL not in content or sealed(content)[_SEAL] == content[_SEAL]


_SEAL = "sha256"
