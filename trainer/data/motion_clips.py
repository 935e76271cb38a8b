"""Clips in which only motion tells the class: one moving shape, eight classes, made on the spot as MP4 files.

A clip is a *set* of frames and an *order*. The set is drawn first, without looking at the class: a shape is
rendered in T poses (x, y, angle, log scale); each component takes T distinct, evenly spread values, and the
values of different components are matched at random. The class then decides the order alone: the frames are
sorted by the component that the class names, upwards or downwards, so that this component moves steadily
while the other three jump about.

It follows that a network which ignores the order of frames cannot do better than chance: clip `nnnn` of all
eight classes consists of the very same frames, so such a network gives all eight the same answer, and one of
them is right. It also follows that a clip shown backwards is a clip of the opposite class.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from trainer.data.layouts import MOTION_PARTIAL, DataError
from trainer.files import make_folder

CLASSES = ("right", "left", "up", "down", "clockwise", "counterclockwise", "expand", "contract")
"""Names of the classes, which are also the names of the folders."""

# Component by which a class sorts (0 x, 1 y, 2 angle, 3 log scale) and the sign of its steps. Rows grow
# downwards, so `down` has rising y, and a rising angle turns clockwise.
_ORDER = {
    "right": (0, 1),
    "left": (0, -1),
    "down": (1, 1),
    "up": (1, -1),
    "clockwise": (2, 1),
    "counterclockwise": (2, -1),
    "expand": (3, 1),
    "contract": (3, -1),
}
OPPOSITE = {a: b for a, (k, s) in _ORDER.items() for b, (m, t) in _ORDER.items() if k == m and s == -t}
"""The class that a clip of each class shows when it is played backwards."""

VERSION = 1
_SPLITS = ("train", "val", "test")
_RECORD = "motion.json"
_FPS = 8

# The spread of each component within one clip, and how far its middle may lie from the centre. Lengths are
# shares of the frame's side. None of them knows the class. Together they keep the shape inside the frame,
# since 0.03 + 0.26 / 2 + 0.235 * exp(0.05 + 0.65 / 2) < 0.51 and the jitter never fills the outermost
# cells, and the angles of a clip within less than a full turn, so that their order can be seen.
_SPAN_SHIFT = (0.18, 0.26)
_SPAN_ANGLE = (2.0, 2.8)  # radians
_SPAN_LOG_SCALE = (0.45, 0.65)
_MIDDLE_SHIFT = 0.03
_MIDDLE_ANGLE = 1.4
_MIDDLE_LOG_SCALE = 0.05
_RADIUS = 0.235  # the longest radius of the shape at log scale 0

Frames = NDArray[np.uint8]
Image = NDArray[np.float64]
Poses = NDArray[np.float64]


def draw_poses(rng: np.random.Generator, frames: int) -> Poses:
    """Draws the poses of one clip, in an order that means nothing.

    Args:
        rng: Source of randomness.
        frames: Number of poses, T.

    Returns:
        Array (T, 4) of x and y of the centre (shares of the frame's side), angle (radians) and log scale.
        The T values of each component are distinct.
    """
    poses = np.empty((frames, 4))
    spans = (_SPAN_SHIFT, _SPAN_SHIFT, _SPAN_ANGLE, _SPAN_LOG_SCALE)
    reach = (_MIDDLE_SHIFT, _MIDDLE_SHIFT, _MIDDLE_ANGLE, _MIDDLE_LOG_SCALE)
    middles = np.array([0.5, 0.5, 0.0, 0.0]) + rng.uniform(-1, 1, 4) * reach
    for component, (span, middle) in enumerate(zip(spans, middles, strict=True)):
        # One value in each of T equal cells; the jitter of at most 30 % of a cell each way keeps them
        # distinct.
        cells = np.arange(frames) + 0.5 + rng.uniform(-0.3, 0.3, frames)
        values = middle + rng.uniform(*span) * (cells / frames - 0.5)
        poses[:, component] = rng.permutation(values)
    return poses


def order(poses: Poses, label: str) -> list[int]:
    """Says in which order the frames of a clip are shown.

    Args:
        poses: Poses (T, 4) of the frames.
        label: Name of a class.

    Returns:
        T indices into `poses`, first shown first.
    """
    component, sign = _ORDER[label]
    return [int(i) for i in np.argsort(sign * poses[:, component])]


def render(rng: np.random.Generator, poses: Poses, size: int) -> Frames:
    """Draws one shape on one still background, once a pose.

    Args:
        rng: Source of the shape, its texture and the background; the same for all frames of a clip.
        poses: Poses (T, 4).
        size: Side of the square frames, in pixels.

    Returns:
        RGB frames (T, size, size, 3).
    """
    grid = (np.arange(size) + 0.5) / size
    x, y = np.meshgrid(grid, grid)
    background = _background(rng, x, y)
    radii = _outline(rng)
    colour = _texture(rng, background.mean(axis=(0, 1)))

    px, py, angle, log_scale = (poses[:, i, None, None] for i in range(4))
    scale = _RADIUS * np.exp(log_scale)
    dx, dy = (x - px) / scale, (y - py) / scale
    # Coordinates that ride on the shape: (T, size, size) each.
    u = dx * np.cos(angle) + dy * np.sin(angle)
    v = dy * np.cos(angle) - dx * np.sin(angle)
    distance = np.hypot(u, v)
    turn = np.arctan2(v, u)
    edge = np.interp(turn.ravel(), np.linspace(-math.pi, math.pi, len(radii)), radii).reshape(turn.shape)
    # Distance to the outline along the ray, in pixels, turned into coverage: antialiasing without
    # supersampling.
    cover = np.clip((edge - distance) * scale * size + 0.5, 0.0, 1.0)[..., None]
    image = background * (1 - cover) + colour(u, v) * cover
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def draw_clip(seed: int, split: str, index: int, *, frames: int, size: int) -> tuple[Frames, Poses]:
    """Draws the frame set that clip `index` of a split has in every class.

    Args:
        seed: Seed of the data set.
        split: `train`, `val` or `test`.
        index: Number of the clip within its class.
        frames: Number of frames, T.
        size: Side of the frames, in pixels.

    Returns:
        RGB frames (T, size, size, 3) and their poses (T, 4), unordered.
    """
    rng = np.random.default_rng([seed, _SPLITS.index(split), index])
    poses = draw_poses(rng, frames)
    return render(rng, poses, size), poses


def write_clip(path: Path, frames: Frames) -> None:
    """Writes frames as an H.264 MP4 in which every frame stands for itself.

    All frames are intra-coded with one fixed quantiser, so that the decoded picture of a frame is a
    function of that frame alone: with predicted frames, or a rate control that looks at neighbours, coding
    artefacts would carry the order of the frames into single pictures. One thread keeps the bytes the same
    from run to run.

    Args:
        path: File to write; appears complete or not at all.
        frames: RGB frames (T, H, W, 3), H and W even.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")  # its suffix is none of a video's
    with av.open(str(part), "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=_FPS)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, _FPS)
        stream.thread_count = 1
        stream.options = {
            "preset": "veryfast",
            "qp": "17",
            "g": "1",
            "bf": "0",
            "x264-params": "scenecut=0:rc-lookahead=0:aq-mode=0:mbtree=0:threads=1:log-level=none",
        }
        for number, image in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            picture.pts = number
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    part.replace(path)


def make_motion(
    root: str | Path,
    *,
    seed: int = 0,
    train_per_class: int = 128,
    val_per_class: int = 64,
    test_per_class: int = 64,
    frames: int = 8,
    size: int = 40,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Writes the data set as `root/{train,val,test}/<class>/<nnnn>.mp4`.

    The same arguments give the same bytes on one machine. A generation that was interrupted goes on where
    it stopped; clips that are missing from a finished one are written again; nothing that exists is ever
    replaced.

    Args:
        root: Folder to fill: new, empty, or filled by this function with the same arguments.
        seed: Seed of all randomness, at least 0.
        train_per_class: Clips of each class for training.
        val_per_class: Clips of each class for validation.
        test_per_class: Clips of each class for the final test; 0 leaves the split out.
        frames: Frames of a clip, at least 2.
        size: Side of the square frames in pixels, even and at least 16.
        progress: Called with (clips done, clips in all).

    Returns:
        Number of clips that were written; 0 if all were there.

    Raises:
        DataError: An argument is out of range, or `root` holds something else.
    """
    root = Path(root)
    counts = {"train": train_per_class, "val": val_per_class, "test": test_per_class}
    _check_arguments(seed, counts, frames, size)
    record = {"version": VERSION, "seed": seed, "clips_per_class": counts, "frames": frames, "size": size}
    try:
        _claim(root, record)
        written = _fill(root, record, progress)
        # Last of all: whoever finds this name finds a complete data set.
        with contextlib.suppress(FileNotFoundError):  # it is finished already
            (root / MOTION_PARTIAL).replace(root / _RECORD)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(
            f"motion clips need a folder that can be written and has room, but writing below {root} failed:"
            f" {reason}; free space or choose another folder"
        ) from error
    return written


def _check_arguments(seed: int, counts: Mapping[str, int], frames: int, size: int) -> None:
    """Raises DataError unless every argument of `make_motion` is in its range."""
    lows = {"seed": (seed, 0), "train_per_class": (counts["train"], 1), "val_per_class": (counts["val"], 1)}
    lows |= {"test_per_class": (counts["test"], 0), "frames": (frames, 2), "size": (size, 16)}
    for name, (value, low) in lows.items():
        if value < low:
            raise DataError(f"motion: {name} must be at least {low}, but is {value}")
    if size % 2:
        raise DataError(f"motion: size must be even (H.264 with 4:2:0 chroma), but is {size}")


def _claim(root: Path, record: Mapping[str, Any]) -> None:
    """Makes sure that `root` may be filled according to `record`, and marks it as being filled."""
    for name in (_RECORD, MOTION_PARTIAL):
        if (root / name).is_file():
            try:
                found = json.loads((root / name).read_text(encoding="utf-8"))
            except ValueError:
                found = None
            if found != record:
                raise DataError(
                    f"a folder may hold motion clips of one set of arguments, but {root / name} says {found}"
                    f" and {dict(record)} was asked for; choose another folder or delete this one"
                )
            return
    if root.exists() and not root.is_dir():
        raise DataError(f"motion clips need a folder, but {root} is a file; choose another place")
    if root.is_dir() and any(not entry.name.startswith(MOTION_PARTIAL) for entry in root.iterdir()):
        raise DataError(
            f"motion clips need an empty or new folder, but {root} holds other files and no {_RECORD};"
            " choose another folder"
        )
    make_folder(root)
    part = root / f"{MOTION_PARTIAL}.{os.getpid()}"
    part.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    part.replace(root / MOTION_PARTIAL)


def _fill(root: Path, record: Mapping[str, Any], progress: Callable[[int, int], None] | None) -> int:
    """Writes every clip of `record` that is not there yet, and returns how many those were."""
    counts = record["clips_per_class"]
    total = len(CLASSES) * sum(counts.values())
    done = written = 0
    for split, count in counts.items():
        for label in CLASSES if count else ():
            make_folder(root / split / label)
        for index in range(count):
            paths = {label: root / split / label / f"{index:04d}.mp4" for label in CLASSES}
            missing = [label for label, path in paths.items() if not path.exists()]
            if missing:
                frames, poses = draw_clip(record["seed"], split, index, frames=record["frames"], size=record["size"])
                for label in missing:
                    write_clip(paths[label], frames[order(poses, label)])
            done += len(CLASSES)
            written += len(missing)
            if progress is not None:
                progress(done, total)
    return written


def _background(rng: np.random.Generator, x: NDArray[np.float64], y: NDArray[np.float64]) -> Image:
    """A smooth coloured texture with a few soft blots, (size, size, 3) in 0..1."""
    image = np.broadcast_to(rng.uniform(0.25, 0.75, 3), (*x.shape, 3)).copy()
    for _ in range(3):
        fx, fy = rng.uniform(-1.5, 1.5, 2)
        wave = np.sin(2 * math.pi * (fx * x + fy * y) + rng.uniform(0, 2 * math.pi))
        image += wave[..., None] * rng.uniform(-0.05, 0.05, 3)
    for _ in range(int(rng.integers(0, 4))):
        cx, cy = rng.uniform(0, 1, 2)
        blot = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * rng.uniform(0.03, 0.08) ** 2))
        image += blot[..., None] * rng.uniform(-0.15, 0.15, 3)
    return np.asarray(np.clip(image, 0, 1))


def _outline(rng: np.random.Generator) -> NDArray[np.float64]:
    """Radius by angle from -pi to pi of a polygon, star, cross or ellipse, made lopsided; at most 1."""
    theta = np.linspace(-math.pi, math.pi, 361)
    kind = rng.choice(["polygon", "star", "cross", "ellipse"])
    if kind == "polygon":
        half = math.pi / int(rng.integers(3, 7))
        radii = math.cos(half) / np.cos(np.mod(theta, 2 * half) - half)
    elif kind == "star":
        half = math.pi / int(rng.integers(4, 7))
        radii = 1 - rng.uniform(0.3, 0.45) * (1 - np.abs(np.mod(theta, 2 * half) - half) / half)
    elif kind == "cross":
        arm = rng.uniform(0.35, 0.5)
        c, s = np.abs(np.cos(theta)), np.abs(np.sin(theta))
        long, short = np.maximum(c, s), np.minimum(c, s)
        radii = np.minimum(1 / long, arm / np.maximum(short, 1e-9))
    else:
        radii = 1 / np.hypot(np.cos(theta), np.sin(theta) / rng.uniform(0.5, 0.8))
    # One long end: without it a square would look the same after a quarter turn.
    radii = radii * (1 + 0.25 * np.cos(theta))
    return np.asarray(radii / radii.max())


def _texture(
    rng: np.random.Generator, ground: NDArray[np.float64]
) -> Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]:
    """A colouring of the shape by its own coordinates: two ends of unlike brightness, with stripes."""
    dark, bright = rng.uniform(0.0, 0.25, 3), rng.uniform(0.75, 1.0, 3)  # the head is dark, the tail bright
    stripes, phase = rng.uniform(0.4, 0.9), rng.uniform(0, 2 * math.pi)
    lean, depth = rng.uniform(-1.4, 1.4), rng.uniform(0.0, 0.12)

    def colour(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.float64]:
        share = 1 / (1 + np.exp(-6 * u))
        wave = depth * np.sin(2 * math.pi * stripes * (v + lean * u) + phase)
        return np.asarray(bright + share[..., None] * (dark - bright) + wave[..., None])

    return colour
