"""What is wrong with a database that is damaged, or that somebody has edited: where, and what to do about it."""

from __future__ import annotations

import json
import math
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, Column, Connection, Float, Integer, Numeric, String, Table, text
from sqlalchemy.exc import DBAPIError

from nas.errors import NasError, StoreError
from nas.store import tables as m
from nas.store.connection import is_busy, uri_of
from nas.store.migrations import VIEWS
from trainer.files import regular_file

_CANNOT = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_AUTH,
)
_FULL = ("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE")  # the latter also where it is read: the index of its log finds no room
_LONGEST = 160  # letters of what is wrong, of which some comes from the file
_OPTUNA_NUMBERS = (("trial_values", "value"), ("trial_params", "param_value"), ("trials", "number"))
_SHARES = ("top1", "top5", "map_sample", "map_class", "balanced", "clip1", "shuffled")
_ROUNDING = 1e-6  # by which a mean of shares may lie beside them
_ABOVE_ZERO = ("macs", "train_macs", "num_classes", "epochs")  # of some, logarithms and ratios are taken
Reader = Callable[[Mapping[str, Any]], object]

_AT_RUNGS = {
    "nas_evaluation": "study_id = ? AND purpose = 'search'",
    "nas_job": "trial_id IN (SELECT id FROM nas_trial WHERE study_id = ?)",
    "nas_event": "study_id = ?",
    "nas_importance": "study_id = ?",
}
"""Tables with rows at a rung of a search, and which of them are of a study."""

_CLIP = re.compile(r"([1-9]\d*x)?[1-9]\d*x[1-9]\d*x[1-9]\d*")


def damaged(location: str, where: str) -> StoreError:
    """The error that says so in one line."""
    what = " ".join(where.split())
    what = what if len(what) <= _LONGEST else f"{what[:_LONGEST]}…"
    return StoreError(
        f"{location} is damaged: {what}; bring back a copy (`nas backup` makes one), or save what can be read with "
        "sqlite3's .recover"
    )


def alone(path: Path) -> str:
    """Says that a file that nobody has open may lack what was written last; empty where that cannot be.

    In WAL mode that is in a file beside, until the last program that has the database open closes it.
    """
    try:
        with regular_file(path) as file:
            in_wal_mode = file.read(20)[18:20] == b"\x02\x02"
        missing = in_wal_mode and not Path(f"{path}-wal").exists()
    except OSError:
        return ""
    return (
        f" (the `-wal` file {path.name}-wal is missing: if this is a copy of a running study, it lacks what was "
        "written last; copy with `nas backup`)"
        if missing
        else ""
    )


def refused(error: BaseException, location: str, *, verb: str = "read") -> StoreError:
    """The error of a database in one line: held by another process, not to be read or written, or damaged.

    Args:
        error: Of SQLAlchemy, SQLite, or of what reads the rows.
        location: Path of the database.
        verb: `read` or `written`.
    """
    if is_busy(error):
        return StoreError(f"another process holds {location} and does not let go; end it, or wait for it")
    own = _sqlite_error(error)
    code = (getattr(own, "sqlite_errorcode", None) or 0) & 0xFF
    said = str(own if own is not None else error).partition("\n")[0]
    if getattr(own, "sqlite_errorname", "") in _FULL:
        said = "no space left on the disk"
    if code in _CANNOT:
        return StoreError(f"{location} cannot be {verb}: {said}")
    if code == sqlite3.SQLITE_NOTADB:
        return StoreError(f"{location} is not a database that nas can use: {said}")
    if code == sqlite3.SQLITE_INTERRUPT:
        said = "a query did not end"
    return damaged(location, said if own is not None else f"{type(error).__name__}: {said}")


@contextmanager
def reading_optuna(location: str) -> Iterator[None]:
    """Turns every error of Optuna, which reads its tables in this block, into one line.

    Raises:
        StoreError: Optuna's tables cannot be read, or not be written.
    """
    try:
        yield
    except NasError:
        raise
    except Exception as error:
        if is_busy(error) or _sqlite_error(error) is not None:
            raise refused(error, location, verb="written") from error
        raise damaged(location, f"Optuna's tables cannot be read: {type(error).__name__}: {error}") from error


def check_schema(connection: Connection, location: str) -> None:
    """Holds tables and views against what the latest schema version has.

    Raises:
        StoreError: One is missing, lacks a column, or is something else; a query of an edited view might never end.
    """
    rows = connection.execute(text("SELECT type, name, tbl_name, sql FROM sqlite_master")).all()
    found = {name: (kind, sql) for kind, name, _, sql in rows}
    for kind, name, owner, _ in rows:
        if kind == "trigger":
            raise damaged(location, f"there is a trigger {name} on {owner}, which is none of nas")
    for table in m.metadata.sorted_tables:
        kind, _ = found.get(table.name, (None, None))
        if kind != "table":
            raise damaged(location, f"the table {table.name} is {'missing' if kind is None else f'a {kind}'}")
        there = {row[1] for row in connection.execute(text(f"PRAGMA table_info({table.name})"))}
        for column in table.columns:
            if column.name not in there:
                raise damaged(location, f"the table {table.name} has no column {column.name}")
    for name, statement in VIEWS.items():
        kind, sql = found.get(name, (None, None))
        if kind != "view" or str(sql).split() != statement.split():
            raise damaged(location, f"the view {name} is {'missing' if kind is None else 'not as nas makes it'}")


def check_types(columns: Sequence[Column[Any]], rows: Sequence[Sequence[Any]], location: str) -> None:
    """Holds the values of rows against the types of their columns, for SQLite stores anything anywhere.

    Raises:
        StoreError: A value is of another type, or a share that is none.
    """
    for place, column in enumerate(columns):
        kinds, share = _kinds(column), column.name in _SHARES
        for row in rows:
            value = row[place]
            if value is not None and type(value) not in kinds:
                raise damaged(location, _wrong(column.name, kinds, value))
            if share and value is not None and not -_ROUNDING <= value <= 1 + _ROUNDING:
                table = getattr(column.table, "name", "a query")
                raise damaged(location, f"{column.name} of {table} must be a share from 0 to 1, but is {value}")


def damage_of(location: str, readable: Reader) -> str | None:
    """What is wrong with a database that has led to an error: the first that is found, in a few words.

    Pages, tables, views, references, and every value of every row are looked at.

    Args:
        location: Path of the SQLite file.
        readable: Reads the settings of a study; an error says that they are damaged.
    """
    try:
        with closing(sqlite3.connect(uri_of(Path(location)), uri=True, timeout=30)) as connection:
            (said,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            if said != "ok":
                return str(said)
            for table, rowid, parent, _ in connection.execute("PRAGMA foreign_key_check"):
                return f"row {rowid} of {table} belongs to a row of {parent} that is not there"
            for table in m.metadata.sorted_tables:
                columns = {row[1] for row in connection.execute(f"PRAGMA table_info({table.name})")}
                names = [column.name for column in table.columns if column.name in columns]
                for number, row in enumerate(connection.execute(f"SELECT {', '.join(names)} FROM {table.name}"), 1):
                    wrong = _wrong_row(table, dict(zip(names, row, strict=True)), readable)
                    if wrong is not None:
                        return f"row {number} of {table.name}: {wrong}"
            for wrong in _beyond_rungs(connection):
                return wrong
            there = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            for name, column in _OPTUNA_NUMBERS:
                query = f"SELECT {column} FROM {name} WHERE typeof({column}) NOT IN ('integer', 'real', 'null')"
                for (value,) in connection.execute(query) if name in there else ():
                    return f"{column} of Optuna's table {name} must be a number, but is {str(value)[:40]!r}"
    except sqlite3.Error as error:
        return str(error)
    return None


def _beyond_rungs(connection: sqlite3.Connection) -> Iterator[str]:
    """Rows of a search at a rung that its study does not have."""
    for study, config in connection.execute("SELECT id, config FROM nas_study").fetchall():
        rungs = len(json.loads(config).get("search", {}).get("rungs", ()))
        for table, of in _AT_RUNGS.items():
            query = f"SELECT rowid, rung FROM {table} WHERE rung >= ? AND {of}"
            for number, rung in connection.execute(query, (rungs, study)):
                yield f"row {number} of {table}: rung cannot be {rung} where the study has {rungs}"


def _wrong_row(table: Table, row: Mapping[str, Any], readable: Reader) -> str | None:
    for name, value in row.items():
        column = table.c[name]
        if value is None:
            if not column.nullable:
                return f"{name} is missing"
            continue
        kinds = (str,) if isinstance(column.type, JSON) else _kinds(column)
        if type(value) not in kinds:
            return _wrong(name, kinds, value)
        try:
            wrong = not _sensible(table, name, value, row, readable)
        except Exception as error:
            return f"{name} cannot be read: {error or type(error).__name__}"
        if wrong:
            return f"{name} cannot be {str(value)[:40]!r}"
    return None


def _sensible(table: Table, name: str, value: Any, row: Mapping[str, Any], readable: Reader) -> bool:
    """Whether a value of the right type can be; an error says that it cannot, too."""
    column = table.c[name]
    if isinstance(column.type, JSON):
        content = json.loads(value)
        if content is None:
            return bool(column.nullable)
        if isinstance(content, dict) and (table.name, name) == ("nas_study", "config"):
            readable(content)
        return isinstance(content, dict) and _CONTENTS.get((table.name, name), _any)(content, row)
    if isinstance(column.type, Integer):
        return bool(value >= (1 if name in _ABOVE_ZERO else 0))
    if name in _SHARES:
        return bool(math.isfinite(value) and 0 <= value <= 1)
    if name == "clip":
        return _CLIP.fullmatch(value) is not None
    if name == "at" or name.endswith("_at"):
        return datetime.fromisoformat(value).tzinfo is not None
    return True


def _any(content: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    return True


def _data(content: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    return (
        isinstance(content["name"], str)
        and isinstance(content["checksum"], str)
        and isinstance(content["classes"], list)
        and all(isinstance(name, str) for name in content["classes"])
        and isinstance(content["clips"], dict)
        and all(type(count) is int and count >= 0 for count in content["clips"].values())
        and isinstance(content["broken"], list)
        and all(isinstance(item, dict) and {"path", "reason"} <= set(item) for item in content["broken"])
    )


def _spec(content: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    from search_spaces import codec

    return bool(codec.digest(codec.decode(content)) == row["digest"])


def _broken(content: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    return type(content["num_clips"]) is int and isinstance(content["videos"], dict)


_CONTENTS: dict[tuple[str, str], Callable[[Mapping[str, Any], Mapping[str, Any]], bool]] = {
    ("nas_study", "data"): _data,
    ("nas_architecture", "spec"): _spec,
    ("nas_promotion", "broken"): _broken,
}


def _kinds(column: Column[Any]) -> tuple[type, ...]:
    kind = column.type
    if isinstance(kind, JSON):
        return (dict, list, str, int, float, bool)
    if isinstance(kind, Integer):
        return (int,)
    if isinstance(kind, Float | Numeric):
        return (float, int)
    return (str,) if isinstance(kind, String) else (str, int, float, bytes)


def _wrong(name: str, kinds: tuple[type, ...], value: object) -> str:
    wanted = "text" if kinds == (str,) else "a whole number" if kinds == (int,) else "a number"
    return f"{name} must be {wanted}, but is {str(value)[:40]!r}"


def _sqlite_error(error: BaseException | None) -> BaseException | None:
    """The error of SQLite that an error comes from."""
    while error is not None:
        own = error.orig if isinstance(error, DBAPIError) else error
        if isinstance(own, sqlite3.Error):
            return own
        error = error.__cause__
    return None
