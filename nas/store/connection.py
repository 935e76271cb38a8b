"""How a database is opened: the connection's settings, and the beginning of transactions, which may have to wait."""

from __future__ import annotations

import json
import math
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import OperationalError

from nas.errors import StoreError
from trainer.files import make_folder

WAIT_SECONDS = 300.0  # for another process that writes, before a writer gives up
_TRY_SECONDS = 1  # at a time, so that Ctrl-C is heard meanwhile
_READ_SECONDS = 30
_QUERY_SECONDS = 60.0  # of one that reads; what takes longer goes round in circles, in a damaged file
_STEPS = 1_000_000  # of SQLite's machine between two looks at the clock

T = TypeVar("T")


def url_of(path: Path) -> str:
    """SQLAlchemy's URL of an SQLite file; any character may stand in its path."""
    query = {"uri": "true", **({"immutable": "1"} if is_settled(path) else {})}
    return URL.create("sqlite", database=uri_of(path), query=query).render_as_string(hide_password=False)


def uri_of(path: Path) -> str:
    """SQLite's own address of a file."""
    return f"file:{quote(str(path.absolute()))}"


def optuna_options() -> dict[str, Any]:
    """Settings of an engine for Optuna's storage: a transaction that writes waits for others before it begins."""
    return {"connect_args": {"timeout": _TRY_SECONDS, "isolation_level": "IMMEDIATE"}}


def engine_of(path: Path, *, create: bool) -> Engine:
    """The engine of an SQLite file.

    A transaction whose connection has the option `writes` takes the right to write as it begins: one that has read
    first could not wait for another writer, since what it has read would be out of date.

    Args:
        path: Of the file.
        create: Make its folder; otherwise the file has to be there.

    Raises:
        StoreError: The file is missing, or its folder cannot be made.
    """
    try:
        if create:
            make_folder(path.parent)
        elif not path.is_file():
            raise StoreError(f"there is no database at {path}; `nas search` makes it, or name another with --db")
    except OSError as error:
        raise StoreError(f"the folder {path.parent} for the database cannot be made: {error.strerror}") from error
    engine = create_engine(url_of(path), json_serializer=_dumps)

    @event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # Python's driver would leave schema changes out of transactions
        connection.execute(f"PRAGMA busy_timeout = {_READ_SECONDS * 1000}")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.set_progress_handler(lambda: int(time.monotonic() > until[0]), _STEPS)

    until = [math.inf]

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes")
        until[0] = math.inf if writes else time.monotonic() + _QUERY_SECONDS
        if not writes:
            connection.exec_driver_sql("BEGIN")
            return
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {_TRY_SECONDS * 1000}")
        try:
            patiently(lambda: connection.exec_driver_sql("BEGIN IMMEDIATE"), path)
        finally:
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {_READ_SECONDS * 1000}")

    return engine


def patiently(action: Callable[[], T], path: str | Path) -> T:
    """What an action returns, which is tried again for as long as another process writes to the database.

    Args:
        action: One transaction, or its beginning.
        path: Of the database.

    Raises:
        StoreError: The other process has not ended after `WAIT_SECONDS`.
    """
    until = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            return action()
        except Exception as error:
            if not is_busy(error):
                raise
            if time.monotonic() > until:
                raise StoreError(
                    f"another process has been writing to {path} for {WAIT_SECONDS:.0f} s; end it, and give the same "
                    "command again"
                ) from error


def is_busy(error: BaseException | None) -> bool:
    """Whether an error, or one that it comes from, says that another process holds the database."""
    while error is not None:
        own = error.orig if isinstance(error, OperationalError) else error
        if isinstance(own, sqlite3.OperationalError):
            return (getattr(own, "sqlite_errorcode", 0) & 0xFF) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
        error = error.__cause__
    return False


def is_settled(path: Path) -> bool:
    """Whether nobody writes to an SQLite file, since its folder cannot be written and nothing is under way in it.

    A file in WAL mode can otherwise not even be read there: SQLite wants to make its index beside it.
    """
    return path.is_file() and not os.access(path.parent, os.W_OK) and not Path(f"{path}-wal").exists()


def _dumps(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
