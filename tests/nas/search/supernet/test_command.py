"""`nas supernet` from a study to ranks, and what it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from nas.cli.main import main
from nas.store.database import Store
from tests.nas.studies import content_of, write_study

NETWORKS = 17  # of the tiny study


def study_of(folder: Path, motion: Path, over: dict[str, Any] | None = None) -> str:
    data = {"root": str(motion), "cache": str(motion.parent / "cache")}
    return str(write_study(folder / "tiny.yaml", {"data": data, "search": {"rungs": [1], "trials": 6}, **(over or {})}))


@pytest.fixture
def nni() -> None:
    """Skips a test where the extra is not installed."""
    pytest.importorskip("nni")
    pytest.importorskip("pytorch_lightning")


def ran(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_family_without_a_supernet_is_refused(
    tmp_path: Path, motion: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = {"family": "c3d", "domains": {"width": [0.125]}}
    path = tmp_path / "tiny.yaml"
    write_study(path, {"data": {"root": "nowhere"}})
    text = path.read_text("utf-8")
    import yaml

    path.write_text(yaml.safe_dump({**yaml.safe_load(text), "space": space}), "utf-8")
    assert main(["supernet", str(path), "--db", str(tmp_path / "s.db")]) == 2
    err = capsys.readouterr().err
    assert err == "error: a supernet needs a family that has one, but the space of tiny has c3d (choices: resnet)\n"


def test_an_unknown_strategy_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_study(tmp_path / "tiny.yaml", {"data": {"root": "nowhere"}})
    assert main(["supernet", str(path), "--strategy", "dart", "--db", str(tmp_path / "s.db")]) == 2
    err = capsys.readouterr().err
    assert err == "error: --strategy 'dart' is not known; did you mean darts? (choices: random, darts)\n"


@pytest.mark.parametrize("name", ["nni", "pytorch_lightning"])
def test_without_nni_the_command_that_installs_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path = write_study(tmp_path / "tiny.yaml", {"data": {"root": "nowhere"}})
    monkeypatch.setitem(sys.modules, "nni", sys)  # found, whether it is installed or not
    monkeypatch.setitem(sys.modules, "pytorch_lightning", sys)
    monkeypatch.setitem(sys.modules, name, None)
    assert main(["supernet", str(path), "--db", str(tmp_path / "s.db")]) == 2
    assert capsys.readouterr().err == f"error: nas supernet needs {name}: pip install 'video-nas[nni]'\n"
    assert not (tmp_path / "s.db").exists()


@pytest.mark.usefixtures("nni")
def test_networks_are_ranked_stored_and_compared_with_their_own_training(
    tmp_path: Path, motion: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, db = study_of(tmp_path, motion), str(tmp_path / "study.db")
    first = ran(capsys, "supernet", study, "--epochs", "2", "--db", db)
    ranked = first["networks"]
    assert (first["covered"], first["pool"], len(ranked)) == (NETWORKS, NETWORKS, NETWORKS)
    assert [one["rank"] for one in ranked] == list(range(1, NETWORKS + 1))
    assert [one["shared"] for one in ranked] == sorted((one["shared"] for one in ranked), reverse=True)
    assert first["agreement"] == []
    assert first["at_chance"]  # 32 videos for two epochs
    with Store(tmp_path / "study.db") as store:
        stored = {row["digest"]: row["value"] for row in store.scores(1) if row["name"] == "supernet"}
    assert stored == {one["digest"]: one["shared"] for one in ranked}

    assert main(["search", study, "--db", db]) == 0
    (lines,) = (tmp_path / "supernet").glob("*/networks.jsonl")
    before = lines.read_bytes()
    second = ran(capsys, "supernet", study, "--epochs", "2", "--db", db, "--networks", "9")
    assert lines.read_bytes() == before, "what was measured is measured again"
    known = {one["digest"]: one["shared"] for one in ranked}
    assert len(second["networks"]) == 9
    assert all(known[one["digest"]] == one["shared"] for one in second["networks"])
    assert sum(one["alone"] is not None for one in second["networks"]) == 6
    assert [(one["rung"], one["networks"]) for one in second["agreement"]] == [(0, 6)]

    assert main(["supernet", study, "--epochs", "2", "--db", db, "--top", "3"]) == 0
    out = capsys.readouterr().out
    assert f"{NETWORKS} of {NETWORKS} networks measured that are paths of the supernet" in out
    assert "Kendall's tau" in out and "1 epoch" in out


@pytest.mark.usefixtures("nni")
@pytest.mark.parametrize("strategy", ["random", "darts"])
def test_a_training_that_goes_on_ends_as_one_that_was_never_stopped(
    tmp_path: Path, motion: Path, capsys: pytest.CaptureFixture[str], strategy: str
) -> None:
    found = []
    for name, epochs in (("at_once", ("2",)), ("in_two", ("1", "2"))):
        folder = tmp_path / name
        folder.mkdir()
        study = study_of(folder, motion)
        words = ["supernet", study, "--strategy", strategy, "--db", str(folder / "s.db"), "--epochs"]
        found.append([ran(capsys, *words, number) for number in epochs][-1])
        assert len(list((folder / "supernet").iterdir())) == 1
    assert found[0] == found[1]
    assert bool(found[0]["shares"]) == (strategy == "darts")


@pytest.mark.usefixtures("nni")
def test_networks_of_other_families_are_counted(
    tmp_path: Path, motion: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import yaml

    path = Path(study_of(tmp_path, motion))
    stated = yaml.safe_load(path.read_text("utf-8"))
    timm = {"domains": {"model": ["test_resnet"], "frames": [4], "kind": ["2d", "p3d_a"]}}
    stated["space"] = {"families": {"resnet": stated["space"], "timm": timm}}
    path.write_text(yaml.safe_dump(stated), "utf-8")
    said = ran(capsys, "supernet", str(path), "--epochs", "1", "--db", str(tmp_path / "s.db"), "--networks", "4")
    assert (said["covered"], len(said["networks"])) == (NETWORKS, 4)
    assert said["pool"] == NETWORKS + 2


@pytest.mark.usefixtures("nni")
def test_a_refused_start_changes_nothing(tmp_path: Path, motion: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study, db = study_of(tmp_path, motion), tmp_path / "s.db"
    ran(capsys, "supernet", study, "--epochs", "1", "--db", str(db), "--networks", "1")
    before = content_of(db)
    assert main(["supernet", study, "recipe.lr=0.5", "--epochs", "1", "--db", str(db)]) == 2
    assert "was made with recipe.lr=0.003, but the study now says 0.5" in capsys.readouterr().err
    assert content_of(db) == before


@pytest.mark.usefixtures("nni")
def test_damaged_lines_are_measured_again(tmp_path: Path, motion: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study, db = study_of(tmp_path, motion), str(tmp_path / "s.db")
    words = ["supernet", study, "--epochs", "1", "--db", db, "--networks", "5"]
    first = ran(capsys, *words)
    (path,) = (tmp_path / "supernet").glob("*/networks.jsonl")
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    del lines[0]["loss"]
    lines[1]["top1"], lines[2]["top1"], lines[3]["top1"] = float("nan"), 5.0, "a"
    del lines[4]["top1"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    assert ran(capsys, *words)["networks"] == first["networks"]


@pytest.mark.usefixtures("nni")
def test_features_are_of_one_supernet(tmp_path: Path, motion: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a search has begun by stays, and what another supernet says takes the place of all that one said before."""
    over = {"search": {"rungs": [1], "trials": 2, "initial": 2, "sampler": "pool", "features": ["supernet"]}}
    study, db = study_of(tmp_path, motion, over), str(tmp_path / "s.db")
    assert main(["search", study, "--db", db]) == 2
    assert "with the same settings (search.features=['supernet'] among them) first" in capsys.readouterr().err
    ran(capsys, "supernet", study, "--epochs", "1", "--db", db, "--networks", "6")
    ran(capsys, "supernet", study, "--epochs", "2", "--db", db, "--networks", "3")
    with Store(Path(db)) as store:
        assert len({row["basis"] for row in store.scores(1)}) == 1
        assert len(store.scores(1)) == 3
    assert main(["search", study, "--db", db]) == 0
    capsys.readouterr()
    assert main(["supernet", study, "--epochs", "3", "--db", db]) == 2
    assert "has begun with search.features supernet, whose scores stay as they are" in capsys.readouterr().err


@pytest.mark.usefixtures("nni")
def test_fewer_epochs_than_were_trained_are_refused(
    tmp_path: Path, motion: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, db = study_of(tmp_path, motion), str(tmp_path / "s.db")
    ran(capsys, "supernet", study, "--epochs", "2", "--db", db, "--networks", "3")
    with Store(Path(db)) as store:
        before = store.scores(1)
    assert main(["supernet", study, "--epochs", "1", "--db", db, "--networks", "3"]) == 2
    assert "--epochs must be at least the 2 of the supernet in" in capsys.readouterr().err
    with Store(Path(db)) as store:
        assert store.scores(1) == before
