"""A study of flow from the command line: flow is computed, searched, promoted, fused with RGB, and used on a video."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

import nas
from nas.cli.main import main
from nas.cost.cost import cost
from nas.store.database import Store
from search_spaces import codec
from tests.nas.studies import write_study
from tests.nas.use.conftest import said_json
from trainer.data.kinds import FlowSettings
from trainer.data.layouts import DataError
from trainer.data.motion_clips import write_clip
from trainer.data.optical_flow import flow_of_video

CLASSES = ("left", "right", "still")
COUNTS = {"train": 8, "val": 5}
FRAMES, SIZE = 8, 32


def moving(name: str, rng: np.random.Generator) -> np.ndarray:
    """A speckled square on a still ground, which moves two pixels per frame as its class says."""
    video = np.broadcast_to(rng.integers(0, 60, (SIZE, SIZE, 3), dtype=np.uint8), (FRAMES, SIZE, SIZE, 3)).copy()
    square = rng.integers(120, 255, (12, 12, 3), dtype=np.uint8)
    top = int(rng.integers(0, SIZE - 12))
    for number in range(FRAMES):
        left = {"right": 2 * number, "left": SIZE - 14 - 2 * number}.get(name, 10)
        video[number, top : top + 12, left : left + 12] = square
    return video


@dataclass(frozen=True)
class Studies:
    """What the tests share: videos, their flow, and two studies with a promoted network each."""

    videos: Path
    flow: Path
    databases: dict[str, Path]
    folders: dict[str, Path]


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Studies:
    folder = tmp_path_factory.mktemp("inputs")
    rng, videos, flow = np.random.default_rng(0), folder / "videos", folder / "flow"
    for split, count in COUNTS.items():
        for name in CLASSES:
            (videos / split / name).mkdir(parents=True)
            for number in range(count):
                write_clip(videos / split / name / f"{number:02d}.mp4", moving(name, rng))
    over = {
        "data": {
            "name": "moving",
            "root": str(videos),
            "cache": str(folder / "cache"),
            "num_classes": 3,
            "clip": {"frames": 4, "height": 28, "width": 28},
            "short_side": SIZE,
        },
        "space": {"domains": {"kind": {"values": ["2d"], "per": "network"}, "kernel": [3]}},
        "search": {"trials": 1, "initial": 1, "rungs": [1]},
        "recipe": {"lr": 0.01, "weight_decay": 0.0},
        "promote": {"epochs": 8, "recipe": {"schedule": "onecycle"}, "test": {"clips": 2}},
    }
    study = write_study(folder / "moving.yaml", over)
    assert main(["data", "flow", str(study), "-o", str(flow), "--bound", "8"]) == 0
    more = {"rgb": [], "flow": ["data.input=flow", "data.source=pack", f"data.root={flow}"]}
    databases, folders = {}, {}
    for name, settings in more.items():
        databases[name] = folder / name / "study.db"
        assert main(["search", str(study), *settings, "--db", str(databases[name])]) == 0
        store = Store(databases[name])
        (trial,) = store.trials(1)
        store.close()
        said = said_json("promote", str(databases[name]), trial["digest"], "--seeds", "1", "--json")
        folders[name] = Path(said["trainings"][0]["folder"])
    return Studies(videos=videos, flow=flow, databases=databases, folders=folders)


def test_a_network_of_flow_tells_directions_apart_that_one_of_frames_cannot(studies: Studies) -> None:
    # Without time in it, a network of frames cannot know left from right.
    rgb, flow = (said_json("evaluate", str(studies.folders[name]), str(place), "--json")["video1"]["value"]
                 for name, place in (("rgb", studies.videos), ("flow", studies.flow)))  # fmt: skip
    assert flow == 1.0
    assert rgb < 1.0


def test_costs_are_recorded_for_clips_of_two_planes(studies: Studies) -> None:
    rows = {}
    for name, path in studies.databases.items():
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            ((rows[name], clip),) = connection.execute("SELECT macs, clip FROM nas_cost").fetchall()
            assert connection.execute("SELECT clip FROM nas_study").fetchone() == (clip,)
            assert connection.execute("SELECT count(*) FROM pareto_front").fetchone() == (1,)
        assert clip == {"rgb": "4x28x28", "flow": "2x4x28x28"}[name]
        network = nas.load(studies.folders[name])
        price = cost(network.spec, frames=4, height=28, width=28, num_classes=3, planes=network.data.planes)
        assert price.macs == rows[name]
        assert sum(p.numel() for p in network.parameters()) == price.params
    assert rows["flow"] < rows["rgb"]


def test_commands_count_a_network_of_a_flow_study_on_two_planes(studies: Studies) -> None:
    digest = codec.digest(nas.load(studies.folders["flow"]).spec)
    of = {name: said_json("cost", digest, "--study", str(path), "--json") for name, path in studies.databases.items()}
    assert of["flow"]["clip"] == "2x4x28x28" and of["rgb"]["clip"] == "4x28x28"
    assert of["flow"]["params"] < of["rgb"]["params"]
    assert said_json("cost", "r3d_18", "--clip", "2x4x32x32", "--json")["params"] == 33_371_472 - 64 * 3 * 49


def test_the_fusion_of_both_is_weighed_on_val_and_reported_beside_them(studies: Studies) -> None:
    found = said_json("ensemble", str(studies.folders["rgb"]), str(studies.folders["flow"]), "--json")
    weights = [member["weight"] for member in found["members"]]
    assert sum(weights) == pytest.approx(1)
    assert weights[1] > weights[0]  # flow knows better
    again = said_json("ensemble", str(studies.folders["flow"]), str(studies.folders["rgb"]), "--json")
    assert [member["weight"] for member in again["members"]] == pytest.approx(weights[::-1], abs=1e-4)


def test_a_network_of_flow_computes_the_flow_of_a_video_that_it_is_shown(studies: Studies) -> None:
    network = nas.load(studies.folders["flow"])
    assert network.record["flow"] == {"method": "dis", "bound": 8.0}
    frames = moving("left", np.random.default_rng(9))
    by_hand = flow_of_video(frames, FlowSettings(method="dis", bound=8.0))
    assert torch.equal(network.probabilities(frames), network.probabilities(by_hand))
    for name in CLASSES:
        path = studies.videos / "val" / name / "00.mp4"
        assert next(iter(network.predict(path))) == name
        said = said_json("predict", str(studies.folders["flow"]), str(path), "--json")
        assert said["top"][0]["class"] == name


def test_a_network_whose_flow_came_as_images_cannot_be_shown_a_video(studies: Studies) -> None:
    network = nas.load(studies.folders["flow"])
    network.stored = dataclasses.replace(network.stored, flow=None)
    with pytest.raises(
        DataError, match="flow is computed by dis or farneback, but that of this network came as images"
    ):
        network.predict(studies.videos / "val" / "left" / "00.mp4")


def test_frames_alone_are_no_input_of_a_network_of_motion(
    studies: Studies, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, network = tmp_path / "features.npz", str(studies.folders["flow"])
    study = str(studies.databases["rgb"].parent.parent / "moving.yaml")
    difference = ["data.input=difference", "--weights", str(tmp_path / "none.pt")]
    for kind, argv in (
        ("flow", ["features", network, str(studies.flow), "-o", str(file)]),
        ("flow", ["probe", network, str(studies.flow)]),
        ("difference", ["features", "tsn_r18", study, *difference, "-o", str(file)]),
    ):
        assert main([*argv, "--frames"]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert f"features of frames alone need data.input rgb, but this network sees {kind}" in line
    assert not file.exists()


def test_motion_tests_show_flow_backwards_and_none_of_still_clips(studies: Studies) -> None:
    rows = said_json("evaluate", str(studies.folders["flow"]), str(studies.flow), "--backwards", "--json")["backwards"]
    becomes = {row["name"]: row["becomes"] for row in rows}
    assert becomes == {"left": "right", "right": "left", "still": "still"}
    database = str(studies.databases["flow"])
    digest = codec.digest(nas.load(studies.folders["flow"]).spec)
    (found,) = said_json("motion", digest, "--study", database, "--json")
    tests = {name: values["top1"] for name, values in found["tests"].items()}
    assert tests["frozen"] == tests["single"] == pytest.approx(1 / 3, abs=0.01)
    assert tests["reversed"] == pytest.approx(1 / 3, abs=0.01)


def test_a_study_of_differences_runs_and_asks_for_the_order_of_frames(studies: Studies, tmp_path: Path) -> None:
    database = tmp_path / "study.db"
    study = studies.databases["rgb"].parent.parent / "moving.yaml"
    assert main(["search", str(study), "data.input=difference", "--db", str(database)]) == 0
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        assert connection.execute("SELECT clip FROM nas_cost").fetchone() == ("4x28x28",)
        config = json.loads(connection.execute("SELECT config FROM nas_study").fetchone()[0])
    assert config["data"]["input"] == "difference"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["data.input=flwo"], "data.input 'flwo' is not known; did you mean flow? (choices: rgb, flow, difference)"),
        (["data.input=flow", "data.colour=0.2"], "data.colour must be 0 with data.input flow"),
        (["data.input=flow"], "is a video file; compute it once with `nas data flow"),
        (["data.input=difference", "data.clip.frames=1"], "data.clip.frames must be at least 2"),
    ],
)
def test_bad_settings_are_one_line(
    studies: Studies, tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: list[str], message: str
) -> None:
    study = studies.databases["rgb"].parent.parent / "moving.yaml"
    assert main(["search", str(study), *settings, "--db", str(tmp_path / "study.db")]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert message in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "dsi"], "method 'dsi' is not known; did you mean dis?"),
        (["--bound", "0"], "--bound must be pixels per frame above 0"),
        (["--coding", "png"], "coding 'png' is not known; did you mean jpeg? (choices: jpeg, raw)"),
        (["--quality", "0"], "--quality must be from 1 to 100"),
        (["--short-side", "-1"], "--short-side must be from 0 to 16,384, but is -1"),
    ],
)
def test_bad_options_of_flow_are_one_line(
    studies: Studies, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main(["data", "flow", str(studies.videos), "-o", str(tmp_path / "out"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
