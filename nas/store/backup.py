"""Backups: a consistent copy of a database that may be in use."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

from nas.errors import StoreError
from nas.store import damage
from nas.store import tables as m
from nas.store.connection import WAIT_SECONDS, uri_of


def backup(source: Path, target: Path) -> None:
    """Copies a database as it is at this moment, while others may write to it, and checks the copy.

    Args:
        source: The SQLite file.
        target: The copy, one file that needs no other beside it.

    Raises:
        StoreError: There is no such database, it holds no study or is damaged, or the copy is there already or cannot
            be written.
    """
    if not source.is_file():
        raise StoreError(f"there is no database at {source}; `nas search` makes it, or name another with --db")
    if target.exists():
        raise StoreError(f"a backup must be a new file, but {target} is there already; name another")
    part = target.with_name(f"{target.name}.part")
    until = time.monotonic() + WAIT_SECONDS

    def waited(status: int, remaining: int, total: int) -> None:
        if time.monotonic() > until:
            raise StoreError(f"another process has held {source} for {WAIT_SECONDS:.0f} s; end it, or wait for it")

    try:
        part.unlink(missing_ok=True)
        with (
            closing(sqlite3.connect(f"{uri_of(source)}?mode=ro", uri=True)) as old,
            closing(sqlite3.connect(uri_of(part), uri=True)) as new,
        ):
            old.backup(new, progress=waited)
            new.execute("PRAGMA journal_mode = DELETE")
            (said,) = new.execute("PRAGMA integrity_check(1)").fetchone()
            if said != "ok":
                raise damage.damaged(str(source), str(said))
            _check_holds_study(new, source)
        part.replace(target)
    except OSError as error:
        raise StoreError(f"the backup {target} cannot be written: {error.strerror}") from error
    except sqlite3.Error as error:
        if not target.parent.is_dir() or not os.access(target.parent, os.W_OK):
            raise StoreError(f"the backup {target} cannot be written: {error}") from error
        raise damage.refused(error, str(source)) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _check_holds_study(copy: sqlite3.Connection, source: Path) -> None:
    """Raises StoreError where the copy of a database holds no study: whoever relied on it would have nothing."""
    tables = {name for (name,) in copy.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if m.study.name in tables and copy.execute(f"SELECT 1 FROM {m.study.name} LIMIT 1").fetchone():
        return
    others = sorted(tables - set(m.metadata.tables))
    what = f"holds tables of something else ({', '.join(others[:3])})" if others else "holds no study"
    raise StoreError(
        f"a backup needs a database that nas wrote, but {source} {what}{damage.alone(source)}; nothing was written"
    )
