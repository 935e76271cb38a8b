"""Which machines may train together, and what is said of those that may not; the guide to them."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.cli.main import main
from nas.train.machines import Facts, NodeAnswer, alone, facts, look, names, places_of, refusal, room, shown
from tests.nas.studies import write_study
from trainer.config import Clip, DataConfig
from trainer.recipe import Init

GUIDE = (Path(__file__).parents[3] / "docs" / "machines.md").read_text(encoding="utf-8")
SAME = Facts(python="3.11.9", torch="2.15.0", video_nas="0.1.0 (source 01234567)", precision="bf16")


def lines(program: str) -> list[str]:
    """Lines of the guide's blocks that begin with a program's name."""
    bodies = re.findall(r"^```\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    return [line for body in bodies for line in body.splitlines() if line.startswith(f"{program} ")]


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line that a refused command says."""
    assert main(list(words)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    return line


def test_equal_machines_may_train_together() -> None:
    assert refusal("b", SAME, NodeAnswer(facts=SAME)) is None
    mine = facts()
    assert mine == facts()
    assert mine.precision == ""
    assert facts(precision=True).precision in ("bf16", "fp32")


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Facts)])
def test_another_version_is_refused_with_both(name: str) -> None:
    other = dataclasses.replace(SAME, **{name: "9.9"})
    line = refusal("b", SAME, NodeAnswer(facts=other))
    assert line is not None
    assert "node b" in line
    assert "9.9" in line
    assert getattr(SAME, name) in line


def test_the_machine_that_wrote_the_file_could_train_if_it_did_not_hold_the_lock(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "train" / "left").mkdir(parents=True)
    with shown(tmp_path / "study.db.machines", [str(data)], precision=False) as probe:
        assert look(probe).problem == ""
        assert probe.places == {str(data): ("train", "train/left")}
        for wrong, problem in (
            ({"token": "another"}, "sees another"),
            ({"file": str(tmp_path / "away" / "file")}, "does not see .*file, which this machine wrote"),
            ({"cwd": str(tmp_path / "away")}, "has no folder .*away, where the command was given"),
            ({"places": {str(data): ("train", "train/right")}}, "does not see .*data/train/right;"),
            ({"places": {str(tmp_path / "away"): ()}}, "does not see .*away;"),
        ):
            assert re.search(problem, look(dataclasses.replace(probe, **wrong)).problem)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == [data]
    file = tmp_path / "unlocked"
    file.write_text(probe.token)
    unlocked = look(dataclasses.replace(probe, file=str(file)))
    assert "does not see the lock that this machine holds" in unlocked.problem


def test_a_folder_is_one_process_s_at_a_time(tmp_path: Path) -> None:
    code = (
        f"from nas.train.machines import alone; from pathlib import Path\nwith alone(Path({str(tmp_path)!r})) as free:"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", f"{code} print(free, flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert other.stdout is not None
    with other:
        assert other.stdout.readline() == "True\n"
        with alone(tmp_path, patience=0.5) as free:
            assert not free
        other.kill()
    with alone(tmp_path, patience=0.5) as free:
        assert free


@given(cpus=st.integers(0, 64), gpus=st.integers(0, 8), need=st.integers(1, 16))
def test_no_node_gets_more_jobs_than_it_has_room_for(cpus: int, gpus: int, need: int) -> None:
    resources = {"CPU": float(cpus), "GPU": float(gpus)}
    assert room(resources, cpus=need, gpu=False) * need <= cpus < (room(resources, cpus=need, gpu=False) + 1) * need
    assert room(resources, cpus=need, gpu=True) == min(room(resources, cpus=need, gpu=False), gpus)
    assert room({}, cpus=need, gpu=True) == 0


def test_places_are_what_the_data_names_and_this_machine_has(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    weights = tmp_path / "weights.pt"
    weights.touch()
    clip = Clip(frames=4, height=16, width=16)
    data = DataConfig(name="x", root=str(tmp_path), cache=str(tmp_path / "cache"), clip=clip)
    assert places_of(data, Init(weights=str(weights))) == [str(tmp_path), str(tmp_path / "cache"), str(weights)]
    assert places_of(data, Init(weights="timm:resnet50")) == [str(tmp_path), str(tmp_path / "cache")]
    assert names(tmp_path) == ["cache"]


def test_options_that_contradict_each_other_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    study = str(write_study(tmp_path / "tiny.yaml"))
    for command in (["search", study], ["ablate", study], ["versus", "a", "b", "--study", study]):
        assert "--workers 0 trains in this process" in said(capsys, *command, "--ray", "local", "--workers", "0")
        assert "--cpus 2 is of jobs on a cluster; give --ray ADDRESS" in said(capsys, *command, "--cpus", "2")


def test_a_cluster_that_is_not_there_is_said_at_once(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, motion: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed (pip install 'video-nas[ray]')")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    places = [f"data.root='{motion}'", f"data.cache='{motion.parent / 'cache'}'", "--db", str(tmp_path / "study.db")]
    command = ["search", str(write_study(tmp_path / "tiny.yaml")), *places]
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        for given_, expected in (
            (address, f"no Ray cluster answers at {address} (Connection refused); start its head"),
            ("nowhere", "--ray must be auto, local or the HOST:PORT of the head, but is nowhere"),
            ("ray://first:10001", "--ray must be auto, local or the HOST:PORT of the head, but is ray://first:10001"),
            ("auto", "--ray auto finds no Ray cluster on this machine; start one with `ray start --head`"),
        ):
            assert main([*command, "--ray", given_]) == 2
            out, err = capfd.readouterr()
            assert out == ""
            assert expected in err.splitlines()[-1]
        (tmp_path / "ray").mkdir()
        (tmp_path / "ray" / "ray_current_cluster").write_text(address)
        assert main([*command, "--ray", "auto"]) == 2
    assert f"no Ray cluster answers at {address}" in capfd.readouterr().err


def test_without_the_extra_it_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, motion: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "nas.train.ray", raising=False)
    places = [f"data.root='{motion}'", f"data.cache='{motion.parent / 'cache'}'", "--db", str(tmp_path / "study.db")]
    assert main(["search", str(write_study(tmp_path / "tiny.yaml")), *places, "--ray", "local"]) == 2
    assert "--ray needs Ray: pip install 'video-nas[ray]'" in capsys.readouterr().err.splitlines()[-1]


def test_ray_is_loaded_only_when_it_is_asked_for() -> None:
    code = "import sys, nas.search.driver, nas.ablation.runner, nas.cli.main; sys.exit('ray' in sys.modules)"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


@pytest.mark.parametrize("line", lines("ray"))
def test_ray_understands_the_commands_of_the_guide(line: str) -> None:
    pytest.importorskip("ray", reason="Ray is not installed (pip install 'video-nas[ray]')")
    from ray.scripts.scripts import cli

    _, command, *words = shlex.split(line)
    context = cli.commands[command].make_context(command, list(words))
    assert context.params["head"] == ("--head" in words)


def test_the_guide_names_what_the_program_has() -> None:
    from nas.train.jobs import MAX_TRIES

    assert MAX_TRIES == 10
    assert "cut short ten times" in GUIDE
    assert len(lines("ray")) == 2
    assert len(lines("nas")) == 5
