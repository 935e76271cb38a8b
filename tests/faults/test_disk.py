"""A full disk and places that cannot be written: one line, exit code 2, and what was stored stays."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import event

from nas.cli.main import main
from nas.errors import StoreError
from nas.store import tables as m
from nas.store import write as s
from nas.store.database import Store
from tests.nas.studies import write_study


def test_a_full_disk_keeps_what_was_stored(tmp_path: Path) -> None:
    """SQLite's own limit on pages stands for the disk: it fails with the same error in the same places."""
    path = tmp_path / "study.db"
    store = Store(path, create=True)
    study = store.add_study(name="demo", seed=0, clip="8x32x32", num_classes=4, config={}, data={})

    @event.listens_for(store.engine, "begin")
    def _small(connection: object) -> None:
        connection.exec_driver_sql("PRAGMA max_page_count = 60")  # type: ignore[attr-defined]

    with pytest.raises(StoreError, match=r"study\.db cannot be written: no space left on the disk"):
        for number in range(1000):
            with store.write() as connection:
                s.insert(connection, m.event, study_id=study, kind="x" * 4000, trial=number, rung=0, at="now")
    store.close()
    kept = Store(path)
    trials = [row["trial"] for row in kept.events(study)]
    assert trials == list(range(len(trials)))
    assert len(trials) > 3
    with kept.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"


@pytest.mark.parametrize("place", ["/proc/nas/study.db", "{file}/study.db"])
def test_a_place_that_cannot_be_written_is_said_at_once(
    tmp_path: Path, motion: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    (tmp_path / "file").write_text("a file, not a folder")
    over = {"data": {"root": str(motion), "cache": str(motion.parent / "cache")}}
    study = write_study(tmp_path / "tiny.yaml", over)
    assert main(["search", str(study), "--db", place.format(file=tmp_path / "file")]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: the folder of ")
    assert "cannot be written" in error


def test_a_plot_that_cannot_be_written_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.nas.store.test_store import filled

    filled(tmp_path / "study.db", [("aa", 0, 0.5, 10)]).close()
    assert main(["pareto", str(tmp_path / "study.db"), "--plot", "/proc/nas/front.png"]) == 2
    assert "cannot be written" in capsys.readouterr().err
