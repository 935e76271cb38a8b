"""`nas predict`."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from nas.cli.output import print_json, print_line, print_table

if TYPE_CHECKING:
    from nas.using.predict import Prediction

_BARS = " ▁▂▃▄▅▆▇█"
_WIDTH = 20


def predict(
    path: str = typer.Argument(..., metavar="PATH", help="A folder that `nas promote` left."),
    videos: list[str] = typer.Argument(..., metavar="VIDEO …", help="Video files."),
    top: int = typer.Option(5, "--top", min=1, help="Classes to name."),
    windows: int = typer.Option(10, "--windows", min=1, help="Windows of the timeline, at most."),
    window: float | None = typer.Option(None, "--window", min=0.01, metavar="SECONDS", help="Length of a window."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Name the classes of video files, as a whole and over time.

    Example: nas predict runs/kinetics_small/promoted/fccd16e46e-seed0-e7c92da6f4d5 data/motion/val/left/0000.mp4
    """
    from nas.errors import NotFoundError

    folder = Path(path)
    if not (folder / "network.json").is_file():
        reason = "it has no network.json" if folder.is_dir() else "there is no such folder"
        raise NotFoundError(f"{path} must be a folder that `nas promote` wrote, but {reason}")
    for name in videos:
        try:
            state = Path(name).stat().st_mode
        except OSError as error:
            why = "is not there" if isinstance(error, FileNotFoundError) else f"is none: {error.strerror}"
            raise NotFoundError(f"VIDEO must be a file, but {name[:200]} {why}") from error
        if not stat.S_ISREG(state):  # a pipe or a device may never end
            raise NotFoundError(f"VIDEO must be a file, but {name} is {'a folder' if stat.S_ISDIR(state) else 'none'}")
    from nas.exported import load_network
    from nas.using.networks import usual_device
    from nas.using.predict import predict_video

    network = load_network(folder, device=usual_device())
    plain = []
    for name in videos:
        found = predict_video(network, Path(name), most=windows, length=window)
        if not as_json:
            show_prediction(name, found, top)
        names = found.classes
        plain.append(
            {
                "video": name,
                "seconds": found.seconds,
                "views": found.views,
                "top": [{"class": label, "probability": value} for label, value in found.ranked(top)],
                "probabilities": dict(zip(names, found.probabilities, strict=True)),
                "timeline": [
                    {
                        "start": moment.start,
                        "end": moment.end,
                        "probabilities": dict(zip(names, moment.probabilities, strict=True)),
                    }
                    for moment in found.timeline
                ],
            }
        )
    if as_json:
        print_json(plain if len(plain) > 1 else plain[0])


def show_prediction(name: str, found: Prediction, top: int) -> None:
    """Prints the most probable classes with their course, then the windows."""
    from nas.using.excerpts import clock

    best = found.ranked(top)
    place = {label: k for k, label in enumerate(found.classes)}
    course = {label: "".join(bar(m.probabilities[place[label]]) for m in found.timeline) for label, _ in best}
    rows = [{"class": label, "probability": value, "course": course[label]} for label, value in best]
    columns = {"class": "class", "probability": "probability"}
    if len(found.timeline) > 1:
        columns["course"] = "over time"
    print_line(f"{name}: {found.seconds:.1f} s, {found.views}")
    print_table(rows, columns)
    if len(found.timeline) < 2:
        return
    lines = []
    for moment in found.timeline:
        label, value = max(zip(found.classes, moment.probabilities, strict=True), key=lambda pair: pair[1])
        filled = round(value * _WIDTH)
        lines.append(
            {
                "time": f"{clock(moment.start)} to {clock(moment.end)}",
                "class": label,
                "probability": value,
                "bar": "█" * filled + "░" * (_WIDTH - filled),
            }
        )
    print_table(lines, {"time": "time", "class": "most probable", "probability": "probability", "bar": ""})


def bar(share: float) -> str:
    """A letter as high as a share of 1."""
    return _BARS[min(round(share * (len(_BARS) - 1)), len(_BARS) - 1)]
