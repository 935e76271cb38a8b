"""What a search has spent is its own: ablations of the same study stand beside it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from nas.search.session import close_session, open_session
from nas.store import Store
from tests.nas.looking.conftest import Run
from tests.nas.looking.made import made


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return made(tmp_path / "study.db", optuna=False)


def spend(database: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, *argv: str) -> None:
    """One start of a driver by this command."""
    monkeypatch.setattr(sys, "argv", list(argv))
    store = Store(database, create=True)
    session = open_session(store, store.study(), workers=1)
    close_session(store, session, wall_seconds=seconds, busy_seconds=seconds / 2)
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
