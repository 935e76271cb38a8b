"""Every command that reads a database, on damaged ones: an answer, or one line that says what is damaged."""

from __future__ import annotations

import gzip
import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Integer, text

from nas.errors import StoreError
from nas.store import tables as m
from nas.store.damage import damage_of, refused
from nas.store.database import Store
from nas.store.migrations import LATEST
from nas.study.study import study_of
from tests.nas.read.conftest import Run
from tests.nas.read.made import made

SEARCHED = Path(__file__).parents[2] / "golden" / "before" / "decided_asha.db.gz"
TABLES = ("front", "trials", "evaluations", "epochs", "effects", "importance", "motion", "promotions", "verdicts")
VALUES = (
    "'abc'",
    "''",
    "-5",
    "0",
    "1e308",
    "1e999",
    "x'ff00'",
    "'{}'",
    "'[]'",
    "'null'",
    "'{\"a\": 1}'",
    "123456789012345678",
)
READERS: tuple[tuple[str, ...], ...] = (
    ("status", "--trials"),
    ("status", "--json"),
    ("pareto",),
    ("watch", "--once"),
    ("importance",),
    ("compare",),
    ("space",),
    ("backup",),
    ("report",),
    *(("export", "--csv", "--table", table) for table in TABLES),
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("whole") / "study.db")


def readable(config: Mapping[str, Any]) -> object:
    return study_of(config, "config")


def check(run: Run, path: Path, readers: tuple[tuple[str, ...], ...] = READERS) -> list[str]:
    """Runs every reader; returns what they said of the damage."""
    said = []
    for command, *options in readers:
        end = [path.with_name("copy.db")] if command == "backup" else []
        if command == "report":
            options = ["-o", str(path.with_name("report.html"))]
        code, _, err = run(command, path, *end, *options)
        path.with_name("copy.db").unlink(missing_ok=True)
        lines = [line for line in err.splitlines() if line.startswith("error: ")]
        assert (code, len(lines)) in ((0, 0), (2, 1)), (command, code, err)
        assert all(len(line) <= 500 for line in lines), lines
        said += lines
    return said


def bytes_over(path: Path, rng: random.Random) -> None:
    """A page of which some bytes, or all, are others."""
    size = 4096
    page = rng.randrange(path.stat().st_size // size) * size
    with path.open("r+b") as file:
        if rng.random() < 0.5:
            file.seek(page)
            file.write(rng.choice((bytes(size), rng.randbytes(size))))
            return
        for _ in range(rng.randint(1, 40)):
            file.seek(page + rng.randrange(size))
            file.write(rng.randbytes(1))


def cut_off(path: Path, rng: random.Random) -> None:
    with path.open("r+b") as file:
        file.truncate(rng.randrange(path.stat().st_size))


def value_edited(path: Path, rng: random.Random) -> None:
    """A value that somebody has set by hand, in one row or in all."""
    with closing(sqlite3.connect(path)) as edited:
        tables = [table for table in m.metadata.sorted_tables if edited.execute(f"SELECT 1 FROM {table}").fetchone()]
        table = rng.choice(tables)
        column = rng.choice([column.name for column in table.columns])
        where = rng.choice(("", f" WHERE rowid = (SELECT min(rowid) FROM {table})"))
        with suppress(sqlite3.IntegrityError):  # an integer key takes no text
            edited.execute(f"UPDATE OR REPLACE {table} SET {column} = {rng.choice(VALUES)}{where}")
        edited.commit()


def schema_edited(path: Path, rng: random.Random) -> None:
    """A table, column or view that is gone, or something else."""
    table = rng.choice(m.metadata.sorted_tables).name
    view = rng.choice(("pareto_front", "importance", "ablation_effects", "motion_tests"))
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x AS study, x AS digest FROM n"
    edit = rng.choice(
        (
            f"DROP TABLE {table}",
            f"ALTER TABLE {table} RENAME TO other",
            f"DROP VIEW {view}",
            f"DROP VIEW {view}; CREATE VIEW {view} AS {endless}",
            f"CREATE TRIGGER late AFTER UPDATE ON {table} BEGIN SELECT 1; END",
            f"ALTER TABLE {table} RENAME COLUMN {list(m.metadata.tables[table].columns)[-1].name} TO other",
        )
    )
    with closing(sqlite3.connect(path)) as edited:
        edited.execute("PRAGMA legacy_alter_table = ON")
        edited.executescript(edit)


def optuna_edited(path: Path, rng: random.Random) -> None:
    """A table of Optuna's that is gone, or a value of one."""
    edit = rng.choice(
        (
            "DROP TABLE trials",
            "DROP TABLE trial_user_attributes",
            "UPDATE trials SET state = 'abc'",
            "UPDATE trial_user_attributes SET value_json = 'abc'",
            "UPDATE trial_params SET distribution_json = '[]'",
            "UPDATE study_directions SET direction = 7",
            "UPDATE trial_values SET value = 'abc'",
            "DELETE FROM alembic_version",
            "UPDATE version_info SET schema_version = 1",
        )
    )
    with closing(sqlite3.connect(path)) as edited:
        edited.execute("PRAGMA legacy_alter_table = ON")
        edited.executescript(edit)


KINDS: tuple[Callable[[Path, random.Random], None], ...] = (
    bytes_over,
    cut_off,
    value_edited,
    schema_edited,
    optuna_edited,
)


@pytest.mark.parametrize("seed", range(int(os.environ.get("NAS_DAMAGE", "4"))))
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_reader_answers_or_says_in_one_line_what_is_damaged(
    whole: Path, tmp_path: Path, run: Run, kind: Callable[[Path, random.Random], None], seed: int
) -> None:
    path = tmp_path / "study.db"
    shutil.copy(whole, path)
    kind(path, random.Random(seed))
    check(run, path)


@pytest.mark.parametrize("table", ["nas_evaluation", "nas_job", "nas_event"])
def test_a_rung_that_the_study_does_not_have_is_named(run: Run, tmp_path: Path, table: str) -> None:
    path = tmp_path / "study.db"
    path.write_bytes(gzip.decompress(SEARCHED.read_bytes()))
    assert run("importance", path)[0] == 0
    assert damage_of(str(path), readable) is None
    with closing(sqlite3.connect(path)) as edited:
        edited.execute(f"UPDATE {table} SET rung = 99 WHERE rowid = 3")
        edited.commit()
    wrong = damage_of(str(path), readable)
    assert wrong == f"row 3 of {table}: rung cannot be 99 where the study has 2"
    if table == "nas_evaluation":
        code, _, err = run("importance", path)
        assert code == 2 and wrong in err


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ("DROP TABLE nas_epoch", "the table nas_epoch is missing"),
        ("DROP VIEW importance", "the view importance is missing"),
        ("ALTER TABLE nas_cost DROP COLUMN activation_bytes", "the table nas_cost has no column activation_bytes"),
        (
            "DROP VIEW pareto_front; CREATE VIEW pareto_front AS WITH RECURSIVE n(x) AS "
            "(SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x AS study FROM n",
            "the view pareto_front is not as nas makes it",
        ),
        ("CREATE TRIGGER t AFTER UPDATE ON nas_trial BEGIN SELECT 1; END", "there is a trigger t on nas_trial"),
        ("UPDATE nas_cost SET macs = 'abc'", "macs must be a whole number, but is 'abc'"),
        ("UPDATE nas_evaluation SET top1 = 'abc'", "top1 must be a number, but is 'abc'"),
        ("UPDATE nas_evaluation SET top1 = 9e999", "top1 of nas_evaluation must be a share from 0 to 1, but is inf"),
        ("UPDATE nas_evaluation SET top5 = -0.5", "top5 of nas_evaluation must be a share from 0 to 1, but is -0.5"),
        ("UPDATE nas_study SET config = '{'", "JSONDecodeError"),
    ],
)
def test_what_was_edited_is_named(whole: Path, tmp_path: Path, run: Run, edit: str, message: str) -> None:
    path = tmp_path / "study.db"
    shutil.copy(whole, path)
    with closing(sqlite3.connect(path)) as edited:
        edited.execute("PRAGMA legacy_alter_table = ON")
        edited.executescript(edit)
    for command in (("watch", "--once"), ("status", "--trials"), ("export", "--csv", "--table", "trials")):
        code, _, err = run(command[0], path, *command[1:])
        assert code == 2
        assert err.startswith(f"error: {path} is damaged: ")
        assert message in err
        assert "; bring back a copy (`nas backup` makes one)" in err


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ("UPDATE nas_study SET config = '{}'", "row 1 of nas_study: config cannot be read: "),
        ("UPDATE nas_study SET data = '[]'", "row 1 of nas_study: data cannot be '[]'"),
        ("UPDATE nas_trial SET digest = 'abc'", "row 1 of nas_trial belongs to a row of nas_architecture"),
    ],
)
def test_content_that_cannot_be_is_named_where_it_led_to_an_error(
    whole: Path, tmp_path: Path, run: Run, edit: str, message: str
) -> None:
    path = tmp_path / "study.db"
    shutil.copy(whole, path)
    with closing(sqlite3.connect(path)) as edited:
        edited.executescript(edit.replace("digest = 'abc'", "digest = substr(digest, 2)"))
    assert message in (damage_of(str(path), readable) or "")
    if "nas_study" in edit:
        code, _, err = run("status", path)
        assert code == 2
        assert message in err


@pytest.mark.parametrize("version", range(1, LATEST + 1))
def test_whole_databases_of_every_version_are_whole(tmp_path: Path, version: int) -> None:
    path = tmp_path / "study.db"
    shutil.copy(Path(__file__).parents[2] / "golden" / "databases" / f"schema_{version}.db", path)
    Store(path, create=True).close()
    assert damage_of(str(path), readable) is None


def test_what_a_search_leaves_is_whole(whole: Path, searched: Path) -> None:
    assert damage_of(str(whole), readable) is None
    assert damage_of(str(searched), readable) is None


def test_a_query_that_never_ends_is_given_up(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.store.connection._QUERY_SECONDS", 0.0)
    endless = text("WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) AS x FROM n")
    with Store(whole) as store, pytest.raises(StoreError, match="is damaged: a query did not end"):
        store.rows(endless.columns(x=Integer))


def test_nothing_is_built_on_a_damaged_database(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    shutil.copy(whole, path)
    with closing(sqlite3.connect(path)) as edited:
        (root,) = edited.execute("SELECT rootpage FROM sqlite_master WHERE name = 'nas_event'").fetchone()
    with path.open("r+b") as file:
        file.seek(4096 * (root - 1))
        file.write(bytes(4096))
    before = path.read_bytes()
    with pytest.raises(StoreError, match="is damaged: "):
        Store(path, create=True)
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["SQLITE_FULL", "SQLITE_IOERR_SHMSIZE"])
def test_a_full_disk_is_named_where_a_database_is_only_read_too(name: str) -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorname, error.sqlite_errorcode = name, getattr(sqlite3, name)
    assert str(refused(error, "a.db")) == "a.db cannot be read: no space left on the disk"


def test_a_bare_copy_of_a_running_study_is_told_what_it_lacks(tmp_path: Path, run: Run) -> None:
    with Store(tmp_path / "study.db", create=True) as store:
        store.add_study(name="demo", seed=0, clip="8x32x32", num_classes=4, config={}, data={})
        (tmp_path / "copied").mkdir()
        shutil.copy(tmp_path / "study.db", tmp_path / "copied" / "study.db")
        code, _, err = run("status", tmp_path / "copied" / "study.db")
        assert code == 2
        assert "holds no study (the `-wal` file study.db-wal is missing: if this is a copy of a running study" in err
        assert run("backup", tmp_path / "study.db", tmp_path / "copied" / "whole.db")[0] == 0
    with Store(tmp_path / "copied" / "whole.db") as copied:
        assert copied.study()["name"] == "demo"


def test_a_backup_is_one_file_with_all_that_was_stored(whole: Path, tmp_path: Path, run: Run) -> None:
    target = tmp_path / "copy.db"
    code, out, _ = run("backup", whole, target)
    assert code == 0
    assert out.startswith(f"backup: {target} (")
    assert [path.name for path in tmp_path.iterdir()] == ["copy.db"]
    with Store(whole) as one, Store(target) as other:
        assert one.evaluations(1) == other.evaluations(1)
        assert one.front("tiny") == other.front("tiny")
    before = target.read_bytes()
    code, _, err = run("backup", whole, target)
    assert (code, target.read_bytes()) == (2, before)
    assert f"a backup must be a new file, but {target} is there already" in err
    code, _, err = run("backup", tmp_path / "none.db", tmp_path / "new.db")
    assert code == 2 and "there is no database at" in err
    code, _, err = run("backup", whole, tmp_path / "nowhere" / "copy.db")
    assert code == 2 and "nowhere/copy.db cannot be written" in err


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (None, "holds no study; nothing was written"),
        ("CREATE TABLE theirs (a)", "holds tables of something else (theirs); nothing was written"),
        ("CREATE TABLE nas_study (a)", "holds no study; nothing was written"),
    ],
)
def test_what_holds_no_study_gets_no_backup(tmp_path: Path, run: Run, statement: str | None, message: str) -> None:
    (tmp_path / "one.db").touch()
    if statement is not None:
        with closing(sqlite3.connect(tmp_path / "one.db")) as made:
            made.execute(statement)
    code, _, err = run("backup", tmp_path / "one.db", tmp_path / "copy.db")
    assert code == 2 and message in err and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["one.db"]


def test_a_backup_does_not_bring_an_old_database_up_to_date(tmp_path: Path, run: Run) -> None:
    old = tmp_path / "old.db"
    shutil.copy(Path(__file__).parents[2] / "golden" / "databases" / "schema_1.db", old)
    assert run("backup", old, tmp_path / "copy.db")[0] == 0
    with closing(sqlite3.connect(tmp_path / "copy.db")) as copied:
        assert copied.execute("SELECT MAX(version) FROM nas_migrations").fetchone() == (1,)


@pytest.mark.parametrize(
    "kind", [value_edited, bytes_over, schema_edited, optuna_edited], ids=lambda kind: kind.__name__
)
@pytest.mark.parametrize("seed", range(2))
def test_a_search_goes_on_or_says_in_one_line_what_is_damaged(
    searched: Path,
    tmp_path: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    kind: Callable[[Path, random.Random], None],
    seed: int,
) -> None:
    shutil.copytree(searched.parents[2], tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    kind(Path("runs/tiny/study.db"), random.Random(seed))
    code, _, err = run("search", "tiny.yaml")
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert (code, len(lines)) in ((0, 0), (2, 1)), err
    assert "Traceback" not in err
