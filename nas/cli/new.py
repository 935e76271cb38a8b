"""`nas new`: a study that fits a folder of videos, or one of those that come with the package."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from nas.cli.output import Progress, print_line
from nas.cli.resolve import videos_of
from nas.cli.videos import PACK_INDEX
from nas.errors import NasError, NotFoundError, unknown
from nas.study.metric import parse_number

if TYPE_CHECKING:
    from nas.search.draft import Facts, Timer
    from nas.search.pool import Candidate
    from nas.study.study import Study
    from trainer.config import DataConfig


def new(
    data: str | None = typer.Argument(
        None, metavar="[DATA]", help="A folder of videos: ROOT/{train,val}/<class>/*.mp4."
    ),
    overrides: list[str] = typer.Argument(
        None, metavar="[key=value …]", help="Where the lists lie: data.layout=… and the like."
    ),
    output: str = typer.Option(..., "-o", "--output", metavar="FILE.yaml", help="Output file."),
    macs: str | None = typer.Option(None, "--macs", metavar="MACS", help="Most of a clip, such as 500M."),
    hours: float = typer.Option(1.0, "--hours", min=0.01, max=10_000, help="That the search may take."),
    workers: int | None = typer.Option(None, "--workers", min=1, max=1024, help="Trainings at once."),
    device: str | None = typer.Option(None, "--device", help="cpu or cuda; by default what this machine has."),
    example: str | None = typer.Option(None, "--example", metavar="NAME", help="Write a study of the package instead."),
) -> None:
    """Look at videos and at this machine, and write a study that fits: clip, space, recipe, rungs, trials.

    An epoch of three networks is timed, so that the search ends within --hours. Each choice has its reason beside it.

    Example: nas new data/motion -o motion.yaml --hours 0.2
    """
    from trainer.files import check_replaceable, make_folder, write_whole

    file = Path(output)
    if (data is None) == (example is None):
        raise NasError("name either DATA, a folder of videos, or --example NAME, a study of the package")
    if file.suffix not in (".yaml", ".yml"):
        raise NasError(f"-o must be a file that ends in .yaml, but is {output}")
    if file.exists():
        raise NasError(f"{output} is there already; name another file, or remove it")
    try:
        make_folder(file.parent)
        check_replaceable(file)
    except OSError as error:
        raise NasError(f"{output} cannot be written: {error.strerror}") from error
    if example is not None:
        write_whole(file, _example(example).encode("utf-8"))
        print_line(f"{output}: the study {example}; `nas search {output}` searches it")
        return
    assert data is not None
    bound = None if macs is None else parse_number(macs)
    import torch

    from nas.search.draft import Wish, draft
    from trainer.device import usual_device

    if device not in (None, "cpu", "cuda"):
        raise NasError(unknown("device", device, ("cpu", "cuda")))
    if device == "cuda" and not torch.cuda.is_available():
        raise NasError("--device cuda needs a GPU that torch can use, but there is none here")
    device = device or usual_device()
    if not Path(data).is_dir():
        raise NotFoundError(f"DATA must be a folder of videos, but {data} is none")
    if (Path(data) / PACK_INDEX).is_file():
        raise NasError(f"DATA must be a folder of videos, but {data} is a pack; name the folder that it was made of")
    config = videos_of(data, overrides or [])
    facts = _facts(data, config, overrides or [])
    print_line(
        f"{data}: {len(facts.classes)} classes, "
        + ", ".join(f"{count:,} {split}" for split, count in facts.videos.items())
        + f" videos; always naming the largest class: {facts.chance:.3f}"
    )
    slots = (torch.cuda.device_count() if device == "cuda" else os.cpu_count()) or 1
    at_once = workers or slots
    if at_once > slots:
        print_line(f"note: --workers {at_once} is more than the {slots} that train at once here, and brings nothing")
    wish = Wish(hours=hours, workers=at_once, slots=slots, device=device, macs=bound)
    found = draft(facts, wish, _timer(facts, device, at_once), say=print_line)
    write_whole(file, found.text.encode("utf-8"))
    print_line(f"{output}: the search takes about {60 * found.hours:.0f} minutes; `nas search {output}` begins it")
    if not found.fits:
        print_line(
            f"note: --hours {hours:g} is less than the {60 * found.hours:.0f} minutes that these videos need here at "
            "least; a GPU, --workers or --macs may help"
        )


def _facts(data: str, config: DataConfig, overrides: Sequence[str]) -> Facts:
    """What the headers of the videos say."""
    from nas.search.draft import Facts
    from trainer.data.check import check_data

    progress = Progress("videos")
    try:
        report = check_data(config, progress=progress.update)
    finally:
        progress.close()
    if report.problem:
        raise NasError(report.problem)
    for split in ("train", "val"):
        if split not in report.splits or not report.splits[split].num_videos:
            raise NasError(f"{data} has no split {split}; `nas data split {data} -o lists` draws one")
    if len(report.classes) < 2:
        raise NasError(f"a network tells classes apart, but {data} has {len(report.classes)}")
    train = report.splits["train"]
    stated = dict(text.removeprefix("data.").split("=", 1) for text in overrides)

    def middle(name: str) -> float:
        found = getattr(train, name)
        return 0.0 if found is None else float(found.median)

    return Facts(
        name=Path(data).resolve().name,
        data={"root": data, **stated},
        classes=report.classes,
        videos={name: one.num_videos for name, one in report.splits.items()},
        per_class=tuple(max(1, count) for count in train.per_class.values()),
        frames=middle("frames"),
        seconds=middle("seconds"),
        fps=middle("fps"),
        short_side=min(middle("height"), middle("width")),
        multi_label=bool(report.layout.get("multi_label", False)),
    )


def _timer(facts: Facts, device: str, workers: int) -> Timer:
    from torch import OutOfMemoryError

    from nas.train.timing import epoch_seconds

    def timed(one: Candidate, study: Study) -> float:
        try:
            return epoch_seconds(
                one.spec,
                study.data,
                study.recipe,
                num_classes=len(facts.classes),
                num_train=facts.videos["train"],
                num_val=facts.videos["val"],
                device=device,
                threads=max(1, (os.cpu_count() or 1) // workers),
            )
        except OutOfMemoryError as error:
            raise MemoryError(str(error)) from error

    return timed


def _example(name: str) -> str:
    """A study that comes with the package."""
    folder = files("nas.study") / "examples"
    names = sorted(one.name.removesuffix(".yaml") for one in folder.iterdir() if one.name.endswith(".yaml"))
    if name not in names:
        raise NasError(unknown("example", name, names))
    return (folder / f"{name}.yaml").read_text(encoding="utf-8")
