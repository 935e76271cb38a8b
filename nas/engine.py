"""How a database is opened: the connection's settings, the beginning of transactions, and what cannot be written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event

from nas.errors import StoreError


def engine_of(location: str, *, create: bool) -> Engine:
    """The engine of an SQLite file, or of a database URL.

    Args:
        location: The path, or the URL.
        create: Make the folder of the file; otherwise the file has to be there.

    Raises:
        StoreError: The file is missing, or its folder cannot be made.
    """
    if "://" in location:
        return create_engine(location, json_serializer=_dumps)
    path = Path(location)
    if create:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"the folder {path.parent} for the database cannot be made: {error.strerror}") from error
    elif not path.is_file():
        raise StoreError(f"there is no database at {path}; `nas search` makes it, or name another with --db")
    lasting = not create and is_settled(path)
    name = f"file:{quote(str(path.absolute()))}?immutable=1&uri=true" if lasting else str(path)
    engine = create_engine(f"sqlite:///{name}", json_serializer=_dumps)

    @event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # Python's driver would leave schema changes out of transactions
        connection.execute("PRAGMA busy_timeout = 30000")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = NORMAL")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")

    return engine


def is_settled(path: Path) -> bool:
    """Whether nobody writes to an SQLite file, since its folder cannot be written and nothing is under way in it.

    A file in WAL mode can otherwise not even be read there: SQLite wants to make its index beside it.
    """
    return not os.access(path.parent, os.W_OK) and not Path(f"{path}-wal").exists()


def _dumps(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
