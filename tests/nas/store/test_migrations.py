"""A database of every schema version is kept; each opens in this version with all that it held."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Inspector, inspect, text

from nas.store import migrations as m
from nas.store.database import Store
from nas.store.tables import FIFTH, FOURTH, THIRD
from search_spaces import codec
from search_spaces.catalogue import preset

DATABASES = Path(__file__).parents[2] / "golden" / "databases"
VIEWS = ("ablation_effects", "importance", "motion_tests", "pareto_front")


@pytest.mark.parametrize("version", range(1, m.LATEST + 1))
def test_a_database_of_each_version_is_brought_up_to_date(tmp_path: Path, version: int) -> None:
    path = tmp_path / "study.db"
    shutil.copy(DATABASES / f"schema_{version}.db", path)
    store = Store(path, create=True)
    with store.engine.connect() as connection:
        assert m.version_of(connection, str(path)) == m.LATEST
    study = store.study("tiny")
    assert study["clip"] == "4x16x16"
    assert [trial["state"] for trial in store.trials(study["id"])].count("stopped") == 2
    assert [e["epochs"] for e in store.evaluations(study["id"])] == [1, 1, 1, 2]
    front = store.front("tiny")
    assert [(row["accuracy"], row["num_clips"], row["macs"], row["epochs"]) for row in front] == [
        (0.125, 16, 686208, 2)
    ]
    store.close()
    assert Store(path).front("tiny") == front


def test_an_old_and_a_new_database_have_the_same_columns_and_views(tmp_path: Path) -> None:
    """Columns that were added later stand at the end of their table, so the order is not compared."""

    def schema(store: Store) -> dict[str, Any]:
        found = inspect(store.engine)
        tables = {name: _columns(found, name) for name in found.get_table_names() if name.startswith("nas")}
        return tables | {name: " ".join((found.get_view_definition(name) or "").split()) for name in VIEWS}

    new = schema(Store(tmp_path / "new.db", create=True))
    assert {name for _, name in (*THIRD, *FOURTH, *FIFTH)} <= {name for columns in new.values() for name, *_ in columns}
    for version in range(1, m.LATEST + 1):
        path = tmp_path / f"{version}.db"
        shutil.copy(DATABASES / f"schema_{version}.db", path)
        assert schema(Store(path, create=True)) == new


def test_what_a_promotion_measured_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    shutil.copy(DATABASES / "schema_3.db", path)
    store = Store(path, create=True)
    (row,) = store.evaluations(1, purpose="promotion", split="test")
    named = {name: row[name] for name in ("map_sample", "map_class", "clip1", "low", "high", "views")}
    assert named == {
        "map_sample": 0.5, "map_class": 0.375, "clip1": 0.1875, "low": 0.25, "high": 0.75, "views": "10x3@16,20"
    }  # fmt: skip
    (promotion,) = store.promotions(1)
    assert promotion["broken"] == {"num_clips": 2, "videos": {"train/left/a.mp4": "the file is empty"}}


@pytest.mark.parametrize("version", range(1, m.LATEST + 1))
def test_the_front_is_of_average_precision_where_that_was_measured(tmp_path: Path, version: int) -> None:
    path = tmp_path / "study.db"
    shutil.copy(DATABASES / f"schema_{version}.db", path)
    store = Store(path, create=True)
    (before,) = store.front("tiny")
    with store.write() as connection:
        connection.execute(text("UPDATE nas_evaluation SET map_sample = 0.75 WHERE purpose = 'search'"))
    (after,) = store.front("tiny")
    assert (before["accuracy"], after["accuracy"]) == (0.125, 0.75)


@pytest.mark.parametrize("version", range(1, m.LATEST + 1))
def test_the_front_goes_by_what_the_study_chooses_networks_by(tmp_path: Path, version: int) -> None:
    path = tmp_path / "study.db"
    shutil.copy(DATABASES / f"schema_{version}.db", path)
    store = Store(path, create=True)
    with store.write() as connection:
        connection.execute(text("UPDATE nas_evaluation SET balanced = NULL"))
        connection.execute(text("UPDATE nas_study SET accuracy = 'balanced'"))
    assert store.front("tiny") == []  # a network that was not measured so is no part of the front
    with store.write() as connection:
        connection.execute(text("UPDATE nas_evaluation SET balanced = 0.625 WHERE purpose = 'search'"))
    (row,) = store.front("tiny")
    assert row["accuracy"] == 0.625
    with store.write() as connection:
        connection.execute(text("UPDATE nas_study SET accuracy = NULL"))
    (row,) = store.front("tiny")
    assert row["accuracy"] == 0.125
    store.close()


def test_balanced_accuracy_and_the_heartbeat_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    shutil.copy(DATABASES / "schema_4.db", path)
    store = Store(path)
    assert [row["balanced"] for row in store.evaluations(1)] == [0.125, 0.1875, 0.25, 0.3125]
    (session,) = store.sessions(1)
    assert session["seen_at"] == session["ended_at"]
    assert store.study("tiny")["accuracy"] is None
    store.close()


def test_scores_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    shutil.copy(DATABASES / "schema_5.db", path)
    with contextlib.closing(Store(path)) as store:
        assert [(row["name"], row["value"], row["basis"]) for row in store.scores(1)] == 2 * [
            ("synflow", 12.5, "1 4x16x16")
        ]


def _columns(found: Inspector, table: str) -> set[tuple[str, str, bool]]:
    return {(column["name"], str(column["type"]), column["nullable"]) for column in found.get_columns(table)}


@pytest.mark.parametrize("version", (1, 3))
def test_a_network_of_before_says_which_definition_it_has(tmp_path: Path, version: int) -> None:
    """`p3d_b` of version 1 of specs is the port's block, which its stored line did not say."""
    path = tmp_path / "study.db"
    shutil.copy(DATABASES / f"schema_{version}.db", path)
    spec = {**codec.encode(preset("p3d_50_b")), "version": 1}
    digest = codec.digest(codec.decode(spec))
    values = {"digest": digest, "line": "resnet | (64) p3d_b.3 x3", "spec": json.dumps(spec)}
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO nas_architecture VALUES (:digest, :line, :spec)", values)
    with contextlib.closing(Store(path)) as store:
        row = store.find(digest)
    assert "(64) p3d_b_port.3 x3" in row["description"]
    assert row["spec"] == spec
