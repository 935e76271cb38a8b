"""The store: its schema, its view, and databases that are not ours."""

from __future__ import annotations

import contextlib
import gc
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nas.errors import NotFoundError, StoreError
from nas.store import migrations
from nas.store import tables as m
from nas.store import write as s
from nas.store.database import Store
from nas.store.write import Architecture
from nas.study.front import front

DATABASES = Path(__file__).parents[2] / "golden" / "databases"


def filled(path: Path, results: list[tuple[str, int, float, int]]) -> Store:
    """A study with evaluations (digest, rung, accuracy, macs)."""
    store = Store(path, create=True)
    study = store.add_study(name="demo", seed=0, clip="8x32x32", num_classes=4, config={}, data={})
    trials: dict[str, int] = {}
    with store.write() as connection:
        for number, (digest, rung, accuracy, macs) in enumerate(results):
            network = Architecture(
                digest=digest,
                description=f"network {digest}",
                spec={},
                params=macs // 10,
                macs=macs,
                train_macs=macs,
                activation_bytes=1,
            )
            s.put_network(connection, network, clip="8x32x32", num_classes=4)
            if digest not in trials:
                trials[digest] = s.insert(
                    connection,
                    m.trial,
                    study_id=study,
                    number=number,
                    digest=digest,
                    seed=0,
                    stratum=0,
                    params={"kind": "3d"},
                    origin="random",
                    state="paused",
                )
            s.insert(
                connection,
                m.evaluation,
                study_id=study,
                digest=digest,
                seed=0,
                purpose="search",
                trial_id=trials[digest],
                rung=rung,
                epochs=3**rung,
                split="val",
                top1=accuracy,
                top5=1.0,
                loss=0.5,
                num_clips=100,
            )
    return store


def test_the_front_is_of_the_highest_fidelity_alone(tmp_path: Path) -> None:
    store = filled(
        tmp_path / "a.db",
        [
            ("aa", 0, 0.9, 10),
            ("bb", 0, 0.4, 20),
            ("cc", 0, 0.5, 30),
            ("bb", 1, 0.6, 20),
            ("cc", 1, 0.5, 30),
            ("dd", 1, 0.7, 90),
        ],
    )
    rows = store.front("demo")
    assert [(r["digest"], r["accuracy"], r["epochs"]) for r in rows] == [("bb", 0.6, 3), ("dd", 0.7, 3)]
    assert list(rows[0]) == [
        "study",
        "digest",
        "description",
        "accuracy",
        "num_clips",
        "macs",
        "params",
        "epochs",
        "seeds",
    ]


def test_the_view_is_the_definition_in_any_client(tmp_path: Path) -> None:
    results = [(f"{i:02x}", 0, (i * 7 % 11) / 11, 10 + i * 5 % 17) for i in range(20)]
    filled(tmp_path / "a.db", results).close()
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db")) as plain, plain:
        digests = {row[0] for row in plain.execute("SELECT digest FROM pareto_front")}
    plain.close()
    expected = front([(1 - accuracy, macs) for _, _, accuracy, macs in results])
    assert digests == {results[i][0] for i in expected}


def test_equal_networks_both_stand_on_the_front(tmp_path: Path) -> None:
    store = filled(tmp_path / "a.db", [("aa", 0, 0.5, 10), ("bb", 0, 0.5, 10), ("cc", 0, 0.5, 11)])
    assert [row["digest"] for row in store.front("demo")] == ["aa", "bb"]


def test_no_network_is_evaluated_twice_at_one_fidelity(tmp_path: Path) -> None:
    from sqlalchemy.exc import IntegrityError

    with pytest.raises(IntegrityError):
        filled(tmp_path / "a.db", [("aa", 0, 0.5, 10), ("aa", 0, 0.6, 10)])


def test_a_transaction_is_stored_whole_or_not_at_all(tmp_path: Path) -> None:
    store = filled(tmp_path / "a.db", [("aa", 0, 0.5, 10)])
    study = store.study()["id"]
    with pytest.raises(RuntimeError), store.write() as connection:
        s.put_event(connection, study, "start", trial=0, rung=0)
        raise RuntimeError
    assert store.events(study) == []


def test_a_digest_is_found_by_its_beginning(tmp_path: Path) -> None:
    store = filled(tmp_path / "a.db", [("abcde1", 0, 0.5, 10), ("abcdf2", 0, 0.5, 20)])
    assert store.find("abcde")["digest"] == "abcde1"
    assert store.find("ABCDE")["digest"] == "abcde1"
    with pytest.raises(NotFoundError, match=r"2 digests .* begin with 'abcd' \(abcde1, abcdf2\)"):
        store.find("abcd")
    with pytest.raises(NotFoundError, match=r"no digest .* begins with 'ffff' \(2 networks; `nas status .* --trials`"):
        store.find("ffff")
    with pytest.raises(NotFoundError, match="no digest"):
        store.find("%%%%")


@pytest.mark.parametrize("prefix", ["", "a", "abc", "%", "007"])
def test_a_few_letters_are_no_name(tmp_path: Path, prefix: str) -> None:
    store = filled(tmp_path / "a.db", [("abcde1", 0, 0.5, 10)])
    with pytest.raises(NotFoundError, match=f"must have at least 4 letters, but is '{prefix}'"):
        store.find(prefix)


def test_the_number_of_a_trial_is_answered_with_its_digest(tmp_path: Path) -> None:
    digits = "1" * 64
    store = filled(tmp_path / "a.db", [("abcde1", 0, 0.5, 10), ("7eeeee", 0, 0.5, 20), (digits, 0, 0.5, 30)])
    with pytest.raises(NotFoundError, match="by its digest, not by a number, but got 1; trial 1 is 7eeeee: write that"):
        store.find("1")
    with pytest.raises(NotFoundError, match="must have at least 4 letters, but is '7'"):
        store.find("7")  # there is no trial 7, and yet the network whose digest begins so is not meant
    for length in (4, 9, 10, 64):  # a digest may be all digits
        assert store.find(digits[:length])["digest"] == digits


def test_foreign_keys_hold(tmp_path: Path) -> None:
    from sqlalchemy.exc import IntegrityError

    store = Store(tmp_path / "a.db", create=True)
    with pytest.raises(IntegrityError), store.write() as connection:
        s.put_event(connection, 7, "start", trial=0, rung=0)


def test_a_database_of_others_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with contextlib.closing(sqlite3.connect(path)) as plain, plain:
        plain.execute("CREATE TABLE recipes (name TEXT)")
    plain.close()
    before = path.read_bytes()
    for create in (True, False):
        with pytest.raises(StoreError, match=r"must be empty or written by nas, but .*\(recipes"):
            Store(path, create=create)
        assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_text("not a database, but a text of some length\n" * 50)
    before = path.read_bytes()
    for create in (True, False):
        with pytest.raises(StoreError, match="is not a database that nas can use"):
            Store(path, create=create)
    assert path.read_bytes() == before


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    Store(path, create=True).close()
    with contextlib.closing(sqlite3.connect(path)) as plain, plain:
        plain.execute("INSERT INTO nas_migrations VALUES (99, 'from the future', 'then')")
    plain.close()
    for create in (True, False):
        with pytest.raises(
            StoreError, match=f"schema version 99, and this nas knows versions up to {migrations.LATEST}"
        ):
            Store(path, create=create)


def test_a_missing_database_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no database at"):
        Store(tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()


def test_a_score_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    with Store(tmp_path / "a.db", create=True) as store:
        a, b = (store.add_study(name=n, seed=0, clip="4x8x8", num_classes=2, config={}, data={}) for n in "ab")
        store.put_scores(a, "synflow", {"x": 1.0, "y": 2.0}, basis="seed 0")
        store.put_scores(a, "naswot", {"x": 5.0}, basis="seed 0")
        store.put_scores(b, "synflow", {"x": 7.0}, basis="seed 0")
        store.put_scores(a, "synflow", {"y": 3.0}, basis="seed 1")
        found = [(row["name"], row["digest"], row["value"], row["basis"]) for row in store.scores(a)]
        assert found == [
            ("naswot", "x", 5.0, "seed 0"),
            ("synflow", "x", 1.0, "seed 0"),
            ("synflow", "y", 3.0, "seed 1"),
        ]
        with pytest.raises(ValueError, match="must be finite, but synflow of x is nan"):
            store.put_scores(a, "synflow", {"z": 1.0, "x": float("nan")}, basis="")
        assert len(store.scores(a)) == 3


def test_migrations_are_recorded_once(tmp_path: Path) -> None:
    for _ in range(2):
        Store(tmp_path / "a.db", create=True).close()
    store = Store(tmp_path / "a.db")
    rows = store.rows(m.migrations.select())
    assert [row["version"] for row in rows] == list(range(1, migrations.LATEST + 1))


def test_a_migration_that_fails_leaves_the_database_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.db"
    Store(path, create=True).close()

    def broken(connection: object) -> None:
        from sqlalchemy import text

        connection.execute(text("CREATE TABLE half (id INTEGER)"))  # type: ignore[attr-defined]
        raise RuntimeError("power cut")

    monkeypatch.setattr(migrations, "STEPS", (*migrations.STEPS, ("broken", broken)))
    monkeypatch.setattr(migrations, "LATEST", migrations.LATEST + 1)
    with pytest.raises(RuntimeError):
        Store(path, create=True)
    with contextlib.closing(sqlite3.connect(path)) as plain, plain:
        assert not plain.execute("SELECT 1 FROM sqlite_master WHERE name = 'half'").fetchall()
        assert plain.execute("SELECT MAX(version) FROM nas_migrations").fetchone() == (migrations.LATEST - 1,)
    plain.close()


@contextmanager
def held(path: Path, seconds: float) -> Iterator[None]:
    """Another program has written to the database and commits after a while, as a dashboard that saves a note."""
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")

    def commit() -> None:
        time.sleep(seconds)
        other.execute("COMMIT")

    thread = threading.Thread(target=commit)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        other.close()


def test_a_transaction_waits_for_another_writer_whatever_it_reads_first(tmp_path: Path) -> None:
    store = filled(tmp_path / "a.db", [("aa", 0, 0.5, 10)])
    study = store.study()["id"]
    with held(tmp_path / "a.db", 2.5), store.write() as connection:  # longer than one try
        connection.execute(m.trial.select()).all()
        s.put_event(connection, study, "start", trial=0, rung=0)
    assert len(store.events(study)) == 1
    store.close()


def test_no_other_can_write_between_what_a_transaction_reads_and_writes(tmp_path: Path) -> None:
    store = filled(tmp_path / "a.db", [("aa", 0, 0.5, 10)])
    with store.write() as connection:
        connection.execute(m.trial.select()).all()
        other = sqlite3.connect(tmp_path / "a.db", timeout=0)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("UPDATE nas_trial SET state = 'failed'")
        other.close()
    store.close()


def test_a_writer_that_never_ends_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(tmp_path / "a.db", [("aa", 0, 0.5, 10)])
    monkeypatch.setattr("nas.store.connection.WAIT_SECONDS", 0.0)
    with (
        held(tmp_path / "a.db", 1.5),
        pytest.raises(StoreError, match=r"another process has been writing to .*a\.db for 0 s; end it"),
        store.write(),
    ):
        raise AssertionError("it has begun")
    with store.write() as connection:
        s.put_event(connection, store.study()["id"], "start", trial=0, rung=0)
    store.close()


@pytest.mark.parametrize("name", ["a?b.db", "a%25b.db", "a#b c.db", "a&uri=false.db", "été.db"])
def test_any_character_may_stand_in_a_path(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    filled(path, [("aa", 0, 0.5, 10)]).close()
    assert [file.name for file in tmp_path.iterdir()] == [name]
    with Store(path) as store:
        assert store.study()["name"] == "demo"


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:secret@host/db",
        "sqlite:///x.db",
        "mysql+pymysql://me:secret@host/db",
        "sqlite:/me:secret@h",
        "mysql:me:secret@host/db",
        "postgresql:\\\\me:secret@host/db",
    ],
)
@pytest.mark.parametrize("create", [True, False])
def test_an_address_is_refused_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, create: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match="databases of servers are not supported") as caught:
        Store(address, create=create)
    assert "secret" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_nobody_closes_leaves_no_connection_open(tmp_path: Path) -> None:
    store = filled(tmp_path / "a.db", [("aa", 0, 0.5, 10)])
    store.study()
    engine = store.engine
    assert engine.pool.checkedin() == 1  # type: ignore[attr-defined]
    del store
    gc.collect()
    assert engine.pool.checkedin() == 0  # type: ignore[attr-defined]


READS = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
assert libc.capset(header, none) == 0  # the system's owner may write everywhere, unless this is taken
assert not os.access(os.path.dirname(sys.argv[1]), os.W_OK)
from nas.errors import StoreError
from nas.store.database import Store
try:
    store = Store(sys.argv[1])
    print(store.study()["name"], len(store.front(store.study()["name"])))
except StoreError as error:
    print(error)
"""


def test_a_database_in_a_folder_that_cannot_be_written_is_read(tmp_path: Path) -> None:
    (tmp_path / "done").mkdir()
    shutil.copy(DATABASES / f"schema_{migrations.LATEST}.db", tmp_path / "done" / "study.db")
    Store(tmp_path / "done" / "study.db", create=True).close()  # in WAL mode, as a search leaves it
    shutil.copy(DATABASES / "schema_1.db", tmp_path / "done" / "old.db")
    (tmp_path / "done").chmod(0o555)
    try:
        said = [
            subprocess.run(
                [sys.executable, "-c", READS, str(tmp_path / "done" / name)], capture_output=True, text=True, check=True
            ).stdout
            for name in ("study.db", "old.db")
        ]
    finally:
        (tmp_path / "done").chmod(0o755)
    assert said[0] == "tiny 1\n"
    assert "is of an earlier version" in said[1] and "copy it to one that can" in said[1]


def test_several_that_open_an_old_database_at_once_all_read_it(tmp_path: Path) -> None:
    show = "print(Store(sys.argv[1]).study()['name'])"
    code = f"import sys; from nas.store.database import Store; sys.stdin.read(1); {show}"
    for turn in range(3):
        path = tmp_path / f"{turn}.db"
        shutil.copy(DATABASES / "schema_1.db", path)
        readers = [
            subprocess.Popen(
                [sys.executable, "-c", code, str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(4)
        ]
        time.sleep(1.5)  # all have imported what they need
        for reader in readers:
            assert reader.stdin is not None
            reader.stdin.write("x")
            reader.stdin.flush()
        assert [reader.communicate(timeout=60) for reader in readers] == [("tiny\n", "")] * 4
