"""What was recorded before the house was rebuilt goes on in it: a half-done search, a promoted network, decisions.

`before/half_done.tar.gz` is a search that was killed while a checkpoint was written, six epochs into a training of
nine; checkpoints that nothing goes on from are left out. `before/promoted.tar.gz` is a network that it promoted later.
`before/decided_*.db.gz` are searches that ended.
"""

from __future__ import annotations

import gzip
import json
import sqlite3
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

import nas
from nas.cli.main import main
from nas.search.curves import Curve
from nas.search.driver import Driver
from nas.search.pool import build_pool
from nas.search.scores.score import StudyScores
from nas.search.simulation import CurveTable, TableCrew
from nas.store.database import Store
from nas.study.files import load_study
from nas.train.crew import Crew
from trainer.data.motion_clips import make_motion

BEFORE = Path(__file__).parent / "before"
HALF_DONE = "trials/00005-7f4c5255dede"


@pytest.fixture(scope="module")
def motion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The videos that all of it is of."""
    root = tmp_path_factory.mktemp("before") / "motion"
    make_motion(root, train_per_class=16, val_per_class=6, test_per_class=1, frames=8, size=40)
    return root


@pytest.fixture
def folder(tmp_path: Path, motion: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the videos, the study and what is unpacked of its search."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "motion").symlink_to(motion)
    (tmp_path / "study.yaml").write_bytes((BEFORE / "half_done.yaml").read_bytes())
    for name, below in (("half_done", "runs"), ("promoted", "runs/before")):
        with tarfile.open(BEFORE / f"{name}.tar.gz") as archive:
            archive.extractall(tmp_path / below, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(database: Path, table: str, columns: str, order: str = "id") -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(database)
    found = connection.execute(f"SELECT {columns} FROM {table} ORDER BY {order}").fetchall()
    connection.close()
    return found


def test_a_half_done_search_goes_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database = folder / "runs/before/study.db"
    measured = "trial_id, rung, epochs, top1, loss, num_clips"
    evaluations = rows(database, "nas_evaluation", measured)
    epochs = (folder / "runs/before" / HALF_DONE / "progress.jsonl").read_text().splitlines()
    assert len(evaluations) == 7 and len(epochs) == 6
    assert main(["search", "study.yaml"]) == 0
    assert "trial 5 goes on to 9 epochs" in capsys.readouterr().err
    after = rows(database, "nas_evaluation", measured)
    assert after[:7] == evaluations
    assert [row[:3] for row in after[7:]] == [(6, 1, 9)]
    again = (folder / "runs/before" / HALF_DONE / "progress.jsonl").read_text().splitlines()
    assert len(again) == 9 and again[:5] == epochs[:5]  # of the sixth, no whole checkpoint was left
    assert {state for (state,) in rows(database, "nas_trial", "state")} == {"finished", "stopped"}


def test_a_promoted_network_is_what_it_was(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (promoted,) = (folder / "runs/before/promoted").iterdir()
    assert nas.load(promoted).spec.describe() == "resnet 3x3x3/2-8 | 8 p3d_a.3 | 16/2 p3d_a.3"
    capsys.readouterr()
    assert main(["evaluate", str(promoted), "data/motion", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    stored = json.loads((promoted / "evaluation.json").read_text())["val"]
    assert found["loss"] == pytest.approx(stored["loss"], rel=1e-4)
    assert (found["views"], found["num_clips"]) == (stored["views"], stored["num_clips"])


class Recorded:
    """Trainings of a search that ended."""

    def __init__(self, database: Path) -> None:
        self.trials = rows(database, "nas_trial", "id, digest, seed, origin", "number")
        self._curves: dict[tuple[str, int], Curve] = {}
        for key, digest, seed, _ in self.trials:
            found = rows(database, f"nas_epoch WHERE trial_id = {key}", "top1, loss, seconds, num_clips", "epoch")
            top1, loss, seconds, videos = zip(*found, strict=True)
            self._curves[digest, seed] = Curve(
                digest=digest, seed=seed, top1=top1, loss=loss, seconds=seconds, videos=videos[-1]
            )

    def curve(self, digest: str, seed: int) -> Curve:
        """What came of a training."""
        return self._curves[digest, seed]


@pytest.mark.parametrize("scheduler", ["asha", "freeze_thaw"])
def test_a_search_decides_as_it_did(scheduler: str, tmp_path: Path) -> None:
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    old.write_bytes(gzip.decompress((BEFORE / f"decided_{scheduler}.db.gz").read_bytes()))
    recorded = Recorded(old)
    study = load_study(BEFORE / "decided.yaml", [f"search.scheduler={scheduler}"])
    with Store(new, create=True) as store:
        store.add_study(
            name=study.name,
            seed=study.seed,
            clip=study.data.shape,
            num_classes=8,
            config=json.loads(json.dumps(study.config)),
            data={"checksum": "recorded", "classes": [], "clips": {}},
        )
        crew = cast(Callable[..., Crew], TableCrew)(cast(CurveTable, recorded), 1)
        pool, scores = build_pool(study, num_classes=8), StudyScores(study, num_classes=8)
        Driver(study, new, store, store.study(study.name), pool, crew, lambda news: None, scores).run()
    assert Recorded(new).trials == recorded.trials
    decisions = "kind, trial, rung"
    assert rows(new, "nas_event", decisions, "seq") == rows(old, "nas_event", decisions, "seq")
