"""Small videos of two motions at once, as a list in which a video has several labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trainer.data.motion_clips import write_clip

CLASSES = ("left", "right", "up", "down", "still")
COUNTS = {"train": 40, "val": 16, "test": 16}
FRAMES, SIZE = 8, 16


def composed(labels: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """A red square that moves sideways and a blue one that moves up or down, where their classes say so."""
    video = rng.integers(0, 40, (FRAMES, SIZE, SIZE, 3), dtype=np.uint8)
    side = 5
    for label in labels:
        across = int(rng.integers(0, SIZE - side))
        for number in range(FRAMES):
            way = number * (SIZE - side) // (FRAMES - 1)
            along = {0: SIZE - side - way, 1: way, 2: SIZE - side - way, 3: way, 4: (SIZE - side) // 2}[label]
            top, left = (across, along) if label in (0, 1) else (along, across)
            channel = 0 if label in (0, 1) else 2 if label in (2, 3) else 1
            video[number, top : top + side, left : left + side, channel] = 230
    return video


def drawn_labels(rng: np.random.Generator) -> tuple[int, ...]:
    """One of left and right or neither, one of up and down or neither; what moves neither way is still."""
    ways = [int(rng.choice([first, first + 1])) for first in (0, 2) if rng.random() < 0.65]
    return tuple(ways) or (4,)


def write_several(root: Path, *, seed: int = 0, counts: dict[str, int] | None = None) -> Path:
    """Writes `root/videos/*.mp4`, `root/{train,val,test}.txt` with rows `path frames label,label`, `classes.txt`."""
    rng = np.random.default_rng(seed)
    (root / "videos").mkdir(parents=True)
    for split, count in (counts or COUNTS).items():
        lines = []
        for number in range(count):
            labels = (number,) if number < len(CLASSES) else drawn_labels(rng)
            write_clip(root / "videos" / f"{split}{number:02d}.mp4", composed(labels, rng))
            lines.append(f"videos/{split}{number:02d}.mp4 {FRAMES} {','.join(map(str, labels))}\n")
        (root / f"{split}.txt").write_text("".join(lines), encoding="utf-8")
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES), encoding="utf-8")
    return root
