from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.data.built import frames_of
from trainer.config import Balance, Clip, DataConfig
from trainer.data.cache import open_frames
from trainer.data.clips import _order, eval_batches, num_batches, open_data, train_batches
from trainer.data.dataset import VideoData
from trainer.data.layouts import DataError, DataGoneError, Layout, Video, find_videos
from trainer.data.motion_clips import make_motion
from trainer.data.pack.write import write_pack
from trainer.failures import BrokenClip, named


def config(root: Path, **changes) -> DataConfig:
    clip = changes.pop("clip", Clip(frames=4, height=16, width=20, stride=2))
    values = {"name": "mine", "root": str(root), "cache": str(root.parent / "cache"), "short_side": 24}
    # Plain levels of brightness come out: value = byte.
    values |= {"mean": (0.0, 0.0, 0.0), "std": (1 / 255, 1 / 255, 1 / 255)}
    return DataConfig(clip=clip, **{**values, **changes})


def epoch(data, config, *, batch_size=4, seed=0, epoch=1):
    return list(train_batches(data, config, batch_size=batch_size, seed=seed, epoch=epoch))


def evaluation(data, config, *, batch_size=4, split="val"):
    return list(eval_batches(data, config, split=split, batch_size=batch_size))


def numbers(clips: torch.Tensor) -> list[list[int]]:
    """The number that the brightness of each frame tells: twice the video's number plus the frame's."""
    return [[round((float(frame) - 20) / 6) for frame in clip] for clip in clips.mean(dim=(1, 3, 4))]


def same(one, two) -> bool:
    return len(one) == len(two) and all(
        torch.equal(a, b) for x, y in zip(one, two, strict=True) for a, b in zip(x, y, strict=True)
    )


def test_an_epoch_shows_each_video_once_with_its_label(root):
    c = config(root)
    batches = epoch(open_data(c), c)
    assert [tuple(clips.shape) for clips, _ in batches] == [(4, 3, 4, 16, 20)] * 2 + [(2, 3, 4, 16, 20)]
    assert all(clips.dtype == torch.float32 and labels.dtype == torch.int64 for clips, labels in batches)
    assert all(clips.is_contiguous(memory_format=torch.channels_last_3d) for clips, _ in batches)
    shown = [clip for clips, _ in batches for clip in numbers(clips)]
    assert all(np.diff(clip).tolist() == [2, 2, 2] for clip in shown)
    # Each video has brightnesses of its own only at the start: find it by its first possible frames.
    c = config(root, clip=Clip(frames=12, height=16, width=20))
    batches = epoch(open_data(c), c)
    pairs = [
        (clip[0] // 2, int(label))
        for clips, labels in batches
        for clip, label in zip(numbers(clips), labels, strict=True)
    ]
    assert sorted(pairs) == [(video, int(video >= 5)) for video in range(10)]
    assert pairs != sorted(pairs)


def test_epochs_are_functions_of_seed_and_epoch(root):
    c = config(root, crop_scale=(0.5, 1.0), flip=True)
    data = open_data(c)
    one = epoch(data, c, seed=3, epoch=2)
    assert same(one, epoch(data, c, seed=3, epoch=2))
    assert same(one, epoch(open_data(c), c, seed=3, epoch=2))
    assert not same(one, epoch(data, c, seed=3, epoch=3))
    assert not same(one, epoch(data, c, seed=4, epoch=2))


@pytest.mark.parametrize("what", ["seed", "epoch"])
def test_both_the_order_and_the_samples_change(root, what):
    plain = config(root, clip=Clip(frames=12, height=24, width=32))  # leaves nothing to chance but the order
    c = config(root)
    data = open_data(c)
    orders, samples = set(), set()
    for number in range(8):
        [(clips, _)] = epoch(data, plain, batch_size=16, **{what: number})
        orders.add(tuple(clip[0] for clip in numbers(clips)))
        [(clips, _)] = epoch(data, c, batch_size=16, **{what: number})
        samples.add(tuple(sorted(tuple(clip) for clip in numbers(clips))))
    assert len(orders) == 8 and len(samples) == 8


def test_loader_processes_change_nothing(root):
    c = config(root, crop_scale=(0.5, 1.0), flip=True)
    many = config(root, crop_scale=(0.5, 1.0), flip=True, num_workers=2)
    data = open_data(c)
    generator = torch.get_rng_state()
    assert same(epoch(data, c), epoch(data, many))
    assert same(evaluation(data, c), evaluation(data, many))
    assert torch.equal(torch.get_rng_state(), generator)


def test_a_sample_does_not_depend_on_its_batch(root):
    c = config(root, crop_scale=(0.5, 1.0), flip=True)
    data = open_data(c)
    three, five = (torch.cat([clips for clips, _ in epoch(data, c, batch_size=size)]) for size in (3, 5))
    assert torch.equal(three, five[:9])


@pytest.mark.parametrize(
    ("batch_size", "sizes"),
    [(4, [4, 4, 2]), (3, [3, 3, 3]), (9, [9]), (5, [5, 5]), (10, [10]), (64, [10]), (1, [1] * 10)],
)
def test_a_last_batch_of_one_is_dropped(root, batch_size, sizes):
    c = config(root)
    data = open_data(c)
    assert [len(labels) for _, labels in epoch(data, c, batch_size=batch_size)] == sizes
    assert num_batches(data, c, split="train", batch_size=batch_size) == len(sizes)


def test_a_single_video_is_no_training_set(root):
    c = config(root)
    data = open_data(c)
    split = data.split("train").keep(np.array([0]))
    one = VideoData(classes=("one",), splits={"train": split}, broken=(), checksum=data.checksum, backend=data.backend)
    with pytest.raises(DataError, match="train must have at least 2 usable videos, but has 1"):
        epoch(one, c)


def test_evaluation_goes_video_by_video_through_the_middle(root):
    c = config(root)
    data = open_data(c)
    batches = evaluation(data, c, batch_size=3)
    assert [len(clips) for clips, _, _ in batches] == [3, 1]
    clips, labels, videos = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert labels.tolist() == [0, 0, 1, 1] and videos.tolist() == [0, 1, 2, 3]
    # 12 frames, span 7: starts 0 to 5, so the middle one is 2. The val videos begin at 20, 22, 24, 26.
    assert numbers(clips) == [[20 + 2 * video + frame for frame in (2, 4, 6, 8)] for video in range(4)]
    assert clips.is_contiguous(memory_format=torch.channels_last_3d)
    middle = frames_of(data.split("val"), 0)[[2, 4, 6, 8], 4:20, 6:26]
    assert torch.equal(clips[0].permute(1, 2, 3, 0).byte(), torch.from_numpy(middle))
    assert same(batches, evaluation(data, c, batch_size=3))


def test_several_clips_a_video(root):
    c = config(root, eval_clips=3)
    data = open_data(c)
    batches = evaluation(data, c, batch_size=5)
    clips, labels, videos = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert videos.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert labels.tolist() == [0] * 6 + [1] * 6
    assert [clip[0] for clip in numbers(clips)[:3]] == [20, 23, 25]
    assert num_batches(data, c, split="val", batch_size=5) == len(batches) == 3


def test_uniform_sampling_and_evaluation_on_train(root):
    c = config(root, sampling="uniform", clip=Clip(frames=12, height=16, width=16, stride=5))
    data = open_data(c)
    clips, _, videos = evaluation(data, c, split="train", batch_size=16)[0]
    assert numbers(clips) == [list(range(2 * video, 2 * video + 12)) for video in videos.tolist()]


@pytest.mark.parametrize(("reversal", "train", "val"), [("none", 1, 1), ("eval", 1, -1), ("always", -1, -1)])
def test_reversal(root, reversal, train, val):
    c = config(root, reversal=reversal)
    data = open_data(c)
    for clips, step in ((epoch(data, c)[0][0], train), (evaluation(data, c)[0][0], val)):
        assert all(np.diff(clip).tolist() == [2 * step] * 3 for clip in numbers(clips))


def left_and_right(root: Path, write_video) -> None:
    """Makes every training video dark on the left and bright on the right."""
    image = np.full((12, 24, 32, 3), 30, np.uint8)
    image[:, :, 16:] = 200
    for path in sorted((root / "train").rglob("*.mp4")):
        write_video(path, image)


def test_flips_are_off_by_default_and_half_of_the_clips_when_on(root, write_video):
    left_and_right(root, write_video)
    mirrored = {}
    for flip in (None, True):
        c = config(root) if flip is None else config(root, flip=flip)
        data = open_data(c)
        sides = [
            bool(clip[..., 0].mean() > clip[..., -1].mean())
            for e in range(10)
            for clips, _ in epoch(data, c, epoch=e)
            for clip in clips
        ]
        mirrored[flip] = sum(sides) / len(sides)
    assert mirrored[None] == 0 and 0.3 < mirrored[True] < 0.7


def test_crops_move_from_epoch_to_epoch_but_not_within_a_clip(root, write_video):
    left_and_right(root, write_video)
    for scale in (None, (0.5, 0.9)):
        c = config(root, crop_scale=scale)
        data = open_data(c)
        edges = set()
        for e in range(4):
            for clips, _ in epoch(data, c, epoch=e):
                bright = (clips > 115).float().mean(dim=(1, 3))  # (N, T, W)
                assert torch.equal(bright, bright[:, :1].expand_as(bright))
                edges |= {int(row.sum()) for row in bright[:, 0]}
        assert len(edges) > 3


def test_frames_smaller_than_the_crop_are_enlarged(root):
    c = config(root, clip=Clip(frames=4, height=24, width=48))
    data = open_data(c)
    assert evaluation(data, c)[0][0].shape == (4, 3, 4, 24, 48)
    assert epoch(data, c)[0][0].shape == (4, 3, 4, 24, 48)


def test_videos_shorter_than_the_clip_are_looped(root):
    c = config(root, clip=Clip(frames=16, height=16, width=16), short="loop")
    data = open_data(c)
    clips, _, _ = evaluation(data, c)[0]
    assert numbers(clips)[0] == [20 + frame % 12 for frame in range(16)]
    assert epoch(data, c)[0][0].shape[2] == 16


def test_values_are_normalised_by_channel(root):
    plain, c = config(root), config(root, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.2))
    data = open_data(c)
    bytes_, clips = (evaluation(data, one)[0][0] for one in (plain, c))
    mean, std = (torch.tensor(v).reshape(3, 1, 1, 1) for v in (c.mean, c.std))
    torch.testing.assert_close(clips, (bytes_ / 255 - mean) / std, rtol=0, atol=1e-5)


def test_loading_leaves_no_descriptor_behind(root):
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("needs /proc")
    c = config(root)
    data = open_data(c)
    epoch(data, c)
    before = len(list(descriptors.iterdir()))
    for e in range(5):
        epoch(data, c, epoch=e)
    assert len(list(descriptors.iterdir())) == before


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.filterwarnings("ignore:This DataLoader"))])
def test_an_epoch_can_begin_in_its_middle(root, workers):
    c = config(root, crop_scale=(0.5, 1.0), flip=True, num_workers=workers)
    data = open_data(c)
    whole = epoch(data, config(root, crop_scale=(0.5, 1.0), flip=True), batch_size=3)
    for start in (1, 3) if workers else range(4):
        rest = list(train_batches(data, c, batch_size=3, seed=0, epoch=1, start_batch=start))
        assert len(rest) == 3 - start and same(rest, whole[start:])
    with pytest.raises(DataError, match="start_batch must be from 0 to the 3 batches of an epoch, but is 4"):
        next(train_batches(data, c, batch_size=3, seed=0, epoch=1, start_batch=4))


def whole_videos(root: Path, **changes) -> DataConfig:
    """Clips that begin with a video's first frame and so tell which it is."""
    changes = {"source": "decode", "max_broken": 0.3, **changes}
    return config(root, clip=Clip(frames=12, height=24, width=32), **changes)


def shown(batches) -> list[tuple[int, int]]:
    """Number and label of the video of each clip."""
    pairs = [pair for clips, labels, *_ in batches for pair in zip(numbers(clips), labels.tolist(), strict=True)]
    return [(clip[0] // 2, label) for clip, label in pairs]


def test_a_video_that_cannot_be_read_is_replaced_by_the_next_of_its_class(root):
    c = whole_videos(root)
    data = open_data(c)
    before = shown(epoch(data, c))
    for name in ("one/1", "one/2", "two/4"):  # numbers 1, 2 and 9
        (root / "train" / f"{name}.mp4").write_bytes(b"broken by now")
    after = epoch(data, c)
    assert shown(after) == [({1: 3, 2: 3, 9: 5}.get(video, video), label) for video, label in before]
    assert data.met.num_clips == 3  # that video 2 could not stand in for 1 is no further clip
    assert data.met.videos.keys() == {"train/one/1.mp4", "train/one/2.mp4", "train/two/4.mp4"}
    assert all(reason.startswith("cannot be decoded: ") for reason in data.met.videos.values())


def test_what_is_replaced_does_not_depend_on_loader_processes(root):
    c, many = whole_videos(root, crop_scale=(0.5, 1.0), flip=True), whole_videos(root, crop_scale=(0.5, 1.0), flip=True)
    many = dataclasses.replace(many, num_workers=2)
    data, other = open_data(c), open_data(many)
    (root / "train" / "one" / "1.mp4").unlink()
    (root / "val" / "two" / "0.mp4").unlink()
    assert same(epoch(data, c), epoch(other, many)) and same(evaluation(data, c), evaluation(other, many))
    assert data.met.videos == other.met.videos and data.met.num_clips == other.met.num_clips == 2


def test_nothing_stands_in_for_a_video_in_evaluation(root):
    c = whole_videos(root, eval_clips=2)
    data = open_data(c)
    expected = evaluation(data, c, batch_size=2)
    (root / "val" / "one" / "1.mp4").unlink()
    found = evaluation(data, c, batch_size=2)
    assert torch.cat([videos for *_, videos in found]).tolist() == [0, 0, 2, 2, 3, 3]
    assert same(found, [batch for batch in expected if 1 not in batch[2].tolist()])
    assert data.met.num_clips == 2 and data.met.videos.keys() == {"val/one/1.mp4"}


@pytest.mark.parametrize("split", ["train", "val"])
def test_above_the_share_loading_stops_with_the_reason(root, split):
    c = whole_videos(root, max_broken=0.2)
    data = open_data(c)
    broken = {"train": ("one/0", "one/2", "two/3"), "val": ("one/0",)}[split]
    for name in broken[:2]:
        (root / split / f"{name}.mp4").unlink()
    if split == "train":
        epoch(data, c)  # 2 of 10 are not above 0.2
        (root / split / f"{broken[2]}.mp4").unlink()
    count, where = {"train": ("3 of 10", "epoch 1"), "val": ("1 of 4", "the evaluation on val")}[split]
    message = (
        rf"at most data\.max_broken = 0\.2 of the clips may be of unreadable videos, but {count} were in {where}"
        rf" \(the first, {split}/.*\.mp4: cannot be decoded: No such file or directory\)"
    )
    with pytest.raises(BrokenClip, match=message) as error, named("epoch 1"):
        epoch(data, c) if split == "train" else evaluation(data, c)
    assert "\n" not in str(error.value)


def test_a_disk_that_is_gone_stops_loading_at_once(root):
    c = whole_videos(root, max_broken=1.0)
    data = open_data(c)
    (root / "train").rename(root / "elsewhere")
    with pytest.raises(
        DataGoneError, match=r"folders of data\.root must stay in place, but .*train/(one|two) cannot be read: No such"
    ):
        epoch(data, c)


def test_what_a_loader_process_says_is_one_line(root):
    c = whole_videos(root, max_broken=1.0, num_workers=1)
    data = open_data(c)
    (root / "train").rename(root / "elsewhere")
    with pytest.raises(
        DataGoneError, match=r"^the folders of data\.root must stay in place, but .*: No such file or directory$"
    ) as error:
        epoch(data, c)
    assert "\n" not in str(error.value)


def test_a_video_that_stands_in_is_shown_at_the_random_numbers_of_the_sample(root):
    for number in (2, 3, 4):
        (root / "train" / "one" / f"{number}.mp4").unlink()
    c = config(root, source="decode", max_broken=0.3)
    data = open_data(c)
    (root / "train" / "one" / "1.mp4").unlink()
    pairs = []
    for e in range(8):
        [(clips, labels)] = epoch(data, c, batch_size=16, epoch=e)
        pairs.append(numbers(clips[labels == 0]))
    assert all(len(pair) == 2 for pair in pairs)  # both of the same video
    assert any(one != other for one, other in pairs)


def test_damaged_frames_of_a_pack_are_replaced_too(root, tmp_path):
    packed = write_pack(find_videos(root, name="mine"), tmp_path / "pack", short_side=24, num_workers=0)
    c = whole_videos(tmp_path / "pack", source="pack")
    data = open_data(c)
    entry = packed.splits["train"].entries[6]
    with packed.folder.joinpath("train.bin").open("r+b") as file:
        file.seek(entry.offset + 4 * 12 + 30)
        file.write(bytes(200))
    assert (6, 1) not in shown(epoch(data, c)) and shown(epoch(data, c)).count((7, 1)) == 2
    assert data.met.videos["train/two/1.mp4"].startswith("frame 0 is damaged: ")


def test_labels_of_multi_label_data_are_rows_of_0_and_1(root):
    layout = find_videos(root, name="mine")

    splits = {
        name: tuple(
            Video(path=video.path, label=0, labels=(0, 2))
            if number % 2
            else Video(path=video.path, label=1, labels=(1,))
            for number, video in enumerate(videos)
        )
        for name, videos in layout.splits.items()
    }
    several = Layout(root=root, classes=("a", "b", "c"), splits=splits, multi_label=True)
    packed = write_pack(several, root.parent / "pack", short_side=24, num_workers=0)
    cached = open_frames(several, root.parent / "cache", short_side=24)
    assert packed.multi_label and cached.multi_label
    assert open_frames(layout, root.parent / "cache", short_side=24).checksum != cached.checksum
    assert [e.labels for e in cached.splits["val"].entries] == [e.labels for e in packed.splits["val"].entries]
    data = open_data(config(root.parent / "pack", source="pack"))
    found = torch.cat([labels for _, labels, _ in evaluation(data, config(root))])
    assert found.dtype == torch.float32 and found.tolist() == [[0, 1, 0], [1, 0, 1]] * 2


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packed motion with 1, 4 and 9 videos of its first three classes in train."""
    root = tmp_path_factory.mktemp("uneven")
    make_motion(root, train_per_class=9, val_per_class=1, frames=8, size=16)
    for label, kept in zip(sorted((root / "train").iterdir()), (1, 4, 9), strict=False):
        for video in sorted(label.iterdir())[kept:]:
            video.unlink()
    for split in ("train", "val", "test"):
        for label in sorted((root / split).iterdir())[3:]:
            shutil.rmtree(label)
    return root


@pytest.mark.parametrize(("balance", "shares"), [("none", (1, 4, 9)), ("even", (1, 1, 1)), ("sqrt", (1, 2, 3))])
def test_classes_are_drawn_by_their_share(uneven: Path, balance: Balance, shares: tuple[int, ...]) -> None:
    c = config(uneven, clip=Clip(frames=2, height=8, width=8), short_side=8)
    data = open_data(c)
    totals, kinds = np.zeros(3), set()
    for number in range(60):
        labels = [
            label
            for _, labels in train_batches(data, c, batch_size=7, seed=0, epoch=number, balance=balance)
            for label in labels.tolist()
        ]
        assert len(labels) == 14
        counts = np.bincount(labels, minlength=3)
        assert np.abs(counts - 14 * np.array(shares) / sum(shares)).max() < 1  # no epoch is far from the shares
        totals += counts
        kinds.add(tuple(labels))
    assert len(kinds) > 50
    assert totals / totals.sum() == pytest.approx(np.array(shares) / sum(shares), abs=0.02)


def test_a_video_that_is_drawn_again_gives_other_clips_and_no_other_is_left_out(uneven: Path) -> None:
    c = config(uneven, clip=Clip(frames=2, height=8, width=8), short_side=16)
    data = open_data(c)
    for number in range(5):
        batches = list(train_batches(data, c, batch_size=14, seed=1, epoch=number, balance="even"))
        (clips, labels) = batches[0]
        rare = [clip.numpy().tobytes() for clip in clips[labels == 0]]
        assert len(rare) >= 4 and len(set(rare)) > 1  # one video, drawn so often
        assert len({clip.numpy().tobytes() for clip in clips[labels == 1]}) >= 4  # each of the four, before one again
        again = list(train_batches(data, c, batch_size=7, seed=1, epoch=number, start_batch=1, balance="even"))
        assert torch.equal(again[0][0], clips[7:])


@settings(deadline=None)
@given(
    labels=st.lists(st.integers(0, 5), min_size=1, max_size=60),
    balance=st.sampled_from(["even", "sqrt"]),
    data=st.data(),
)
def test_the_draws_of_an_epoch_are_whole_and_fair(labels: list[int], balance: Balance, data: st.DataObject) -> None:
    seed = data.draw(st.integers(0, 99))
    order = _order(np.array(labels), balance, seed=seed, epoch=3)
    assert len(order) == len(set(order)) == len(labels)
    drawn = np.bincount(np.array(order) % len(labels), minlength=len(labels))
    for label in set(labels):
        of_class = drawn[np.array(labels) == label]
        assert of_class.max() - of_class.min() <= 1
