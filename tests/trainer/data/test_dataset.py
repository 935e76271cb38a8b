from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.data.built import frames_of
from trainer.config import Clip, DataConfig
from trainer.data.dataset import VideoData, open_data
from trainer.data.entries import Broken
from trainer.data.layouts import DataError


def config(root: Path, **changes) -> DataConfig:
    clip = changes.pop("clip", Clip(frames=8, height=16, width=16))
    values = {"name": "mine", "root": str(root), "cache": str(root.parent / "cache"), "short_side": 24}
    return DataConfig(clip=clip, **{**values, **changes})


def lengths(data: VideoData) -> dict[str, list[int]]:
    return {name: [len(frames_of(split, i)) for i in range(len(split))] for name, split in data.splits.items()}


def test_videos_and_labels(root):
    data = open_data(config(root))
    assert data.classes == ("one", "two") and data.broken == () and len(data.checksum) == 64
    train = data.split("train")
    assert len(train) == 10 and train.labels.tolist() == [0] * 5 + [1] * 5
    # Brightness tells each video's own number: see the fixture.
    firsts = [round((float(frames_of(train, i)[0].mean()) - 20) / 6) for i in range(10)]
    assert firsts == list(range(0, 20, 2))
    assert frames_of(train, 3).shape == (12, 24, 32, 3)
    with pytest.raises(DataError, match="split must be one of train, val, but is test"):
        data.split("test")


def test_progress_is_told_on_first_use_only(root):
    calls = []
    for _ in range(2):
        open_data(config(root), progress=lambda done, total: calls.append((done, total)))
    assert len(calls) == 14 and calls[-1] == (14, 14)


def test_short_videos_are_skipped_and_reported_or_looped(root, write_video):
    write_video(root / "val" / "one" / "0.mp4", 10)
    long = Clip(frames=4, stride=3, height=16, width=16)  # spans 10
    assert lengths(open_data(config(root, clip=long)))["val"] == [10, 12, 12, 12]
    longer = Clip(frames=6, stride=2, height=16, width=16)  # spans 11
    calls = []
    data = open_data(config(root, clip=longer), progress=lambda *_: calls.append(_))
    assert calls == []  # another clip needs no other cache
    assert data.broken == (Broken(path="val/one/0.mp4", reason="short: 10 frames, needs 11"),)
    assert lengths(data)["val"] == [12, 12, 12]
    assert len(open_data(config(root, clip=longer, sampling="uniform")).broken) == 0
    uniform = open_data(config(root, clip=Clip(frames=11, height=16, width=16), sampling="uniform"))
    assert uniform.broken[0].reason == "short: 10 frames, needs 11"
    looped = open_data(config(root, clip=longer, short="loop"))
    assert looped.broken == () and lengths(looped)["val"] == [10, 12, 12, 12]


def test_a_class_without_a_usable_video_is_an_error(root):
    for index in range(2):
        (root / "val" / "two" / f"{index}.mp4").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"of two in val of .* all are broken or short \(the first, val/two/0.mp4: the file is empty\)"
    ) as error:
        open_data(config(root))
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match=r"one in train of .* \(the first, train/one/0.mp4: short: 12 frames, needs 13"):
        open_data(config(root, clip=Clip(frames=13, height=16, width=16)))


def test_splits_travel_to_other_processes_without_their_frames(root):
    split = open_data(config(root)).split("train")
    video = frames_of(split, 1)
    state = pickle.dumps(split)
    assert len(state) < 4000
    np.testing.assert_array_equal(frames_of(pickle.loads(state), 1), video)


def test_a_cache_that_vanishes_is_an_error_of_one_line(root):
    split = open_data(config(root)).split("train")
    split.file.unlink()
    with pytest.raises(DataError, match=r"data\.cache, must stay in place"):
        frames_of(split, 0)
