"""`nas data flow`: the optical flow of a data set as a pack."""

from __future__ import annotations

from pathlib import Path

import typer

from nas.cli.output import Progress
from nas.cli.pack import SHORT_SIDE, check_packing, tell_packed
from nas.cli.resolve import videos_of
from nas.errors import NasError, one_of

_METHODS = ("dis", "farneback")


def flow(
    target: str = typer.Argument(
        ..., metavar="STUDY|DB|ROOT", help="A study file, a database, or a folder of class folders."
    ),
    overrides: list[str] = typer.Argument(None, metavar="[key=value …]", help="Settings laid over the study file."),
    output: str = typer.Option(..., "--output", "-o", help="Folder that the pack goes into."),
    method: str = typer.Option("dis", "--method", help="dis (Kroeger et al. 2016) or farneback (2003), of OpenCV."),
    bound: float = typer.Option(20.0, "--bound", help="Pixels a frame that flow is cut off at."),
    short_side: int = typer.Option(0, "--short-side", help="Short side of the frames in pixels; 0: as the study says."),
    max_frames: int = typer.Option(
        -1, "--max-frames", help="Frames of a video at most; 0: all; -1: as the study says."
    ),
    coding: str = typer.Option("jpeg", "--coding", help="jpeg, or raw for exact bytes."),
    quality: int = typer.Option(90, "--quality", help="Of JPEGs, 1 to 100."),
    workers: int = typer.Option(-1, "--workers", help="Processes; -1: as many as there are cores."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Compute the optical flow of every video once, for `data.input=flow data.source=pack data.root=FOLDER`.

    Needs OpenCV: pip install 'video-nas[flow]'. Videos that cannot be decoded are listed and left out. What was
    interrupted goes on where it was when the same command is run again.

    Example: nas data flow studies/kinetics_small.yaml data=motion -o data/motion_flow
    """
    import time

    from trainer.data.flow import write_flow
    from trainer.data.layouts import find_layout

    if method not in _METHODS:
        raise NasError(one_of("method", method, _METHODS))
    if not 0 < bound < 1000:
        raise NasError(f"--bound must be pixels a frame above 0 and below 1000, but is {bound:g}")
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
