"""`nas data pack` and `nas data flow`: a data set, or its optical flow, as a folder of few large files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from nas.cli.options import JSON
from nas.cli.output import Progress, duration, print_json, print_line
from nas.cli.resolve import videos_of
from nas.errors import NasError, unknown

if TYPE_CHECKING:
    from trainer.data.pack.read import Packed


_CODINGS = ("jpeg", "raw")
SHORT_SIDE = 128  # of the frames of a folder, for which no study says one


def pack(
    target: str = typer.Argument(
        ..., metavar="STUDY|DB|ROOT", help="A study file, a database, or a folder of class folders."
    ),
    overrides: list[str] = typer.Argument(None, metavar="[key=value …]", help="Settings laid over the study file."),
    output: str = typer.Option(..., "--output", "-o", help="Folder that the pack goes into."),
    short_side: int = typer.Option(0, "--short-side", help="Short side of the frames in pixels; 0: as the study says."),
    fps: float = typer.Option(0.0, "--fps", help="Frames per second at most, evenly spaced; 0 keeps all."),
    max_frames: int = typer.Option(
        -1, "--max-frames", help="Frames of a video at most; 0: all; -1: as the study says."
    ),
    coding: str = typer.Option("jpeg", "--coding", help="jpeg, or raw for exact frames in about ten times the room."),
    quality: int = typer.Option(90, "--quality", help="JPEG quality, 1 to 100."),
    workers: int = typer.Option(-1, "--workers", help="Processes that decode; -1: as many as there are cores."),
    as_json: bool = JSON,
) -> None:
    """Decode every video once into a folder of few large files, for `data.source=pack data.root=FOLDER`.

    Videos that cannot be decoded are listed and left out. Packing that was interrupted, by a kill or by a full disk,
    goes on where it was when the same command is run again.

    Example: nas data pack studies/kinetics_small.yaml data=motion -o data/motion_pack
    """
    import time

    from trainer.data.dataset import check_flow
    from trainer.data.layouts import find_layout
    from trainer.data.pack.write import write_pack

    check_packing(coding, quality, short_side=short_side, max_frames=max_frames, workers=workers, fps=fps)
    config = videos_of(target, overrides or [])
    if config.source == "pack":
        raise NasError(f"videos are needed to make a pack, but data.source is pack and {config.root} is one already")
    layout = find_layout(config)
    if config.input == "flow":
        check_flow(layout)
    usual = SHORT_SIDE if Path(target).is_dir() else config.short_side
    progress, began = Progress("videos"), time.monotonic()
    try:
        packed = write_pack(
            layout,
            output,
            short_side=short_side or usual,
            fps=fps,
            max_frames=config.max_frames if max_frames < 0 else max_frames,
            coding="raw" if coding == "raw" else "jpeg",
            quality=quality,
            kind=config.input,
            num_workers=None if workers < 0 else workers,
            progress=progress.update,
        )
    finally:
        progress.close()
    tell_packed(packed, fps=packed.fps, seconds=time.monotonic() - began, as_json=as_json)


def check_packing(
    coding: str, quality: int, *, short_side: int, max_frames: int, workers: int, fps: float = 0.0
) -> None:
    """Raises NasError unless a pack can be made so."""
    from trainer.config import MOST_FPS, MOST_PIXELS

    if not 0 <= short_side <= MOST_PIXELS:
        raise NasError(f"--short-side must be from 0 to {MOST_PIXELS:,}, but is {short_side}")
    if not 0 <= fps <= MOST_FPS:
        raise NasError(f"--fps must be from 0 to {MOST_FPS:,}, but is {fps:g}")
    for name, value in (("--max-frames", max_frames), ("--workers", workers)):
        if value < -1:
            raise NasError(f"{name} must be at least -1, but is {value}")
    if coding not in _CODINGS:
        raise NasError(unknown("coding", coding, _CODINGS))
    if not 1 <= quality <= 100:
        raise NasError(f"--quality must be from 1 to 100, but is {quality}")


def tell_packed(packed: Packed, *, seconds: float, as_json: bool, **more: Any) -> None:
    """Prints what became of a pack, and how it is used.

    Args:
        packed: The pack, complete.
        seconds: How long it took.
        as_json: Print one JSON object instead of lines.
        **more: What the object says besides.
    """
    size = sum((packed.folder / f"{name}.bin").stat().st_size for name in packed.splits)
    if as_json:
        print_json(
            {
                "folder": str(packed.folder),
                "videos": {name: len(split) for name, split in packed.splits.items()},
                "bytes": {name: (packed.folder / f"{name}.bin").stat().st_size for name in packed.splits},
                **more,
                "short_side": packed.short_side,
                "max_frames": packed.max_frames,
                "coding": packed.coding,
                "checksum": packed.checksum,
                "left_out": [{"path": one.path, "reason": one.reason} for one in packed.broken],
            }
        )
        return
    for one in packed.broken:
        print_line(f"left out: {one.path}: {one.reason}")
    counts = ", ".join(f"{len(split)} {name}" for name, split in packed.splits.items())
    what, how = ("flow of ", f" by {packed.flow.method}") if packed.flow else ("", "")
    print_line(
        f"{packed.folder}: {what}{counts}, {size / 2**20:.1f} MiB of {packed.coding} at a short side of"
        f" {packed.short_side}{how}, {len(packed.broken)} left out, in {duration(seconds)}"
    )
    flow = "data.input=flow " if packed.flow else ""
    frames = f" data.max_frames={packed.max_frames}" if packed.max_frames else ""
    rate = f" data.fps={packed.fps:.12g}" if packed.fps else ""
    place = f"data.source=pack data.root={packed.folder} data.short_side={packed.short_side}"
    print_line(f"use it with {flow}{place}{frames}{rate}")


_METHODS = ("dis", "farneback")


def flow(
    target: str = typer.Argument(
        ..., metavar="STUDY|DB|ROOT", help="A study file, a database, or a folder of class folders."
    ),
    overrides: list[str] = typer.Argument(None, metavar="[key=value …]", help="Settings laid over the study file."),
    output: str = typer.Option(..., "--output", "-o", help="Folder that the pack goes into."),
    method: str = typer.Option("dis", "--method", help="dis (Kroeger et al. 2016) or farneback (2003), of OpenCV."),
    bound: float = typer.Option(20.0, "--bound", help="Pixels per frame that flow is cut off at."),
    short_side: int = typer.Option(0, "--short-side", help="Short side of the frames in pixels; 0: as the study says."),
    max_frames: int = typer.Option(
        -1, "--max-frames", help="Frames of a video at most; 0: all; -1: as the study says."
    ),
    coding: str = typer.Option("jpeg", "--coding", help="jpeg, or raw for exact bytes."),
    quality: int = typer.Option(90, "--quality", help="Of JPEGs, 1 to 100."),
    workers: int = typer.Option(-1, "--workers", help="Processes; -1: as many as there are cores."),
    as_json: bool = JSON,
) -> None:
    """Compute the optical flow of every video once, for `data.input=flow data.source=pack data.root=FOLDER`.

    Needs OpenCV: pip install 'video-nas[flow]'. Videos that cannot be decoded are listed and left out. What was
    interrupted goes on where it was when the same command is run again.

    Example: nas data flow studies/kinetics_small.yaml data=motion -o data/motion_flow
    """
    import time

    from trainer.data.layouts import find_layout
    from trainer.data.optical_flow import write_flow

    if method not in _METHODS:
        raise NasError(unknown("method", method, _METHODS))
    if not 0 < bound < 1000:
        raise NasError(f"--bound must be pixels per frame above 0 and below 1000, but is {bound:g}")
    check_packing(coding, quality, short_side=short_side, max_frames=max_frames, workers=workers)
    config = videos_of(target, overrides or [])
    if config.source == "pack":
        raise NasError(f"videos are needed to compute flow, but data.source is pack and {config.root} is a pack")
    usual = SHORT_SIDE if Path(target).is_dir() else config.short_side
    progress, began = Progress("videos"), time.monotonic()
    try:
        packed = write_flow(
            find_layout(config),
            output,
            short_side=short_side or usual,
            max_frames=config.max_frames if max_frames < 0 else max_frames,
            method="farneback" if method == "farneback" else "dis",
            bound=bound,
            coding="raw" if coding == "raw" else "jpeg",
            quality=quality,
            num_workers=None if workers < 0 else workers,
            progress=progress.update,
        )
    finally:
        progress.close()
    tell_packed(packed, method=method, bound=bound, seconds=time.monotonic() - began, as_json=as_json)
