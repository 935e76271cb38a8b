"""What the names and the checksums of caches and packs depend on."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.data.built import write_image
from tests.trainer.data.conftest import pictures
from trainer.data.cache import open_frames
from trainer.data.direct import open_times
from trainer.data.entries import key_of
from trainer.data.layouts import DataError, Layout, Video, find_videos
from trainer.data.pack.write import write_pack


def test_the_names_of_caches_of_video_files_are_what_they_were(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(b"any")
        os.utime(tmp_path / name, ns=(0, 1_600_000_000_000_000_000))
    one, two = Video(path="a.mp4", label=0), Video(path="b.mp4", label=1)
    for labels, key in (((), "b85842af865596684e815340be699be6"), ((0, 1), "9da73c597063e132349b941855cf5987")):
        splits = {"train": (dataclasses.replace(one, labels=labels), two), "val": (two,)}
        assert key_of(Layout(root=tmp_path, classes=("x", "y"), splits=splits), {"short_side": 24}) == key


def folders(root: Path, count: int) -> Layout:
    """Four folders of 8 images, of which a list names the first so many."""
    for name in "abcd":
        if not (root / name).is_dir():
            (root / name).mkdir(parents=True)
            for number, image in enumerate(pictures(8, 24, 32), 1):
                write_image(root / name / f"img_{number:05d}.png", image)
    (root / "train_videofolder.txt").write_text(f"a {count} 0\nb {count} 1\n")
    (root / "val_videofolder.txt").write_text(f"c {count} 0\nd {count} 1\n")
    return find_videos(root, name="mine")


def test_a_list_that_names_more_images_of_a_folder_gives_more_frames(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for count in (5, 8):
        found = open_frames(folders(root, count), tmp_path / "cache", short_side=24, num_workers=0)
        assert [entry.num_frames for entry in found.splits["train"].entries] == [count, count]
    write_pack(folders(root, 5), tmp_path / "pack", short_side=24, num_workers=0)
    with pytest.raises(DataError, match="holds one of other videos, or of others by now"):
        write_pack(folders(root, 8), tmp_path / "pack", short_side=24, num_workers=0)


def test_images_that_were_written_anew_in_their_place_are_read_anew(tmp_path: Path) -> None:
    root = tmp_path / "data"
    before = open_frames(folders(root, 8), tmp_path / "cache", short_side=24, num_workers=0)
    assert open_frames(folders(root, 8), tmp_path / "cache", short_side=24, num_workers=0) == before
    image, stat = root / "a" / "img_00003.png", (root / "a").stat()
    image.write_bytes((root / "a" / "img_00004.png").read_bytes())
    assert (root / "a").stat().st_mtime_ns == stat.st_mtime_ns
    after = open_frames(folders(root, 8), tmp_path / "cache", short_side=24, num_workers=0)
    assert after.checksum != before.checksum
    (root / "a" / "img_00001.png").rename(root / "a" / "x.png")  # a name alone; the folder is given its time back
    os.utime(root / "a", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert len(open_frames(folders(root, 8), tmp_path / "cache", short_side=24, num_workers=0).broken) == 1


def relabelled(layout: Layout) -> Layout:
    """The last video of each split is of the first class; all are read in the same order."""
    splits = {name: (*videos[:-1], dataclasses.replace(videos[-1], label=0)) for name, videos in layout.splits.items()}
    return dataclasses.replace(layout, splits=splits)


def test_other_labels_are_another_cache(root: Path, tmp_path: Path) -> None:
    layout = find_videos(root, name="mine")
    for opened in (open_frames, open_times):
        labels = []
        for videos in (layout, relabelled(layout)):
            found = opened(videos, tmp_path / opened.__name__, short_side=24, num_workers=0).splits["val"]
            labels.append([entry.label for entry in found.entries])
        assert labels == [[0, 0, 1, 1], [0, 0, 1, 0]]


def cached(layout: Layout, folder: Path) -> str:
    return open_frames(layout, folder, short_side=24, num_workers=0).checksum


def packed(layout: Layout, folder: Path) -> str:
    return write_pack(layout, folder, short_side=24, coding="raw", num_workers=0).checksum


@pytest.mark.parametrize("make", [cached, packed])
def test_checksums_tell_labels_paths_and_sizes_of_equal_frames(
    root: Path, tmp_path: Path, write_video: Callable[..., Path], make: Callable[[Layout, Path], str]
) -> None:
    grey = np.full((12, 24, 32, 3), 90, np.uint8)
    path = write_video(root / "val" / "two" / "1.mp4", grey)
    layout = find_videos(root, name="mine")
    found = [make(layout, tmp_path / "1"), make(relabelled(layout), tmp_path / "2")]
    path = path.rename(path.with_name("2.mp4"))  # still the last
    found.append(make(find_videos(root, name="mine"), tmp_path / "3"))
    write_video(path, grey.reshape(12, 32, 24, 3))
    found.append(make(find_videos(root, name="mine"), tmp_path / "4"))
    assert len(set(found)) == 4
