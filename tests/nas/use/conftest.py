"""Two networks that were searched and promoted on small videos that can be learned in seconds."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas.cli.main import main
from nas.store.database import Store
from tests.nas.studies import write_study
from trainer.data.motion_clips import write_clip

CLASSES = ("it's still", "move left", "move right")
COUNTS = {"train": 12, "val": 6, "test": 6}
FRAMES, SIZE = 8, 16


def moving(name: str, rng: np.random.Generator, *, frames: int = FRAMES, size: int = SIZE) -> np.ndarray:
    """A bright square on a dark, noisy ground, which moves as its class says."""
    video = rng.integers(0, 40, (frames, size, size, 3), dtype=np.uint8)
    top, side = int(rng.integers(0, size - 5)), 5
    for number in range(frames):
        way = number * (size - side) // (frames - 1)
        left = {"move right": way, "move left": size - side - way}.get(name, (size - side) // 2)
        video[number, top : top + side, left : left + side] = 230
    return video


def write_moving(root: Path, *, classes: tuple[str, ...] = CLASSES, seed: int = 0) -> Path:
    """Writes `root/{train,val,test}/<class>/<nn>.mp4`."""
    rng = np.random.default_rng(seed)
    for split, count in COUNTS.items():
        for name in classes:
            (root / split / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                write_clip(root / split / name / f"{number:02d}.mp4", moving(name, rng))
    return root


@dataclass(frozen=True)
class Place:
    """What the tests of this room share.

    Attributes:
        data: Root of the videos.
        database: Of the study.
        said: What `nas promote --json` said.
        folders: What it left: two seeds of a 3D network, and one of a 2D network.
    """

    data: Path
    database: Path
    said: dict[str, Any]
    folders: tuple[Path, ...]


def said_json(*argv: str) -> Any:
    """What a command prints as JSON; it must end well."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main(list(argv))
    assert code == 0, out.getvalue()
    return json.loads(out.getvalue())


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("using")
    data = write_moving(folder / "videos")
    over = {
        "data": {
            "name": "moving",
            "root": str(data),
            "cache": str(folder / "cache"),
            "num_classes": 3,
            "clip": {"frames": 4, "height": 12, "width": 12},
        },
        "space": {"domains": {"kind": {"values": ["2d", "3d"], "per": "network"}, "kernel": [3]}},
        "search": {"trials": 2, "initial": 2, "rungs": [1]},
        "recipe": {"lr": 0.01, "weight_decay": 0.0},
        "promote": {"epochs": 12, "recipe": {"schedule": "onecycle"}, "test": {"clips": 3, "crops": 3}},
    }
    study, database = write_study(folder / "moving.yaml", over), folder / "study.db"
    assert main(["search", str(study), "--db", str(database)]) == 0
    store = Store(database)
    kinds = {("3d" if "3d" in str(trial["params"]) else "2d"): trial["digest"] for trial in store.trials(1)}
    store.close()
    said = said_json("promote", str(database), kinds["3d"], "--seeds", "2", "--json")
    flat = said_json("promote", str(database), kinds["2d"], "--seeds", "1", "--json")
    trainings = [*said["trainings"], *flat["trainings"]]
    yield Place(data=data, database=database, said=said, folders=tuple(Path(t["folder"]) for t in trainings))
