"""A plain folder of videos, and the same videos in every other layout that is read."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from trainer.data.augment import Box
from trainer.data.split import Split

CLASSES = ("massaging person's head", "opening bottle (not wine)", 'playing squash, or "racquetball"')
"""Names with a blank, an apostrophe, brackets, a comma and double quotes; sorted."""


def frames_of(split: Split, index: int) -> np.ndarray:
    """All frames (F, H, W, C) of a video of a split."""
    entry = split.entry(index)
    return split.read(index, np.arange(entry.num_frames), Box(top=0, left=0, height=entry.height, width=entry.width))


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One video of the plain folder."""

    path: Path
    split: str
    label: int

    @property
    def title(self) -> str:
        return self.path.parent.name


def clips_of(plain: Path) -> list[Clip]:
    titles = sorted(path.name for path in (plain / "train").iterdir())
    paths = sorted(plain.glob("*/*/*.mp4"))
    return [Clip(path=path, split=path.parts[-3], label=titles.index(path.parent.name)) for path in paths]


def put(clip: Clip, place: Path) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copyfile(clip.path, place))


def quoted(text: str) -> str:
    doubled = text.replace('"', '""')
    return f'"{doubled}"'


def write_table(path: Path, clips: list[Clip], *, quote: Callable[[str], str] = quoted) -> None:
    """A table of annotations as CVDF has them."""
    rows = ["label,youtube_id,time_start,time_end,split,is_cc"]
    rows += [f"{quote(c.title)},{c.path.stem[:11]},{c.path.stem[12:18]}.0,11,{c.split},0" for c in clips]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def names(clips: list[Clip]) -> list[str]:
    return sorted({clip.title for clip in clips})


def of(clips: list[Clip], split: str) -> list[Clip]:
    return [clip for clip in clips if clip.split == split]


def torchvision(clips: list[Clip], root: Path) -> None:
    for clip in clips:
        folder = "".join(letter for letter in clip.title.replace(" ", "_") if letter not in "'()\"")
        put(clip, root / clip.split / folder / clip.path.name)
    write_lines(root / "annotations" / "classes.txt", names(clips))


def mmaction2(clips: list[Clip], root: Path) -> None:
    for clip in clips:
        put(clip, root / f"videos_{clip.split}" / clip.title.replace(" ", "_") / clip.path.name)
    write_lines(root / "classes.txt", names(clips))


def cvdf(clips: list[Clip], root: Path) -> None:
    """Arranged as CVDF's own script does it: links in `videos` to what lies flat."""
    cvdf_flat(clips, root)
    for clip in clips:
        link = root / "videos" / clip.split / clip.title / clip.path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to((root / clip.split / clip.path.name).resolve())
    (root / "test").mkdir()
    (root / "videos" / "test").mkdir()


def cvdf_flat(clips: list[Clip], root: Path) -> None:
    for clip in clips:
        put(clip, root / clip.split / clip.path.name)
    for split in ("train", "val"):
        write_table(root / "annotations" / f"{split}.csv", of(clips, split))


def slowfast(clips: list[Clip], root: Path) -> None:
    for clip in clips:
        put(clip, root / "clips with blanks" / clip.title / clip.path.name)
    for split in ("train", "val"):
        lines = [f"clips with blanks/{c.title}/{c.path.name} {c.label}" for c in of(clips, split)]
        write_lines(root / f"{split}.csv", lines[::-1])
    write_lines(root / "classes.txt", names(clips))


def pytorchvideo(clips: list[Clip], root: Path) -> None:
    """Absolute paths."""
    for clip in clips:
        put(clip, root / "all" / f"{clip.label}" / clip.path.name)
    for split in ("train", "val"):
        lines = [f"{(root / 'all' / str(c.label) / c.path.name).resolve()} {c.label}" for c in of(clips, split)]
        write_lines(root / "lists" / f"{split}.csv", lines)
    write_lines(root / "lists" / "classes.txt", names(clips))


def frames(clips: list[Clip], root: Path) -> None:
    rows: dict[str, list[str]] = {"train": [], "val": []}
    for clip in clips:
        folder = root / "frames" / clip.path.stem
        folder.mkdir(parents=True)
        pictures = list(images_of(clip.path))
        for number, image in enumerate(pictures, 1):
            write_image(folder / f"img_{number:05d}.jpg", image)
            for axis in "xy":
                write_image(folder / f"flow_{axis}_{number:05d}.jpg", np.full_like(image, 128))
        rows[clip.split].append(f"frames/{clip.path.stem} {len(pictures)} {clip.label}")
    for split, lines in rows.items():
        write_lines(root / f"{split}_videofolder.txt", lines)
    write_lines(root / "category.txt", names(clips))


def multi_label(clips: list[Clip], root: Path) -> None:
    """The first video of a split has the next class, too."""
    rows: dict[str, list[str]] = {"train": [], "val": []}
    for clip in clips:
        put(clip, root / "videos" / clip.path.name)
        other = f",{clip.label + 1}" if clip.label == 0 else ""
        rows[clip.split].append(f"videos/{clip.path.name} 12 {clip.label}{other}")
    for split, lines in rows.items():
        write_lines(root / f"{split}.txt", lines)
    write_lines(root / "classes.txt", names(clips))


def mmaction2_mmit(clips: list[Clip], root: Path, *, frames: bool) -> None:
    """Lists as mmaction2's build_file_list.py writes them of videos with several labels: blanks between all numbers."""
    for split in ("train", "val"):
        lines = []
        for clip in of(clips, split):
            name = clip.path.stem if frames else clip.path.name
            others = [label for label in (0, 1, 2) if label < clip.label]
            if frames:
                (root / f"rawframes_{split}" / name).mkdir(parents=True)
            else:
                put(clip, root / f"videos_{split}" / name)
            lines.append(" ".join(map(str, [name, *([12] if frames else []), clip.label, *others])))
        write_lines(root / f"mmit_{split}_list_{'rawframes' if frames else 'videos'}.txt", lines)


def ucf101(clips: list[Clip], root: Path) -> None:
    lists = root / "ucfTrainTestlist"
    for clip in clips:
        put(clip, root / "UCF-101" / clip.title / clip.path.name)
    write_lines(lists / "classInd.txt", [f"{number} {name}" for number, name in enumerate(names(clips), 1)])
    train, val = of(clips, "train"), of(clips, "val")
    write_lines(lists / "trainlist01.txt", [f"{c.title}/{c.path.name} {c.label + 1}" for c in train])
    write_lines(lists / "testlist01.txt", [f"{c.title}/{c.path.name}" for c in val])


def hmdb51(clips: list[Clip], root: Path) -> None:
    uses = {"train": 1, "val": 2}
    for clip in clips:
        put(clip, root / "hmdb51_org" / clip.title / clip.path.name)
    for name in names(clips):
        mine = [clip for clip in clips if clip.title == name]
        path = root / "testTrainMulti_7030_splits" / f"{name}_test_split1.txt"
        write_lines(path, [*(f"{c.path.name} {uses[c.split]}" for c in mine), "unused.mp4 0"])


BUILDERS: dict[str, tuple[Callable[[list[Clip], Path], None], str, str]] = {
    "torchvision": (torchvision, "folders", "annotations/classes.txt"),
    "mmaction2": (mmaction2, "mmaction2", "classes.txt"),
    "cvdf arranged": (cvdf, "cvdf", ""),
    "cvdf as it comes": (cvdf_flat, "cvdf-flat", ""),
    "slowfast": (slowfast, "slowfast", ""),
    "pytorchvideo": (pytorchvideo, "slowfast", "lists"),
    "frame folders": (frames, "frames", ""),
    "multi-label": (multi_label, "multi-label", ""),
    "ucf101": (ucf101, "ucf101-1", ""),
    "hmdb51": (hmdb51, "hmdb51-1", ""),
}
"""How to build a layout, what it is detected as, and `data.annotations` where the original names are a file's."""


def images_of(path: Path) -> Iterator[np.ndarray]:
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def write_image(path: Path, image: np.ndarray) -> None:
    with av.open(str(path), "w", format="image2", options={"update": "1"}) as container:
        stream = container.add_stream("mjpeg", rate=1)
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = "yuvj420p"
        stream.thread_count = 1
        stream.options = {"qmin": "1", "q": "1"}
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def write_sound(path: Path) -> Path:
    """A file with sound and no picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), "fltp", "mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    return path


def plug(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        here = Path.cwd()
        os.chdir(path.parent)  # the address of a socket is short
        try:
            one.bind(path.name)
        finally:
            os.chdir(here)


SPECIAL: dict[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo,
    "socket": plug,
    "folder": Path.mkdir,
    "zeros": lambda path: path.symlink_to("/dev/zero"),
    "memory": lambda path: path.symlink_to("/proc/self/mem"),
}
"""How to make what stands where a file is expected, and may be read without an end, or not at all."""
