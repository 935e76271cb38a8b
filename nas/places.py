"""Where things lie: the file of a database, and the folder of a training, which is beside its database."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from nas.errors import StoreError
from trainer.files import content_of

_SERVERS = "cockroachdb|mariadb|mongodb|mssql|mysql|oracle|postgres|postgresql|sqlite"
_ADDRESS = re.compile(rf"([a-z][a-z0-9+.-]+(?=:/)|(?:{_SERVERS})(?:\+\w+)?(?=:)):", re.IGNORECASE)


def moved(recorded: str, root: Path) -> Path:
    """The folder beside the database if it is there, or else as it was recorded.

    The one beside goes first: after a study was copied, its copy is meant, not what has become of the other.

    Args:
        recorded: As the database has it, such as `runs/mine/promoted/fccd16e46e-seed0-e7c92da6f4d5`.
        root: Folder of the database.
    """
    path = Path(recorded)
    beside = root / Path(*path.parts[-2:])
    return beside if beside.is_dir() or not path.is_dir() else path


OPENED: list[str] = []
"""Databases that this process has opened, the newest last; what went wrong since may come from damage in them."""


def path_of(text: str | Path) -> Path:
    """The path of a study file or a database, as people write it.

    Raises:
        StoreError: It is the address of a server. The message has no more of it than its beginning, since there may be
            a password in it.
    """
    address = _ADDRESS.match(str(text).lstrip())
    if address is not None:
        raise StoreError(
            "a study and its database must be paths of files, such as runs/mine/study.db, an SQLite file, but got an "
            f"address that begins with {address[1][:20]}://; databases of servers are not supported"
        )
    return Path(text)


def check_file(path: Path) -> None:
    """Refuses what can be no database, though it is there: a pipe would be waited for without end.

    Raises:
        StoreError: It is a folder, a pipe or a device.
    """
    with suppress(OSError):  # who opens it says why
        if path.exists() and not path.is_file():
            what = "a folder" if path.is_dir() else "no regular file"
            raise StoreError(f"a database must be a file such as runs/mine/study.db, but {path} is {what}")


def lines_of(folder: Path) -> int:
    """Epochs that a job has written to its `progress.jsonl` so far."""
    try:
        return content_of(folder / "progress.jsonl").count(b"\n")
    except OSError:
        return 0


_SUFFIXES = (".db", ".sqlite", ".sqlite3")


def is_database(path: str | Path) -> bool:
    """Whether a path is (or is named like) an SQLite file.

    Raises:
        StoreError: It is the address of a server.
    """
    path = path_of(path)
    try:
        if path.is_file():
            with path.open("rb") as file:
                return file.read(16) == b"SQLite format 3\x00" or path.suffix in _SUFFIXES
    except OSError:  # whoever reads it says why
        return False
    return path.suffix in _SUFFIXES
