"""What takes long to find out and stays true, kept from one command to the next in the user's cache folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from zlib import crc32

# Of other versions; they are deleted when nobody has written to them for so long.
_OLD_SECONDS = 30 * 24 * 3600


class Remembered:
    """A table from texts to JSON values in one file, to which lines are only ever added.

    Each line is written in one go and begins with its checksum, so that several processes can write to one file, and a
    line that is torn or damaged is as if it had never been written. A file that cannot be read or written is an empty
    table: all that is lost is time.
    """

    def __init__(
        self, name: str, *, packages: Iterable[str], sources: Iterable[Path], folder: Path | None = None
    ) -> None:
        """Makes the table; nothing is read yet.

        Args:
            name: Of the table.
            packages: Distributions, whose versions what is remembered depends on.
            sources: Files of this project, whose text it depends on, too.
            folder: Where the file lies; `cache_folder()` by default.
        """
        self._folder = cache_folder() if folder is None else folder
        self._name, self._packages, self._sources = name, tuple(packages), tuple(sources)
        self._path: Path | None = None
        self._known: dict[str, Any] = {}

    def get(self, key: str) -> Any:
        """Returns what is remembered under a key, as JSON has it; None if nothing is."""
        self._read()
        return self._known.get(key)

    def put(self, key: str, value: Any) -> None:
        """Remembers a value under a key, for this process and, where the file can be written, for others."""
        path = self._read()
        self._known[key] = value
        text = json.dumps([key, value], separators=(",", ":"))
        with contextlib.suppress(OSError):
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                self._forget_old()
            file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                # The line break in front ends a line that was torn.
                os.write(file, f"\n{_checksum(text)} {text}\n".encode())
            finally:
                os.close(file)

    def _read(self) -> Path:
        if self._path is None:
            self._path = self._folder / f"{self._name}-{self._version()}.jsonl"
            with contextlib.suppress(OSError):
                for line in self._path.read_bytes().decode(errors="replace").splitlines():
                    checksum, _, text = line.partition(" ")
                    if checksum == _checksum(text):
                        key, value = json.loads(text)
                        self._known[key] = value
        return self._path

    def _version(self) -> str:
        """Returns a digest of all that what is remembered depends on."""
        digest = hashlib.sha256()
        for package in self._packages:
            with contextlib.suppress(PackageNotFoundError):
                digest.update(f"{package} {version(package)}\n".encode())
        for source in sorted(self._sources):
            digest.update(source.read_bytes())
        return digest.hexdigest()[:16]

    def _forget_old(self) -> None:
        for path in self._folder.glob(f"{self._name}-*.jsonl"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < time.time() - _OLD_SECONDS:
                    path.unlink()


def cache_folder() -> Path:
    """Returns the folder of this project in the user's cache folder, which need not exist."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The specification of these folders says that a relative one does not count.
    if given.is_absolute():
        return given / "video-nas"
    try:
        return Path.home() / ".cache" / "video-nas"
    except RuntimeError:  # a user without a home, as in some containers
        return Path(tempfile.gettempdir()) / "video-nas"


def _checksum(text: str) -> str:
    return f"{crc32(text.encode()):08x}"
