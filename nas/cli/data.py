"""`nas data make` and `nas data check`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import typer

from nas.cli.output import Progress, print_json, print_table
from nas.cli.resolve import load_target
from nas.errors import NasError, one_of

app = typer.Typer(help="Make the motion data set, or check a data set.", no_args_is_help=True, rich_markup_mode=None)


@app.command("make")
def make(
    name: str = typer.Argument("motion", help="The data set to make; motion is the one there is."),
    root: str = typer.Option("data/motion", "--root", help="Where its class folders go."),
    seed: int = typer.Option(0, "--seed", help="Seeds shapes, textures and motions."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Write MP4 files in which only motion tells the classes apart.

    Example: nas data make motion
    """
    if name != "motion":
        raise NasError(one_of("data set", name, ["motion"]))
    from trainer.data.motion import make_motion

    progress = Progress("videos")
    try:
        written = make_motion(Path(root), seed=seed, progress=progress.update)
    finally:
        progress.close()
    if as_json:
        print_json({"name": name, "root": root, "seed": seed, "written": written})
        return
    print(f"motion: {written} videos written to {root}" if written else f"motion: {root} is already complete")


@app.command("check")
def check(
    target: str = typer.Argument(
        ..., metavar="STUDY|DB|ROOT", help="A study file, a database, or a folder of class folders."
    ),
    overrides: list[str] = typer.Argument(None, metavar="[key=value …]", help="Settings laid over the study file."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Decode every video and say what is wrong with which; exit code 1 if a video is left out.

    Example: nas data check studies/kinetics_small.yaml data=motion
    """
    from dataclasses import asdict

    from trainer.config import Clip, DataConfig
    from trainer.data.check import check_data

    overlay = overrides or []
    with tempfile.TemporaryDirectory() as scratch:
        if Path(target).is_dir():
            if overlay:
                raise NasError(f"settings go with a study file, but {target} is a folder")
            clip = Clip(frames=1, height=1, width=1)
            config = DataConfig(name="folder", root=target, cache=scratch, clip=clip, short_side=16)
        else:
            config = load_target(target, overlay).located_data()
        progress = Progress("videos")
        try:
            report = check_data(config, progress=progress.update)
        finally:
            progress.close()
    if as_json:
        print_json({"name": config.name, "root": config.root, **asdict(report)})
    else:
        rows = [
            {
                "split": name,
                "videos": split.num_videos,
                "left out": split.num_broken,
                "per class": _span(min(split.per_class.values()), max(split.per_class.values())),
                "frames": _range(split.frames),
                "height": _range(split.height),
                "width": _range(split.width),
                "fps": _range(split.fps),
            }
            for name, split in report.splits.items()
        ]
        size = f"decoded to a short side of {config.short_side}"
        title = f"{config.name}: {config.root}, {len(report.classes)} classes, {size}"
        print_table(rows, {key: key for key in rows[0]}, title)
        for item in report.broken:
            print(f"left out: {item.path}: {item.reason}")
        print(f"checksum {report.checksum[:12]}, {report.backend}")
    if report.problem:
        raise NasError(report.problem)
    if report.broken:
        raise typer.Exit(1)


def _range(values: Any) -> str:
    return "" if values is None else _span(values.low, values.high)


def _span(low: float, high: float) -> str:
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
