"""Splits that are drawn: every video in one, groups whole, classes even, the same for a seed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.cli.main import main
from trainer.config import Clip, DataConfig
from trainer.data.dataset import open_data
from trainer.data.layouts import DataError, find_videos
from trainer.data.motion_clips import make_motion
from trainer.data.partition import grouped, partition

SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}


@given(st.data())
def test_a_partition_keeps_groups_whole_and_classes_everywhere(data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.integers(12, 40), min_size=2, max_size=4))
    classes = {f"{c}/{i}": str(c) for c, n in enumerate(counts) for i in range(n)}
    size = data.draw(st.integers(1, 3))
    groups = {path: f"{path[0]}-{int(path[2:]) // size}" for path in classes}
    seed = data.draw(st.integers(0, 3))
    splits = partition(classes, groups, SHARES, seed=seed)
    assert sorted(path for paths in splits.values() for path in paths) == sorted(classes)
    where = {path: split for split, paths in splits.items() for path in paths}
    assert len({(groups[path], split) for path, split in where.items()}) == len(set(groups.values()))
    for c, total in enumerate(counts):
        found = Counter(where[path] for path in classes if classes[path] == str(c))
        for split, share in SHARES.items():
            assert found[split] > 0
            assert abs(found[split] - share * total) <= size
    assert splits == partition(dict(reversed(classes.items())), groups, SHARES, seed=seed)


def test_seeds_draw_others() -> None:
    classes = {f"{c}/{i}": c for c in "ab" for i in range(20)}
    drawn = [partition(classes, {path: path for path in classes}, SHARES, seed=seed) for seed in range(4)]
    assert len({splits["val"] for splits in drawn}) == 4


def test_a_group_of_several_classes_stays_together() -> None:
    classes = {f"{c}/scene{i:02d}.mp4": c for c in "abc" for i in range(20)}
    groups = grouped(list(classes), r"scene(\d+)")
    splits = partition(classes, groups, SHARES, seed=0)
    for paths in splits.values():
        scenes = Counter(groups[path] for path in paths)
        assert set(scenes.values()) == {3}
    assert [len(paths) // 3 for paths in splits.values()] == [14, 3, 3]


def test_a_class_with_few_groups_gets_one_in_each_split_or_says_so() -> None:
    classes = {**{f"a/{i}": "a" for i in range(40)}, **{f"b/{i}": "b" for i in range(3)}}
    own = {path: path for path in classes}
    splits = partition(classes, own, SHARES, seed=0)
    assert all(any(path.startswith("b/") for path in paths) for paths in splits.values())
    with pytest.raises(DataError, match=r"each class must have a group .* train, val, test, but b has 2"):
        partition({k: v for k, v in classes.items() if k != "b/0"}, {k: k for k in own if k != "b/0"}, SHARES, seed=0)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("(", "--group must be a regular expression"), ("x", r"'x' is not in a/0.mp4 and 1 more")],
)
def test_a_group_must_be_found(pattern: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        grouped(["a/0.mp4", "a/1.mp4"], pattern)


def test_lists_are_read_as_they_were_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("1 thing", "other 0"):
        (tmp_path / "all" / name).mkdir(parents=True)
        for i in range(10):
            (tmp_path / "all" / name / f"a, b {i}.mp4").write_bytes(bytes([i]))
    out = tmp_path / "lists"
    assert main(["data", "split", str(tmp_path / "all"), "-o", str(out), "--val", "0.2", "--test", "0.2"]) == 0
    assert "layout: slowfast" in capsys.readouterr().out
    layout = find_videos(str(tmp_path / "all"), name="mine", layout="slowfast", annotations=str(out))
    assert layout.classes == ("1 thing", "other 0")
    assert {split: len(videos) for split, videos in layout.splits.items()} == {"train": 12, "val": 4, "test": 4}
    for videos in layout.splits.values():
        assert all(video.path.startswith(layout.classes[video.label]) for video in videos)
    assert main(["data", "split", str(tmp_path / "all"), "-o", str(out)]) == 2
    assert "lists are written to a new folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "message"),
    [
        ([], "two folders of classes at least must lie in"),
        (["a/0.mp4"], "two folders of classes at least must lie in"),
        (["a/0.mp4", "b/0.txt"], "a class must have a video"),
        (["train/0.mp4", "val/0.mp4"], "has train and val already"),
        (["a/0.mp4", "b/0.mp4"], "each class must have a group of videos"),
        (["a/0\t.mp4", *(f"{c}/{i}.mp4" for c in "ab" for i in range(9))], "a path in a list must have no tabs"),
    ],
)
def test_what_cannot_be_split_is_one_line(
    tmp_path: Path, make: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "all").mkdir()
    for path in make:
        (tmp_path / "all" / path).parent.mkdir(exist_ok=True)
        (tmp_path / "all" / path).write_bytes(b"")
    assert main(["data", "split", str(tmp_path / "all"), "-o", str(tmp_path / "lists")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "lists").exists()


def test_shares_leave_something_for_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "split", str(tmp_path), "-o", str(tmp_path / "l"), "--val", "0.6", "--test", "0.4"]) == 2
    assert "must leave something for train" in capsys.readouterr().err


def test_data_in_which_a_group_is_in_two_splits_is_refused(tmp_path: Path) -> None:
    make_motion(tmp_path / "data", train_per_class=2, val_per_class=2, test_per_class=1, frames=4, size=16)
    config = DataConfig(
        root=str(tmp_path / "data"),
        cache=str(tmp_path / "cache"),
        clip=Clip(frames=2, height=8, width=8),
        short_side=8,
    )
    open_data(replace(config, group=r"^\w+/\w+/\d+"))
    with pytest.raises(DataError) as caught:
        open_data(replace(config, group=r"(\d+)\.mp4"))
    assert "a group of data.group must be in one split, but '0000' is in train (train/" in str(caught.value)
    for pattern, message in (
        ("(", "data.group must be a regular expression"),
        ("scene", "data.group must be found in"),
    ):
        with pytest.raises(DataError, match=message):
            open_data(replace(config, group=pattern))
    assert "group" not in replace(config, group="x").identity()  # what is trained is the same
