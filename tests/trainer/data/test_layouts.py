from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from trainer.data.layouts import DataError, Video, find_videos


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Empty files in place of videos: a layout does not look inside."""
    for split in ("train", "val"):
        for label in ("b two", "a"):
            folder = tmp_path / "data" / split / label
            folder.mkdir(parents=True)
            (folder / "1.mp4").touch()
    return tmp_path / "data"


def refused(root: Path, name: str = "mine") -> str:
    with pytest.raises(DataError) as error:
        find_videos(root, name=name)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_files_are_found_whatever_the_case_of_their_suffix(root: Path) -> None:
    folder = root / "train" / "a"
    for name in ("2.AVI", "3.Mkv", "4.webm", "5.MOV", "6.txt", ".7.mp4", "8.mp4.part"):
        (folder / name).touch()
    (folder / "9.mp4").mkdir()
    (root / "train" / ".hidden").mkdir()
    (root / "train" / "notes.txt").touch()
    layout = find_videos(root, name="mine")
    assert layout.classes == ("a", "b two")
    assert list(layout.splits) == ["train", "val"]
    assert layout.splits["train"] == tuple(
        [Video(path=f"train/a/{name}", label=0) for name in ("1.mp4", "2.AVI", "3.Mkv", "4.webm", "5.MOV")]
        + [Video(path="train/b two/1.mp4", label=1)]
    )


def test_videos_that_are_passed_over_are_counted(root: Path) -> None:
    folder = root / "train" / "a"
    for name in ("2.m4v", "3.MPG", "4.wmv", "notes.txt", "group/5.mp4", "group/6.avi", "empty/7.txt", "../8.mp4"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    layout = find_videos(root, name="mine")
    assert len(layout.splits["train"]) == 2
    assert {(one.path, one.kind, one.reason) for one in layout.left_out} == {
        *(
            (f"train/a/{name}", "suffix", "its suffix is none of .mp4 .avi .mkv .webm .mov")
            for name in ("2.m4v", "3.MPG", "4.wmv")
        ),
        ("train/a/group", "misplaced", "2 videos lie in a folder of the class folder"),
        ("train/8.mp4", "misplaced", "it lies in no class folder"),
    }
    assert layout.line().endswith("left out: 2 misplaced, 3 suffix")


def test_test_split_is_found_where_there_is_one(root: Path) -> None:
    shutil.copytree(root / "val", root / "test")
    assert list(find_videos(root, name="mine").splits) == ["train", "val", "test"]


def test_missing_root(tmp_path: Path) -> None:
    message = refused(tmp_path / "nowhere")
    assert f"{tmp_path / 'nowhere'} does not exist; videos must lie as ROOT/{{train,val[,test]}}/CLASS" in message
    assert message.startswith("data.root must be a folder")


def test_motion_says_how_it_is_made(tmp_path: Path) -> None:
    assert refused(tmp_path / "m", "motion").endswith(f"`nas data make motion --root {tmp_path / 'm'}`")


def test_root_is_a_file(root: Path) -> None:
    assert "is a file" in refused(root / "train" / "a" / "1.mp4")


@pytest.mark.parametrize("split", ["train", "val"])
def test_missing_split(root: Path, split: str) -> None:
    shutil.rmtree(root / split)
    assert f"has no folder {split}" in refused(root)


def test_no_class(root: Path) -> None:
    for split in ("train", "val"):
        shutil.rmtree(root / split)
        (root / split).mkdir()
    assert f"{root / 'train'} has none" in refused(root)


@pytest.mark.parametrize("split", ["train", "val"])
def test_class_without_a_video(root: Path, split: str) -> None:
    (root / split / "a" / "1.mp4").rename(root / split / "a" / "1.txt")
    assert f"{root / split / 'a'} has none" in refused(root)


def test_splits_with_different_classes(root: Path) -> None:
    (root / "val" / "a").rename(root / "val" / "c")
    assert "train alone has a and val alone has c" in refused(root)
    shutil.rmtree(root / "val" / "c")
    message = refused(root)
    assert "train alone has a;" in message and "val alone" not in message


def test_many_different_classes_are_cut_short(root: Path) -> None:
    for i in range(9):
        (root / "val" / f"x{i}").mkdir()
    assert "val alone has x0, x1, x2, x3, x4 ..." in refused(root)
