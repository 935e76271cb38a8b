"""Clips from the cache, from packs and from the files themselves are the same clips."""

from __future__ import annotations

import dataclasses
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainer.data.built import frames_of
from trainer.config import Clip, ConfigError, DataConfig
from trainer.data import direct
from trainer.data.augment import Box
from trainer.data.check import without_digests
from trainer.data.clips import eval_batches, num_batches, open_data, train_batches
from trainer.data.decode import DecodeError
from trainer.data.layouts import DataError, find_videos
from trainer.data.pack import write as packing
from trainer.data.pack.write import write_pack

EVERYTHING = {"crop_scale": (0.5, 1.0), "crop_ratio": (0.8, 1.25), "flip": True, "eval_clips": 2, "eval_crops": 3}


def texture(frames: int, height: int, width: int, seed: int) -> np.ndarray:
    """Coloured waves that move: what JPEG is made for, as pictures of the world are."""
    rng = np.random.default_rng(seed)
    time, rows, columns = np.ogrid[:frames, :height, :width]
    image = np.zeros((frames, height, width, 3))
    for channel in range(3):
        for _ in range(4):
            a, b, c, d = rng.uniform(-0.15, 0.15, 4)
            image[..., channel] += np.sin(a * rows + b * columns + c * time + 9 * d)
    return (128 + 25 * image).clip(0, 255).astype(np.uint8)


@pytest.fixture
def root(tmp_path: Path, write_video) -> Path:
    for split, count in (("train", 4), ("val", 2)):
        for label in ("one", "two"):
            for index in range(count):
                video = texture(14 + index, 48, 64, seed=ord(label[0]) + 10 * index)
                write_video(tmp_path / "data" / split / label / f"{index}.mp4", video)
    return tmp_path / "data"


def config(root: Path, source: str = "cache", **changes) -> DataConfig:
    values = {"name": "mine", "root": str(root), "cache": str(root.parent / "cache"), "short_side": 32}
    # Plain bytes come out: value = byte.
    values |= {"mean": (0.0, 0.0, 0.0), "std": (1 / 255, 1 / 255, 1 / 255), "source": source}
    clip = Clip(frames=4, height=24, width=24, stride=2)
    return DataConfig(**{"clip": clip, **values, **changes})


def batches(c: DataConfig) -> list[tuple[torch.Tensor, ...]]:
    data = open_data(c)
    train = list(train_batches(data, c, batch_size=3, seed=2, epoch=1))
    return train + list(eval_batches(data, c, split="val", batch_size=5))


def same(one, two) -> bool:
    return len(one) == len(two) and all(
        torch.equal(a, b) for x, y in zip(one, two, strict=True) for a, b in zip(x, y, strict=True)
    )


def packed(root: Path, coding: str = "raw", **options) -> Path:
    folder = root.parent / f"pack_{coding}"
    write_pack(
        find_videos(root, name="mine"), folder, **{"short_side": 32, "coding": coding, "num_workers": 0, **options}
    )
    return folder


@pytest.mark.parametrize("sampling", ["dense", "uniform"])
def test_raw_packs_and_files_give_the_very_batches_of_the_cache(root, sampling):
    expected = batches(config(root, sampling=sampling, **EVERYTHING))
    assert same(batches(config(packed(root), "pack", sampling=sampling, **EVERYTHING)), expected)
    assert same(batches(config(root, "decode", sampling=sampling, **EVERYTHING)), expected)


@pytest.mark.parametrize("source", ["pack", "decode"])
def test_loader_processes_change_nothing(root, source):
    place = packed(root, "jpeg") if source == "pack" else root
    changes = {**EVERYTHING, "randaugment": (2, 9), "colour": 0.4, "erasing": 0.5}
    assert same(batches(config(place, source, **changes)), batches(config(place, source, num_workers=2, **changes)))


def test_jpeg_packs_give_the_batches_of_the_cache_within_two_levels_in_the_mean(root):
    # Flips and crops of whole pixels: resizing would make the error smaller.
    expected = batches(config(root, flip=True))
    found = batches(config(packed(root, "jpeg"), "pack", flip=True))
    assert len(found) == len(expected)
    for (clips, *labels), (others, *their) in zip(found, expected, strict=True):
        error = (clips - others).abs()
        assert 0 < error.mean() < 2 and error.max() < 40
        assert all(torch.equal(a, b) for a, b in zip(labels, their, strict=True))


def test_jpeg_packs_are_a_fraction_of_raw_ones(root):
    sizes = [(packed(root, coding) / "train.bin").stat().st_size for coding in ("jpeg", "raw")]
    assert sizes[0] < sizes[1] / 3


@pytest.mark.parametrize("source", ["cache", "pack", "decode"])
def test_max_frames_thin_out_all_sources_alike(root, source):
    place = packed(root, max_frames=9) if source == "pack" else root
    c = config(place, source, max_frames=9, clip=Clip(frames=9, height=32, width=40))
    data = open_data(c)
    assert {entry.num_frames for split in data.splits.values() for entry in split.entries} == {9}
    assert same(batches(c), batches(config(root, max_frames=9, clip=c.clip)))


def test_a_frame_rate_is_one_for_all_videos(tmp_path, write_video):
    for split in ("train", "val"):
        for index, fps in enumerate((10, 20, 40)):
            levels = (10 + np.arange(fps) * 200 // fps).astype(np.uint8)  # one second from dark to bright
            frames = np.broadcast_to(levels[:, None, None, None], (fps, 32, 32, 3)).copy()
            write_video(tmp_path / "data" / split / "one" / f"{index}.mp4", frames, fps=fps)
    clip = Clip(frames=4, height=32, width=32, stride=2)
    c = config(tmp_path / "data", fps=10.0, clip=clip)
    [(clips, *_)] = eval_batches(open_data(c), c, split="val", batch_size=8)
    steps = clips.mean(dim=(1, 3, 4)).diff(dim=1)
    assert torch.allclose(steps, torch.full_like(steps, 40.0), atol=4)
    as_they_are = config(tmp_path / "data", clip=clip)
    [(clips, *_)] = eval_batches(open_data(as_they_are), as_they_are, split="val", batch_size=8)
    assert torch.allclose(clips.mean(dim=(1, 3, 4)).diff(dim=1).mean(dim=1), torch.tensor([40.0, 20.0, 10.0]), atol=2)
    # A pack may be thinned out too: its rate is what counts then, and the clips are the same.
    folder = packed(tmp_path / "data", fps=10.0)
    thin = config(folder, "pack", fps=10.0, clip=clip)
    data = open_data(thin)
    assert [entry.num_frames for entry in data.split("val").entries] == [10, 10, 10]
    assert same(batches(thin), batches(c))
    with pytest.raises(DataError, match=r"data\.fps must be at most that of the pack .*, 10, but is 20"):
        open_data(config(folder, "pack", fps=20.0, clip=clip))
    with pytest.raises(DataError, match=r"data\.fps must be stated .* is 0 and .* has 10 a second; set data\.fps=10,"):
        open_data(config(folder, "pack", clip=clip))


def test_too_short_is_what_is_too_short_at_the_frame_rate(root):
    c = config(
        root, fps=5.0, clip=Clip(frames=8, height=24, width=24)
    )  # the videos have 14 to 17 frames at 10 a second
    data = open_data(c)
    assert [len(split) for split in data.splits.values()] == [4, 0] or len(data.broken) > 0
    assert data.broken[0].reason == "short: 7 frames at 5 a second, needs 8"


def test_three_crops_show_both_ends_and_the_middle(root):
    c = config(root, eval_clips=2, eval_crops=3, clip=Clip(frames=4, height=32, width=24))
    data = open_data(c)
    assert num_batches(data, c, split="val", batch_size=5) == 5
    clips, labels, videos = (
        torch.cat(parts) for parts in zip(*eval_batches(data, c, split="val", batch_size=5), strict=True)
    )
    assert videos.tolist() == [n for n in range(4) for _ in range(6)] and labels.tolist() == [0] * 12 + [1] * 12
    frames = torch.from_numpy(frames_of(data.split("val"), 0)).float()  # (F, 32, 43, 3)
    for crop, left in enumerate((0, 9, 19)):
        assert torch.equal(clips[crop].permute(1, 2, 3, 0)[0], frames[0, :, left : left + 24])


def test_a_pack_must_fit_what_is_asked_of_it(root):
    folder = packed(root)
    with pytest.raises(
        DataError, match=r"data\.short_side must be that of the pack, but is 48 and .* has 32; set data"
    ):
        open_data(config(folder, "pack", short_side=48))
    with pytest.raises(DataError, match=r"data\.max_frames must be that of the pack, but is 4 and .* has 0"):
        open_data(config(folder, "pack", max_frames=4))
    with pytest.raises(DataError, match=r"data\.root must be a pack where data\.source is pack, but .* has no index"):
        open_data(config(root, "pack"))
    with pytest.raises(DataError, match=r"but .*nowhere is not there; make it with `nas data pack`"):
        open_data(config(root.parent / "nowhere", "pack"))


def test_what_is_looked_up_once_is_remembered(root):
    calls: list[tuple[int, int]] = []
    for _ in range(2):
        data = open_data(config(root, "decode"), progress=lambda *done: calls.append(done))
    assert calls == [(i + 1, 12) for i in range(12)]
    assert len(data.checksum) == 64 and data.backend.startswith("pyav ")
    [folder] = (root.parent / "cache").iterdir()
    before = (folder / "train.bin").stat().st_size
    assert before < 14 * 8 * 200  # times, no pixels


KINDS = pytest.mark.parametrize(
    ("source", "coding"), [("cache", ""), ("pack", "raw"), ("pack", "jpeg"), ("decode", "")]
)


def opened(root: Path, source: str, coding: str) -> tuple[DataConfig, Path]:
    """The settings of a source, and the file of its frames of train."""
    c = config(packed(root, coding) if coding else root, source)
    open_data(c)
    return c, (Path(c.root) if coding else next((root.parent / "cache").iterdir())) / "train.bin"


@KINDS
def test_every_byte_of_a_kept_video_that_flips_is_told(root, source, coding):
    c, file = opened(root, source, coding)
    split = open_data(c).split("train")
    entry, following = split.entries[1:3]
    whole, digests = file.read_bytes(), 4 if source == "decode" else 4 * entry.num_frames
    box = Box(top=0, left=0, height=24, width=24)
    places = range(entry.offset - digests, following.offset - (4 if source == "decode" else 4 * following.num_frames))
    for place in places if len(places) < 500 else [*places[:200], *places[200::997], places[-1]]:
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        file.write_bytes(changed)
        fresh = pickle.loads(pickle.dumps(open_data(c).split("train")))  # as a loader process gets it
        with pytest.raises(DecodeError, match=rf"is damaged: it .* in {file}; remove its folder, and ") as error:
            fresh.read(1, np.arange(entry.num_frames), box)
        assert "\n" not in str(error.value)
        fresh.read(2, np.arange(following.num_frames), box)
    file.write_bytes(whole)
    open_data(c).split("train").read(1, np.arange(entry.num_frames), box)


@KINDS
def test_what_was_kept_before_there_were_digests_is_read_as_it_is(root, source, coding, monkeypatch):
    expected = batches(config(root)) if coding != "jpeg" else None
    shutil.rmtree(root.parent / "cache", ignore_errors=True)
    with monkeypatch.context() as patch:
        for module in (packing, direct):
            patch.setattr(module, "digests_of", lambda parts: b"")
        c, file = opened(root, source, coding)
    layout = None if coding else find_videos(root, name="mine")
    assert without_digests(c, layout).startswith(f"{file.parent} has no digests of its frames, so that damage")
    assert expected is None or same(batches(c), expected)
    shutil.rmtree(file.parent)
    assert without_digests(c, layout) is None
    c, file = opened(root, source, coding)
    assert without_digests(c, layout) is None


def test_a_damaged_frame_of_the_cache_is_a_clip_that_cannot_be_read(root):
    c, file = opened(root, "cache", "")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    clip = Clip(frames=17, height=24, width=24)  # all frames of each video
    c = dataclasses.replace(c, clip=clip, short="loop", max_broken=0.0)
    with pytest.raises(DataError, match=r"1 of 8 were in epoch 0 \(the first, train/two/3\.mp4: frame 16 is damaged"):
        list(train_batches(open_data(c), c, batch_size=8, seed=0, epoch=0))


def test_new_settings_leave_old_identities_alone(tmp_path):
    old = config(tmp_path).identity()
    assert not {"source", "fps", "max_broken", "eval_crops", "randaugment"} & old.keys()
    assert config(tmp_path, max_broken=0.5).identity() == old  # so that a run that was stopped by it can go on
    assert config(tmp_path, fps=10.0).identity() != old


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "disk"}, r"data\.source must be one of cache, pack, decode, but is disk"),
        ({"fps": -1.0}, r"data\.fps must be at least 0"),
        ({"fps": float("inf")}, r"data\.fps must be finite and at least 0, but is inf"),
        ({"std": (1.0, float("nan"), 1.0)}, r"data\.std must be above 0 and finite in every channel"),
        ({"crop_ratio": (0.5, float("inf"))}, r"data\.crop_ratio must be \[low, high\]"),
        ({"eval_crops": 2}, r"data\.eval_crops must be one of 1, 3, but is 2"),
        ({"max_broken": 1.5}, r"data\.max_broken must be in \[0, 1\], but is 1\.5"),
        ({"colour": -0.1}, r"data\.colour must be in \[0, 1\]"),
        ({"crop_ratio": (1.2, 0.8)}, r"data\.crop_ratio must be \[low, high\] with 0 < low <= high"),
        ({"randaugment": (0, 9)}, r"data\.randaugment must be \[number of operations, magnitude\]"),
        ({"randaugment": (2, 31)}, r"a magnitude of 0 to 30, but is \(2, 31\)"),
    ],
)
def test_settings_out_of_range_are_refused(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        config(tmp_path, **changes)
