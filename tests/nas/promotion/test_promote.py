"""Full training of a chosen network, and the way back from its folder in another process."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import nas
from nas.cli.main import main
from nas.errors import NotFoundError
from nas.store.database import Store
from tests.nas.studies import write_study


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory, motion: Path) -> tuple[Path, dict[str, Any]]:
    """A folder with a search, one network of which was promoted with two seeds; and what `nas promote --json` said."""
    folder = tmp_path_factory.mktemp("promote")
    over = {"data": {"root": str(motion), "cache": str(motion.parent / "cache")}, "search": {"trials": 3}}
    study, database = write_study(folder / "tiny.yaml", over), folder / "study.db"
    assert main(["search", str(study), "--db", str(database)]) == 0
    import contextlib
    import io

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(["promote", str(database), "--best-under", "1T", "--seeds", "2", "--json"]) == 0
    return folder, json.loads(out.getvalue())


def test_the_test_split_is_reported_once(promoted: tuple[Path, dict[str, Any]]) -> None:
    folder, said = promoted
    store = Store(folder / "study.db")
    rows = store.evaluations(1, purpose="promotion", split="test")
    assert [(row["seed"], row["epochs"], row["num_clips"]) for row in rows] == [(0, 2, 16), (1, 2, 16)]
    assert said["networks"][0]["split"] == "test"
    assert said["networks"][0]["top1"] == pytest.approx(sum(row["top1"] for row in rows) / 2)
    assert [p["state"] for p in store.promotions(1)] == ["done", "done"]
    assert main(["promote", str(folder / "study.db"), "--best-under", "1T", "--seeds", "2"]) == 0
    assert len(store.evaluations(1, purpose="promotion", split="test")) == 2


def test_the_search_and_its_front_stay_as_they_were(promoted: tuple[Path, dict[str, Any]]) -> None:
    store = Store(promoted[0] / "study.db")
    assert len(store.evaluations(1)) == 4
    assert all(row["epochs"] == 2 for row in store.front("tiny"))


def test_a_new_process_gives_the_classes_that_the_evaluation_gave(
    promoted: tuple[Path, dict[str, Any]], motion: Path
) -> None:
    folder = promoted[1]["trainings"][0]["folder"]
    code = (
        "import json, sys, nas\n"
        "network = nas.load(sys.argv[1])\n"
        "files = json.loads(sys.argv[3])\n"
        "print(json.dumps({f: next(iter(network.predict(f'{sys.argv[2]}/{f}'))) for f in files}))"
    )
    expected = json.loads((Path(folder) / "network.json").read_text())["record"]["predictions"]["test"]
    assert len(expected) == 16
    done = subprocess.run(
        [sys.executable, "-c", code, folder, str(motion), json.dumps(sorted(expected))],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == expected


def test_what_is_loaded_is_ready_to_use(promoted: tuple[Path, dict[str, Any]]) -> None:
    network = nas.load(promoted[1]["trainings"][0]["folder"])
    assert not network.training
    assert not any(module.training for module in network.modules())
    assert str(network.clip) == "4x16x16"
    assert network.class_names[0] == "clockwise"
    assert len(network.normalisation[0]) == 3
    assert network(torch.zeros(2, 3, 4, 16, 16)).shape == (2, 8)
    assert network.record["epochs"] == 2


def test_folders_that_were_swapped_are_refused(
    promoted: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "moved"
    shutil.copytree(promoted[0], folder)
    one, other = sorted((folder / "promoted").iterdir())
    one.rename(tmp_path / "aside")
    other.rename(one)
    (tmp_path / "aside").rename(other)
    digest = promoted[1]["networks"][0]["digest"]
    message = rf"must hold the promotion of {digest[:10]} with seed 0 over 2 epochs, but its network\.json says seed 1;"
    with nas.open(folder) as study, pytest.raises(NotFoundError, match=message):
        study.network(digest)
    for command in (["motion", digest, "--study"], ["promote", "--best-under", "1T", "--seeds", "2"]):
        capsys.readouterr()
        assert main([*command, str(folder / "study.db")]) == 2
        assert re.search(message, capsys.readouterr().err)
    with Store(folder / "study.db") as store:
        assert store.motion_tests("tiny") == []


def test_a_seed_is_reproducible(promoted: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, said = promoted
    shutil.copy(folder / "study.db", tmp_path / "study.db")
    with Store(tmp_path / "study.db", create=True).write() as connection:
        from sqlalchemy import text

        connection.execute(text("DELETE FROM nas_evaluation WHERE purpose = 'promotion'"))
        connection.execute(text("DELETE FROM nas_promotion"))
    assert main(["promote", str(tmp_path / "study.db"), said["networks"][0]["digest"][:8]]) == 0
    old, new = (
        Store(where / "study.db").evaluations(1, purpose="promotion", split="test") for where in (folder, tmp_path)
    )
    assert (old[0]["top1"], old[0]["loss"]) == (new[0]["top1"], new[0]["loss"])


def test_a_promotion_cut_short_goes_on(promoted: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, said = promoted
    shutil.copytree(folder, tmp_path / "copy")
    weights = list((tmp_path / "copy" / "promoted").glob("*-seed0-*/network.json"))
    with Store(tmp_path / "copy" / "study.db", create=True).write() as connection:
        from sqlalchemy import text

        connection.execute(text("DELETE FROM nas_evaluation WHERE purpose = 'promotion'"))
        connection.execute(text("UPDATE nas_promotion SET state = 'running'"))
    weights[0].unlink()
    digest = said["networks"][0]["digest"][:8]
    assert main(["promote", str(tmp_path / "copy" / "study.db"), digest]) == 0
    rows = Store(tmp_path / "copy" / "study.db").evaluations(1, purpose="promotion", split="test")
    first = said["trainings"][0]
    assert [(row["seed"], row["top1"]) for row in rows] == [(0, first["top1"])]


@pytest.mark.parametrize("name", ["nothing", "empty"])
def test_a_folder_that_holds_no_network_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    if name != "nothing":
        folder.mkdir()
    with pytest.raises(NotFoundError, match="must be a folder that `nas promote` wrote"):
        nas.load(folder)


def test_a_network_that_has_a_name_is_promoted_without_a_search(
    tmp_path: Path, motion: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    over = {"data": {"root": str(motion), "cache": str(motion.parent / "cache")}}
    study, database = write_study(tmp_path / "named.yaml", over), tmp_path / "named.db"
    named = "{preset: rmc3_18, depth: 1-1-1-1, widths: 4-4-8-8}"
    argv = ["promote", str(study), named, "promote.epochs=1", "promote.seeds=1", "--db", str(database)]
    assert main(["promote", str(study), "rmc3_81", "--db", str(database)]) == 2
    assert "did you mean rmc3_18?" in capsys.readouterr().err
    assert not database.exists()
    assert main([*argv, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)["trainings"][0]
    store = Store(database)
    assert store.find(first["digest"])["description"] == first["description"]
    assert [p["state"] for p in store.promotions(1)] == ["done"]
    store.close()
    # The same again, from the file with what it was made with, and from the database.
    for words in ([*argv, "recipe.batch_size=8"], ["promote", str(database), first["digest"][:8], *argv[3:5]]):
        assert main([*words, "--json"]) == 0
        (again,) = json.loads(capsys.readouterr().out)["trainings"]
        assert (again["folder"], again["fresh"]) == (first["folder"], False)
    assert main([*argv, "recipe.batch_size=4"]) == 2
    assert "was made with recipe.batch_size=8, but the study now says 4" in capsys.readouterr().err
