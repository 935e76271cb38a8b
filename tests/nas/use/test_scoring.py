"""A test counts views that coincide as often as they stand for, in the mean over views and in clip@1."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas.study.views import Views
from nas.use.accuracy import judged
from nas.use.multi_view import score
from trainer.config import Clip, DataConfig
from trainer.data.dataset import open_data
from trainer.data.motion_clips import write_clip
from trainer.failures import BrokenClip, DataAway


class LastFrame(nn.Module):
    """Says `bright` or `dark` of a clip as its last frame is, with a certainty of 0.9."""

    def forward(self, clips: Tensor) -> Tensor:
        bright = clips[:, :, -1].mean((1, 2, 3)) > 0
        certain = torch.log(torch.tensor([0.9, 0.1]))
        return torch.where(bright[:, None], certain, certain.flip(0))


def test_views_that_coincide_count_as_often_as_they_stand_for(tmp_path: Path) -> None:
    # Of five frames, the first of three clips ends with the fourth frame; the other two are one and the same.
    levels = {"bright": [20, 20, 20, 20, 235], "dark": [20, 20, 20, 20, 20]}
    for split in ("train", "val"):
        for name, values in levels.items():
            (tmp_path / "data" / split / name).mkdir(parents=True)
            frames = np.broadcast_to(np.array(values, np.uint8)[:, None, None, None], (5, 16, 16, 3))
            write_clip(tmp_path / "data" / split / name / "0.mp4", np.ascontiguousarray(frames))
    clip = Clip(frames=4, height=16, width=16)
    root, cache = str(tmp_path / "data"), str(tmp_path / "cache")
    config = DataConfig(name="two", root=root, cache=cache, clip=clip, short_side=16)
    data = open_data(config)
    scores = score(LastFrame(), data, config, Views(clips=3), "val")
    assert scores.classes == ("bright", "dark")
    assert scores.clips_right.tolist() == pytest.approx([2 / 3, 1])
    assert scores.probabilities[:, 0].tolist() == pytest.approx([(0.1 + 2 * 0.9) / 3, 0.1])
    result = judged(scores)
    assert (result.clip1.value, result.video1.value) == (pytest.approx(5 / 6), 1)
    assert result.num_clips == 6


def test_what_cannot_be_read_is_left_out_of_a_test_and_a_folder_that_is_away_ends_it(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for name, level in (("bright", 235), ("dark", 20)):
            for number in range(2):
                place = tmp_path / "data" / split / name / f"{number}.mp4"
                place.parent.mkdir(parents=True, exist_ok=True)
                write_clip(place, np.full((4, 16, 16, 3), level, np.uint8))
    clip = Clip(frames=4, height=16, width=16)
    root, cache = str(tmp_path / "data"), str(tmp_path / "cache")
    config = DataConfig(name="two", root=root, cache=cache, clip=clip, short_side=16, source="decode", max_broken=0.25)
    data = open_data(config)
    (tmp_path / "data" / "val" / "bright" / "1.mp4").write_bytes(b"")
    scores = score(LastFrame(), data, config, Views(clips=2), "val")
    assert [(one.path, one.reason) for one in scores.left_out] == [("val/bright/1.mp4", "the file is empty")]
    assert scores.paths == ("val/bright/0.mp4", "val/dark/0.mp4", "val/dark/1.mp4")
    assert scores.labels.tolist() == [0, 1, 1]
    assert scores.right.tolist() == scores.clips_right.tolist() == [1, 1, 1]
    strict = dataclasses.replace(config, max_broken=0.2)
    with pytest.raises(BrokenClip, match=r"at most data\.max_broken = 0\.2 of the videos .* but 1 of 4 are in val"):
        score(LastFrame(), data, strict, Views(clips=2), "val")
    shutil.rmtree(tmp_path / "data" / "val" / "dark")
    with pytest.raises(DataAway, match=r"folders of data\.root must stay in place"):
        score(LastFrame(), data, dataclasses.replace(config, max_broken=1.0), Views(clips=2), "val")
