from __future__ import annotations

import json
import math
from pathlib import Path

import av
import numpy as np
import pytest

from trainer.data.decode import decode_video
from trainer.data.layouts import DataError, find_videos
from trainer.data.motion_clips import CLASSES, OPPOSITE, draw_clip, draw_poses, make_motion, order, render, write_clip

SIZE = 40
SMALL = {"train_per_class": 2, "val_per_class": 1, "test_per_class": 1, "size": SIZE}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("motion") / "data"
    make_motion(root, seed=3, **SMALL)
    return root


def as_set(frames: np.ndarray) -> list[bytes]:
    return sorted(frame.tobytes() for frame in frames)


def decoded(root: Path, split: str, label: str, index: int) -> np.ndarray:
    return decode_video(root / split / label / f"{index:04d}.mp4", short_side=SIZE).frames


@pytest.mark.parametrize("index", [0, 1])
def test_classes_differ_in_nothing_but_the_order_of_the_same_frames(root: Path, index: int) -> None:
    clips = {label: decoded(root, "train", label, index) for label in CLASSES}
    sets = [as_set(clip) for clip in clips.values()]
    assert len(set(sets[0])) == 8
    assert all(one == sets[0] for one in sets)
    orders = {clip.tobytes() for clip in clips.values()}
    assert len(orders) == len(CLASSES)


def test_backwards_is_the_opposite_class_pixel_by_pixel(root: Path) -> None:
    assert {OPPOSITE[OPPOSITE[label]] for label in CLASSES} == set(CLASSES)
    assert OPPOSITE["up"] == "down" and OPPOSITE["clockwise"] == "counterclockwise"
    for label in CLASSES:
        forward, backward = (decoded(root, "train", one, 0) for one in (label, OPPOSITE[label]))
        np.testing.assert_array_equal(forward[::-1], backward)


def test_decoding_gives_what_was_drawn_in_the_order_of_the_class(root: Path) -> None:
    frames, poses = draw_clip(3, "train", 0, frames=8, size=SIZE)
    for label in CLASSES:
        difference = decoded(root, "train", label, 0) - frames[order(poses, label)].astype(float)
        assert np.abs(difference).mean() < 6


def test_order_moves_the_component_of_the_class_steadily() -> None:
    _, poses = draw_clip(0, "train", 5, frames=8, size=SIZE)
    for label, component, sign in (
        ("right", 0, 1),
        ("left", 0, -1),
        ("down", 1, 1),
        ("up", 1, -1),
        ("clockwise", 2, 1),
        ("counterclockwise", 2, -1),
        ("expand", 3, 1),
        ("contract", 3, -1),
    ):
        steps = np.diff(poses[order(poses, label)], axis=0) * sign
        assert (steps[:, component] > 0).all()
        others = [i for i in range(4) if i != component]
        assert not (steps[:, others] > 0).all(axis=0).any()


def moment(frames: np.ndarray, background: np.ndarray) -> tuple[float, float, float]:
    """Centre (x, y) and area of what differs from the background in one frame."""
    mask = np.abs(frames.astype(float) - background).sum(-1) > 40
    y, x = np.nonzero(mask)
    return float(x.mean()), float(y.mean()), float(mask.sum())


def test_names_of_classes_say_what_is_seen() -> None:
    for label, which, sign in (("right", 0, 1), ("up", 1, -1), ("expand", 2, 1)):
        frames, poses = draw_clip(1, "val", 2, frames=8, size=SIZE)
        background = np.median(frames, axis=0)
        shown = frames[order(poses, label)]
        first, last = (moment(shown[i], background)[which] for i in (0, -1))
        assert (last - first) * sign > 3


def test_clockwise_turns_the_dark_head_from_top_to_right() -> None:
    # The head is dark and lies at angle 0: to the right of the centre at angle 0, below it at a quarter turn.
    poses = np.array([[0.5, 0.5, angle, 0.0] for angle in (-math.pi / 2, 0.0, math.pi / 2)])
    top, right, bottom = render(np.random.default_rng(0), poses, SIZE).astype(float).sum(-1)
    near, far = slice(14, 19), slice(21, 26)
    middle = slice(16, 24)
    assert top[near, middle].mean() < top[far, middle].mean() - 100
    assert right[middle, far].mean() < right[middle, near].mean() - 100
    assert bottom[far, middle].mean() < bottom[near, middle].mean() - 100


def test_poses_are_spread_distinct_and_inside() -> None:
    starts = []
    for seed in range(200):
        poses = draw_poses(np.random.default_rng(seed), 8)
        assert all(len(set(column)) == 8 for column in poses.T)
        ordered = np.sort(poses, axis=0)
        assert np.ptp(poses[:, 2]) < math.pi
        # No step of the component of a class is too small to see: 0.2 pixels, 4 degrees, 1.5 %.
        assert (np.diff(ordered, axis=0).min(axis=0) > [0.005, 0.005, 0.07, 0.015]).all()
        reach = 0.235 * np.exp(poses[:, 3])
        assert (np.abs(poses[:, :2] - 0.5) + reach[:, None] < 0.5).all()
        starts.append(poses[0])
    # Before the class sorts them, the poses have no order: the first is anywhere.
    assert (np.abs(np.mean(starts, axis=0) - [0.5, 0.5, 0, 0]) < 4 * np.std(starts, axis=0) / 200**0.5).all()


def test_the_frame_around_the_shape_stands_still(root: Path) -> None:
    frames, _ = draw_clip(0, "train", 9, frames=8, size=SIZE)
    corners = frames[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == corners[0]).all()


def test_same_seed_same_bytes_other_seed_other_frames(root: Path, tmp_path: Path) -> None:
    make_motion(tmp_path / "again", seed=3, **SMALL)
    files = sorted(p.relative_to(root) for p in root.rglob("*.mp4"))
    assert len(files) == len(CLASSES) * 4
    assert all((root / f).read_bytes() == (tmp_path / "again" / f).read_bytes() for f in files)
    one, other = (draw_clip(seed, "train", 0, frames=8, size=SIZE)[0] for seed in (3, 4))
    assert not (one == other).all()
    sets = {tuple(as_set(draw_clip(0, s, i, frames=8, size=SIZE)[0])) for s in ("train", "val") for i in (0, 1)}
    assert len(sets) == 4


def test_finished_data_are_left_alone(root: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file()}
    assert make_motion(root, seed=3, **SMALL) == 0
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file()} == before


def test_interrupted_generation_is_noticed_and_finished(root: Path, tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def interrupt(done: int, total: int) -> None:
        assert total == 32
        if done == 16:
            raise StopError

    with pytest.raises(StopError):
        make_motion(tmp_path / "m", seed=3, progress=interrupt, **SMALL)
    assert not (tmp_path / "m" / "motion.json").exists()
    with pytest.raises(DataError, match="interrupted; finish it with `nas data make motion"):
        find_videos(tmp_path / "m", name="motion")
    with pytest.raises(DataError, match="choose another folder or delete"):
        make_motion(tmp_path / "m", seed=4, **SMALL)
    assert make_motion(tmp_path / "m", seed=3, **SMALL) == 16
    record = json.loads((tmp_path / "m" / "motion.json").read_text())
    assert record["seed"] == 3 and record["version"] == 1 and record["clips_per_class"]["train"] == 2
    assert len(find_videos(tmp_path / "m", name="motion").splits["train"]) == 16
    name = "train/up/0001.mp4"
    assert (tmp_path / "m" / name).read_bytes() == (root / name).read_bytes()


def test_a_missing_clip_is_written_again(tmp_path: Path) -> None:
    make_motion(tmp_path / "m", **SMALL)
    (tmp_path / "m" / "val" / "up" / "0000.mp4").unlink()
    assert make_motion(tmp_path / "m", **SMALL) == 1


def test_foreign_folders_and_bad_arguments_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("dear")
    with pytest.raises(DataError, match=r"holds other files and no motion\.json; choose another folder"):
        make_motion(tmp_path / "mine", **SMALL)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    with pytest.raises(DataError, match="is a file"):
        make_motion(tmp_path / "mine" / "thesis.txt", **SMALL)
    with pytest.raises(DataError, match="failed: Not a directory"):
        make_motion(tmp_path / "mine" / "thesis.txt" / "below", **SMALL)
    for name, value in (("seed", -1), ("frames", 1), ("size", 41), ("size", 14), ("train_per_class", 0)):
        with pytest.raises(DataError, match=rf"{name} must be .*but is {value}"):
            make_motion(tmp_path / "new", **{**SMALL, name: value})
    assert not (tmp_path / "new").exists()


def test_a_test_split_may_be_left_out(tmp_path: Path) -> None:
    assert make_motion(tmp_path / "m", **{**SMALL, "train_per_class": 1, "test_per_class": 0}) == 16
    assert set(find_videos(tmp_path / "m", name="motion").splits) == {"train", "val"}


def test_every_frame_is_coded_on_its_own(tmp_path: Path) -> None:
    frames, _ = draw_clip(0, "train", 0, frames=8, size=SIZE)
    write_clip(tmp_path / "a.mp4", frames)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert [packet.is_keyframe for packet in container.demux(video=0) if packet.size] == [True] * 8
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
