"""From a download with Kinetics' names, tables and broken files to a prediction, by commands alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from nas.cli.main import main
from nas.store.database import Store
from tests.nas.use.conftest import said_json
from tests.trainer.data.built import Clip, cvdf, cvdf_flat, write_sound
from trainer.data.motion_clips import write_clip

STUDY = Path(__file__).parents[3] / "studies" / "kinetics_small.yaml"
# Where a square goes, in rows and columns.
WAYS = {
    "catching or throwing baseball": (0, 1),
    "garbage collecting": (0, -1),
    "massaging person's head": (1, 0),
    "opening bottle (not wine)": (-1, 0),
    'playing squash, or "racquetball"': (0, 0),
}
COUNTS = {"train": 16, "val": 4}
FRAMES, HEIGHT, WIDTH, SIDE = 24, 48, 64, 14
# What makes the study's networks and clips small; its families, operators, sampler and rungs stay.
SMALL = [
    "data.num_classes=5",
    "data.clip={frames: 8, height: 32, width: 32, stride: 2}",
    "data.short_side=36",
    "data.num_workers=0",
    "space.families.resnet.domains.width=[0.125]",
    "space.families.resnet.domains.depth=[10]",
    "space.families.inception_v3.domains.width=[0.125]",
    "space.families.timm.domains.model=[test_resnet]",
    "space.families.timm.domains.frames=[8]",
    "recipe={batch_size: 16, lr: 0.003}",
    "search={trials: 6, initial: 6, rungs: [1, 2], eta: 2, pool: 100, start_with: []}",
    "promote={epochs: 3, test: {clips: 2, crops: 3}}",
]
# Of each split, what is broken: its number there, and how.
BROKEN = {0: "empty", 1: "cut", 2: "sound", 3: "one frame"}


def moving(way: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A bright square on a noisy ground that goes one way."""
    video = rng.integers(0, 40, (FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8)
    middle = ((HEIGHT - SIDE) // 2, (WIDTH - SIDE) // 2)
    for number in range(FRAMES):
        share = 2 * number / (FRAMES - 1) - 1
        top, left = (int(m + step * share * m) for m, step in zip(middle, way, strict=True))
        video[number, top : top + SIDE, left : left + SIDE] = 230
    return video


@pytest.fixture
def download(tmp_path: Path) -> list[Clip]:
    """Five classes of 16 and 4 videos, named as Kinetics' are; of each split and the first class, four are broken."""
    rng, clips = np.random.default_rng(0), []
    for split, count in COUNTS.items():
        for label, (title, way) in enumerate(WAYS.items()):
            for number in range(count):
                name = f"-_{len(clips):03d}_abc-{number % 10}"
                path = tmp_path / "plain" / split / title / f"{name}_{number:06d}_{number + 10:06d}.mp4"
                path.parent.mkdir(parents=True, exist_ok=True)
                how = BROKEN.get(number) if label == number % 5 else None
                frames = moving(way, rng)
                if how == "sound":
                    write_sound(path)
                else:
                    write_clip(path, frames[:1] if how == "one frame" else frames)
                if how in ("empty", "cut"):
                    path.write_bytes(path.read_bytes()[: 0 if how == "empty" else 900])
                clips.append(Clip(path=path, split=split, label=label))
    return clips


@pytest.mark.slow
@pytest.mark.parametrize("arranged", [False, True], ids=["as it comes", "arranged"])
def test_a_download_of_kinetics_with_broken_clips_goes_from_search_to_prediction(
    arranged: bool,
    download: list[Clip],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    root = tmp_path / "k400 of the lab"
    (cvdf if arranged else cvdf_flat)(download, root)
    # A row without a file, and a file without a row.
    missing = next(clip for clip in download if clip.split == "train" and clip.label == 4)
    for path in root.rglob(missing.path.name):
        path.unlink()
    write_clip(root / "train" / "zzzzzzzzzzz_000001_000011.mp4", moving((0, 0), np.random.default_rng(1)))
    monkeypatch.chdir(tmp_path)
    layout = [f"data.layout={'cvdf' if arranged else 'cvdf-flat'}"]
    study = [str(STUDY), f"data.root={root}", *layout, *SMALL]

    assert main(["data", "check", *study, "--json"]) == 1
    checked = json.loads(capfd.readouterr().out)
    database = "runs/kinetics_small/study.db"
    said_json("search", *study, "--json")
    log = capfd.readouterr().err
    promoted = said_json("promote", database, "--best-under", "1T", "--json")
    folder = promoted["trainings"][0]["folder"]
    judged = said_json("evaluate", folder, str(root), "--split", "val", "--json")
    video = next(c.path for c in download if c.split == "val" and c.path.stat().st_size > 2000 and c.label == 3)
    guessed = said_json("predict", folder, str(video), "--json")

    assert checked["layout"]["videos"] == {"train": 79, "val": 20}
    # Only the tables know of a video that is not there, and of one that should not be.
    unlike = {} if arranged else {"missing": 1, "unlisted": 1}
    assert checked["counts"] == {"empty": 2, "truncated": 2, "no video": 2, **unlike}
    assert arranged or "left out: 1 missing, 1 unlisted" in log
    assert re.search(r"left out: .*train/.+\.mp4, the file is empty, and 5 more", log)
    store = Store(Path(database))
    rows, study = store.trials(1), store.studies()[0]
    store.close()
    assert len(rows) == 6
    assert {row["state"] for row in rows} <= {"finished", "stopped"}
    assert study["data"]["classes"] == sorted(WAYS)
    assert study["data"]["clips"] == {"train": 76, "val": 17}
    assert len(study["data"]["broken"]) == 6
    assert promoted["trainings"][0]["num_clips"] == judged["num_videos"] == 17
    assert judged["video1"]["value"] == promoted["trainings"][0]["top1"]
    assert len(judged["left_out"]) == 3
    assert set(guessed["probabilities"]) == set(WAYS)
