"""Small files that a user names: read whole, where they are regular files of a sensible size."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

LARGEST = 64 * 2**20
"""Bytes of the longest list that is read into memory."""


def content_of(path: str | Path, *, largest: int = LARGEST) -> bytes:
    """The bytes of a regular file.

    A pipe or a device would block, or never end.

    Args:
        path: The file.
        largest: Bytes that it may hold.

    Raises:
        OSError: It cannot be read, is no regular file, or is larger; `strerror` says so in words.
    """
    name = os.fspath(path)
    if "\0" in name:
        raise OSError(errno.EINVAL, "a file name cannot hold a null character", name)
    # A pipe would otherwise be waited for until somebody writes into it.
    handle = os.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    with os.fdopen(handle, "rb") as file:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), name)
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a regular file", name)
        content = file.read(largest + 1)
    if len(content) > largest:
        raise OSError(errno.EFBIG, f"larger than {largest:,} bytes", name)
    return content
