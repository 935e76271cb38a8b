"""Folders that are being written: named after their process, held while it lives, swept up once it does not."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def new_part(folder: Path) -> Iterator[Path]:
    """Makes a folder to be renamed once it is complete; what is still there at the end of the block is removed.

    Args:
        folder: Where it is made.

    Raises:
        OSError: It cannot be made.
    """
    part = folder / f".{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}.part"
    part.mkdir()
    handle = os.open(part, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)
        os.close(handle)


def sweep(folder: Path) -> None:
    """Removes what processes of this machine that no longer live left half written."""
    host = socket.gethostname()
    for part in folder.glob(f".{host}.*.part"):
        pid = part.name.removeprefix(f".{host}.").split(".")[0]
        if pid.isdigit() and not _alive(int(pid)) and not _held(part):
            remove(part)


def remove(path: Path) -> None:
    """Removes a file, or a folder with all that is in it, as far as that can be done."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _held(part: Path) -> bool:
    """Whether a process holds a folder: the number of one in another container of this machine says nothing here."""
    try:
        handle = os.open(part, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False
