"""Every layout gives the clips and labels of the plain folder that it was built from."""

from __future__ import annotations

import os
import shutil
from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from tests.trainer.data import built
from tests.trainer.data.built import BUILDERS, CLASSES, clips_of, frames_of
from tests.trainer.data.conftest import pictures
from trainer.config import Clip, DataConfig
from trainer.data.augment import to_pixels
from trainer.data.dataset import VideoData, open_data
from trainer.data.folders import decode_flow
from trainer.data.layouts import DataError, find_videos

# Real videos as {train,val}/<class>/*.mp4, used in addition to generated ones where the variable is set.
REAL = os.environ.get("NAS_TEST_CLIPS", "")


def config(root: Path, **changes) -> DataConfig:
    values = {"name": "mine", "cache": str(root.parent / "cache"), "short_side": 24, "short": "loop"}
    return DataConfig(clip=Clip(frames=4, height=16, width=16), root=str(root), **{**values, **changes})


@pytest.fixture
def plain(tmp_path: Path, write_video) -> Path:
    """Three classes, 3 + 2 videos each, named as those of Kinetics are, with IDs that hold `_` and `-`."""
    number = 0
    for split, count in (("train", 3), ("val", 2)):
        for title in CLASSES:
            for _ in range(count):
                name = f"-_{number:02d}_abc-{number:02d}_{number:06d}_{number + 10:06d}.mp4"
                write_video(tmp_path / "plain" / split / title / name, pictures(12, 24, 32, first=3 * number))
                number += 1
    return tmp_path / "plain"


def seen(data: VideoData) -> dict[str, list[tuple[str, np.ndarray]]]:
    """Class and frames of every video, in their order."""
    return {
        name: [(data.classes[split.labels[index]], frames_of(split, index)) for index in range(len(split))]
        for name, split in data.splits.items()
    }


def assert_same(plain: VideoData, other: VideoData, *, atol: int) -> None:
    assert other.classes == plain.classes
    assert other.broken == ()
    first, second = seen(plain), seen(other)
    assert list(first) == list(second)
    for split in first:
        assert [title for title, _ in first[split]] == [title for title, _ in second[split]]
        for (_, a), (_, b) in zip(first[split], second[split], strict=True):
            np.testing.assert_allclose(a.astype(int), b.astype(int), atol=atol)


@pytest.mark.parametrize("name", BUILDERS)
def test_a_layout_gives_the_clips_and_labels_of_the_plain_folder(plain: Path, tmp_path: Path, name: str) -> None:
    build, kind, annotations = BUILDERS[name]
    root = tmp_path / "other"
    build(clips_of(plain), root)
    data = open_data(config(root, annotations=annotations))
    assert data.layout is not None
    assert data.layout.kind == kind
    assert f"{root} is read as {kind}: 3 classes, train 9, val 6" in data.layout.line()
    assert not data.layout.left_out
    # JPEG is not exact.
    assert_same(open_data(config(plain)), data, atol=4 if kind == "frames" else 0)


def test_the_tree_of_mmaction2_with_its_lists_of_videos_is_read_as_the_tree(plain: Path, tmp_path: Path) -> None:
    clips = clips_of(plain)
    built.mmaction2(clips, tmp_path / "other")
    for split in ("train", "val"):
        rows = [
            f"{clip.title.replace(' ', '_')}/{clip.path.name} {CLASSES.index(clip.title)}"
            for clip in clips
            if clip.split == split
        ]
        (tmp_path / "other" / f"kinetics400_{split}_list_videos.txt").write_text(
            "\n".join(rows) + "\n", encoding="utf-8"
        )
    data = open_data(config(tmp_path / "other", annotations="classes.txt"))
    assert data.layout is not None and data.layout.kind == "mmaction2"
    assert_same(open_data(config(plain)), data, atol=0)


@pytest.mark.skipif(not REAL, reason="NAS_TEST_CLIPS names no folder of real videos")
@pytest.mark.parametrize("name", BUILDERS)
def test_a_layout_of_real_videos_gives_what_the_plain_folder_gives(tmp_path: Path, name: str) -> None:
    plain, number = tmp_path / "plain", 0
    for split in ("train", "val"):
        for folder in sorted(Path(REAL, split).iterdir())[:3]:
            for path in sorted(folder.glob("*.mp4"))[:2]:
                place = plain / split / folder.name / f"{number:011d}_000000_000010.mp4"
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, place)
                number += 1
    build, kind, annotations = BUILDERS[name]
    build(clips_of(plain), tmp_path / "other")
    whole = config(plain, short_side=64)
    data = open_data(config(tmp_path / "other", annotations=annotations, short_side=64))
    if kind == "frames":
        # A JPEG of a real picture differs at edges and by the rounding of its colours: means are compared.
        a, b = seen(open_data(whole)), seen(data)
        for split in a:
            assert [title for title, _ in a[split]] == [title for title, _ in b[split]]
            for (_, x), (_, y) in zip(a[split], b[split], strict=True):
                np.testing.assert_allclose(x.mean((1, 2)), y.mean((1, 2)), atol=4)
    else:
        assert_same(open_data(whole), data, atol=0)


def test_a_multi_label_list_gives_all_labels_of_a_video(plain: Path, tmp_path: Path) -> None:
    built.multi_label(clips_of(plain), tmp_path / "other")
    layout = find_videos(tmp_path / "other", name="mine")
    assert layout.multi_label
    assert {video.label: video.labels for video in layout.splits["train"]} == {0: (0, 1), 1: (1,), 2: (2,)}


@pytest.mark.parametrize(("frames", "layout"), [(True, "multi-label"), (False, "multi-label-videos")])
def test_several_labels_may_be_separated_by_blanks(plain: Path, tmp_path: Path, frames: bool, layout: str) -> None:
    root = tmp_path / "other"
    built.mmaction2_mmit(clips_of(plain), root, frames=frames)
    with pytest.raises(DataError, match=r"has more numbers behind .*; data\.layout=multi-label \(.*reads? several"):
        find_videos(root, name="mine")
    found = find_videos(root, name="mine", layout=layout)
    assert found.line().startswith(f"{root} is read as {layout}: 3 classes, train 9, val 6")
    assert not found.left_out
    assert sorted(video.labels for video in found.splits["val"]) == [(0,)] * 2 + [(0, 1)] * 2 + [(0, 1, 2)] * 2
    assert {video.frames for video in found.splits["val"]} == {12 if frames else 0}


def test_a_path_that_ends_in_a_number_is_not_taken_for_labels(plain: Path, tmp_path: Path) -> None:
    root = tmp_path / "other"
    for name in ("take", "take 1"):
        (root / name).mkdir(parents=True)
    built.write_lines(root / "train.txt", ["take 12 0", "take 1 12 0,1", "gone 1 12 0"])
    built.write_lines(root / "val.txt", ["take 1 12 1"])
    with pytest.raises(DataError, match=r"a video must be in one split, but take 1 stands in line 2"):
        find_videos(root, name="mine")
    built.write_lines(root / "val.txt", ["take 2 12 1"])
    found = find_videos(root, name="mine", layout="multi-label", complete=False)
    assert [(video.path, video.labels) for video in found.splits["train"]] == [("take", (0,)), ("take 1", (0, 1))]
    assert [one.path for one in found.left_out] == ["gone 1", "take 2"]


def test_a_frame_folder_says_how_many_images_it_has_and_its_flow_can_be_read(plain: Path, tmp_path: Path) -> None:
    root = tmp_path / "other"
    built.frames(clips_of(plain), root)
    video = find_videos(root, name="mine").splits["train"][0]
    assert video.frames == 12
    flow = to_pixels(decode_flow(root / video.path, num_frames=12).frames)
    assert flow.shape == (12, 24, 32, 2)
    assert abs(flow).max() < 0.5
    (root / video.path / "img_00007.jpg").unlink()
    other = root / find_videos(root, name="mine").splits["train"][1].path
    (other / "img_00005.jpg").write_bytes(b"\xff\xd8 no more")
    reasons = {one.path: one.reason for one in open_data(config(root)).broken}
    assert "11 img images of the 12" in reasons[video.path]
    assert "img_00005.jpg: " in reasons[other.relative_to(root).as_posix()]


def test_a_frame_folder_with_more_images_than_listed_gives_the_first_ones(plain: Path, tmp_path: Path) -> None:
    root = tmp_path / "other"
    built.frames(clips_of(plain), root)
    path = root / "val_videofolder.txt"
    path.write_text(path.read_text().replace(" 12 ", " 7 "))
    split = open_data(config(root)).split("val")
    assert {len(frames_of(split, index)) for index in range(len(split))} == {7}


def test_a_second_split_of_the_official_lists_is_asked_for_by_name(plain: Path, tmp_path: Path) -> None:
    root = tmp_path / "other"
    built.ucf101(clips_of(plain), root)
    with pytest.raises(DataError, match=r"must have trainlist02\.txt, but .* has classInd\.txt, testlist01\.txt"):
        find_videos(root, name="mine", layout="ucf101-2")
    for name in ("trainlist0{}.txt", "testlist0{}.txt"):
        folder = root / "ucfTrainTestlist"
        (folder / name.format(1)).rename(folder / name.format(2))
    assert find_videos(root, name="mine", layout="ucf101-2").kind == "ucf101-2"


def test_two_layouts_in_one_folder_are_refused_until_one_is_named(plain: Path) -> None:
    for split in ("train", "val"):
        lines = [f"{c.path.relative_to(plain)} {2 - c.label}" for c in clips_of(plain) if c.split == split]
        built.write_lines(plain / f"{split}.csv", lines)
    with pytest.raises(DataError, match=r"can be read as slowfast \(by .*train\.csv\), folders \(by train/<class>/\)"):
        find_videos(plain, name="mine")
    assert find_videos(plain, name="mine", layout="folders").classes == CLASSES
    lists = find_videos(plain, name="mine", layout="slowfast")
    assert lists.classes == ("0", "1", "2")
    assert "massaging" in lists.splits["train"][-1].path
    with pytest.raises(DataError, match=r"data\.layout must be one of auto, folders, torchvision, .*but is 'tree'"):
        find_videos(plain, name="mine", layout="tree")


def test_a_plain_folder_with_a_table_of_kinetics_beside_it_is_a_plain_folder(plain: Path) -> None:
    built.write_table(plain / "annotations" / "train.csv", clips_of(plain))
    assert find_videos(plain, name="mine").kind == "folders"


def test_replacements_of_corrupted_videos_are_used(plain: Path, tmp_path: Path) -> None:
    root = tmp_path / "other"
    clips = clips_of(plain)
    built.cvdf_flat(clips, root)
    place = root / "replacement" / "replacement_for_corrupted_k400" / clips[0].path.name
    place.parent.mkdir(parents=True)
    shutil.copyfile(clips[1].path, place)
    paths = [video.path for video in find_videos(root, name="mine").splits["train"]]
    assert place.relative_to(root).as_posix() in paths
    assert f"train/{clips[0].path.name}" not in paths
    assert len(paths) == 9


def test_a_replacement_stands_in_for_one_video(plain: Path, tmp_path: Path) -> None:
    root = tmp_path / "other"
    clips = clips_of(plain)
    built.cvdf_flat(clips, root)
    first = clips[0].path
    shutil.copyfile(first, root / "train" / f"{first.stem}.mkv")  # the same video in another container
    shutil.copyfile(first, root / "train" / f"{first.stem[:11]}_000050_000060.mp4")  # another part of it
    (root / "replacement").mkdir()
    shutil.copyfile(clips[1].path, root / "replacement" / first.name)
    layout = find_videos(root, name="mine")
    paths = [video.path for video in layout.splits["train"]]
    assert f"train/{first.stem[:11]}_000050_000060.mp4" in paths
    assert paths.count(f"replacement/{first.name}") == 1
    assert len(paths) == len(set(paths)) == 10
    assert len(layout.left_out) == 1
    assert layout.left_out[0].kind == "repeated"
    assert PurePosixPath(layout.left_out[0].path).stem == first.stem


@pytest.mark.parametrize("split", ["train", "val"])
def test_kinetics_that_is_arranged_in_part_is_refused_until_that_part_is_asked_for(
    plain: Path, tmp_path: Path, split: str
) -> None:
    root = tmp_path / "other"
    clips = clips_of(plain)
    built.cvdf(clips, root)
    built.put(clips[0], root / "train" / "zzzzzzzzzzz_000001_000011.mp4")  # in no table, so it belongs nowhere
    assert not find_videos(root, name="mine").left_out
    flat = next(clip for clip in clips if clip.split == split).path.name
    link = next((root / "videos" / split).rglob(flat))
    link = link.rename(link.with_name(f"{flat[:11]}.mp4"))
    assert not find_videos(root, name="mine").left_out
    link.unlink()
    with pytest.raises(
        DataError, match=rf"but 1 of the videos of .* lie flat \(the first is {split}/{flat}\); `nas data get"
    ):
        find_videos(root, name="mine")
    part = find_videos(root, name="mine", layout="cvdf")
    assert sum(map(len, part.splits.values())) == len(clips) - 1
    assert [(one.kind, one.path, one.split) for one in part.left_out] == [("unarranged", f"{split}/{flat}", split)]


def test_rows_and_files_without_a_partner_are_counted(plain: Path, tmp_path: Path) -> None:
    root = tmp_path / "other"
    clips = clips_of(plain)
    built.cvdf_flat(clips, root)
    (root / "train" / clips[0].path.name).unlink()
    shutil.copyfile(clips[1].path, root / "train" / "zzzzzzzzzzz_000001_000011.mp4")
    layout = find_videos(root, name="mine")
    assert {(one.kind, one.path, one.split) for one in layout.left_out} == {
        ("missing", clips[0].path.stem[:11], "train"),
        ("unlisted", "train/zzzzzzzzzzz_000001_000011.mp4", "train"),
    }
    assert layout.line().endswith("left out: 1 missing, 1 unlisted")
    assert layout.record()["left_out"]["missing"]["count"] == 1
