"""Whole searches whose rungs are trainings of their own: on more data, more frames, more pixels."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import optuna
import pytest

from nas.cli.main import main
from nas.errors import SearchError, StoreError
from nas.search.driver import run_search
from nas.search.session import News
from nas.store import Store
from nas.study import Study
from nas.trained import find_trained, load_trained
from nas.tabular import rows_of
from nas.watching import frame_of
from tests.nas.test_search import check_promotions, results_of, study_at
from trainer.checkpoint import run_of

KINDS: dict[str, dict[str, Any]] = {
    "data": {"rungs": [0.26, 0.5, 1.0]},
    "frames": {"rungs": [1, 2, 4]},
    "size": {"rungs": [8, 12, 16]},
}
LABELS = {
    "data": ["26 % of the data", "50 % of the data", "100 % of the data"],
    "frames": ["1 frame", "2 frames", "4 frames"],
    "size": ["8 pixels", "12 pixels", "16 pixels"],
}


def search_of(kind: str, **over: Any) -> dict[str, Any]:
    """The changes to the tiny study that give it rungs of a kind."""
    return {"search": {"fidelity": kind, "epochs": 2, "trials": 9, **KINDS[kind], **over}}


@pytest.fixture(scope="module", params=list(KINDS))
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, motion: Path) -> Any:
    """A search of nine networks of each kind, which ran undisturbed."""
    kind = str(request.param)
    folder = tmp_path_factory.mktemp(kind)
    study = study_at(folder, motion, search_of(kind))
    news: list[News] = []
    run_search(study, folder / "study.db", workers=0, listener=news.append)
    return kind, study, folder / "study.db", news


def test_a_search_of_every_kind(finished):
    kind, study, path, news = finished
    for n in news:
        print(n)
    store = Store(path)
    for e in store.evaluations(1):
        print(e["number"], e["rung"], e["epochs"], e["top1"])
    print(rows_of(store, store.study(), "front"))
    assert 0
