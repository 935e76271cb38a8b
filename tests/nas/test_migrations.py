"""A database of every schema version is kept; each opens in this version with all that it held."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nas import migrations as m
from nas.store import Store

DATABASES = Path(__file__).parents[1] / "golden" / "databases"


@pytest.mark.parametrize("version", range(1, m.LATEST + 1))
def test_a_database_of_each_version_is_brought_up_to_date(tmp_path: Path, version: int) -> None:
    path = tmp_path / "study.db"
    shutil.copy(DATABASES / f"schema_{version}.db", path)
    store = Store(path, create=True)
    with store.engine.connect() as connection:
        assert m.version_of(connection) == m.LATEST
    study = store.study("tiny")
    assert study["clip"] == "4x16x16"
    assert [trial["state"] for trial in store.trials(study["id"])].count("stopped") == 2
    assert [e["epochs"] for e in store.evaluations(study["id"])] == [1, 1, 1, 2]
    front = store.pareto_front("tiny")
    assert [(row["accuracy"], row["num_clips"], row["macs"], row["epochs"]) for row in front] == [
        (0.125, 16, 686208, 2)
    ]
    store.close()
    assert Store(path).pareto_front("tiny") == front


def test_an_old_and_a_new_database_have_the_same_tables(tmp_path: Path) -> None:
    def tables(store: Store) -> dict[str, str]:
        from sqlalchemy import text

        rows = store.rows(text("SELECT name, sql FROM sqlite_master WHERE name LIKE 'nas%' OR name = 'pareto_front'"))
        return {row["name"]: " ".join((row["sql"] or "").split()) for row in rows}

    new = Store(tmp_path / "new.db", create=True)
    for version in range(1, m.LATEST + 1):
        path = tmp_path / f"{version}.db"
        shutil.copy(DATABASES / f"schema_{version}.db", path)
        assert tables(Store(path, create=True)) == tables(new)
