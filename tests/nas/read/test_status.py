"""What a search has spent is its own: ablations of the same study stand beside it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from nas.places import lines_of
from nas.store import tables
from nas.store.database import Store
from nas.store.write import now
from nas.train.session import open_session
from tests.nas.read.conftest import Run
from tests.nas.read.made import made
from tests.nas.studies import write_study
from trainer.checkpoint import RunFolder


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return made(tmp_path / "study.db", optuna=False)


def spend(database: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, *argv: str) -> None:
    """One start of a driver by this command."""
    monkeypatch.setattr(sys, "argv", list(argv))
    store = Store(database, create=True)
    session = open_session(store, store.study(), workers=1)
    with store.write() as connection:
        change = tables.session.update().where(tables.session.c.id == session)
        connection.execute(change.values(ended_at=now(), wall_seconds=seconds, busy_seconds=seconds / 2))
    store.close()


def test_ablations_are_not_charged_to_the_search(database: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    spend(database, monkeypatch, 40, "/usr/bin/nas", "search", "tiny.yaml")
    _, out, _ = run("status", database)
    assert "spent: 57 epochs, 40s in 1 session(s)" in out and "ablations:" not in out
    spend(database, monkeypatch, 100, "/usr/bin/nas", "--debug", "ablate", "tiny.yaml")
    spend(database, monkeypatch, 30, "-c", "versus", "a", "b", "--study", "search")
    spend(database, monkeypatch, 2, "/usr/bin/nas", "search", "tiny.yaml", "search.trials=50")
    _, out, _ = run("status", database)
    assert "spent: 57 epochs, 42s in 2 session(s)" in out
    assert "ablations: 2m10s in 2 session(s)" in out
    report = json.loads(run("status", database, "--json")[1])
    assert (report["seconds"], report["busy_seconds"], report["sessions"]) == (42, 21, 2)
    assert (report["ablation_seconds"], report["ablation_sessions"]) == (130, 2)


def test_every_line_fits_the_window(database: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(database.parent)
    database = Path(database.name)
    whole = run("status", database)[1]
    monkeypatch.setenv("COLUMNS", "80")
    out = run("status", database)[1]
    assert max(map(len, out.splitlines())) <= 80
    words = [word for word in out.split() if not set(word) <= {"─"}]
    assert set(words) == {word for word in whole.split() if not set(word) <= {"─"}}


def test_epochs_of_a_search_that_was_stopped_before_its_first_result_are_counted(
    tmp_path: Path, motion: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    appended = RunFolder.append

    def stop(self: RunFolder, line: str) -> None:
        appended(self, line)
        if lines_of(self.path) == 2:
            raise KeyboardInterrupt

    over = {"data": {"root": str(motion), "cache": str(motion.parent / "cache")}, "search": {"rungs": [3, 4]}}
    study = write_study(tmp_path / "tiny.yaml", over)
    database = tmp_path / "runs" / "study.db"
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "append", stop)
        assert run("search", study, "--db", database, "--workers", 0)[0] == 130
    report = json.loads(run("status", database, "--json")[1])
    assert (report["epochs_trained"], report["full_epochs_worth"], report["rungs"][0]["networks"]) == (2, 2.0, 0)
    assert "spent: 2 epochs," in run("status", database)[1]
    assert "2 of " in run("watch", database, "--once")[1]
    page = tmp_path / "page.html"
    assert run("report", database, "-o", page)[0] == 0
    assert "<dt>epochs trained in the search</dt><dd>2</dd>" in page.read_text("utf-8")
