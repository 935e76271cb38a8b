"""What a promotion must never do: train on other videos, test twice, mix two trainings up, or stop at one failure."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from nas import load
from nas.cli.main import main
from nas.store.database import Store
from nas.train import jobs
from tests.nas.studies import write_study
from trainer.checkpoint import RunFolder
from trainer.data.motion_clips import make_motion

Said = tuple[int, dict[str, Any], str]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, motion: Path) -> Path:
    """A folder with a search, whose best network was promoted for an epoch."""
    folder = tmp_path_factory.mktemp("refused")
    data = {"root": str(motion), "cache": str(motion.parent / "cache"), "crop": [14, 14]}
    over = {"data": data, "search": {"trials": 2}, "promote": {"epochs": 1, "test": {"clips": 1}}}
    database = folder / "study.db"
    assert main(["search", str(write_study(folder / "tiny.yaml", over)), "--db", str(database)]) == 0
    assert main(["promote", str(database), "--best-under", "1T"]) == 0
    return folder


@pytest.fixture
def copy(study: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(study, tmp_path / "copy"))


def promote(capsys: pytest.CaptureFixture[str], folder: Path, *settings: str) -> Said:
    capsys.readouterr()
    code = main(["promote", str(folder / "study.db"), "--best-under", "1T", "--json", *settings])
    out, error = capsys.readouterr()
    return code, json.loads(out) if out else {}, error


def rows(folder: Path) -> list[dict[str, Any]]:
    store = Store(folder / "study.db")
    return [dict(row) for split in ("val", "test") for row in store.evaluations(1, purpose="promotion", split=split)]


def test_other_videos_are_refused(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_motion(tmp_path / "others", train_per_class=4, val_per_class=2, test_per_class=2, frames=4, size=16, seed=7)
    before = rows(copy)
    code, _, error = promote(capsys, copy, f"data.root={tmp_path / 'others'}", "promote.epochs=2")
    assert code == 2 and "a promotion is trained on the videos of its study, but those under" in error
    assert rows(copy) == before


def test_a_done_promotion_whose_folder_is_gone_is_not_tested_again(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = Path(Store(copy / "study.db").promotions(1)[0]["folder"])
    with Store(copy / "study.db", create=True).write() as connection:  # else the fixture's own folder would be found
        connection.execute(
            text("UPDATE nas_promotion SET folder = :gone"), {"gone": f"/no/where/promoted/{recorded.name}"}
        )
    assert promote(capsys, copy)[0] == 0
    shutil.rmtree(copy / "promoted")
    before = rows(copy)
    code, _, error = promote(capsys, copy)
    assert code == 2 and "its test was looked at, but its folder" in error
    assert rows(copy) == before and not (copy / "promoted").exists()


def test_promotions_of_different_length_are_two_trainings(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for epochs in (3, 2):
        code, said, _ = promote(capsys, copy, "promote.recipe.epochs=3", f"promote.epochs={epochs}")
        (training,) = said["trainings"]
        assert code == 0 and training["epochs"] == epochs
        lines = (Path(training["folder"]) / "training" / "progress.jsonl").read_text().splitlines()
        assert sum('"epoch"' in line for line in lines) == epochs
    losses = {row["epochs"]: row["loss"] for row in rows(copy) if row["split"] == "test"}
    assert losses[3] != losses[2]


def test_a_file_that_says_otherwise_than_the_record_is_named(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = copy / "tiny.yaml"
    file.write_text(file.read_text().replace("epochs: 1\n", "epochs: 4\n"))
    argv = ["promote", str(file), "--db", str(copy / "study.db"), "--best-under", "1T"]
    for more, told in ([], True), (["promote.epochs=1"], False):
        capsys.readouterr()
        assert main([*argv, *more]) == 0
        assert (
            "now says promote.epochs=4, but its search was recorded with 1, which counts" in capsys.readouterr().err
        ) is told


def test_one_that_cannot_go_on_is_said_and_the_others_are_trained(
    copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "PAUSE_SECONDS", 0.0)
    code, said, _ = promote(capsys, copy, "promote.epochs=2", "--seeds", "1")
    training = Path(said["trainings"][0]["folder"]) / "training"
    # The same once more, while somebody else trains there.
    with Store(copy / "study.db", create=True).write() as connection:
        connection.execute(text("DELETE FROM nas_evaluation WHERE purpose = 'promotion' AND epochs = 2"))
        connection.execute(text("UPDATE nas_promotion SET state = 'running' WHERE epochs = 2"))
    with RunFolder(training).locked():
        code, said, error = promote(capsys, copy, "promote.epochs=2", "--seeds", "2")
    assert code == 2 and "1 of 2 promotions failed; the first: a folder is in use" in error
    assert [training["seed"] for training in said["trainings"]] == [1]
    assert [p["state"] for p in Store(copy / "study.db").promotions(1) if p["epochs"] == 2] == ["preempted", "done"]


def test_the_part_of_the_picture_comes_back_as_it_was(study: Path) -> None:
    network = load(Store(study / "study.db").promotions(1)[0]["folder"])
    assert network.data.crop == (14, 14) and hash(network.data) == hash(network.data)


def test_short_sides_that_a_pack_lacks_are_refused_before_the_training(
    motion: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {"root": str(motion), "cache": str(tmp_path / "cache")}
    study = str(write_study(tmp_path / "tiny.yaml", {"data": data}))
    assert main(["data", "pack", study, "-o", str(tmp_path / "pack")]) == 0
    capsys.readouterr()
    settings = ["data.source=pack", f"data.root={tmp_path / 'pack'}", "promote.test.short_sides=[16,20]"]
    code = main(["promote", study, "f_r2d_18", *settings, "--db", str(tmp_path / "study.db")])
    assert code == 2
    assert "short sides must be at most that of the pack's frames (16 pixels), but are [16, 20]" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "promoted").exists()
